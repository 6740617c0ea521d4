"""Region maps: what the vertices of one mesh topology mean, read from JSON, and made from region sets and a template."""
