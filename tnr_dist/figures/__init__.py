"""Charts and tables for the terminal, reports and studies."""
