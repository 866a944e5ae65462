"""Students in formats that other tools load."""
