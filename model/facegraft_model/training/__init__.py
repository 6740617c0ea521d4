"""The training loop, with its checkpoints, logs and validation."""
