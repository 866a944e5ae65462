"""How good a click model is, as it trains, on the impressions that were kept apart (`data/held_out.py`)."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tnr_dist.data.batches.clicks import last_clicked
from tnr_dist.data.held_out import HeldOut
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.metrics import impression_metrics
from tnr_dist.evaluation.scoring import length_chunks, recommender_scorer
from tnr_dist.models.recommender import NewsEncoder, Recommender


class Titles(Protocol):
    """The titles of a data set, by news."""

    lengths: np.ndarray  # [news] tokens
    longest: int

    def vectors(self, encoder: NewsEncoder, news: np.ndarray) -> Tensor:
        """Vectors [E, D] of some news [E] on the device, by this rank alone."""


class Validation:
    """AUC per impression on held-out impressions; titles are encoded above the cached frozen layers.

    Args:
        every: steps between two scores; 0: half an epoch.
        history: clicks of a history that count.
    """

    name = "auc"

    def __init__(
        self, model: Recommender, titles: Titles, held_out: HeldOut, history: int, every: int, steps: int
    ) -> None:
        self.model, self.titles, self.blocks, self.history = model, titles, held_out.blocks, history
        self.every = every or max(1, math.ceil(steps / 2))
        self.news = np.unique(np.concatenate([self._news_of(number) for number in range(len(self.blocks))]))

    def _news_of(self, number: int) -> np.ndarray:
        block = self.blocks[number]
        clicked = last_clicked(block["history_news"], block["history_offsets"], self.history)
        return np.unique(np.concatenate([clicked[clicked >= 0], block["candidate_news"]]))

    def due(self, step: int, total: int) -> bool:
        """Whether the model is scored after `step` of `total` steps."""
        return step % self.every == 0 or step == total

    @torch.no_grad()
    def score(self, engine: Engine) -> float:
        """Mean AUC of the impressions kept apart; a collective. The model is in evaluation mode afterwards."""
        rank, world = engine.environment.rank, engine.environment.world_size
        with engine.whole():
            self.model.eval()
            vectors = self._encode(engine, rank, world)
            scorer = recommender_scorer(self.model, vectors, self.history)
            total = torch.zeros(2, dtype=torch.float64)
            for block in self.blocks[rank::world]:
                metrics = impression_metrics(scorer(block), block["candidate_clicked"], block["candidate_offsets"])
                total += torch.tensor([metrics.auc.sum(), len(metrics.auc)], dtype=torch.float64)
        sums = engine.all_reduce(total.to(engine.device)).tolist()
        return float(sums[0] / sums[1])

    def _encode(self, engine: Engine, rank: int, world: int) -> Tensor:
        """[news, D] float32, zeros for news that no held-out impression has; the same on all ranks."""
        encoder = self.model.news_encoder
        vectors = torch.zeros(len(self.titles.lengths), encoder.dense.out_features, device=engine.device)
        for rows in self._chunks(engine)[rank::world]:
            with engine.autocast():
                encoded = self.titles.vectors(encoder, rows)
            vectors[torch.from_numpy(rows).to(engine.device)] = encoded.float()
        return engine.all_reduce(vectors)

    def _chunks(self, engine: Engine) -> list[np.ndarray]:
        lengths = self.titles.lengths[self.news]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        table = RaggedTable(np.zeros(0, np.uint16), offsets)
        return [self.news[rows] for rows in length_chunks(table, self.titles.longest, engine.device)]
