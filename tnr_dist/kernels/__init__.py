"""One fused operation per file."""
