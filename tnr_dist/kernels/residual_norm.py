# mypy: allow-untyped-defs, allow-incomplete-defs
"""Residual connection of a post-LN transformer layer in one pass: LayerNorm(x + dropout(y)).

For a row, with keep_j drawn anew by every call (Bernoulli(1 - p)):

    h_j = x_j + keep_j / (1 - p) y_j        z_j = (h_j - mean h) / sqrt(var h + eps)        out_j = w_j z_j + b_j

Only the inputs are kept for the backward pass, which the matrix products around it hold anyway. It computes h, its
moments and the mask again, the mask from a counter (Philox4x32, 7 rounds: Salmon et al. 2011).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tnr_dist.kernels.context import Context
from tnr_dist.kernels.launch import Kernel, power_of_two

if TYPE_CHECKING:
    import triton.language as tl

MAX_WIDTH = 4096  # of a row that one program holds; wider ones take the plain form
# Elements of the rows that a program holds at a time: 16 a thread.
_ELEMENTS = 2048
# Programs of the backward pass, each of which leaves a partial sum of the weight's and the bias's gradient: 12 for each
# of an H200's 132 multiprocessors, which hold 3 or 4 at a time by their registers, so that no round is partly empty.
_PROGRAMS = 1584


def fused_residual_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout_p: float = 0.0
) -> Tensor:
    """The Triton form of `dispatch.residual_norm`."""
    # The seed stays on the device: no synchronisation, and it follows the generator's saved state and CUDA graphs.
    seed = torch.randint(2**62, (1,), device=x.device) if dropout_p > 0 else None
    out: Tensor = _ResidualNorm.apply(x, y, weight, bias, seed, eps, dropout_p)  # type: ignore[no-untyped-call]
    return out


@Kernel
def keep_rows(seed, rows, dropout_p, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """[ROWS, BLOCK] True = keep, from the counter (row, quad of columns): 4 values a Philox call."""
    c1 = tl.arange(0, BLOCK // 4)[None, :] + rows[:, None] * 0
    c0 = rows[:, None] + c1 * 0
    r0, r1, r2, r3 = tl.philox(seed, c0, c1, c0 * 0, c0 * 0, 7)
    a = (tl.uint_to_uniform_float(r0) >= dropout_p).to(tl.int8)
    b = (tl.uint_to_uniform_float(r1) >= dropout_p).to(tl.int8)
    c = (tl.uint_to_uniform_float(r2) >= dropout_p).to(tl.int8)
    d = (tl.uint_to_uniform_float(r3) >= dropout_p).to(tl.int8)
    return tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (ROWS, BLOCK)) != 0


@Kernel
def normalized_rows(x, y, there, keep, scale, eps, D: tl.constexpr, DROPOUT: tl.constexpr):
    """z [ROWS, BLOCK] (0 where nothing is) and 1 / sqrt(var h + eps) [ROWS, 1], of float32 x and y."""
    if DROPOUT:
        y = tl.where(keep, y * scale, 0.0)
    h = x + y  # h_j = x_j + keep_j / (1 - p) y_j
    h = tl.where(there, h - (tl.sum(h, 1) / D)[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(h * h, 1) / D + eps)
    return h * inverse[:, None], inverse[:, None]


@Kernel
def residual_norm_kernel(
    x,  # [T, D]
    y,  # [T, D]
    weight,  # [D]
    bias,  # [D]
    out,  # [T, D] out
    seed,  # [1] int64
    T,
    eps,
    dropout_p,
    scale,  # 1 / (1 - p)
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """Program: ROWS rows."""
    column = tl.arange(0, BLOCK)
    w = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)[None, :]
    b = tl.load(bias + column, mask=column < D, other=0.0).to(tl.float32)[None, :]
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = (rows < T)[:, None] & (column < D)[None, :]
    at = rows.to(tl.int64)[:, None] * D + column[None, :]
    x_ = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    y_ = tl.load(y + at, mask=there, other=0.0).to(tl.float32)
    keep = there
    if DROPOUT:
        keep = keep_rows(tl.load(seed), rows, dropout_p, ROWS, BLOCK)
    z, _ = normalized_rows(x_, y_, there, keep, scale, eps, D, DROPOUT)
    tl.store(out + at, (w * z + b).to(out.dtype.element_ty), mask=there)


@Kernel
def residual_norm_gradient_kernel(
    x,  # [T, D]
    y,  # [T, D]
    weight,  # [D]
    seed,  # [1] int64
    grad_out,  # [T, D]
    grad_x,  # [T, D] out
    grad_y,  # [T, D] out
    grad_weight,  # [programs, D] out, float32
    grad_bias,  # [programs, D] out, float32
    T,
    eps,
    dropout_p,
    scale,  # 1 / (1 - p)
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPOUT: tl.constexpr,
    GRAD_X: tl.constexpr,
    GRAD_Y: tl.constexpr,
    GRAD_WEIGHT: tl.constexpr,
):
    """Program: every so many blocks of ROWS rows, and the partial sums over all of them."""
    column = tl.arange(0, BLOCK)
    w = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)[None, :]
    if DROPOUT:
        seed_ = tl.load(seed)
    else:
        seed_ = 0
    if GRAD_WEIGHT:
        dw = tl.zeros((ROWS, BLOCK), tl.float32)
        db = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(tl.program_id(0) * ROWS, T, tl.num_programs(0) * ROWS):
        rows = first + tl.arange(0, ROWS)
        there = (rows < T)[:, None] & (column < D)[None, :]
        at = rows.to(tl.int64)[:, None] * D + column[None, :]
        x_ = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        y_ = tl.load(y + at, mask=there, other=0.0).to(tl.float32)
        g = tl.load(grad_out + at, mask=there, other=0.0).to(tl.float32)
        keep = there
        if DROPOUT:
            keep = keep_rows(seed_, rows, dropout_p, ROWS, BLOCK)
        z, inverse = normalized_rows(x_, y_, there, keep, scale, eps, D, DROPOUT)
        if GRAD_WEIGHT:
            dw += g * z
            db += g
        if GRAD_X or GRAD_Y:
            dz = w * g
            # dh_j = (dz_j - mean dz - z_j mean(z dz)) / sqrt(var h + eps)
            dh = (dz - (tl.sum(dz, 1) / D)[:, None] - z * (tl.sum(z * dz, 1) / D)[:, None]) * inverse
            if GRAD_X:
                tl.store(grad_x + at, dh.to(grad_x.dtype.element_ty), mask=there)
            if GRAD_Y:
                dy = dh
                if DROPOUT:
                    dy = tl.where(keep, dh * scale, 0.0)  # dy_j = keep_j / (1 - p) dh_j
                tl.store(grad_y + at, dy.to(grad_y.dtype.element_ty), mask=there)
    if GRAD_WEIGHT:
        part = tl.program_id(0) * D + column
        tl.store(grad_weight + part, tl.sum(dw, 0), mask=column < D)
        tl.store(grad_bias + part, tl.sum(db, 0), mask=column < D)


def _blocks(width: int) -> dict[str, int]:
    """Compile-time sizes and warps for rows of `width` elements."""
    block = max(16, power_of_two(width))
    return {"D": width, "ROWS": max(1, _ELEMENTS // block), "BLOCK": block, "num_warps": 4 if block <= 2048 else 8}


def _numbers(x: Tensor, eps: float, dropout_p: float) -> tuple[int, float, float, float]:
    """Both kernels' T, eps, dropout_p and scale."""
    return len(x), eps, dropout_p, 1 / (1 - dropout_p) if dropout_p < 1 else 0.0


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        seed: Tensor | None,
        eps: float,
        dropout_p: float,
    ) -> Tensor:
        x, y = x.contiguous(), y.contiguous()
        out = torch.empty_like(x)
        blocks = _blocks(x.shape[1])
        residual_norm_kernel[(-(-len(x) // blocks["ROWS"]),)](
            x, y, weight, bias, out, x if seed is None else seed, *_numbers(x, eps, dropout_p),
            DROPOUT=dropout_p > 0, **blocks,
        )  # fmt: skip
        ctx.save_for_backward(x, y, weight, seed)
        ctx.eps, ctx.dropout_p, ctx.bias_dtype = eps, dropout_p, bias.dtype
        return out

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, seed = ctx.saved_tensors
        need_x, need_y, need_weight, need_bias = ctx.needs_input_grad[:4]
        grad = grad.contiguous()
        # Without dropout dx = dy.
        same = need_x and ctx.dropout_p == 0 and x.dtype == y.dtype
        dx = torch.empty_like(x) if need_x else None
        dy = dx if same else torch.empty_like(y) if need_y else None
        blocks = _blocks(x.shape[1])
        programs = min(_PROGRAMS, -(-len(x) // blocks["ROWS"]))
        parts = torch.empty((2, programs, x.shape[1]), dtype=torch.float32, device=x.device)
        residual_norm_gradient_kernel[(programs,)](
            x, y, weight, x if seed is None else seed, grad, x if dx is None else dx, y if dy is None else dy, *parts,
            *_numbers(x, ctx.eps, ctx.dropout_p),
            DROPOUT=ctx.dropout_p > 0, GRAD_X=need_x, GRAD_Y=need_y and not same, GRAD_WEIGHT=need_weight or need_bias,
            **blocks,
        )  # fmt: skip
        dw, db = parts.sum(1) if need_weight or need_bias else (None, None)
        return (
            dx,
            dy if need_y else None,
            dw.to(weight.dtype) if dw is not None and need_weight else None,
            db.to(ctx.bias_dtype) if db is not None and need_bias else None,
            *(None, None, None),
        )
