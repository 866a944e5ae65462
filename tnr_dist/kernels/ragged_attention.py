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

import itertools
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from tnr_dist.kernels.attention_tile import attention_gradient_kernel, attention_kernel
from tnr_dist.kernels.context import Context
from tnr_dist.kernels.dispatch import Choice, use_triton
from tnr_dist.kernels.launch import Options, interpreted, power_of_two, product_precision
from tnr_dist.kernels.tiles import Tiles, block_rows

#: Largest head the kernels are made for; torch serves the rest.
MAX_HEAD_DIM = 64
# The bias gradient is summed by atomics into this many copies of the table at most, so that tiles seldom collide ...
_COPIES = 16
# ... as long as all copies together have at most this many elements.
_COPIES_ELEMENTS = 1 << 22


class Plan(Protocol):
    """A batch, as `attention.AttentionPlan` describes it; tiles are kept as long as it lives."""

    lengths: np.ndarray


def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: np.ndarray,
    bias_table: Tensor | None = None,
    dropout_p: float = 0.0,
    kernels: Choice | None = None,
    tiles: Tiles | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(head_dim) + bias) v within each sequence of a packed batch.

    Args:
        q: [T, heads, head_dim]; k, v: the same shape. float32, bfloat16 or float16.
        lengths: [U] int64 on the host, summing to T.
        bias_table: [heads, S, S] (row = query, column = key), or [heads, 2 S - 1] by distance (key - query + S - 1),
            with S >= the longest sequence. Added to the scores; gradients flow to it.
        dropout_p: dropout of the attention probabilities, drawn from the device's generator.
        kernels: the form that runs; None: as `dispatch.use_kernels` says. Heads above `MAX_HEAD_DIM` take the plain one.
        tiles: `Tiles.of(lengths, q.device, q.dtype)` where the caller keeps it for several layers.

    Returns:
        [T, heads, head_dim] in the dtype of v.
    """
    if not use_triton(kernels, q, "ragged_attention") or q.shape[-1] > MAX_HEAD_DIM:
        return ragged_attention_reference(q, k, v, lengths, bias_table, dropout_p)
    if not len(q):
        return attention_of_nothing(q, k, v, bias_table)
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
    return torch.cat(outputs) if outputs else attention_of_nothing(q, k, v, bias_table)


def attention_of_nothing(q: Tensor, k: Tensor, v: Tensor, bias_table: Tensor | None) -> Tensor:
    """`ragged_attention` of no tokens, [0, heads, head_dim].

    Its gradients are zeros and not missing: a rank that has fewer titles than ranks want one takes part in a step, and
    data-parallel engines wait for the gradient of every parameter.
    """
    out = v + (q + k).to(v.dtype)
    return out if bias_table is None else out + bias_table.sum().to(v.dtype)


def planned_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: Plan, bias_table: Tensor | None, dropout_p: float
) -> Tensor:
    """The Triton form of `ragged_attention` for a batch's plan, with which its tiles are kept."""
    kept = _TILES.setdefault(plan, {})
    key = q.device, block_rows(q.dtype)
    if key not in kept:
        kept[key] = Tiles.of(plan.lengths, q.device, q.dtype)
    return ragged_attention(q, k, v, plan.lengths, bias_table, dropout_p, "triton", kept[key])


def keep_tiles(plan: Plan, tiles: Tiles, dtype: torch.dtype) -> None:
    """Use `tiles` for a plan's states of `dtype`."""
    _TILES.setdefault(plan, {})[tiles.starts.device, block_rows(dtype)] = tiles


_TILES: WeakKeyDictionary[Plan, dict[tuple[torch.device, int], Tiles]] = WeakKeyDictionary()


def _square(bias: Tensor, length: int) -> Tensor:
    """[heads, length, length] part of a bias given in either form."""
    if bias.ndim == 3:
        return bias[:, :length, :length]
    position = torch.arange(length, device=bias.device)
    return bias[:, position[None, :] - position[:, None] + bias.shape[1] // 2]


def _row_major(x: Tensor) -> Tensor:
    """`x` [T, H, D] itself if only its rows are apart (a slice of the fused projection), else a copy."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def _options(q: Tensor, dropout_p: float, bias: Tensor | None, tiles: Tiles) -> Options:
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
        return {"num_warps": 8, "num_stages": 1}
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
        ctx: Context, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, tiles: Tiles, seed: Tensor, dropout_p: float
    ) -> Tensor:
        q, k, v = _row_major(q), _row_major(k), _row_major(v)
        out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        lse = torch.empty((q.shape[1], len(q)), dtype=torch.float32, device=q.device)
        options = _options(q, dropout_p, bias, tiles)
        for table, closed in ((tiles.closed, True), (tiles.opened, False)):
            if len(table):
                attention_kernel[(len(table) * q.shape[1],)](
                    q, k, v, q if bias is None else bias, out, lse, table, tiles.starts, seed,
                    q.stride(0), k.stride(0), v.stride(0), *_strides(bias), len(q), q.shape[2] ** -0.5, dropout_p,
                    CLOSED=closed, **options, **_launch(q.dtype, closed, bias is not None, False),
                )  # fmt: skip
        ctx.save_for_backward(q, k, v, bias, out, lse, seed)
        ctx.tiles, ctx.dropout_p, ctx.options = tiles, dropout_p, options
        return out

    @staticmethod
    def backward(ctx: Context, dout: Tensor) -> tuple[Tensor | None, ...]:
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
                attention_gradient_kernel[(len(table) * q.shape[1],)](
                    q, k, v, q if bias is None else bias, out, dout, lse, dq, dk, dv, lse if sums is None else sums,
                    table, ctx.tiles.starts, seed, q.stride(0), k.stride(0), v.stride(0), *_strides(bias), *grads,
                    len(q), q.shape[2] ** -0.5, ctx.dropout_p,
                    CLOSED=closed, BIAS_GRAD=sums is not None, **ctx.options,
                    **_launch(q.dtype, closed, bias is not None, True),
                )  # fmt: skip
        dbias = None if sums is None else sums.sum(0).to(ctx.saved_tensors[3].dtype)
        return dq, dk, dv, dbias, None, None, None
