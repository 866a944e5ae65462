"""A recommender small enough that every engine trains it for 50 steps in seconds.

`python -m tests.engine_task ENGINE STEPS FILE`, under any launcher, writes rank 0's losses and gradient norms as JSON:
with `ddp 50 tests/golden/engines.json` alone it makes the golden curve anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tnr_dist.losses.common import Omega, click_loss
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import ModelSpec, build_recommender

NEWS, SAMPLES, HISTORY, CANDIDATES = 40, 7, 4, 3
_PLAIN = {"dropout": 0.0, "attention_dropout": 0.0}


class TinyModule(nn.Module):
    """Click loss of a two-layer recommender whose first layer is frozen, its scores scaled by omega (one element)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        spec = ModelSpec(EncoderConfig(50, 16, 2, 2, 32, 16, **_PLAIN), news_dim=8, query_dim=4)
        self.model, self.omega = build_recommender(spec), Omega()
        self.model.news_encoder.encoder.freeze_below(1)

    def forward(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        news = self.model.encode_news(inputs["titles"]).float()
        users = self.model.encode_users(F.embedding(inputs["history"], news), inputs["mask"])
        scores = self.omega() * self.model.score(users, F.embedding(inputs["candidates"], news))
        return {"loss": click_loss(scores.float(), inputs["weights"], float(SAMPLES))}


def batch(step: int, rank: int, world: int, piece: int = 0, pieces: int = 1) -> dict[str, Any]:
    """This rank's samples of global batch `step` (uneven shares), cut into micro-batches."""
    table = np.random.default_rng(0)
    lengths = table.integers(3, 9, NEWS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = table.integers(0, 50, offsets[-1])
    rng = np.random.default_rng([1, step])
    ids = rng.integers(0, NEWS, (SAMPLES, HISTORY + CANDIDATES))
    mask = rng.random((SAMPLES, HISTORY)) < 0.8
    rows = np.array_split(np.arange(SAMPLES)[rank::world], pieces)[piece]
    news, where = np.unique(ids[rows], return_inverse=True)
    where = torch.from_numpy(where.reshape(len(rows), -1))
    return {
        "titles": Packed.gather(tokens, offsets, news),
        "history": where[:, :HISTORY],
        "candidates": where[:, HISTORY:],
        "mask": torch.from_numpy(mask[rows]),
        "weights": torch.ones(len(rows)),
    }


def optimizer(module: nn.Module) -> torch.optim.Optimizer:
    """Adam with three groups, one of them of a single element."""
    plm = [p for p in module.model.news_encoder.encoder.parameters() if p.requires_grad]
    omega = list(module.omega.parameters())
    known = {id(p) for p in [*plm, *omega]}
    head = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": p, "lr": lr, "base_lr": lr} for p, lr in ((plm, 1e-3), (head, 3e-3), (omega, 1e-2))]
    return torch.optim.Adam(groups, fused=True)


def setup(engine: Any, **settings: Any) -> None:
    settings = {"precision": "fp32", "clip_norm": 0.0, **settings}
    engine.setup(TinyModule(), optimizer, **settings)
    engine.module.train()


def steps(engine: Any, first: int, last: int, pieces: int = 1) -> tuple[list[float], list[float]]:
    """Train steps `first` to `last` - 1; losses and gradient norms."""
    rank, world = engine.environment.rank, engine.environment.world_size
    losses, norms = [], []
    for step in range(first, last):
        for group in engine.optimizer.param_groups:
            group["lr"] = group["base_lr"] * (1 - step / 100)
        loss = torch.zeros(())
        for piece in range(pieces):
            with engine.micro_batch(last=piece == pieces - 1):
                part = engine.forward(batch(step, rank, world, piece, pieces))["loss"]
                engine.backward(part)
            loss = loss + part.detach()
        norms.append(float(engine.step()))
        losses.append(float(engine.all_reduce(loss.reshape(1))))
    return losses, norms


def weights(engine: Any) -> dict[str, np.ndarray]:
    """Every weight, whole."""
    with engine.whole():
        return {name: p.detach().float().numpy().copy() for name, p in engine.module.named_parameters()}


def main(name: str, count: str, file: str) -> None:
    from tnr_dist.engines.make import make_engine

    engine = make_engine(name, "cpu", 1)
    setup(engine)
    losses, norms = steps(engine, 0, int(count))
    if engine.environment.rank == 0:
        Path(file).write_text(json.dumps({"losses": losses, "norms": norms}, indent=1) + "\n", encoding="utf-8")
    engine.finish()
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
