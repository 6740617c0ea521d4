"""Swaps, walks and random heads, part by part."""
