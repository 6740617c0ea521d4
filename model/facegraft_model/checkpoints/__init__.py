"""Checkpoints, from which training resumes and models are loaded: JSON with checksums and safetensors, never pickle."""
