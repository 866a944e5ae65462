# mypy: allow-untyped-defs
"""Self-attention over packed sequences in one kernel: several short sequences a tile, long ones in key tiles.

For a token i of a sequence s and a head, with keep_ij drawn anew by every call (Bernoulli(1 - p)):

    S_ij = q_i . k_j / sqrt(head_dim) + b_ij          P_i = softmax over j in s of S_i
    O_i  = sum_j P_ij keep_ij / (1 - p) v_j

A tile is a run of whole sequences of at most 64 tokens in all (32 in float32; "closed": its keys are its own rows,
masked to the block diagonal), or a cut of one longer sequence ("open": a loop over the sequence's key tiles with an
online softmax, as in FlashAttention: Dao et al. 2022). Only O and the log-sum-exp are kept for
the backward pass; the dropout mask is computed again from a counter (Philox4x32, 7 rounds: Salmon et al. 2011).
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from tnr_dist.kernels.dispatch import interpreted, power_of_two, product_precision, use_triton
from tnr_dist.kernels.tiles import Tiles, block_rows

if TYPE_CHECKING:
    import triton.language as tl

    from tnr_dist.models.attention import Plan

#: Largest head the kernels are made for; torch serves the rest.
MAX_HEAD_DIM = 64
# The bias gradient is summed by atomics into this many copies of the table at most, so that tiles seldom collide ...
_COPIES = 16
# ... as long as all copies together have at most this many elements.
_COPIES_ELEMENTS = 1 << 22


def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: np.ndarray,
    bias_table: Tensor | None = None,
    dropout_p: float = 0.0,
    kernels: str = "auto",
    tiles: Tiles | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(head_dim) + bias) v within each sequence of a packed batch.

    Args:
        q: [T, heads, head_dim]; k, v: the same shape. float32, bfloat16 or float16.
        lengths: [U] int64 on the host, summing to T.
        bias_table: [heads, S, S] (row = query, column = key), or [heads, 2 S - 1] by distance (key - query + S - 1),
            with S >= the longest sequence. Added to the scores; gradients flow to it.
        dropout_p: dropout of the attention probabilities, drawn from the device's generator.
        kernels: "auto", "triton" or "torch" (which also serves head_dim > `MAX_HEAD_DIM`).
        tiles: `Tiles.of(lengths, q.device, q.dtype)` where the caller keeps it for several layers.

    Returns:
        [T, heads, head_dim] in the dtype of v.
    """
    if not use_triton(kernels, q, "ragged_attention") or q.shape[-1] > MAX_HEAD_DIM:
        return ragged_attention_reference(q, k, v, lengths, bias_table, dropout_p)
    if not len(q):
        return torch.zeros_like(v)
    tiles = Tiles.of(lengths, q.device, q.dtype) if tiles is None else tiles
    # The seed stays on the device: no synchronisation, and it follows the generator's saved state and CUDA graphs.
    seed = torch.randint(2**62, (1,), device=q.device) if dropout_p > 0 else tiles.starts
    out: Tensor = _RaggedAttention.apply(q, k, v, bias_table, tiles, seed, dropout_p)  # type: ignore[no-untyped-call]
    return out


def ragged_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: np.ndarray,
    bias_table: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """`ragged_attention` in plain torch: one dense float32 attention per run of sequences of equal length."""
    outputs = []
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    edges = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
    for a, b in itertools.pairwise(edges):
        length = int(lengths[a]) if b > a else 0
        if length == 0:
            continue
        q_, k_, v_ = (
            x[int(offsets[a]) : int(offsets[b])].unflatten(0, (b - a, length)).transpose(1, 2).float()
            for x in (q, k, v)
        )
        scores = q_ @ k_.transpose(-1, -2) * q.shape[-1] ** -0.5
        if bias_table is not None:
            scores = scores + _square(bias_table, length).float()
        weights = torch.dropout(scores.softmax(-1), dropout_p, dropout_p > 0)
        outputs.append((weights @ v_).transpose(1, 2).flatten(0, 1).to(v.dtype))
    return torch.cat(outputs) if outputs else torch.zeros_like(v)


def cuda_backend(q: Tensor, k: Tensor, v: Tensor, plan: Plan, bias_table: Tensor | None, dropout_p: float) -> Tensor:
    """`ragged_attention` with the signature of `tnr_dist.models.attention.BACKENDS`; tiles are kept with the plan."""
    kept = _TILES.setdefault(plan, {})
    key = q.device, block_rows(q.dtype)
    if key not in kept:
        kept[key] = Tiles.of(plan.lengths, q.device, q.dtype)
    return ragged_attention(q, k, v, plan.lengths, bias_table, dropout_p, "triton", kept[key])


_TILES: WeakKeyDictionary[Plan, dict[tuple[torch.device, int], Tiles]] = WeakKeyDictionary()


def _square(bias: Tensor, length: int) -> Tensor:
    """[heads, length, length] part of a bias given in either form."""
    if bias.ndim == 3:
        return bias[:, :length, :length]
    position = torch.arange(length, device=bias.device)
    return bias[:, position[None, :] - position[:, None] + bias.shape[1] // 2]


def _load(ptr, rows, valid, stride, D: tl.constexpr, WIDTH: tl.constexpr, UPCAST: tl.constexpr):
    """Rows of one head, [BLOCK, WIDTH]; 0 beyond `valid` rows and beyond D columns."""
    column = tl.arange(0, WIDTH)
    offset = rows.to(tl.int64)[:, None] * stride + column[None, :]
    x = tl.load(ptr + offset, mask=valid[:, None] & (column < D)[None, :], other=0.0)
    if UPCAST:
        x = x.to(tl.float32)
    return x


def _store(ptr, x, rows, valid, stride, D: tl.constexpr, WIDTH: tl.constexpr):
    column = tl.arange(0, WIDTH)
    offset = rows.to(tl.int64)[:, None] * stride + column[None, :]
    tl.store(ptr + offset, x.to(ptr.dtype.element_ty), mask=valid[:, None] & (column < D)[None, :])


def _rows(starts_ptr, first, stop, BLOCK: tl.constexpr, NONE: tl.constexpr):
    """Row numbers, which of them exist, and the first row of each one's sequence (`NONE` where there is none)."""
    rows = first + tl.arange(0, BLOCK)
    valid = rows < stop
    return rows, valid, tl.load(starts_ptr + rows, mask=valid, other=NONE)


def _scores(
    q, k, rows_q, rows_k, starts_q, starts_k, bias_ptr, stride_i, stride_j, scale, PRECISION: tl.constexpr,
    BIAS: tl.constexpr,
):  # fmt: skip
    """Scores in units of log 2, -1e30 where the pair is not of one sequence; and which pairs are."""
    same = starts_q[:, None] == starts_k[None, :]
    # S_ij = (q_i . k_j / sqrt(head_dim) + b_ij) log2(e)
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * 1.4426950408889634)
    if BIAS:
        place = (rows_q - starts_q)[:, None] * stride_i + (rows_k - starts_k)[None, :] * stride_j
        s += tl.load(bias_ptr + place, mask=same, other=0.0).to(tl.float32) * 1.4426950408889634
    return tl.where(same, s, -1e30), same


def _keep(seed, rows_q, first_key, head, dropout_p, BLOCK: tl.constexpr):
    """[BLOCK, BLOCK] 1 = keep, from the counter (row, first key of the tile + quad, head): 4 values a Philox call."""
    quad = tl.arange(0, BLOCK // 4)[None, :]
    c0 = rows_q[:, None] + quad * 0
    c1 = first_key + quad + rows_q[:, None] * 0
    r0, r1, r2, r3 = tl.philox(seed, c0, c1, c0 * 0 + head, c0 * 0, 7)
    a = (tl.uint_to_uniform_float(r0) >= dropout_p).to(tl.int8)
    b = (tl.uint_to_uniform_float(r1) >= dropout_p).to(tl.int8)
    c = (tl.uint_to_uniform_float(r2) >= dropout_p).to(tl.int8)
    d = (tl.uint_to_uniform_float(r3) >= dropout_p).to(tl.int8)
    return tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (BLOCK, BLOCK)) != 0


def _forward(
    q_ptr,  # [T, H, D], rows `stride_q` apart
    k_ptr,  # [T, H, D]
    v_ptr,  # [T, H, D]
    bias_ptr,  # b_ij of head h at origin + h * stride_h + i * stride_i + j * stride_j
    out_ptr,  # [T, H, D]
    lse_ptr,  # [H, T] float32, in units of log 2
    tiles_ptr,  # [N, 4] int32
    starts_ptr,  # [T] int32
    seed_ptr,  # [1] int64
    stride_q, stride_k, stride_v, origin, stride_h, stride_i, stride_j, T, scale, dropout_p,
    H: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, CLOSED: tl.constexpr,
    BIAS: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program: one tile of one head; heads vary fastest, so that neighbours read the same rows."""
    tile = tl.program_id(0) // H
    head = tl.program_id(0) % H
    first = tl.load(tiles_ptr + tile * 4)
    rows, valid, starts = _rows(starts_ptr, first, tl.load(tiles_ptr + tile * 4 + 1), BLOCK, -1)
    q = _load(q_ptr + head * D, rows, valid, stride_q, D, WIDTH, UPCAST)
    bias_ptr += origin + head.to(tl.int64) * stride_h
    if DROPOUT:
        seed = tl.load(seed_ptr)
    else:
        seed = 0
    if CLOSED:
        rows_k, valid_k, starts_k = _rows(starts_ptr, first, tl.load(tiles_ptr + tile * 4 + 1), BLOCK, -2)
        k = _load(k_ptr + head * D, rows_k, valid_k, stride_k, D, WIDTH, UPCAST)
        v = _load(v_ptr + head * D, rows_k, valid_k, stride_v, D, WIDTH, UPCAST)
        s, same = _scores(q, k, rows, rows_k, starts, starts_k, bias_ptr, stride_i, stride_j, scale, PRECISION, BIAS)
        high = tl.max(s, 1)
        p = tl.where(same, tl.exp2(s - high[:, None]), 0.0)
        total = tl.sum(p, 1)
        if DROPOUT:
            p = tl.where(_keep(seed, rows, first, head, dropout_p, BLOCK), p, 0.0)
        out = tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    else:
        high = tl.full((BLOCK,), -1e30, tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        out = tl.zeros((BLOCK, WIDTH), tl.float32)
        stop = tl.load(tiles_ptr + tile * 4 + 3)
        for key in range(tl.load(tiles_ptr + tile * 4 + 2), stop, BLOCK):
            rows_k, valid_k, starts_k = _rows(starts_ptr, key, stop, BLOCK, -2)
            k = _load(k_ptr + head * D, rows_k, valid_k, stride_k, D, WIDTH, UPCAST)
            v = _load(v_ptr + head * D, rows_k, valid_k, stride_v, D, WIDTH, UPCAST)
            s, same = _scores(
                q, k, rows, rows_k, starts, starts_k, bias_ptr, stride_i, stride_j, scale, PRECISION, BIAS
            )
            higher = tl.maximum(high, tl.max(s, 1))
            shrink = tl.exp2(high - higher)
            p = tl.where(same, tl.exp2(s - higher[:, None]), 0.0)
            total = total * shrink + tl.sum(p, 1)
            if DROPOUT:
                p = tl.where(_keep(seed, rows, key, head, dropout_p, BLOCK), p, 0.0)
            out = out * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
            high = higher
    total = tl.where(valid, total, 1.0)
    # O_i = sum_j P_ij keep_ij / (1 - p) v_j;  LSE_i = log2 sum_j 2^S_ij
    out = out / (total * (1.0 - dropout_p))[:, None]
    _store(out_ptr + head * D, out, rows, valid, H * D, D, WIDTH)
    tl.store(lse_ptr + head.to(tl.int64) * T + rows, high + tl.log2(total), mask=valid)


def _pair(
    q, k, v, dout, delta, lse, rows_q, rows_k, starts_q, starts_k, bias_ptr, stride_i, stride_j, scale, seed,
    first_key, head, dropout_p, BLOCK: tl.constexpr, BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Probabilities after dropout and gradients of the scores of a query tile and a key tile; and which pairs are."""
    s, same = _scores(q, k, rows_q, rows_k, starts_q, starts_k, bias_ptr, stride_i, stride_j, scale, PRECISION, BIAS)
    p = tl.where(same, tl.exp2(s - lse[:, None]), 0.0)
    # dP_ij = keep_ij / (1 - p) dO_i . v_j
    dp = tl.dot(dout, tl.trans(v), input_precision=PRECISION)
    dropped = p
    if DROPOUT:
        keep = _keep(seed, rows_q, first_key, head, dropout_p, BLOCK)
        dropped = tl.where(keep, p / (1.0 - dropout_p), 0.0)
        dp = tl.where(keep, dp / (1.0 - dropout_p), 0.0)
    # dS_ij = P_ij (dP_ij - delta_i)
    return dropped, p * (dp - delta[:, None]), same


def _queries(
    q_ptr, dout_ptr, out_ptr, lse_ptr, rows, valid, head, stride_q, T, H: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """What the backward pass needs of a query tile: q, dO, delta and the log-sum-exp."""
    q = _load(q_ptr + head * D, rows, valid, stride_q, D, WIDTH, UPCAST)
    dout = _load(dout_ptr + head * D, rows, valid, H * D, D, WIDTH, UPCAST)
    out = _load(out_ptr + head * D, rows, valid, H * D, D, WIDTH, UPCAST)
    # delta_i = sum_d dO_id O_id = sum_j P_ij dP_ij
    delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
    return q, dout, delta, tl.load(lse_ptr + head.to(tl.int64) * T + rows, mask=valid, other=0.0)


def _add_bias_grad(dbias_ptr, ds, same, rows_q, rows_k, starts_q, starts_k, stride_i, stride_j):
    # db_ij = sum over sequences of dS_ij
    place = (rows_q - starts_q)[:, None] * stride_i + (rows_k - starts_k)[None, :] * stride_j
    tl.atomic_add(dbias_ptr + place, ds, mask=same)


def _backward(
    q_ptr,  # [T, H, D], rows `stride_q` apart
    k_ptr,  # [T, H, D]
    v_ptr,  # [T, H, D]
    bias_ptr,  # as in `_forward`
    out_ptr,  # [T, H, D]
    dout_ptr,  # [T, H, D]
    lse_ptr,  # [H, T] float32
    dq_ptr,  # [T, H, D]
    dk_ptr,  # [T, H, D]
    dv_ptr,  # [T, H, D]
    dbias_ptr,  # [copies, ...] float32, a copy laid out by the strides grad_*
    tiles_ptr,  # [N, 4] int32
    starts_ptr,  # [T] int32
    seed_ptr,  # [1] int64
    stride_q, stride_k, stride_v, origin, stride_h, stride_i, stride_j, copies, grad_copy, grad_h, grad_i, grad_j,
    T, scale, dropout_p,
    H: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, CLOSED: tl.constexpr,
    BIAS: tl.constexpr, BIAS_GRAD: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Program: one tile of one head, as keys (dk, dv) and as queries (dq, and the bias)."""
    tile = tl.program_id(0) // H
    head = tl.program_id(0) % H
    first = tl.load(tiles_ptr + tile * 4)
    end = tl.load(tiles_ptr + tile * 4 + 1)
    rows_q, valid, starts_q = _rows(starts_ptr, first, end, BLOCK, -1)
    rows_k, valid, starts_k = _rows(starts_ptr, first, end, BLOCK, -2)
    k = _load(k_ptr + head * D, rows_k, valid, stride_k, D, WIDTH, UPCAST)
    v = _load(v_ptr + head * D, rows_k, valid, stride_v, D, WIDTH, UPCAST)
    bias_ptr += origin + head.to(tl.int64) * stride_h
    dbias_ptr += (tile % copies).to(tl.int64) * grad_copy + origin + head.to(tl.int64) * grad_h
    if DROPOUT:
        seed = tl.load(seed_ptr)
    else:
        seed = 0
    if CLOSED:
        q, dout, delta, lse = _queries(
            q_ptr, dout_ptr, out_ptr, lse_ptr, rows_q, valid, head, stride_q, T, H, D, WIDTH, UPCAST
        )
        p, ds, same = _pair(
            q, k, v, dout, delta, lse, rows_q, rows_k, starts_q, starts_k, bias_ptr, stride_i, stride_j, scale, seed,
            first, head, dropout_p, BLOCK, BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
        if BIAS_GRAD:
            _add_bias_grad(dbias_ptr, ds, same, rows_q, rows_k, starts_q, starts_k, grad_i, grad_j)
        # dV = P^T dO;  dK = dS^T Q / sqrt(head_dim);  dQ = dS K / sqrt(head_dim)
        dv = tl.dot(tl.trans(p.to(dout.dtype)), dout, input_precision=PRECISION)
        dk = tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision=PRECISION)
        dq = tl.dot(ds.to(k.dtype), k, input_precision=PRECISION)
    else:
        low = tl.load(tiles_ptr + tile * 4 + 2)
        stop = tl.load(tiles_ptr + tile * 4 + 3)
        dk = tl.zeros((BLOCK, WIDTH), tl.float32)
        dv = tl.zeros((BLOCK, WIDTH), tl.float32)
        for row in range(low, stop, BLOCK):
            rows, valid_q, starts = _rows(starts_ptr, row, stop, BLOCK, -1)
            q, dout, delta, lse = _queries(
                q_ptr, dout_ptr, out_ptr, lse_ptr, rows, valid_q, head, stride_q, T, H, D, WIDTH, UPCAST
            )
            p, ds, same = _pair(
                q, k, v, dout, delta, lse, rows, rows_k, starts, starts_k, bias_ptr, stride_i, stride_j, scale, seed,
                first, head, dropout_p, BLOCK, BIAS, DROPOUT, PRECISION,
            )  # fmt: skip
            dv += tl.dot(tl.trans(p.to(dout.dtype)), dout, input_precision=PRECISION)
            dk += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision=PRECISION)
        dq = tl.zeros((BLOCK, WIDTH), tl.float32)
        q, dout, delta, lse = _queries(
            q_ptr, dout_ptr, out_ptr, lse_ptr, rows_q, valid, head, stride_q, T, H, D, WIDTH, UPCAST
        )
        for key in range(low, stop, BLOCK):
            rows, valid_k, starts = _rows(starts_ptr, key, stop, BLOCK, -2)
            k = _load(k_ptr + head * D, rows, valid_k, stride_k, D, WIDTH, UPCAST)
            v = _load(v_ptr + head * D, rows, valid_k, stride_v, D, WIDTH, UPCAST)
            p, ds, same = _pair(
                q, k, v, dout, delta, lse, rows_q, rows, starts_q, starts, bias_ptr, stride_i, stride_j, scale, seed,
                key, head, dropout_p, BLOCK, BIAS, DROPOUT, PRECISION,
            )  # fmt: skip
            if BIAS_GRAD:
                _add_bias_grad(dbias_ptr, ds, same, rows_q, rows, starts_q, starts, grad_i, grad_j)
            dq += tl.dot(ds.to(k.dtype), k, input_precision=PRECISION)
    _store(dq_ptr + head * D, dq * scale, rows_q, valid, H * D, D, WIDTH)
    _store(dk_ptr + head * D, dk * scale, rows_k, valid, H * D, D, WIDTH)
    _store(dv_ptr + head * D, dv, rows_k, valid, H * D, D, WIDTH)


@functools.cache
def _kernels() -> tuple[Any, Any]:
    """Forward and backward kernel; Triton is imported here, and made known to the functions above."""
    import triton
    import triton.language

    names = globals()
    names["tl"] = triton.language
    for helper in (_load, _store, _rows, _scores, _keep, _pair, _queries, _add_bias_grad):
        names[helper.__name__] = triton.jit(helper)
    return triton.jit(_forward), triton.jit(_backward)


def _row_major(x: Tensor) -> Tensor:
    """`x` [T, H, D] itself if only its rows are apart (a slice of the fused projection), else a copy."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def _options(q: Tensor, dropout_p: float, bias: Tensor | None, tiles: Tiles) -> dict[str, Any]:
    """Compile-time arguments of both kernels."""
    return {
        "H": q.shape[1],
        "D": q.shape[2],
        "WIDTH": max(16, power_of_two(q.shape[2])),
        "BLOCK": tiles.block,
        "BIAS": bias is not None,
        "DROPOUT": dropout_p > 0,
        "UPCAST": interpreted(),
        "PRECISION": product_precision() if q.dtype == torch.float32 else "tf32",
    }


def _launch(dtype: torch.dtype, closed: bool, bias: bool, backward: bool) -> dict[str, int]:
    """Warps and pipeline stages with which nothing spills on sm_90 (tests/kernels/test_aot.py)."""
    if dtype == torch.float32:
        return {"num_warps": 8, "num_stages": 2}
    warps = 8 if bias or (backward and not closed) else 4
    return {"num_warps": warps, "num_stages": 1 if backward else 2}


def _strides(bias: Tensor | None) -> tuple[int, int, int, int]:
    """Origin and strides (head, query, key) of either form of bias."""
    if bias is None:
        return 0, 0, 0, 0
    if bias.ndim == 3:
        return 0, bias.stride(0), bias.stride(1), bias.stride(2)
    step = bias.stride(1)
    return (bias.shape[1] // 2) * step, bias.stride(0), -step, step


class _RaggedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, tiles: Tiles, seed: Tensor, dropout_p: float
    ) -> Tensor:
        q, k, v = _row_major(q), _row_major(k), _row_major(v)
        out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        lse = torch.empty((q.shape[1], len(q)), dtype=torch.float32, device=q.device)
        options = _options(q, dropout_p, bias, tiles)
        for table, closed in ((tiles.closed, True), (tiles.opened, False)):
            if len(table):
                _kernels()[0][(len(table) * q.shape[1],)](
                    q, k, v, q if bias is None else bias, out, lse, table, tiles.starts, seed,
                    q.stride(0), k.stride(0), v.stride(0), *_strides(bias), len(q), q.shape[2] ** -0.5, dropout_p,
                    CLOSED=closed, **options, **_launch(q.dtype, closed, bias is not None, False),
                )  # fmt: skip
        ctx.save_for_backward(q, k, v, bias, out, lse, seed)
        ctx.tiles, ctx.dropout_p, ctx.options = tiles, dropout_p, options
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, lse, seed = ctx.saved_tensors
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        dout = dout.to(v.dtype).contiguous()
        sums, copies = None, 1
        if bias is not None and ctx.needs_input_grad[3]:
            copies = max(1, min(_COPIES, _COPIES_ELEMENTS // bias.numel()))
            sums = torch.zeros((copies, *bias.shape), dtype=torch.float32, device=q.device)
        # The sums have the bias's origin: both are row-major, or the bias is made so.
        bias = None if bias is None else bias.contiguous()
        grads = (copies, 0 if sums is None else sums.stride(0), *_strides(None if sums is None else sums[0])[1:])
        for table, closed in ((ctx.tiles.closed, True), (ctx.tiles.opened, False)):
            if len(table):
                _kernels()[1][(len(table) * q.shape[1],)](
                    q, k, v, q if bias is None else bias, out, dout, lse, dq, dk, dv, lse if sums is None else sums,
                    table, ctx.tiles.starts, seed, q.stride(0), k.stride(0), v.stride(0), *_strides(bias), *grads,
                    len(q), q.shape[2] ** -0.5, ctx.dropout_p,
                    CLOSED=closed, BIAS_GRAD=sums is not None, **ctx.options,
                    **_launch(q.dtype, closed, bias is not None, True),
                )  # fmt: skip
        dbias = None if sums is None else sums.sum(0).to(ctx.saved_tensors[3].dtype)
        return dq, dk, dv, dbias, None, None, None


def aot_signatures() -> list[tuple[Any, dict[str, str], dict[str, Any], int, int]]:
    """(kernel, signature, constants, num_warps, num_stages) at the real sizes, with dropout.

    12 heads of 32 without a bias (MiniLM), of 64 without and with one, frozen or trained (BERT, UniLMv2).
    """
    forward, backward = _kernels()
    bf16, fp32 = torch.bfloat16, torch.float32
    cases = [(32, bf16, False, False), (64, bf16, False, False), (64, bf16, True, False), (64, bf16, True, True)]
    cases += [(64, fp32, True, True)]
    signatures: list[tuple[Any, dict[str, str], dict[str, Any], int, int]] = []
    for (head_dim, dtype, bias, bias_grad), closed in itertools.product(cases, (True, False)):
        types = dict.fromkeys(["q", "k", "v", "out", "dout", "dq", "dk", "dv"], "*bf16" if dtype == bf16 else "*fp32")
        types |= dict.fromkeys(["lse", "bias", "dbias"], "*fp32")
        types |= {"tiles": "*i32", "starts": "*i32", "seed": "*i64"}
        arguments = {f"{name}_ptr": kind for name, kind in types.items()}
        arguments |= dict.fromkeys(["stride_q", "stride_k", "stride_v"], "i32:16")
        arguments |= dict.fromkeys(["origin", "stride_h", "stride_i", "stride_j", "T"], "i32")
        arguments |= dict.fromkeys(["copies", "grad_copy", "grad_h", "grad_i", "grad_j"], "i32")
        arguments |= {"scale": "fp32", "dropout_p": "fp32"}
        constants = {
            "H": 12, "D": head_dim, "WIDTH": head_dim, "BLOCK": block_rows(dtype), "CLOSED": closed, "BIAS": bias,
            "DROPOUT": True, "UPCAST": False, "PRECISION": "ieee" if dtype == fp32 else "tf32",
        }  # fmt: skip
        for kernel, extra in ((forward, {}), (backward, {"BIAS_GRAD": bias_grad})):
            if kernel is forward and bias_grad and dtype == bf16:
                continue  # the same as without
            signature = {name: arguments[name] for name in kernel.arg_names if name in arguments}
            launch = _launch(dtype, closed, bias, kernel is backward)
            signatures.append((kernel, signature, constants | extra, launch["num_warps"], launch["num_stages"]))
    return signatures
