"""How packed rows are cut into the tiles that one program of `ragged_attention` works on."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tnr_dist.util.transfer import to_device


def block_rows(dtype: torch.dtype) -> int:
    """Rows of a tile: those of one wgmma, and four titles of 16 tokens; float32 products would spill at 64."""
    return 32 if dtype == torch.float32 else 64


@dataclass(frozen=True)
class Tiles:
    """How the packed rows of a batch are cut into tiles; the same for all layers.

    Attributes:
        closed: [n, 4] int32: first row, end row, and the same again as the keys' range.
        opened: [m, 4] int32: first row, end row, first row and end row of the sequence.
        starts: [T] int32: the first row of each token's sequence.
        block: rows of a tile at most.
    """

    closed: Tensor
    opened: Tensor
    starts: Tensor
    block: int

    @classmethod
    def of(cls, lengths: np.ndarray, device: torch.device | str, dtype: torch.dtype, room: int = 0) -> Tiles:
        """Tiles for sequences of `lengths` [U] (on the host, any order, 0 allowed) and tensors of `dtype`.

        `room`: add empty closed tiles up to so many, so that batches of other lengths have tables of the same size.
        """
        block = block_rows(dtype)
        lengths = np.asarray(lengths, dtype=np.int64)
        offsets = [0, *np.cumsum(lengths).tolist()]
        closed, opened = [], []
        i = 0
        while i < len(lengths):
            start = offsets[i]
            j = bisect_right(offsets, start + block, lo=i) - 1
            if j > i:
                if offsets[j] > start:
                    closed.append((start, offsets[j], start, offsets[j]))
                i = j
            else:
                stop = offsets[i + 1]
                opened += [(row, min(row + block, stop), start, stop) for row in range(start, stop, block)]
                i += 1
        closed += [(0, 0, 0, 0)] * (room - len(closed))
        # One small copy to the device, whatever the number of tokens.
        table = np.asarray(closed + opened, dtype=np.int32).reshape(-1, 4)
        sequences = np.stack([offsets[:-1], lengths]).astype(np.int32)
        flat = to_device(np.concatenate([table.ravel(), sequences.ravel()]), device)
        tiles, (first, length) = flat[: table.size].view(-1, 4), flat[table.size :].view(2, -1)
        starts = torch.repeat_interleave(first, length, output_size=offsets[-1])
        return cls(tiles[: len(closed)], tiles[len(closed) :], starts, block)
