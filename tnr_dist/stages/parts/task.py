"""What the stages hand to the training loop."""

from __future__ import annotations

from typing import Protocol

from tnr_dist.models.recommender import Recommender
from tnr_dist.train.loop import Task


class TrainsRecommender(Task, Protocol):
    """A task whose result is its `recommender`."""

    recommender: Recommender
