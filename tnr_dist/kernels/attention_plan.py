"""How the sequences of a packed batch are cut into buckets that attention works on one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tnr_dist.util.transfer import to_device

#: Sequences longer than this share a padded bucket (a body batch has hundreds of distinct lengths) ...
LONG = 64
#: ... in which the longest exceeds the shortest by at most this fraction: the bound on wasted slots.
PADDING = 0.12


@dataclass(frozen=True)
class Bucket:
    """Neighbouring sequences that are attended to in one call: tokens `start:stop` of the packed rows.

    `lengths` is None when all have length `length`; otherwise [count], and `length` is the longest.
    """

    start: int
    stop: int
    count: int
    length: int
    lengths: np.ndarray | None = None


class AttentionPlan:
    """How packed sequences of the given ascending lengths are cut into buckets; made on the host, once per batch.

    Args:
        lengths: [U] int64, ascending; a length may be 0.
    """

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self._index: dict[tuple[int, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def longest(self) -> int:
        """Length of the longest sequence (0 for an empty batch)."""
        return int(self.lengths[-1]) if len(self.lengths) else 0

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Buckets that cover all tokens: exact lengths up to `LONG`, bounded padding above."""
        distinct, first = np.unique(self.lengths, return_index=True)
        ends = np.append(first[1:], len(self.lengths))
        buckets = []
        i = 0
        while i < len(distinct):
            j = i + 1
            if distinct[i] > LONG:
                j = int(np.searchsorted(distinct, int(distinct[i] * (1 + PADDING)), side="right"))
            a, b = int(first[i]), int(ends[j - 1])
            if distinct[i] > 0:
                lengths = self.lengths[a:b] if j > i + 1 else None
                span = int(self.offsets[a]), int(self.offsets[b])
                buckets.append(Bucket(*span, b - a, int(distinct[j - 1]), lengths))
            i = j
        return buckets

    def padded_index(self, number: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Index tensors of the padded bucket `number`, kept for the other layers.

        Returns:
            rows [count * length]: the token (within the bucket) of every slot, the last one repeated in the padding;
            slots [stop - start]: the slot of every token; mask [count, 1, 1, length]: True at real tokens.
        """
        key = (number, device)
        if key not in self._index:
            bucket = self.buckets[number]
            assert bucket.lengths is not None
            position = np.arange(bucket.length)
            mask = position < bucket.lengths[:, None]
            starts = np.cumsum(bucket.lengths) - bucket.lengths
            rows = starts[:, None] + np.minimum(position, bucket.lengths[:, None] - 1)
            arrays = rows.ravel(), np.flatnonzero(mask), mask[:, None, None, :]
            rows_, slots, mask_ = (to_device(array, device) for array in arrays)
            self._index[key] = rows_, slots, mask_
        return self._index[key]
