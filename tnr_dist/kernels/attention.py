"""Attention over packed (unpadded) sequences in plain torch, or in one kernel where that is chosen: self-attention, pooling.

Sequences lie one after another, shortest first, so that sequences of equal length form a contiguous block that is
viewed, not gathered, as [count, length, heads, head_dim]: no padding and no mask. `AttentionPlan` says which blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.kernels.additive_pooling import MAX_LENGTH, fused_pooling
from tnr_dist.kernels.dispatch import AUTO, Choice, chosen, product_dtype, use_triton
from tnr_dist.kernels.launch import power_of_two
from tnr_dist.kernels.ragged_attention import MAX_HEAD_DIM, attention_of_nothing, planned_attention
from tnr_dist.kernels.varlen import varlen_attention, varlen_attn
from tnr_dist.util.transfer import to_device

#: Sequences longer than this share a padded bucket (a body batch has hundreds of distinct lengths) ...
LONG = 64
#: ... in which the longest exceeds the shortest by at most this fraction: the bound on wasted slots.
PADDING = 0.12
# Up to this length torch's CPU softmax and SDPA fall back to scalar code, 2 to 6 times slower than exp and sum; with a
# gradient to compute SDPA is slower up to twice that (measured: 84 against 14 ms for 137 sequences of 21).
_SHORT, SHORT_WITH_GRADIENT = 20, 48


@dataclass(frozen=True)
class Bucket:
    """Neighbouring sequences that are attended to in one call: tokens `start:stop` of the packed rows.

    `lengths` is None when all have length `length`; otherwise [count], and `length` is the longest.
    """

    start: int
    stop: int
    count: int
    length: int
    lengths: np.ndarray | None = None


class AttentionPlan:
    """How packed sequences of the given ascending lengths are cut into buckets; made on the host, once per batch.

    Args:
        lengths: [U] int64, ascending; a length may be 0.
    """

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self._index: dict[tuple[int, torch.device], tuple[Tensor, Tensor, Tensor]] = {}
        self._edges: dict[torch.device, Tensor] = {}

    @property
    def longest(self) -> int:
        """Length of the longest sequence (0 for an empty batch)."""
        return int(self.lengths[-1]) if len(self.lengths) else 0

    @cached_property
    def halves(self) -> tuple[AttentionPlan, AttentionPlan]:
        """Plans of the sequences up to `LONG` tokens, and of those above it."""
        cut = int(np.searchsorted(self.lengths, LONG, side="right"))
        return AttentionPlan(self.lengths[:cut]), AttentionPlan(self.lengths[cut:])

    def edges(self, device: torch.device) -> Tensor:
        """[U + 1] int32: `offsets` on the device, kept for the other layers."""
        if device not in self._edges:
            self._edges[device] = to_device(self.offsets.astype(np.int32), device)
        return self._edges[device]

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Buckets that cover all tokens: exact lengths up to `LONG`, bounded padding above."""
        distinct, first = np.unique(self.lengths, return_index=True)
        ends = np.append(first[1:], len(self.lengths))
        buckets = []
        i = 0
        while i < len(distinct):
            j = i + 1
            if distinct[i] > LONG:
                j = int(np.searchsorted(distinct, int(distinct[i] * (1 + PADDING)), side="right"))
            a, b = int(first[i]), int(ends[j - 1])
            if distinct[i] > 0:
                lengths = self.lengths[a:b] if j > i + 1 else None
                span = int(self.offsets[a]), int(self.offsets[b])
                buckets.append(Bucket(*span, b - a, int(distinct[j - 1]), lengths))
            i = j
        return buckets

    def padded_index(self, number: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Index tensors of the padded bucket `number`, kept for the other layers.

        Returns:
            rows [count * length]: the token (within the bucket) of every slot, the last one repeated in the padding;
            slots [stop - start]: the slot of every token; mask [count, 1, 1, length]: True at real tokens.
        """
        key = (number, device)
        if key not in self._index:
            bucket = self.buckets[number]
            assert bucket.lengths is not None
            position = np.arange(bucket.length)
            mask = position < bucket.lengths[:, None]
            starts = np.cumsum(bucket.lengths) - bucket.lengths
            rows = starts[:, None] + np.minimum(position, bucket.lengths[:, None] - 1)
            arrays = rows.ravel(), np.flatnonzero(mask), mask[:, None, None, :]
            rows_, slots, mask_ = (to_device(array, device) for array in arrays)
            self._index[key] = rows_, slots, mask_
        return self._index[key]


def ragged_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, bias_table: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(head_dim) + bias) v within each sequence of a packed batch.

    `kernels.dispatch.use_kernels` says in which form; the kernel is made for head_dim up to `MAX_HEAD_DIM`. With `auto`
    sequences above `LONG` are torch's own FlashAttention's where it can serve (`kernels.varlen`).

    Args:
        q: [T, heads, head_dim], sequences shortest first; any strides. k, v: the same shape.
        plan: the batch's plan (same order).
        bias_table: [heads, S, S], S >= the longest sequence, added to the scores; gradients flow to it.
        dropout_p: dropout of the attention probabilities.

    Returns:
        [T, heads, head_dim] in the dtype of v.
    """
    if plan.longest > LONG and bias_table is None and dropout_p == 0 and _takes_varlen(q):
        short, long = plan.halves
        sizes = [int(short.offsets[-1]), int(long.offsets[-1])]
        (q, q_), (k, k_), (v, v_) = (x.split(sizes) for x in (q, k, v))
        out = varlen_attention(q_, k_, v_, long.edges(q.device), long.longest)
        return torch.cat([ragged_attention(q, k, v, short), out]) if len(q) else out
    if use_triton(None, q, "ragged_attention") and q.shape[-1] <= MAX_HEAD_DIM:
        return planned_attention(q, k, v, plan, bias_table, dropout_p)
    return bucket_attention(q, k, v, plan, bias_table, dropout_p)


def _takes_varlen(q: Tensor) -> bool:
    half = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] % 8 == 0
    return half and chosen(None) == "auto" and AUTO["varlen_attention"] and varlen_attn() is not None


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
    short = SHORT_WITH_GRADIENT if q.requires_grad and torch.is_grad_enabled() else _SHORT
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


def _logits_reference(x: Tensor, weight: Tensor, bias: Tensor, query: Tensor) -> Tensor:
    """[..., d] -> [...]: q^T tanh(W x + b), float32 (float64 if given)."""
    dtype = product_dtype(x, weight)
    states = torch.tanh(F.linear(x.to(dtype), weight.to(dtype), bias.to(dtype)))
    logits = F.linear(states, query.to(dtype).unsqueeze(0)).squeeze(-1)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def additive_pooling_reference(x: Tensor, weight: Tensor, bias: Tensor, query: Tensor, offsets: Tensor) -> Tensor:
    """`additive_pooling` in plain torch."""
    logits, count = _logits_reference(x, weight, bias, query), len(offsets) - 1
    # With the number of tokens given, nothing waits for the device.
    sequences = torch.repeat_interleave(torch.arange(count, device=x.device), offsets.diff(), output_size=len(x))
    top = logits.detach().new_full((count,), -torch.inf).scatter_reduce(0, sequences, logits.detach(), "amax")
    weights = (logits - top[sequences]).exp()
    total = weights.new_zeros(count).index_add(0, sequences, weights)
    weights = weights / total[sequences]
    x = x.to(weights.dtype)
    if x.device.type == "cpu" and len(x):
        # One pass over x, no [T, d] product in between; torch.compile fuses the other form, but not this one.
        with torch.autocast("cpu", enabled=False):
            rows = torch.arange(len(x))
            return F.embedding_bag(rows, x, offsets[:-1].long(), mode="sum", per_sample_weights=weights)
    return weights.new_zeros(count, x.shape[1]).index_add(0, sequences, weights.unsqueeze(1) * x)


def additive_pooling(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    query: Tensor,
    offsets: Tensor,
    max_length: int,
    kernels: Choice | None = None,
) -> Tensor:
    """Pool the tokens of each sequence of a ragged batch.

    Args:
        x: [T, d] states of the tokens, sequence after sequence.
        weight: [Q, d].
        bias: [Q].
        query: [Q].
        offsets: [U + 1] int32 or int64, on x's device: sequence u is x[offsets[u]:offsets[u + 1]]; from 0 to T.
        max_length: no sequence is longer; above `MAX_LENGTH` the plain form runs.
        kernels: the form that runs; None: as `dispatch.use_kernels` says.

    Returns:
        [U, d] float32 (float64 if given); zeros for a sequence of length 0. Gradients flow to x, weight, bias and query.
        Products are in `dispatch.product_dtype` of x and weight, sums in float32.

    Raises:
        InputError: if that is 'triton' and Triton cannot run on these tensors.

    Source: Tiny-NewsRec, "News Recommendation Model", the attention network over tokens (Wu et al. 2019).
    """
    if not use_triton(kernels, x, "additive_pooling") or max_length > MAX_LENGTH:
        return additive_pooling_reference(x, weight, bias, query, offsets)
    block = power_of_two(max(max_length, 1))
    vectors: Tensor = fused_pooling(x, weight, bias, query, offsets, block, product_dtype(x, weight))[0]
    return vectors


def additive_pooling_padded(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, query: Tensor) -> Tensor:
    """Pool the valid slots of each padded sequence, in plain torch.

    Args:
        x: [B, L, d]; what stands in the padding does not matter, as long as it is finite.
        mask: [B, L] bool, True = valid.
        weight: [Q, d].
        bias: [Q].
        query: [Q].

    Returns:
        [B, d] in the dtype of x; a row with no valid slot gives zeros and has zero gradient.

    Source: Tiny-NewsRec, "News Recommendation Model", the user encoder's attention over clicked news.
    """
    logits = _logits_reference(x, weight, bias, query)
    weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(-1)
    weights = weights.masked_fill(~mask, 0.0).to(x.dtype)
    return torch.bmm(weights.unsqueeze(1), x).squeeze(1)
