"""The training loop, checkpoints, tracking."""
