"""Geometry of heads of one topology: grafting parts, closing openings, cutting to a ball, and the unit frame."""
