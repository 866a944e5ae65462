"""Self-attention over packed (unpadded) sequences: in plain torch, or in one kernel where that is chosen.

Sequences lie one after another, shortest first, so that sequences of equal length form a contiguous block that is
viewed, not gathered, as [count, length, heads, head_dim]: no padding and no mask.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.kernels.attention_plan import AttentionPlan
from tnr_dist.kernels.dispatch import use_triton
from tnr_dist.kernels.ragged_attention import MAX_HEAD_DIM, attention_of_nothing, planned_attention

# Up to this length torch's CPU softmax and SDPA fall back to scalar code, 2 to 6 times slower than exp and sum; with a
# gradient to compute SDPA is slower up to twice that (measured: 84 against 14 ms for 137 sequences of 21).
_SHORT, _SHORT_WITH_GRADIENT = 20, 48


def ragged_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, bias_table: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(head_dim) + bias) v within each sequence of a packed batch.

    `kernels.dispatch.use_kernels` says in which form; the kernel is made for head_dim up to `MAX_HEAD_DIM`.

    Args:
        q: [T, heads, head_dim], sequences shortest first; any strides. k, v: the same shape.
        plan: the batch's plan (same order).
        bias_table: [heads, S, S], S >= the longest sequence, added to the scores; gradients flow to it.
        dropout_p: dropout of the attention probabilities.

    Returns:
        [T, heads, head_dim] in the dtype of v.
    """
    if use_triton(None, q, "ragged_attention") and q.shape[-1] <= MAX_HEAD_DIM:
        return planned_attention(q, k, v, plan, bias_table, dropout_p)
    return bucket_attention(q, k, v, plan, bias_table, dropout_p)


def bucket_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, bias_table: Tensor | None, dropout_p: float
) -> Tensor:
    """`ragged_attention` in plain torch for any device: one dense attention per bucket."""
    outputs = []
    # `split`, not slices: its gradient is one concatenation, a slice's is a zero-filled tensor of all tokens a bucket.
    sizes = [bucket.stop - bucket.start for bucket in plan.buckets]
    for number, (bucket, *parts) in enumerate(
        zip(plan.buckets, q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
    ):
        mask, slots = None, None
        if bucket.lengths is not None:
            rows, slots, mask = plan.padded_index(number, q.device)
            parts = [x.index_select(0, rows) for x in parts]
        shape = bucket.count, bucket.length
        q_, k_, v_ = (x.unflatten(0, shape).transpose(1, 2) for x in parts)
        bias = None if bias_table is None else bias_table[:, : bucket.length, : bucket.length]
        out = _dense(q_, k_, v_, bias, mask, dropout_p).transpose(1, 2).flatten(0, 1)
        outputs.append(out if slots is None else out.index_select(0, slots))
    return torch.cat(outputs) if outputs else attention_of_nothing(q, k, v, bias_table)


def _dense(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None, dropout_p: float) -> Tensor:
    """Attention of [n, heads, L, head_dim] with an optional bias [heads, L, L] and key mask [n, 1, 1, L]."""
    short = _SHORT_WITH_GRADIENT if q.requires_grad and torch.is_grad_enabled() else _SHORT
    if mask is None and q.device.type == "cpu" and q.shape[2] <= short:
        return _dense_short(q, k, v, bias, dropout_p)
    attn_mask = mask
    if bias is not None:
        attn_mask = bias.to(q.dtype)[None]
        if mask is not None:
            attn_mask = attn_mask.masked_fill(~mask, -math.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p)


def _dense_short(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout_p: float) -> Tensor:
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).float()
    if bias is not None:
        scores = scores + bias
    scores = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    weights = scores / scores.sum(-1, keepdim=True)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return torch.matmul(weights.to(v.dtype), v)


def attention_scores(q: Tensor, k: Tensor, plan: AttentionPlan, bias_table: Tensor | None = None) -> Tensor:
    """Attention scores before the softmax of every (query, key) pair within its sequence.

    TinyBERT's attention loss compares these between teacher and student: both run on the same batch, so their pairs
    lie in the same order.

    Args:
        q: [T, heads, head_dim]; k: the same shape; plan and bias_table as in `ragged_attention`.

    Returns:
        [P, heads] float32, P = sum of squared lengths.
    """
    pairs = []
    for number, bucket in enumerate(plan.buckets):
        q_, k_ = q[bucket.start : bucket.stop], k[bucket.start : bucket.stop]
        mask = None
        if bucket.lengths is not None:
            rows, _, mask = plan.padded_index(number, q.device)
            q_, k_ = q_.index_select(0, rows), k_.index_select(0, rows)
        shape = bucket.count, bucket.length
        q_, k_ = (x.unflatten(0, shape).transpose(1, 2) for x in (q_, k_))
        scores = torch.matmul(q_ * q.shape[-1] ** -0.5, k_.transpose(-1, -2)).float()
        if bias_table is not None:
            scores = scores + bias_table[:, : bucket.length, : bucket.length]
        scores = scores.permute(0, 2, 3, 1)
        if mask is None:
            pairs.append(scores.flatten(0, 2))
        else:
            real = mask[:, 0, 0, :]
            pairs.append(scores[real[:, :, None] & real[:, None, :]])
    return torch.cat(pairs) if pairs else q.new_zeros((0, q.shape[1]), dtype=torch.float32)


def relative_buckets(length: int, buckets: int, max_distance: int) -> Tensor:
    """Bucket number of every (query, key) distance, in T5's bidirectional scheme as MPNet and UniLMv2 use it.

    Half of the buckets are for keys after the query; half of each side's are exact distances, the rest grow
    logarithmically up to `max_distance` (Raffel et al. 2020, section 2.1).

    Returns:
        [length, length] int64, row = query, column = key, values in [0, buckets).
    """
    position = torch.arange(length)
    distance = position[None, :] - position[:, None]
    side = buckets // 2
    exact = side // 2
    after = (distance > 0).long() * side
    distance = distance.abs()
    # float32 throughout: a distance on a bucket's edge must round as it did when the weights were trained.
    grown = torch.log(distance.float() / exact) / math.log(max_distance / exact) * (side - exact)
    # log(0) = -inf is never selected, but its conversion to an integer is undefined.
    far = (exact + grown.clamp(min=0).long()).clamp(max=side - 1)
    return after + torch.where(distance < exact, distance, far)
