"""Differentiable collectives over any engine's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Gather = Callable[[Tensor, list[int]], Tensor]  # own rows [sizes[rank], …], sizes -> rows of all ranks in rank order
Reduce = Callable[[Tensor], Tensor]  # the sum over ranks


class GatherRows(torch.autograd.Function):
    """Rows of all ranks [sum of sizes, D] from each rank's own [sizes[rank], D].

    Backward: the gradient of a rank's rows is the sum of what all ranks ask of them. gloo has no reduce-scatter, so the
    sum is an all-reduce of which each rank keeps its part.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], rank: int, gather: Gather, reduce: Reduce) -> Tensor:
        """Gather."""
        ctx.start, ctx.size, ctx.reduce = sum(sizes[:rank]), sizes[rank], reduce
        return gather(rows.contiguous(), sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Sum over ranks, then this rank's part."""
        total = ctx.reduce(grads[0].contiguous())
        return total[ctx.start : ctx.start + ctx.size], None, None, None, None
