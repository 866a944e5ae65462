"""The second stage's embedding losses as the paper writes them: a projected vector for each slot of each sample.

`losses.stage2` computes the same sums without these vectors. Benchmarks measure it against this form, and tests hold it equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tnr_dist.losses.common import full_precision, mean_over_batch


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


def user_embedding_loss_of_projected(
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
        A scalar: this rank's share of the global mean. Equal to `losses.stage2.news_embedding_loss`.

    Source: Tiny-NewsRec, "Two-stage Knowledge Distillation", the equations of L_news_i^(2) and L_emb^(2).
    """
    squares = (full_precision(projected) - full_precision(student_news).unsqueeze(2)).square().mean(dim=-1)
    valid = slot_mask.sum(dim=1).clamp(min=1)
    per_teacher = squares.masked_fill(~slot_mask.unsqueeze(-1), 0.0).sum(dim=1) / valid.unsqueeze(1)
    return mean_over_batch((teacher_weights * per_teacher).sum(dim=1), weights, count)
