"""Differentiable collectives over the default process group."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class GatherRows(torch.autograd.Function):
    """Rows of all ranks [sum of sizes, D] from each rank's own [sizes[rank], D].

    Backward: the gradient of a rank's rows is the sum of what all ranks ask of them. gloo has no reduce-scatter, so the
    sum is an all-reduce of which each rank keeps its part.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], rank: int) -> Tensor:
        """Gather; rows are padded to the longest part on the way."""
        ctx.start, ctx.size = sum(sizes[:rank]), sizes[rank]
        longest = max(sizes)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: sizes[rank]] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Sum over ranks, then this rank's part."""
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.size], None, None
