"""Weights & Biases: runs, tables, artifacts with their lineage, and the dashboard. Optional: nothing here is needed."""
