"""What every loss shares: float32 arithmetic, a softmax over some of the candidates, the sum over a batch's samples.

A rank holds B of the `count` samples of a global batch. Each loss returns the sum over its own samples divided by
`count`, so that adding the values (and the gradients) of all ranks gives the mean over the global batch, however it was
shared out.
"""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32, or as it is if it is float64: a softmax or a sum of squares in bfloat16 loses the small terms."""
    return x if x.dtype == torch.float64 else x.float()


def mean_over_batch(per_sample: Tensor, weights: Tensor, count: float) -> Tensor:
    """This rank's share of the mean over the global batch: sum_b weights_b * per_sample_b / count.

    Args:
        per_sample: [B] loss of each sample; finite, also where the weight is 0.
        weights: [B] weight of each sample; 0 for a slot that carries none (padding of a last, partial batch).
        count: number of samples in the global batch.

    Returns:
        A scalar.
    """
    return (weights.to(per_sample.dtype) * per_sample).sum() / count


def log_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logarithm of the softmax over the last dimension, of the entries that `mask` keeps; 0 for the others.

    Args:
        scores: [..., C].
        mask: bool, broadcastable to `scores`, True for an entry that exists. A row with none gives zeros, not NaN.

    Returns:
        [..., C], float32 (float64 if given).
    """
    scores = full_precision(scores)
    if mask is None:
        return torch.log_softmax(scores, dim=-1)
    # The lowest finite number, not -inf: both vanish in the softmax, but an empty row then makes no NaN on the way.
    kept = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.log_softmax(kept, dim=-1).masked_fill(~mask, 0.0)


def cross_entropy(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy CE(y_hat, y) with the one-hot label of a positive at index 0: -log softmax(scores)_0.

    Args:
        scores: [..., C], the positive at index 0.
        mask: bool, broadcastable to `scores`, True for a candidate that exists.

    Returns:
        [...], float32 (float64 if given).
    """
    return -log_softmax(scores, mask)[..., 0]


def soft_cross_entropy(teacher_scores: Tensor, student_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy of two score vectors: -sum_j softmax(teacher)_j * log softmax(student)_j.

    Args:
        teacher_scores: [..., C].
        student_scores: [..., C].
        mask: bool, broadcastable to both, True for a candidate that exists.

    Returns:
        [...], float32 (float64 if given).
    """
    # An entry that does not exist has a logarithm of 0 on the student's side and so adds nothing.
    return -(log_softmax(teacher_scores, mask).exp() * log_softmax(student_scores, mask)).sum(dim=-1)
