"""Swaps, walks and random heads part by part, and how cleanly the parts are separated."""
