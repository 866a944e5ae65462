"""A run's folder: its files and who may write them, its metrics, and the same on Weights & Biases."""
