"""What several stages are built from."""
