"""First-stage distillation: the student imitates the post-trained teacher on the matching task (Fig. 2a).

L^(1) = L_distill^(1) + L_emb^(1) + beta1 * CE(y_hat^(s), y)

Gradients flow to whatever requires them: a frozen teacher comes as tensors without a graph, one that learns together
with its student (NewsBERT) with one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tnr_dist.losses import stage2
from tnr_dist.losses.common import (
    full_precision,
    mean_over_batch,
    soft_cross_entropy,
    teacher_cross_entropy,
    teacher_weights,
)
from tnr_dist.losses.matching import matching_loss
from tnr_dist.losses.stage2 import Imitation


class Stage1Loss(NamedTuple):
    """The first-stage loss and its parts, all scalars; `total = distill + embedding + beta1 * target`."""

    total: Tensor
    distill: Tensor
    embedding: Tensor
    target: Tensor


def distillation_loss(
    teacher_scores: Tensor, student_scores: Tensor, temperature: float, weights: Tensor, count: float
) -> Tensor:
    """Distillation loss of the first stage.

    L_distill^(1) = T1^2 * CE(y_hat^(t) / T1, y_hat^(s) / T1), CE of the softmax of both.

    Args:
        teacher_scores: [B, N+1].
        student_scores: [B, N+1].
        temperature: T1 > 0.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equation of L_distill^(1).
    """
    teacher_scores, student_scores = full_precision(teacher_scores), full_precision(student_scores)
    per_sample = soft_cross_entropy(teacher_scores / temperature, student_scores / temperature)
    return temperature**2 * mean_over_batch(per_sample, weights, count)


def embedding_loss(
    teacher_titles: Tensor,
    student_titles: Tensor,
    teacher_bodies: Tensor,
    student_bodies: Tensor,
    weights: Tensor,
    count: float,
) -> Tensor:
    """Embedding loss of the first stage.

    L_emb^(1) = MSE(h_t^(t), h_t^(s)) + MSE(h_b^(t), h_b^(s)), each MSE the mean over all elements of a sample.

    Args:
        teacher_titles: [B, N+1, D] title vectors.
        student_titles: [B, N+1, D].
        teacher_bodies: [B, D] body vectors.
        student_bodies: [B, D].
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equation of L_emb^(1).
    """
    titles = (full_precision(teacher_titles) - full_precision(student_titles)).square().mean(dim=(1, 2))
    bodies = (full_precision(teacher_bodies) - full_precision(student_bodies)).square().mean(dim=1)
    return mean_over_batch(titles + bodies, weights, count)


def stage1_loss(
    *,
    teacher_scores: Tensor,
    student_scores: Tensor,
    teacher_titles: Tensor,
    student_titles: Tensor,
    teacher_bodies: Tensor,
    student_bodies: Tensor,
    weights: Tensor,
    count: float,
    beta1: float = 1.0,
    temperature: float = 1.0,
) -> Stage1Loss:
    """Overall loss of the first stage.

    L^(1) = L_distill^(1) + L_emb^(1) + beta1 * CE(y_hat^(s), y)

    Args:
        teacher_scores: [B, N+1], the body's own title at index 0.
        student_scores: [B, N+1].
        teacher_titles: [B, N+1, D].
        student_titles: [B, N+1, D].
        teacher_bodies: [B, D].
        student_bodies: [B, D].
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        beta1: weight of the target loss.
        temperature: T1 > 0.

    Returns:
        The total and its parts; each is this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equation of L^(1).
    """
    distill = distillation_loss(teacher_scores, student_scores, temperature, weights, count)
    embedding = embedding_loss(teacher_titles, student_titles, teacher_bodies, student_bodies, weights, count)
    target = matching_loss(student_scores, weights, count)
    return Stage1Loss(distill + embedding + beta1 * target, distill, embedding, target)


def multi_teacher_stage1_loss(
    *,
    teacher_scores: Tensor,
    student_scores: Tensor,
    teacher_titles: Tensor,
    student_titles: Tensor,
    teacher_bodies: Tensor,
    student_bodies: Tensor,
    weight: Tensor,
    bias: Tensor,
    weights: Tensor,
    count: float,
    beta1: float = 1.0,
    temperature: float = 1.0,
) -> Stage1Loss:
    """The first stage with projected vectors of M teachers, each weighted on each sample by how well it matches it.

    L^(1) = T1^2 * CE(sum_i w_i * y_hat^(ti) / T1, y_hat^(s) / T1)
            + sum_i w_i * (MSE(W_i h_t^(ti) + b_i, h_t^(s)) + MSE(W_i h_b^(ti) + b_i, h_b^(s)))
            + beta1 * CE(y_hat^(s), y),        w_i = softmax_i(-CE(y_hat^(ti), y))

    Args:
        teacher_scores: [B, M, N+1] of the teachers' own vectors, the body's own title at index 0.
        student_scores: [B, N+1].
        teacher_titles: [B, N+1, M, D].
        student_titles: [B, N+1, D'].
        teacher_bodies: [B, M, D].
        student_bodies: [B, D'].
        weight: [M, D, D'] the projections, applied as h W + b.
        bias: [M, D'].
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        beta1: weight of the target loss.
        temperature: T1 > 0.

    Returns:
        The total and its parts; each is this rank's share of the global mean.

    Source: the authors' later release (the paper has one teacher here): the paper's equations of the second stage on
    the matching task, with omega = 1 and one projection per teacher for titles and bodies. With M = 1, where w = 1,
    their first release (commit 27a6852): the paper's L^(1) with one projection.
    """
    teacher = teacher_weights(teacher_cross_entropy(teacher_scores), 1.0)
    distill = stage2.distillation_loss(teacher_scores, teacher, student_scores, temperature, weights, count)
    slots = torch.arange(student_scores.numel(), device=weights.device).view(student_scores.shape)
    of_titles = Imitation(teacher_titles.flatten(0, 1), weight, bias, student_titles.flatten(0, 1))
    titles = stage2.news_embedding_loss(of_titles, teacher, slots, torch.ones_like(slots).bool(), weights, count)
    of_bodies = Imitation(teacher_bodies, weight, bias, student_bodies)
    bodies = stage2.user_embedding_loss(of_bodies, teacher, weights, count)
    target = matching_loss(student_scores, weights, count)
    return Stage1Loss(distill + titles + bodies + beta1 * target, distill, titles + bodies, target)
