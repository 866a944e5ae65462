"""What a stage that trains on texts of the News corpus hands to the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.config.training import TrainConfig
from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.engines.base import Engine
from tnr_dist.models.packed import Packed, recomputed
from tnr_dist.models.recommender import Recommender
from tnr_dist.stages.parts.start_models import plm_parameters
from tnr_dist.stages.parts.task import TrainsRecommender
from tnr_dist.train.throughput import Texts

I = TypeVar("I", contravariant=True)  # noqa: E741  (inputs)


class CountsItself(Protocol[I]):
    """A module that does not run its texts through a `NewsEncoder`."""

    def encoded(self, inputs: I) -> tuple[np.ndarray, float]:
        """Lengths [U] of the texts that a forward pass on `inputs` encodes; operations of the step (`models.flops`)."""


@dataclass
class CorpusTask(TrainsRecommender):
    """A stage on the texts of the News corpus."""

    recommender: Recommender
    module: nn.Module
    loader: MatchingLoader
    train: TrainConfig
    seed: int
    title: str
    inputs: Callable[[Batch], Any]  # what `to_device` gives
    prefetch: bool = True

    @override
    def to_device(self, batch: Batch) -> Any:
        return self.inputs(batch)

    @override
    def texts(self, inputs: Any) -> list[Texts]:
        module: CountsItself[Any] = self.module  # type: ignore[assignment]
        return [encoded_texts(module, inputs)]

    @override
    def plm_parameters(self) -> set[nn.Parameter]:
        return plm_parameters(self.module)

    @override
    def validate(self, engine: Engine) -> dict[str, float]:
        return {}


def encoded_texts(module: CountsItself[I], inputs: I) -> Texts:
    """What a module says that it encodes."""
    lengths, flops = module.encoded(inputs)
    return Texts(lengths, lambda: flops)


def corpus_texts(batch: Batch, loader: MatchingLoader, title_tokens: int, body_tokens: int) -> Packed:
    """The b bodies of a batch, then their b titles, on the host."""
    bodies, titles = loader.bodies, loader.titles
    return Packed.join(
        [
            Packed.gather(bodies.values, bodies.offsets, batch["body"], body_tokens),
            Packed.gather(titles.values, titles.offsets, batch["body"], title_tokens),
        ]
    )


def in_parts(texts: Packed, budget: int, compute: Callable[[Packed, slice], Tensor]) -> Tensor:
    """`compute` on runs of whole texts of about `budget` tokens (0: on all), of which only the results are kept.

    Their activations are computed again when their gradient is due, as `NewsEncoder` does it.

    Args:
        texts: U texts, T tokens.
        budget: tokens of a part.
        compute: from texts, shortest first, and their rows of [T, ...] in `texts.by_length` to rows of texts or tokens.

    Returns:
        The parts' rows one after another: in the order of `texts.by_length`.
    """
    batch, count = texts.by_length.batch, len(texts.tokens)
    if not budget or count <= budget or not torch.is_grad_enabled():
        return compute(batch, slice(0, count))
    parts = batch.split(count / math.ceil(count / budget))
    return torch.cat([recomputed(compute, part, rows) for part, rows in parts])
