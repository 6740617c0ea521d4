"""Extract the mesh of a field's zero level, and match decoded heads through the template."""
