"""The scale of the vectors that a click model starts with.

The matching task drives the margin between a body's own title and the others up without end: after post-training the
scores of candidates lie several times further apart than clicks can be told apart, and the click loss starts above
ln(1 + K), that of a model which knows nothing. Many steps undo that; few steps are spent on it. So the dense layer of the
news encoder is multiplied by one factor before the first step, the one under which the click loss is least.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tnr_dist.data.batches.clicks import Batch, ClickLoader
from tnr_dist.data.tokens import RaggedTable, gather_rows
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.scoring import encode_table
from tnr_dist.losses.common import click_loss
from tnr_dist.models.recommender import Recommender

_SAMPLES = 128
# Of the scores, so the square of the vectors'; steps of a factor of 1.4. A grid, so that ranks whose devices round
# otherwise still choose the same one.
_FACTORS = tuple(2.0 ** (-step / 2) for step in range(-4, 15))
# Scores of an impression's candidates are not brought closer together than this, their standard deviation: about that of a
# fresh head on a PLM. A model that knows nothing yet would lose least with vectors of length 0, and learn nothing from there.
_LEAST_SPREAD = 0.25


@torch.no_grad()
def fit_start_scale(
    model: Recommender, titles: RaggedTable, max_length: int, loader: ClickLoader, engine: Engine
) -> float:
    """Multiply `model.news_encoder.dense` by the factor that suits clicks; returns the factor.

    It is found on the first 128 samples of the training split, whatever the batch size and the number of ranks; a
    collective. Leaves the model in evaluation mode on the engine's device.
    """
    batch = _first_samples(loader)
    scores, mask, weights = _scores(model.to(engine.device).eval(), titles, max_length, batch, engine)
    count = float(weights.sum())
    if not count:  # of a damaged shard that is skipped
        return 1.0
    spread = float(_spread(scores, mask)[weights > 0].mean())
    factors = [factor for factor in _FACTORS if factor >= 1 or factor * spread >= _LEAST_SPREAD]
    losses = [float(click_loss(scores * factor, weights, count, mask)) for factor in factors]
    scale = math.sqrt(factors[int(np.argmin(losses))])
    dense = model.news_encoder.dense
    dense.weight.mul_(scale)
    dense.bias.mul_(scale)
    return scale


def _spread(scores: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation [B] of the scores [B, C] of each sample's candidates."""
    number = mask.sum(1)
    mean = (scores * mask).sum(1) / number
    return ((scores - mean.unsqueeze(1)).square() * mask).sum(1).div(number).sqrt()


def _first_samples(loader: ClickLoader) -> Batch:
    # Of as many users as can be, also where training groups samples by user.
    options = replace(loader.options, global_batch=min(_SAMPLES, loader.index.samples), group="none")
    alone = ClickLoader(loader.index, loader.source, options, workers=0)
    batches = alone.epoch(0)
    try:
        return next(batches)
    finally:
        batches.close()  # type: ignore[attr-defined]


def _scores(
    model: Recommender, titles: RaggedTable, max_length: int, batch: Batch, engine: Engine
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [B, C] float32, which candidates exist [B, C] and the samples' weights [B]."""
    history, candidates = (torch.from_numpy(batch[name].astype(np.int64)) for name in ("history", "candidates"))
    news, rows = torch.unique(torch.cat([history, candidates], 1).clamp(min=0), return_inverse=True)
    table = RaggedTable(*gather_rows(titles.values, titles.offsets, news.numpy()))
    vectors = encode_table(model.news_encoder, table, max_length, engine)
    rows = rows.to(engine.device)
    length = history.shape[1]
    users = model.encode_users(vectors[rows[:, :length]], (history >= 0).to(engine.device)).float()
    scores = model.score(users, vectors[rows[:, length:]])
    return scores, (candidates >= 0).to(engine.device), torch.from_numpy(batch["weights"]).to(engine.device)
