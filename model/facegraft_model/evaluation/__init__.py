"""Evaluate models: scores by part against the true surfaces, leakage, swap error, predictability, and comparison of methods."""
