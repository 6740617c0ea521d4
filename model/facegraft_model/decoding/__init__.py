"""From a field to the mesh of its zero level, and from one decoded head to another by way of the template."""
