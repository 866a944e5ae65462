"""The matching task of domain-specific post-training: which of N + 1 titles belongs to a news body."""

from __future__ import annotations

from torch import Tensor

from tnr_dist.losses.common import cross_entropy, mean_over_batch


def matching_loss(scores: Tensor, weights: Tensor, count: float) -> Tensor:
    """Matching loss.

    L_match = -sum_{i in T} log p_i,  p_i = exp(y_hat+) / (exp(y_hat+) + sum_j exp(y_hat-_j)); here the sum is divided by the number of samples, so that the learning rate does
    not depend on the batch size.

    Args:
        scores: [B, N+1] dot products of a body with its own title (index 0) and with N others.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Domain-specific Post-training", the equations of p_i and L_match.
    """
    return mean_over_batch(cross_entropy(scores), weights, count)
