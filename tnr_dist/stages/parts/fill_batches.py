"""Batches of few different shapes: titles that nobody asked for fill a batch up to the next of a few sizes.

A step whose shapes repeat can be recorded as a CUDA graph (engines/graphs.py). The titles added are cut from the first
ones of the table; no slot points at them, so they change neither the loss nor a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tnr_dist.kernels.ragged_attention import keep_tiles
from tnr_dist.kernels.tiles import Tiles, block_rows
from tnr_dist.models.packed import Packed
from tnr_dist.util.transfer import to_device


@dataclass(frozen=True)
class Filled:
    """E titles filled up to `lengths`.

    Attributes:
        lengths: [E'] ascending.
        starts: [E'] row of the token table where each begins.
        place: [E] where the real ones stand among them.
    """

    lengths: np.ndarray
    starts: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class StaticTables:
    """What the encoder derives from the lengths, on the device and of a size that follows from the filled sizes."""

    offsets: Tensor  # [E' + 1] int64
    closed: Tensor  # [n, 4] int32, see `Tiles`
    opened: Tensor  # [0, 4]
    starts: Tensor  # [T'] int32
    dtype: torch.dtype

    @classmethod
    def of(cls, lengths: np.ndarray, device: torch.device, dtype: torch.dtype) -> StaticTables:
        """Tables of sequences of ascending `lengths` [E'], none longer than a tile, for states of `dtype`."""
        tiles = Tiles.of(lengths, device, dtype, room=most_tiles(lengths, dtype))
        offsets = to_device(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), device)
        return cls(offsets, tiles.closed, tiles.opened, tiles.starts, dtype)

    def attach(self, titles: Packed) -> None:
        """Let the encoder use these tables for `titles` instead of making them again from its lengths."""
        titles.__dict__["device_offsets"] = self.offsets
        keep_tiles(titles.plan, Tiles(self.closed, self.opened, self.starts, block_rows(self.dtype)), self.dtype)


def next_size(count: int) -> int:
    """The size that `count` is filled up to: steps of a sixteenth to an eighth of it, and of 64 at least."""
    step = max(64, 1 << max(count.bit_length() - 5, 0))
    return -(-count // step) * step


def fill(lengths: np.ndarray, starts: np.ndarray, longest: int) -> Filled:
    """Add titles until number and tokens are of `next_size`; one of them has `longest` tokens.

    Args:
        lengths, starts: [E] of the real titles, lengths ascending.
        longest: tokens of the longest title there can be; the table has at least as many.
    """
    tokens = int(lengths.sum())
    rest = next_size(tokens + longest) - tokens
    whole, part = divmod(rest, longest)
    count = next_size(len(lengths) + whole + 1)
    added = np.zeros(count - len(lengths), np.int64)
    added[:whole], added[whole] = longest, part
    everything = np.concatenate([lengths, added])
    order = np.argsort(everything, kind="stable")
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    return Filled(
        everything[order], np.concatenate([starts, np.zeros(len(added), np.int64)])[order], place[: len(lengths)]
    )


def fill_rows(history: np.ndarray, most: int) -> np.ndarray:
    """Histories [H, L] of `most` samples filled up with empty ones (-1), to one of eight sizes at most."""
    step = max(64, -(-most // 8))
    size = min(-(-len(history) // step) * step, most)
    return np.pad(history, ((0, size - len(history)), (0, 0)), constant_values=-1)


def most_tiles(lengths: np.ndarray, dtype: torch.dtype) -> int:
    """Tiles that sequences of as many tokens and of the same longest length can need at most."""
    block, longest = block_rows(dtype), int(lengths[-1])
    # A tile is closed when the next sequence does not fit: more than `block - longest` of its rows are taken.
    return int(lengths.sum()) // (block - longest + 1) + 1
