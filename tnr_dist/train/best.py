"""The best model so far by its score on held-out impressions, and the way back to it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from tnr_dist.engines.base import Engine
from tnr_dist.runs.checkpoint_files import BestState
from tnr_dist.train.checkpoint import trained_state


class Scorer(Protocol):
    """Scores the model that is trained on something it is not trained on."""

    @property
    def name(self) -> str:
        """Of the score, as records have it: `valid/NAME`."""

    def due(self, step: int, total: int) -> bool:
        """Whether the model is scored after `step` of `total` steps."""

    def score(self, engine: Engine) -> float:
        """The score, higher is better, the same on all ranks; a collective. May leave the module in evaluation mode."""


class Best:
    """Score, step and trained weights of the best model so far; every rank holds a copy."""

    def __init__(self) -> None:
        self.score, self.step = -1.0, 0
        self.tensors: dict[str, Tensor] = {}

    def restore(self, state: BestState, tensors: dict[str, Tensor]) -> None:
        """Restore the state that a checkpoint holds."""
        self.score, self.step, self.tensors = float(state["score"]), int(state["step"]), tensors

    def state(self) -> BestState:
        """What a checkpoint keeps beside `tensors`."""
        return {"score": self.score, "step": self.step}

    def offer(self, score: float, step: int, engine: Engine) -> None:
        """Keep the model as it is now if it is better than the one kept. NaN never is."""
        if not score > self.score:
            return
        self.score, self.step = score, step
        with engine.whole():
            self.tensors = {
                name: value.to("cpu", copy=True).contiguous() for name, value in trained_state(engine.module).items()
            }

    def load_into(self, module: nn.Module) -> None:
        """Put the kept weights back into `module`, a plain one; without any kept nothing changes."""
        found = trained_state(module)
        with torch.no_grad():
            for name, value in self.tensors.items():
                found[name].copy_(value)
