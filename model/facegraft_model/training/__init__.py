"""The training loop and what it leaves on disk: checkpoints, logs, validation."""
