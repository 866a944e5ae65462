"""Long packed sequences by torch's own FlashAttention over sequences of any length (`torch.nn.attention.varlen`).

It has neither a bias nor dropout, so it serves frozen layers, encoding, and training without dropout; CUDA only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor


@functools.cache
def varlen_attn() -> Callable[..., Tensor] | None:
    """torch's function; None where this torch has none, or where the GPU is older than Ampere."""
    try:
        from torch.nn.attention.varlen import varlen_attn as found
    except ImportError:
        return None
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        return None
    return cast(Callable[..., Tensor], found)  # without the log-sum-exp it is one tensor


def varlen_attention(q: Tensor, k: Tensor, v: Tensor, edges: Tensor, longest: int) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v within each sequence.

    Args:
        q: [T, heads, head_dim], bfloat16 or float16. k, v: the same shape.
        edges: [U + 1] int32, on their device: sequence u is rows edges[u] to edges[u + 1].
        longest: no sequence is longer.

    Returns:
        [T, heads, head_dim].
    """
    attend = varlen_attn()
    assert attend is not None  # the caller has asked
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    return attend(q, k, v, edges, edges, longest, longest)
