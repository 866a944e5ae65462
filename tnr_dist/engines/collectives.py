"""Differentiable collectives over any engine's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tnr_dist.kernels.context import Context

Gather = Callable[[Tensor, list[int]], Tensor]  # own rows [sizes[rank], …], sizes -> rows of all ranks in rank order
Reduce = Callable[[Tensor, list[int]], Tensor]  # rows of all ranks, sizes -> own rows of the sum over ranks


class GatherRows(torch.autograd.Function):
    """Rows of all ranks [sum of sizes, D] from each rank's own [sizes[rank], D].

    Backward: the gradient of a rank's rows is the sum of what all ranks ask of them, a reduce-scatter.
    """

    @staticmethod
    def forward(ctx: Context, rows: Tensor, sizes: list[int], gather: Gather, reduce: Reduce) -> Tensor:
        """Gather."""
        ctx.sizes, ctx.reduce = sizes, reduce
        return gather(rows.contiguous(), sizes)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Sum over ranks, this rank's part."""
        return ctx.reduce(grads[0].contiguous(), ctx.sizes), None, None, None
