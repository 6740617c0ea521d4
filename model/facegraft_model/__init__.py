"""The model's side of facegraft: so far, reading `samples` datasets for training with torch."""
