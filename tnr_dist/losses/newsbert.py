"""NewsBERT's joint learning and distillation (Wu et al. 2021, Findings of EMNLP, section 3).

    L^s = L_d + CE(y^s, y),  L_d = L_hidden^l + L_hidden^p + L_distill    (student, pooling and dense layer)
    L^t = CE(y^t, y)                                                     (teacher, pooling and dense layer)

and the momentum of the teacher's gradients in the student's (`damp_gradient`, `link_gradient`). CE(y, y) is `losses.common.click_loss`.
In L_d the teacher's states and soft labels are constants.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tnr_dist.losses.common import full_precision, mean_over_batch, soft_cross_entropy
from tnr_dist.losses.tinybert import state_loss

__all__ = [
    "blocks",
    "damp_gradient",
    "distillation_loss",
    "link_gradient",
    "mean_over_slots",
    "pooled_loss",
    "state_loss",
    "vector_loss",
]


def blocks(student: int, teacher: int) -> list[range]:
    """The teacher's layers that stand against each of the student's: N blocks of K = teacher / student layers.

    Where K is no whole number, block i is i * teacher / student up to (i + 1) * teacher / student, rounded down.

    Args:
        student: N layers of the student that learn.
        teacher: layers of the teacher that learn, at least N.

    Returns:
        Ranges that cover range(teacher).

    Source: Wu et al. 2021, section 3.2: "each layer in the student model corresponds to K layers in the teacher model".
    """
    if not 0 < student <= teacher:
        raise ValueError(f"{student} layers of a student cannot learn from {teacher} of its teacher")
    return [range(i * teacher // student, (i + 1) * teacher // student) for i in range(student)]


def pooled_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_hidden^p = MSE(h^t, h^s) of a text's pooled hidden representations.

    Args:
        student: [U, d] pooled states, before the dense layer.
        teacher: [U, d].

    Returns:
        [U] loss of each text, float32 (float64 if given).

    Source: Wu et al. 2021, section 3.2, the equation of L_hidden^p.
    """
    return (full_precision(student) - full_precision(teacher)).square().mean(dim=1)


def vector_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_news = MSE(h^t, h^s) of news vectors, and L_user = MSE(u^t, u^s) of user vectors.

    Args:
        student: [N, D] vectors of N news or N users.
        teacher: [N, D].

    Returns:
        [N] loss of each, float32 (float64 if given).

    Source: Tiny-NewsRec's authors' first release (its NewsBERT), where both stand in place of L_hidden^p.
    """
    return (full_precision(student) - full_precision(teacher)).square().mean(dim=1)


def distillation_loss(
    teacher_scores: Tensor,
    student_scores: Tensor,
    temperature: float,
    weights: Tensor,
    count: float,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    """L_distill = CE(y^t / t, y^s / t), CE of the softmax of both.

    Args:
        teacher_scores: [B, C], constants (detached).
        student_scores: [B, C].
        temperature: t > 0.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        candidate_mask: [B, C] bool, True for a candidate that exists; None if all do.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Wu et al. 2021, section 3.2, the equation of L_distill.
    """
    teacher_scores, student_scores = full_precision(teacher_scores), full_precision(student_scores)
    per_sample = soft_cross_entropy(teacher_scores / temperature, student_scores / temperature, candidate_mask)
    return mean_over_batch(per_sample, weights, count)


def mean_over_slots(per_text: Tensor, slots: Tensor, mask: Tensor, weights: Tensor, count: float) -> Tensor:
    """A loss between layers for click samples: the mean over a sample's news, then over the samples.

    So it depends neither on how samples are shared among ranks nor on which other samples stand in the batch.

    Args:
        per_text: [U] loss of each distinct news of the batch.
        slots: [B, L + C] int64, rows of `per_text`: history and candidates.
        mask: [B, L + C] bool, True for a news that exists; each sample has one at least.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean.
    """
    share = mask.to(per_text.dtype) / mask.sum(dim=1, keepdim=True)
    per_slot = F.embedding(slots, per_text.unsqueeze(1)).squeeze(-1)
    return mean_over_batch((per_slot * share).sum(dim=1), weights, count)


def damp_gradient(parameter: Tensor, beta: float) -> Tensor:
    """A student's parameter whose own gradient counts (1 - beta): the same value, to the last bit.

    g_i^s = beta * g_i^t + (1 - beta) * g_i^s,  g_i^t = 1/K sum_j g_{i,j}^t;  the other term comes from `link_gradient`.

    That a gradient is mixed while it flows, and not between the backward pass and the step, makes it the same under any
    engine: what is added is summed over micro-batches and ranks like every gradient.

    Source: Wu et al. 2021, section 3.3 "Momentum distillation".
    """
    own = parameter.detach()
    return own + (1 - beta) * (parameter - own)


def link_gradient(parameter: Tensor, student: Tensor, share: float) -> Tensor:
    """A teacher's parameter, the same to the last bit, whose gradient g also reaches the student's: as share * g.

    Args:
        parameter: g_{i,j}^t is its gradient, which it keeps whole.
        student: the parameter of the student's layer i in the same place, of the same shape.
        share: beta / K.

    Source: Wu et al. 2021, section 3.3 "Momentum distillation".
    """
    return parameter + share * (student - student.detach())
