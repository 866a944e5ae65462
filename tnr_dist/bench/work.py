"""Operations and bytes of the stages, counted from the models' shapes (docs/performance.md gives the formulas)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

DIM, QUERY = 256, 200
# Values of a token's states, in units of the width, that a layer moves to and from memory: forward alone, what queries,
# keys, values, attention, both halves of the feed-forward block and the norms write once and read once; trained, each
# activation written once and read about three times.
FORWARD_VALUES, TRAINED_VALUES = 32, 68
BF16, FP32 = 2, 4


@dataclass(frozen=True)
class Work:
    """Operations, and bytes to and from memory."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.bytes * times)


@dataclass(frozen=True)
class Shape:
    """A news encoder: layers, of which `trainable` train, over hidden size `width`."""

    layers: int
    trainable: int
    width: int

    @property
    def trained_parameters(self) -> int:
        """Layers, pooling, dense layer and user encoder."""
        return 12 * self.width**2 * self.trainable + self.width * QUERY + self.width * DIM + DIM * QUERY


def projections(teachers: int) -> int:
    """Parameters of stage 2 beside the student's."""
    return 2 * teachers * DIM * (DIM + 1)


def layer_flops(width: int, length: float) -> float:
    """Forward operations of a transformer layer on one token of a sequence of `length` (24 d^2 + 4 s d)."""
    return 24 * width**2 + 4 * length * width


def forward(width: int, layers: int, texts: float, length: float) -> Work:
    """Layers that only run, on `texts` of `length` tokens each."""
    flops = layers * layer_flops(width, length)
    return Work(flops, BF16 * FORWARD_VALUES * width * layers) * (texts * length)


def trained(width: int, layers: int, texts: float, length: float) -> Work:
    """Layers that train: the lowest one's input needs no gradient. Their input is read, from a cache or what lies below."""
    flops = 3 * layers * layer_flops(width, length) - 6 * width**2
    return Work(flops, BF16 * width * (1 + TRAINED_VALUES * layers)) * (texts * length)


def top(width: int, texts: float, length: float, trains: bool = True) -> Work:
    """Pooling and dense layer."""
    flops = texts * (length * 2 * width * QUERY + 2 * width * DIM)
    return Work(flops, BF16 * texts * length * width) * (3 if trains else 1)


def encode(shape: Shape, texts: float, length: float) -> Work:
    """News vectors, without gradients."""
    return forward(shape.width, shape.layers, texts, length) + top(shape.width, texts, length, trains=False)


def optimiser(parameters: float) -> Work:
    """Adam's step: weights, gradients and two moments, float32, read and written."""
    return Work(0.0, 28 * parameters)


def click_step(shape: Shape, batch: int, titles: float, tokens: float, slots: float, teachers: int = 0) -> Work:
    """A step on clicks above cached frozen states; with `teachers` that of stage 2.

    Args:
        titles: distinct titles of the batch; tokens: of a title, on average; slots: filled ones of a sample.
    """
    work = trained(shape.width, shape.trainable, titles, tokens) + top(shape.width, titles, tokens)
    users = Work(3 * 2 * batch * slots * DIM * (QUERY + 1), 3 * FP32 * batch * slots * DIM)
    # Forward and the projections' own gradients: the teachers' vectors want none.
    loss = Work(2 * 2 * DIM * DIM, BF16 * DIM) * (teachers * (titles + batch))
    return work + users + loss + optimiser(shape.trained_parameters + (projections(teachers) if teachers else 0))


def matching_epoch(
    shape: Shape, pairs: float, batch: int, titles: float, title_tokens: float, body_tokens: float
) -> Work:
    """An epoch of `pairs` titles and bodies, `titles` titles encoded a pair, frozen layers run in each step."""
    work = optimiser(shape.trained_parameters) * (pairs / batch)
    for texts, length in ((pairs * titles, title_tokens), (pairs, body_tokens)):
        work += forward(shape.width, shape.layers - shape.trainable, texts, length)
        work += trained(shape.width, shape.trainable, texts, length) + top(shape.width, texts, length)
    return work


def scores(histories: float, clicked: float, candidates: float) -> Work:
    """User vectors (one logit a news: a weighted sum) and scores, from tables of float32 vectors."""
    return Work(2 * DIM, FP32 * DIM) * (histories * clicked + candidates)


def copy_bytes_per_s(device: torch.device) -> float:
    """Measured ceiling: bytes read and written a second by a large copy, best of 5."""
    count = (64 << 20) if device.type == "cpu" else (1 << 30)
    source, target = torch.randn(count, device=device), torch.empty(count, device=device)
    best = float("inf")
    for _ in range(6):  # the first one touches the pages
        began = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * source.nbytes / best
