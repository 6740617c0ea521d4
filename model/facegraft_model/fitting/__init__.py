"""Fit latent codes to unseen heads, from samples or from scans, and store them on disk."""
