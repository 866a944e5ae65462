"""Second-stage distillation: the student learns from M finetuned teachers, each weighted on each sample (Fig. 2b).

L^(2) = L_distill^(2) + L_emb^(2) + beta2 * CE(y_hat_c^(s), y_c),  L_emb^(2) = sum_i w_i * (L_news_i^(2) + L_user_i^(2))

The weights w_i are not detached anywhere: the paper calls omega learnable, and it can learn only through them, from the
distillation loss and from the embedding loss alike. Pass detached weights for another choice. The teachers are frozen,
so their logits and vectors come without a graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tnr_dist.losses.click import click_loss
from tnr_dist.losses.reduction import full_precision, mean_over_batch, soft_cross_entropy
from tnr_dist.losses.weighting import teacher_cross_entropy
from tnr_dist.losses.weighting import teacher_weights as weigh_teachers


class Stage2Loss(NamedTuple):
    """The second-stage loss, its parts and what the teachers' weights did.

    `total = distill + emb_news + emb_user + beta2 * target`, scalars; a part that is switched off is 0.
    `teacher_weights` [M] (the mean weight of each teacher) and `teacher_entropy` (the mean entropy of the weights in
    nats: log M when all teachers count the same, 0 when one counts alone) are for the log and carry no gradient.
    """

    total: Tensor
    distill: Tensor
    emb_news: Tensor
    emb_user: Tensor
    target: Tensor
    teacher_weights: Tensor
    teacher_entropy: Tensor


def distillation_loss(
    teacher_logits: Tensor,
    teacher_weights: Tensor,
    student_scores: Tensor,
    temperature: float,
    weights: Tensor,
    count: float,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    """Distillation loss of the second stage; the teachers' scores are blended before the softmax.

    L_distill^(2) = T2^2 * CE(sum_i w_i * y_hat_c^(ti) / T2, y_hat_c^(s) / T2), CE of the softmax of both.

    Args:
        teacher_logits: [B, M, C] scores of the candidates by each teacher.
        teacher_weights: [B, M] weight of each teacher on each sample.
        student_scores: [B, C].
        temperature: T2 > 0.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        candidate_mask: [B, C] bool, True for a candidate that exists; None if all do.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equation of L_distill^(2).
    """
    teacher_logits, student_scores = full_precision(teacher_logits), full_precision(student_scores)
    if candidate_mask is not None:
        # What stands in an empty slot may be infinite, and infinity times the gradient of a weight is NaN.
        teacher_logits = teacher_logits.masked_fill(~candidate_mask.unsqueeze(1), 0.0)
    blend = (teacher_weights.unsqueeze(-1) * teacher_logits).sum(dim=1)
    per_sample = soft_cross_entropy(blend / temperature, student_scores / temperature, candidate_mask)
    return temperature**2 * mean_over_batch(per_sample, weights, count)


def project(weight: Tensor, bias: Tensor, vectors: Tensor) -> Tensor:
    """Each teacher's vectors in the student's space: W^(ti) h^(ti) + b^(ti).

    Args:
        weight: [M, D, D'], so that the product is h W (the transpose of the paper's W, and of `nn.Linear`'s).
        bias: [M, D'].
        vectors: [U, M, D] of news, or [B, M, D] of users; pass a table [M, U, D] as `table.transpose(0, 1)`, a view.

    Returns:
        [U, M, D'], in the dtype of the arguments (or of autocast).

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", inside the equations of L_news_i^(2) and L_user_i^(2).
    """
    return torch.einsum("umd,mde->ume", vectors, weight) + bias


def user_embedding_loss(
    projected: Tensor, student_users: Tensor, teacher_weights: Tensor, weights: Tensor, count: float
) -> Tensor:
    """Embedding loss of the user vectors.

    sum_i w_i * L_user_i^(2),  L_user_i^(2) = MSE(W_user^(ti) u^(ti) + b_user^(ti), u^(s)), the mean over D.

    Args:
        projected: [B, M, D] the teachers' user vectors, projected (`project`).
        student_users: [B, D].
        teacher_weights: [B, M] weight of each teacher on each sample.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equations of L_user_i^(2) and L_emb^(2).
    """
    difference = full_precision(projected) - full_precision(student_users).unsqueeze(1)
    return mean_over_batch((teacher_weights * difference.square().mean(dim=-1)).sum(dim=1), weights, count)


def news_embedding_loss_per_slot(
    projected: Tensor,
    student_news: Tensor,
    teacher_weights: Tensor,
    slot_mask: Tensor,
    weights: Tensor,
    count: float,
) -> Tensor:
    """Embedding loss of the news vectors, in the paper's form: a term for each slot of each sample.

    sum_i w_i * L_news_i^(2),  L_news_i^(2) = MSE(W_news^(ti) h_news^(ti) + b_news^(ti), h_news^(s)), the mean over the
    sample's clicked and candidate news (empty slots left out) and over D.

    Args:
        projected: [B, S, M, D] the teachers' vectors of the S slots (history and candidates), projected.
        student_news: [B, S, D].
        teacher_weights: [B, M] weight of each teacher on each sample.
        slot_mask: [B, S] bool, True for a slot that holds a news.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean. Equal to `news_embedding_loss`, which is the one to train with.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equations of L_news_i^(2) and L_emb^(2).
    """
    squares = (full_precision(projected) - full_precision(student_news).unsqueeze(2)).square().mean(dim=-1)
    valid = slot_mask.sum(dim=1).clamp(min=1)
    per_teacher = squares.masked_fill(~slot_mask.unsqueeze(-1), 0.0).sum(dim=1) / valid.unsqueeze(1)
    return mean_over_batch((teacher_weights * per_teacher).sum(dim=1), weights, count)


def news_coefficients(
    teacher_weights: Tensor,
    slots: Tensor,
    slot_mask: Tensor,
    weights: Tensor,
    count: float,
    distinct: int,
    dimension: int,
) -> Tensor:
    """How much the squared error of teacher i on a distinct news n counts in the batch.

    c_i(n) = sum over the slots (b, s) that hold n of  w_{b,i} * weights_b / (valid_b * D * count),
    with valid_b the number of slots of sample b that hold a news.

    Args:
        teacher_weights: [B, M] weight of each teacher on each sample.
        slots: [B, S] int64, row of each slot's news among the U distinct ones; any value where `slot_mask` is False.
        slot_mask: [B, S] bool, True for a slot that holds a news.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        distinct: U.
        dimension: D, size of the student's vectors.

    Returns:
        [U, M], dtype of `teacher_weights`. On CUDA the order of the additions, and so the last bit, is not fixed.

    Source: this project; the paper's per-sample form with the sums over samples and over news exchanged.
    """
    valid = slot_mask.sum(dim=1).clamp(min=1).to(teacher_weights.dtype)
    share = weights.to(teacher_weights.dtype) / (valid * (dimension * count))
    per_slot = (teacher_weights * share.unsqueeze(1)).unsqueeze(1) * slot_mask.unsqueeze(-1)  # [B, S, M]
    rows = slots.masked_fill(~slot_mask, 0)
    return per_slot.new_zeros(distinct, per_slot.shape[-1]).index_add(0, rows.flatten(), per_slot.flatten(0, 1))


def news_embedding_loss(
    projected: Tensor,
    student_news: Tensor,
    teacher_weights: Tensor,
    slots: Tensor,
    slot_mask: Tensor,
    weights: Tensor,
    count: float,
) -> Tensor:
    """Embedding loss of the news vectors, computed once per distinct news.

    sum_i w_i * L_news_i^(2) over the batch = sum_i sum_n c_i(n) * |W_i h_i(n) + b_i - h_s(n)|^2

    Algebraically equal to `news_embedding_loss_per_slot`, without its B * S * M vectors. Gradients flow to the
    projections, to the student's vectors and through c_i(n) to the teachers' weights.

    Args:
        projected: [U, M, D] the teachers' vectors of the distinct news, projected (`project`).
        student_news: [U, D].
        teacher_weights: [B, M] weight of each teacher on each sample.
        slots: [B, S] int64, row of each slot's news among the U distinct ones; any value where `slot_mask` is False.
        slot_mask: [B, S] bool, True for a slot (history or candidate) that holds a news.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", L_news_i^(2) and L_emb^(2), regrouped by news.
    """
    distinct, dimension = student_news.shape
    coefficients = news_coefficients(teacher_weights, slots, slot_mask, weights, count, distinct, dimension)
    squares = (full_precision(projected) - full_precision(student_news).unsqueeze(1)).square().sum(dim=-1)
    return (coefficients * squares).sum()


def stage2_loss(
    *,
    teacher_logits: Tensor,
    omega: Tensor | float,
    student_scores: Tensor,
    weights: Tensor,
    count: float,
    candidate_mask: Tensor | None = None,
    projected_news: Tensor | None = None,
    student_news: Tensor | None = None,
    slots: Tensor | None = None,
    slot_mask: Tensor | None = None,
    projected_users: Tensor | None = None,
    student_users: Tensor | None = None,
    beta2: float = 0.1,
    temperature: float = 1.0,
    use_distill: bool = True,
    use_news: bool = True,
    use_user: bool = True,
    use_target: bool = True,
) -> Stage2Loss:
    """Overall loss of the second stage; the switches make the ablations of Fig. 10.

    L^(2) = L_distill^(2) + sum_i w_i * (L_news_i^(2) + L_user_i^(2)) + beta2 * CE(y_hat_c^(s), y_c)

    Args:
        teacher_logits: [B, M, C], the click at index 0.
        omega: factor of the teachers' weights, a number or a tensor of shape (1,) (`weighting.Omega`).
        student_scores: [B, C].
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        candidate_mask: [B, C] bool, True for a candidate that exists; None if all do.
        projected_news: [U, M, D] the teachers' vectors of the distinct news, projected. The four arguments from here to
            `slot_mask` are needed with `use_news`.
        student_news: [U, D].
        slots: [B, S] int64, row of each slot's news (history and candidates) among the U distinct ones.
        slot_mask: [B, S] bool, True for a slot that holds a news.
        projected_users: [B, M, D] the teachers' user vectors, projected; needed with `use_user`, as is the next.
        student_users: [B, D].
        beta2: weight of the target loss.
        temperature: T2 > 0.
        use_distill: include L_distill^(2).
        use_news: include the embedding loss of the news vectors.
        use_user: include the embedding loss of the user vectors.
        use_target: include the target loss.

    Returns:
        The total, its parts and the teachers' weights; each is this rank's share of the global mean.

    Raises:
        TypeError: if a part is on and an argument it needs is missing.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equation of L^(2).
    """
    teacher = weigh_teachers(teacher_cross_entropy(teacher_logits, candidate_mask), omega)
    # The sum of no terms of the student's scores: a part that is off is a 0 of the right device, dtype and graph.
    distill = emb_news = emb_user = target = full_precision(student_scores)[:0].sum()
    if use_distill:
        distill = distillation_loss(
            teacher_logits, teacher, student_scores, temperature, weights, count, candidate_mask
        )
    if use_news:
        if projected_news is None or student_news is None or slots is None or slot_mask is None:
            raise TypeError("stage2_loss: use_news needs projected_news, student_news, slots and slot_mask")
        emb_news = news_embedding_loss(projected_news, student_news, teacher, slots, slot_mask, weights, count)
    if use_user:
        if projected_users is None or student_users is None:
            raise TypeError("stage2_loss: use_user needs projected_users and student_users")
        emb_user = user_embedding_loss(projected_users, student_users, teacher, weights, count)
    if use_target:
        target = click_loss(student_scores, weights, count, candidate_mask)
    with torch.no_grad():
        mean_weights = (teacher * weights.to(teacher.dtype).unsqueeze(1)).sum(dim=0) / count
        entropy = mean_over_batch(torch.special.entr(teacher).sum(dim=1), weights, count)
    return Stage2Loss(
        distill + emb_news + emb_user + beta2 * target, distill, emb_news, emb_user, target, mean_weights, entropy
    )
