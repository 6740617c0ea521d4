"""Region maps: the parts of a topology, its openings, landmarks and symmetry; how they are built, checked and drawn."""
