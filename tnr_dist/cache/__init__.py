"""Teacher tables and side shards."""
