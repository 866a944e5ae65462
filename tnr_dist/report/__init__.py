"""A report of runs without a server: one HTML page, its Markdown twin and pictures, from run folders alone."""
