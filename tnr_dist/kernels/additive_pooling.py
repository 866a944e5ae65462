# mypy: allow-untyped-defs, allow-incomplete-defs
"""Additive attention pooling, sum_t softmax_t(q^T tanh(W x_t + b)) x_t, over ragged tokens.

The states of the query space [T, Q] exist in registers only in the forward pass, which saves its inputs and one weight
per token. The backward pass computes them anew and holds their gradient once, for the product that gives W's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tnr_dist.kernels.context import Context
from tnr_dist.kernels.launch import Kernel, Options, interpreted, power_of_two, product_precision

if TYPE_CHECKING:
    import triton.language as tl

MAX_LENGTH = 512  # of a sequence that one program pools; longer ones take the plain form
_CHUNK = 64  # tokens of a sequence whose states a program holds at a time


@Kernel
def states_tile(
    x,  # [T, D]
    weight,  # [Q, D]
    bias,  # [Q]
    t,  # [BT] int64, tokens of this tile
    tokens,
    D: tl.constexpr,
    Q: tl.constexpr,
    BQ: tl.constexpr,
    BK: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Tile [BT, BQ] of tanh(W x_t + b), float32."""
    c = tl.arange(0, BQ)
    acc = tl.zeros((t.shape[0], BQ), tl.float32)
    for start in range(0, D, BK):
        k = start + tl.arange(0, BK)
        a = tl.load(x + t[:, None] * D + k[None, :], mask=(t < tokens)[:, None] & (k < D)[None, :], other=0.0)
        w = tl.load(weight + c[None, :] * D + k[:, None], mask=(c < Q)[None, :] & (k < D)[:, None], other=0.0)
        if WIDEN:
            acc = tl.dot(a.to(tl.float32), w.to(tl.float32), acc, input_precision=PRECISION)
        else:
            acc = tl.dot(a.to(weight.dtype.element_ty), w, acc, input_precision=PRECISION)
    acc += tl.load(bias + c, mask=c < Q, other=0.0).to(tl.float32)[None, :]
    return 2.0 * tl.sigmoid(2.0 * acc) - 1.0  # tanh


@Kernel
def logits_kernel(
    x,  # [T, D]
    weight,  # [Q, D]
    bias,  # [Q]
    query,  # [Q]
    logits,  # [T] out, float32
    tokens,
    D: tl.constexpr,
    Q: tl.constexpr,
    BT: tl.constexpr,
    BQ: tl.constexpr,
    BK: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Logits of BT tokens: q^T tanh(W x_t + b)."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    z = states_tile(x, weight, bias, t, tokens, D, Q, BQ, BK, WIDEN, PRECISION)
    c = tl.arange(0, BQ)
    q = tl.load(query + c, mask=c < Q, other=0.0).to(tl.float32)
    tl.store(logits + t, tl.sum(z * q[None, :], axis=1), mask=t < tokens)


@Kernel
def pool_kernel(
    x,  # [T, D]
    logits,  # [T]
    offsets,  # [U + 1]
    weights,  # [T] out, float32
    out,  # [U, D] out
    D: tl.constexpr,
    BL: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
):
    """One sequence of up to BL tokens, BD of its D columns."""
    u = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    begin, end = tl.load(offsets + u).to(tl.int64), tl.load(offsets + u + 1).to(tl.int64)
    t = begin + tl.arange(0, BL)
    within = t < end
    # p_t = exp(a_t) / sum_s exp(a_s); a finite lowest number makes no NaN of an empty sequence
    a = tl.where(within, tl.load(logits + t, mask=within, other=0.0), -3.0e38)
    top = tl.max(a, axis=0)
    p = tl.where(within, tl.exp(a - top), 0.0)
    total = tl.sum(p, axis=0)
    total = tl.where(total > 0, total, 1.0)
    tl.store(weights + t, p / total, mask=within & (tl.program_id(1) == 0))
    pooled = tl.zeros((BD,), tl.float32)
    for start in range(0, BL if BL == BC else end - begin, BC):  # one pass where a title is all there is
        r = begin + start + tl.arange(0, BC)
        live = r < end
        share = tl.where(live, tl.exp(tl.load(logits + r, mask=live, other=-3.0e38) - top), 0.0) / total
        here = tl.load(x + r[:, None] * D + d[None, :], mask=live[:, None] & (d < D)[None, :], other=0.0)
        pooled += tl.sum(share[:, None] * here.to(tl.float32), axis=0)  # sum_t p_t x_t
    tl.store(out + u * D + d, pooled.to(out.dtype.element_ty), mask=d < D)


@Kernel
def softmax_gradient_kernel(
    grad_out,  # [U, D]
    x,  # [T, D]
    weights,  # [T]
    offsets,  # [U + 1]
    grad_logits,  # [T] out, float32
    sequences,  # [T] int32 out: each token's sequence
    D: tl.constexpr,
    BL: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
):
    """Gradient of one sequence's logits."""
    u = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(offsets + u).to(tl.int64), tl.load(offsets + u + 1).to(tl.int64)
    mean = 0.0
    for first in range(0, BL if BL == BC else end - begin, BC):
        r = begin + first + tl.arange(0, BC)
        live = r < end
        part = tl.zeros((BC,), tl.float32)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            g = tl.load(grad_out + u * D + d, mask=d < D, other=0.0).to(tl.float32)
            here = tl.load(x + r[:, None] * D + d[None, :], mask=live[:, None] & (d < D)[None, :], other=0.0)
            part += tl.sum(here.to(tl.float32) * g[None, :], axis=1)  # dp_t = x_t^T dout
        mean += tl.sum(tl.load(weights + r, mask=live, other=0.0) * part, axis=0)
        tl.store(grad_logits + r, part, mask=live)
    tl.debug_barrier()  # other threads read what was just stored
    t = begin + tl.arange(0, BL)
    within = t < end
    p = tl.load(weights + t, mask=within, other=0.0)
    dp = tl.load(grad_logits + t, mask=within, other=0.0)
    tl.store(grad_logits + t, p * (dp - mean), mask=within)  # da_t = p_t (dp_t - sum_s p_s dp_s)
    tl.store(sequences + t, tl.zeros((BL,), tl.int32) + u.to(tl.int32), mask=within)


@Kernel
def states_gradient_kernel(
    grad_out,  # [U, D]
    grad_logits,  # [T]
    weights,  # [T]
    sequences,  # [T] int32
    x,  # [T, D]
    weight,  # [Q, D]
    bias,  # [Q]
    query,  # [Q]
    grad_states,  # [T, Q] out: gradient before the tanh
    grad_bias,  # [programs, Q] out, float32
    grad_query,  # [programs, Q] out, float32
    grad_x,  # [T, D] out
    tokens,
    D: tl.constexpr,
    Q: tl.constexpr,
    BT: tl.constexpr,
    BQ: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of BT tokens, and their part of those of bias and query."""
    pid = tl.program_id(0)
    t = pid.to(tl.int64) * BT + tl.arange(0, BT)
    live = t < tokens
    z = states_tile(x, weight, bias, t, tokens, D, Q, BQ, BK, WIDEN, PRECISION)
    c = tl.arange(0, BQ)
    q = tl.load(query + c, mask=c < Q, other=0.0).to(tl.float32)
    da = tl.load(grad_logits + t, mask=live, other=0.0)
    tl.store(grad_query + pid * Q + c, tl.sum(da[:, None] * z, axis=0), mask=c < Q)  # dq = sum_t da_t z_t
    dz = da[:, None] * q[None, :] * (1.0 - z * z)  # through tanh: du_t = da_t q (1 - z_t^2)
    tl.store(grad_bias + pid * Q + c, tl.sum(dz, axis=0), mask=c < Q)  # db = sum_t du_t
    dz = dz.to(grad_states.dtype.element_ty)
    tl.store(grad_states + t[:, None] * Q + c[None, :], dz, mask=live[:, None] & (c < Q)[None, :])
    if WIDEN:
        dz = dz.to(tl.float32)
    p = tl.load(weights + t, mask=live, other=0.0)
    u = tl.load(sequences + t, mask=live, other=0).to(tl.int64)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        at = live[:, None] & (d < D)[None, :]
        w = tl.load(weight + c[:, None] * D + d[None, :], mask=(c < Q)[:, None] & (d < D)[None, :], other=0.0)
        if WIDEN:
            w = w.to(tl.float32)
        g = tl.load(grad_out + u[:, None] * D + d[None, :], mask=at, other=0.0).to(tl.float32)
        dx = tl.dot(dz, w, p[:, None] * g, input_precision=PRECISION)  # dx_t = p_t dout + W^T du_t
        tl.store(grad_x + t[:, None] * D + d[None, :], dx.to(grad_x.dtype.element_ty), mask=at)


def _constants(size: int, queries: int, block: int, dtype: torch.dtype) -> dict[str, Options]:
    """Constants of each kernel, its warps and stages included; the blocks are such that nothing spills on sm_90."""
    bd, bq = power_of_two(max(size, 16)), power_of_two(max(queries, 16))
    product = {"D": size, "Q": queries, "BQ": bq, "WIDEN": interpreted(), "PRECISION": product_precision()}
    if dtype.itemsize <= 2:
        forward = {"BT": 64, "BK": min(bd, 64), "num_warps": 8, "num_stages": 3}
        backward = {"BT": 64, "BK": min(bd, 64), "BD": min(bd, 64), "num_warps": 8, "num_stages": 2}
    else:
        forward = {"BT": 32, "BK": min(bd, 32), "num_warps": 8, "num_stages": 2}
        backward = {"BT": 32, "BK": min(bd, 32), "BD": min(bd, 32), "num_warps": 8, "num_stages": 2}
    parts = {"BC": min(block, _CHUNK), "BD": min(bd, 128)}
    sequence = {"D": size, "BL": block, **parts, "num_warps": 4, "num_stages": 2}
    return {"forward": product | forward, "backward": product | backward, "sequence": sequence}


@torch.library.custom_op("tnr_dist::additive_pooling", mutates_args=())
def fused_pooling(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    query: Tensor,
    offsets: Tensor,
    block: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Pooled vectors [U, d] and the tokens' weights [T]."""
    (tokens, size), count = x.shape, len(offsets) - 1
    constants = _constants(size, len(query), block, dtype)
    x, weight = x.contiguous(), weight.to(dtype).contiguous()
    logits, weights = x.new_empty(tokens, dtype=torch.float32), x.new_empty(tokens, dtype=torch.float32)
    out = x.new_empty(count, size, dtype=torch.float32)
    one = constants["forward"]
    logits_kernel[(-(-tokens // one["BT"]),)](x, weight, bias, query.contiguous(), logits, tokens, **one)
    one = constants["sequence"]
    grid = (count, -(-size // one["BD"]))
    pool_kernel[grid](x, logits, offsets, weights, out, **one)
    return out, weights


@torch.library.custom_op("tnr_dist::additive_pooling_backward", mutates_args=())
def _pool_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    query: Tensor,
    offsets: Tensor,
    weights: Tensor,
    block: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to x, weight, bias and query."""
    (tokens, size), queries, count = x.shape, len(query), len(offsets) - 1
    constants = _constants(size, queries, block, dtype)
    grad_out, x, narrow = grad_out.contiguous(), x.contiguous(), weight.to(dtype).contiguous()
    grad_logits, sequences = torch.empty_like(weights), torch.empty_like(weights, dtype=torch.int32)
    softmax_gradient_kernel[(count,)](grad_out, x, weights, offsets, grad_logits, sequences, **constants["sequence"])
    one = constants["backward"]
    programs = -(-tokens // one["BT"])
    grad_states, grad_x = x.new_empty(tokens, queries, dtype=dtype), torch.empty_like(x)
    grad_bias = x.new_empty(programs, queries, dtype=torch.float32)
    grad_query = torch.empty_like(grad_bias)
    states_gradient_kernel[(programs,)](
        grad_out, grad_logits, weights, sequences, x, narrow, bias, query.contiguous(),
        grad_states, grad_bias, grad_query, grad_x, tokens, **one,
    )  # fmt: skip
    grad_weight = grad_states.t() @ x.to(dtype)  # dW = sum_t du_t x_t^T: a plain product, as cuBLAS does it
    return (
        grad_x,
        grad_weight.to(weight.dtype),
        grad_bias.sum(0).to(bias.dtype),
        grad_query.sum(0).to(query.dtype),
    )


@fused_pooling.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    query: Tensor,
    offsets: Tensor,
    block: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    out = x.new_empty(offsets.shape[0] - 1, x.shape[1], dtype=torch.float32)
    return out, x.new_empty(x.shape[0], dtype=torch.float32)


@_pool_backward.register_fake
def _(grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, query: Tensor, *_: object) -> tuple[Tensor, ...]:
    x, weight, bias, query = (
        torch.empty_like(y, memory_format=torch.contiguous_format) for y in (x, weight, bias, query)
    )
    return x, weight, bias, query


def _save(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, query, offsets, ctx.block, ctx.dtype = inputs
    ctx.save_for_backward(x, weight, bias, query, offsets, output[1])


def _gradients(ctx: Context, grad_out: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = _pool_backward(grad_out, *ctx.saved_tensors, ctx.block, ctx.dtype)
    return *gradients, None, None, None


fused_pooling.register_autograd(_gradients, setup_context=_save)
