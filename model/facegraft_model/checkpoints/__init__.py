"""What training leaves to go on from, and what everything else reads a model from: sealed JSON and safetensors, never a pickle."""
