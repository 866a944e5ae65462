"""Data-parallel engines behind one protocol."""
