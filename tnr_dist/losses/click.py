"""The click prediction loss of finetuning, which is also the target loss of the second stage."""

from __future__ import annotations

from torch import Tensor

from tnr_dist.losses.reduction import cross_entropy, mean_over_batch


def click_loss(scores: Tensor, weights: Tensor, count: float, candidate_mask: Tensor | None = None) -> Tensor:
    """Click prediction loss: CE(y_hat_c, y_c) = -log(exp(y_hat_0) / sum_c exp(y_hat_c)), the click at index 0.

    Args:
        scores: [B, C] scores of the clicked news (index 0) and of the C - 1 that were shown and not clicked.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        candidate_mask: [B, C] bool, True for a candidate that exists; None if all do.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the last term of L^(2); "News Recommendation Model".
    """
    return mean_over_batch(cross_entropy(scores, candidate_mask), weights, count)
