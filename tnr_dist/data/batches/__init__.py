"""From shards to global batches, the same for every number of ranks."""
