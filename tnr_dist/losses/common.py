"""What the losses share: float32 arithmetic, cross-entropies over some of the candidates, the sum over a batch's samples,
the click loss, and the teachers' weights.

A rank holds B of the `count` samples of a global batch. Each loss returns the sum over its own samples divided by
`count`, so that adding the values (and the gradients) of all ranks gives the mean over the global batch, however it was
shared out.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from tnr_dist.util.errors import InputError


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


def teacher_cross_entropy(teacher_logits: Tensor, candidate_mask: Tensor | None = None) -> Tensor:
    """Cross-entropy CE(y_hat_c^(ti), y_c) of each teacher on each sample, the click at index 0.

    Args:
        teacher_logits: [B, M, C] scores of the candidates by each teacher.
        candidate_mask: [B, C] bool, True for a candidate that exists; None if all do.

    Returns:
        [B, M], float32 (float64 if given).

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", inside the equation of w_i.
    """
    return cross_entropy(teacher_logits, None if candidate_mask is None else candidate_mask.unsqueeze(1))


def teacher_weights(ce: Tensor, omega: Tensor | float) -> Tensor:
    """Weight of each teacher on each sample.

    w_i = exp(-CE_i * omega) / sum_j exp(-CE_j * omega)

    Args:
        ce: [B, M] cross-entropy of each teacher (`teacher_cross_entropy`).
        omega: factor, a number or a tensor of shape (1,); positive, it enlarges the difference between teachers.

    Returns:
        [B, M], rows adding to 1, float32 (float64 if given).

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equation of w_i.
    """
    return torch.softmax(-full_precision(ce) * omega, dim=-1)


OmegaForm = Literal["softplus", "free"]


class Omega(nn.Module):
    """The learnable parameter omega.

    `softplus`: omega = log(1 + exp(raw)), which stays positive, as the paper says. `free`: omega = raw, as in the authors'
    first release (commit 27a6852); an optimiser step can make it negative, and the worst teacher then counts most. The
    raw parameter has shape (1,), for DeepSpeed takes no 0-dimensional one.

    Args:
        initial: value at the start; the authors' later release has no omega, which is 1 and `fixed`.
        fixed: do not train it.
        form: see above.

    Raises:
        InputError: if `initial` is not a positive number.
    """

    def __init__(self, initial: float = 1.0, fixed: bool = False, form: OmegaForm = "softplus") -> None:
        super().__init__()
        if not 0.0 < initial < math.inf:
            raise InputError(f"omega starts at {initial}: it must be a positive number (the paper's is 1)")
        self.form = form
        # The inverse of softplus, log(exp(x) - 1), in a form that does not overflow for a large x.
        raw = initial if form == "free" else initial + math.log(-math.expm1(-initial))
        self.raw = nn.Parameter(torch.tensor([raw], dtype=torch.float32), requires_grad=not fixed)

    def forward(self) -> Tensor:
        """The value of omega, shape (1,), float32 (float64 after `.double()`)."""
        raw = full_precision(self.raw)
        return raw if self.form == "free" else nn.functional.softplus(raw)
