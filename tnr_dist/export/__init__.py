"""Trained models in forms that other people's tools load, and `Recommender`, which loads any of them."""

from tnr_dist.export.recommender import Recommender

__all__ = ["Recommender"]
