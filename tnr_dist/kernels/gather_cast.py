# mypy: allow-untyped-defs, allow-incomplete-defs
"""Rows of a cached table by index, cast on the way: one pass, where torch writes the gathered rows twice.

Serves the tables that stay on the device: teachers' news vectors (bfloat16, [V, M, D]).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tnr_dist.kernels.context import Context
from tnr_dist.kernels.launch import Kernel, power_of_two

if TYPE_CHECKING:
    import triton.language as tl

# Elements of a program: 16 bytes a thread and load, two loads a thread.
_ELEMENTS = 2048


def fused_gather_cast(table: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """The Triton form of `dispatch.gather_cast`."""
    out: Tensor = _GatherCast.apply(table, index, dtype)  # type: ignore[no-untyped-call]
    return out


@Kernel
def gather_kernel(
    table,  # [V, W], rows `stride` apart
    index,  # [U]
    out,  # [U, W]
    count,  # U
    stride,
    W: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out[u, w] = cast(table[index[u], w]) for ROWS x COLUMNS of them."""
    parts: tl.constexpr = (W + COLUMNS - 1) // COLUMNS
    row = (tl.program_id(0) // parts).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % parts) * COLUMNS + tl.arange(0, COLUMNS)
    source = tl.load(index + row, mask=row < count, other=0).to(tl.int64)
    keep = (row < count)[:, None] & (column < W)[None, :]
    x = tl.load(table + source[:, None] * stride + column[None, :], mask=keep, other=0.0).to(tl.float32)
    tl.store(out + row[:, None] * W + column[None, :], x.to(out.dtype.element_ty), mask=keep)


@Kernel
def scatter_kernel(
    grad,  # [U, W]
    index,  # [U]
    sums,  # [V, W] float32
    count,  # U
    W: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """sums[v, w] += sum over u with index[u] = v of grad[u, w]."""
    parts: tl.constexpr = (W + COLUMNS - 1) // COLUMNS
    row = (tl.program_id(0) // parts).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % parts) * COLUMNS + tl.arange(0, COLUMNS)
    target = tl.load(index + row, mask=row < count, other=0).to(tl.int64)
    keep = (row < count)[:, None] & (column < W)[None, :]
    g = tl.load(grad + row[:, None] * W + column[None, :], mask=keep, other=0.0).to(tl.float32)
    tl.atomic_add(sums + target[:, None] * W + column[None, :], g, mask=keep)


def _blocks(width: int) -> dict[str, int]:
    """Compile-time sizes for rows of `width` elements."""
    columns = min(power_of_two(width), 1024)
    return {"W": width, "ROWS": max(1, _ELEMENTS // columns), "COLUMNS": columns}


def _grid(count: int, blocks: dict[str, int]) -> tuple[int]:
    return (-(-count // blocks["ROWS"]) * -(-blocks["W"] // blocks["COLUMNS"]),)


class _GatherCast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, table: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
        out = torch.empty((len(index), *table.shape[1:]), dtype=dtype, device=table.device)
        index = index.contiguous()
        if out.numel():
            blocks = _blocks(table[0].numel())
            gather_kernel[_grid(len(index), blocks)](table, index, out, len(index), table.stride(0), **blocks)
        ctx.save_for_backward(index)
        ctx.shape, ctx.dtype = table.shape, table.dtype
        return out

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, None, None]:
        (index,) = ctx.saved_tensors
        sums = torch.zeros(ctx.shape, dtype=torch.float32, device=grad.device)
        if grad.numel():
            blocks = _blocks(grad[0].numel())
            scatter_kernel[_grid(len(index), blocks)](grad.contiguous(), index, sums, len(index), **blocks)
        return sums.to(ctx.dtype), None, None
