"""Second-stage distillation: the student learns from M finetuned teachers, each weighted on each sample (Fig. 2b).

L^(2) = L_distill^(2) + L_emb^(2) + beta2 * CE(y_hat_c^(s), y_c),  L_emb^(2) = sum_i w_i * (L_news_i^(2) + L_user_i^(2))

`stage2_loss` is what trains. On a GPU two of its parts have a fused form (`tnr_dist.kernels`), which must equal the plain
one here. The weights w_i are not detached anywhere: the paper calls omega learnable, and it can learn only through them,
from the distillation loss and from the embedding loss alike. The teachers are frozen, so their logits and vectors come
without a graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tnr_dist.kernels.dispatch import Choice, product_dtype, use_triton
from tnr_dist.kernels.distillation import fused_distillation
from tnr_dist.losses.common import (
    click_loss,
    full_precision,
    mean_over_batch,
    soft_cross_entropy,
    teacher_cross_entropy,
)
from tnr_dist.losses.common import teacher_weights as weigh_teachers


class Distillation(NamedTuple):
    """`distill` and `target`: scalars, this rank's share of the global means; `teacher_weights`: [B, M] float32."""

    distill: Tensor
    target: Tensor
    teacher_weights: Tensor


class Imitation(NamedTuple):
    """Vectors of the student and the teachers' vectors that they imitate, for U news or users.

    `teachers`: [U, M, D], constants, bfloat16 or float32. `weight` [M, D, D'] and `bias` [M, D']: the projections, applied
    as h W + b (the transpose of the paper's W, and of `nn.Linear`'s). `student`: [U, D'].
    """

    teachers: Tensor
    weight: Tensor
    bias: Tensor
    student: Tensor


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


def distillation(
    teacher_logits: Tensor,
    omega: Tensor | float,
    student_scores: Tensor,
    weights: Tensor,
    count: float,
    candidate_mask: Tensor | None = None,
    temperature: float = 1.0,
    kernels: Choice | None = None,
) -> Distillation:
    """Distillation loss, target loss and teachers' weights of the second stage, from one reading of the logits.

    w_i       = softmax_i(-omega * CE(y_hat^(ti), y))
    L_distill = T2^2 * CE(sum_i w_i y_hat^(ti) / T2, y_hat^(s) / T2)
    L_target  = CE(y_hat^(s), y)

    Args:
        teacher_logits: [B, M, C] scores of the candidates by each teacher, the click at index 0; any strides. They are
            constants: no gradient flows to them.
        omega: factor of the cross-entropies, a number or a tensor of shape (1,); its gradient comes from the distillation
            loss and, through `teacher_weights`, from whatever is computed with them.
        student_scores: [B, C].
        weights: [B] weight of each sample, 0 for a slot without one; a constant.
        count: samples in the global batch.
        candidate_mask: [B, C] bool, True for a candidate that exists; None if all do.
        temperature: T2 > 0.
        kernels: the form that runs; None: as `dispatch.use_kernels` says.

    Returns:
        Both losses and the weights.

    Raises:
        InputError: if that is 'triton' and Triton cannot run on these tensors.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equations of w_i, L_distill^(2) and L^(2).
    """
    if use_triton(kernels, student_scores, "distillation"):
        losses, teacher = fused_distillation(
            teacher_logits, omega, student_scores, weights, count, candidate_mask, temperature
        )
        return Distillation(losses[0], losses[1], teacher)
    teacher_logits = teacher_logits.detach()
    teacher = weigh_teachers(teacher_cross_entropy(teacher_logits, candidate_mask), omega)
    distill = distillation_loss(teacher_logits, teacher, student_scores, temperature, weights, count, candidate_mask)
    return Distillation(distill, click_loss(student_scores, weights, count, candidate_mask), teacher)


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
    news: Imitation, teacher_weights: Tensor, slots: Tensor, slot_mask: Tensor, weights: Tensor, count: float
) -> Tensor:
    """Embedding loss of the news vectors, computed once per distinct news.

    sum_i w_i * L_news_i^(2) over the batch = sum_i sum_n c_i(n) * |W_i h_i(n) + b_i - h_s(n)|^2,
    L_news_i^(2) = MSE(W_news^(ti) h_news^(ti) + b_news^(ti), h_news^(s)), the mean over the sample's clicked and candidate
    news (empty slots left out) and over D'.

    The paper's form has a term for each slot of each sample (`bench.per_slot`); this one makes none of its B * S * M
    vectors. Gradients flow to the projections, to the student's vectors and through c_i(n) to the teachers' weights.

    Args:
        news: the U distinct news of the batch.
        teacher_weights: [B, M] weight of each teacher on each sample.
        slots: [B, S] int64, row of each slot's news among the U distinct ones; any value where `slot_mask` is False.
        slot_mask: [B, S] bool, True for a slot (history or candidate) that holds a news.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", L_news_i^(2) and L_emb^(2), regrouped by news.
    """
    share = news_coefficients(teacher_weights, slots, slot_mask, weights, count, *news.student.shape)
    return projection_mse(*news, share)


def user_embedding_loss(users: Imitation, teacher_weights: Tensor, weights: Tensor, count: float) -> Tensor:
    """Embedding loss of the user vectors.

    sum_i w_i * L_user_i^(2),  L_user_i^(2) = MSE(W_user^(ti) u^(ti) + b_user^(ti), u^(s)), the mean over D'.

    Args:
        users: the B users of the batch.
        teacher_weights: [B, M] weight of each teacher on each sample.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equations of L_user_i^(2) and L_emb^(2).
    """
    share = teacher_weights * (weights / (users.student.shape[1] * count)).unsqueeze(1)
    return projection_mse(*users, share)


def projection_mse(teachers: Tensor, weight: Tensor, bias: Tensor, student: Tensor, coefficients: Tensor) -> Tensor:
    """sum_i sum_n c_i(n) * |h_i(n) W_i + b_i - s(n)|^2.

    One batched product gives all differences: b_i - s(n) is what it adds to. The norm reads them once, in float32.

    Args:
        teachers: [U, M, D] the teachers' vectors of news or users, bfloat16 or float32; a table [M, U, D] as
            `table.transpose(0, 1)`, a view. They are constants: no gradient flows to them.
        weight: [M, D, D'].
        bias: [M, D'].
        student: [U, D'].
        coefficients: [U, M].

    Returns:
        A scalar, float32 (float64 if given). Gradients flow to weight, bias, student and coefficients. Products are in
        `dispatch.product_dtype` of teachers and weight, sums in float32.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", L_news_i^(2), L_user_i^(2) and L_emb^(2).
    """
    dtype = product_dtype(teachers, weight)
    wide = torch.promote_types(dtype, torch.float32)
    offsets = (bias.to(wide).unsqueeze(1) - student.to(wide)).to(dtype)
    differences = torch.baddbmm(offsets, teachers.detach().transpose(0, 1).to(dtype), weight.to(dtype))
    squares = torch.linalg.vector_norm(differences, dim=-1, dtype=wide).square()
    error: Tensor = (coefficients * squares.transpose(0, 1)).sum()
    return error


def stage2_loss(
    *,
    teacher_logits: Tensor,
    omega: Tensor | float,
    student_scores: Tensor,
    weights: Tensor,
    count: float,
    candidate_mask: Tensor | None = None,
    news: Imitation | None = None,
    slots: Tensor | None = None,
    slot_mask: Tensor | None = None,
    users: Imitation | None = None,
    beta2: float = 0.1,
    temperature: float = 1.0,
    use_distill: bool = True,
    use_target: bool = True,
) -> Stage2Loss:
    """Overall loss of the second stage; the switches make the ablations of Fig. 10.

    L^(2) = L_distill^(2) + sum_i w_i * (L_news_i^(2) + L_user_i^(2)) + beta2 * CE(y_hat_c^(s), y_c)

    Args:
        teacher_logits: [B, M, C], the click at index 0.
        omega: factor of the teachers' weights, a number or a tensor of shape (1,) (`losses.common.Omega`).
        student_scores: [B, C].
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        candidate_mask: [B, C] bool, True for a candidate that exists; None if all do.
        news: the U distinct news of the batch; None leaves the embedding loss of the news vectors out.
        slots: [B, S] int64, row of each slot's news (history and candidates) among the U distinct ones; needed with `news`.
        slot_mask: [B, S] bool, True for a slot that holds a news; needed with `news`.
        users: the B users of the batch; None leaves the embedding loss of the user vectors out.
        beta2: weight of the target loss.
        temperature: T2 > 0.
        use_distill: include L_distill^(2).
        use_target: include the target loss.

    Returns:
        The total, its parts and the teachers' weights; each is this rank's share of the global mean.

    Raises:
        TypeError: for `news` without `slots` and `slot_mask`.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equation of L^(2).
    """
    parts = distillation(teacher_logits, omega, student_scores, weights, count, candidate_mask, temperature)
    teacher = parts.teacher_weights
    # The sum of no terms of the student's scores: a part that is off is a 0 of the right device, dtype and graph.
    nothing = full_precision(student_scores)[:0].sum()
    distill = parts.distill if use_distill else nothing
    target = parts.target if use_target else nothing
    emb_news = emb_user = nothing
    if news is not None:
        if slots is None or slot_mask is None:
            raise TypeError("stage2_loss: news needs slots and slot_mask")
        emb_news = news_embedding_loss(news, teacher, slots, slot_mask, weights, count)
    if users is not None:
        emb_user = user_embedding_loss(users, teacher, weights, count)
    with torch.no_grad():
        mean_weights = (teacher * weights.unsqueeze(1)).sum(0) / count
        entropy = (torch.special.entr(teacher).sum(1) * weights).sum() / count
    return Stage2Loss(
        distill + emb_news + emb_user + beta2 * target, distill, emb_news, emb_user, target, mean_weights, entropy
    )
