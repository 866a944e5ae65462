"""The packed encoder, pooling, and the recommender."""
