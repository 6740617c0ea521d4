"""Scores by part, tables of them, and comparisons of methods."""
