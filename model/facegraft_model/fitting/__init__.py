"""Latent codes of unseen heads: of samples, of scans, and on disk."""
