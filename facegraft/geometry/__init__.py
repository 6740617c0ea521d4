"""Grafts and what they need, on arrays alone: the affine fit, the seam, closing, symmetry, quality figures."""
