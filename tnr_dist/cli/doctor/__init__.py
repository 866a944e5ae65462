"""`tnr doctor`: what would stop a run."""
