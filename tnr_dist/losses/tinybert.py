"""TinyBERT's Transformer distillation (Jiao et al. 2020, Findings of EMNLP, section 3).

L_layer(S_m, T_g(m)) = L_embd for m = 0, L_hidn + L_attn for 0 < m <= M, L_pred for m = M + 1; all weights lambda are 1.

The losses between layers are given per text, so that a text that stands in many slots of a batch is computed once.

`last_layers` and `joint_loss` make the form in which Tiny-NewsRec's authors first published it: no L_embd, one training.
"""

from __future__ import annotations

from torch import Tensor

from tnr_dist.losses.common import full_precision, mean_over_batch, soft_cross_entropy


def uniform_mapping(student: int, teacher: int) -> list[int]:
    """The teacher's layer g(m) = m * N / M (rounded down) that each of the student's layers m = 1 ... M learns from.

    Args:
        student: M, the student's layers.
        teacher: N >= M, the teacher's layers.

    Returns:
        g(1), ..., g(M) = N, counted from 1.

    Source: Jiao et al. 2020, section 3.1 and "Uniform" in table 6.
    """
    if not 0 < student <= teacher:
        raise ValueError(f"{student} layers of a student cannot learn from {teacher} of its teacher")
    return [layer * teacher // student for layer in range(1, student + 1)]


def last_layers(student: int, teacher: int) -> list[int]:
    """The teacher's layer g(m) = N - M + m: the student's M layers learn from the teacher's last M, in order.

    Args:
        student: M, the student's layers.
        teacher: N >= M, the teacher's layers.

    Returns:
        g(1), ..., g(M) = N, counted from 1.

    Source: Tiny-NewsRec's authors' first release: the last k layers of both are matched one to one, k = 2.
    """
    if not 0 < student <= teacher:
        raise ValueError(f"{student} layers of a student cannot learn from {teacher} of its teacher")
    return [teacher - student + layer for layer in range(1, student + 1)]


def mean_by_text(values: Tensor, texts: Tensor, sizes: Tensor) -> Tensor:
    """Mean of the values of each text.

    Args:
        values: [N].
        texts: [N] int64, the text that a value belongs to.
        sizes: [U] values of each text, at least 1.

    Returns:
        [U].
    """
    return values.new_zeros(len(sizes)).index_add(0, texts, values) / sizes


def state_loss(
    student: Tensor, teacher: Tensor, texts: Tensor, lengths: Tensor, projection: Tensor | None = None
) -> Tensor:
    """L_embd = MSE(E^S W_e, E^T) of the embedding output and L_hidn = MSE(H^S W_h, H^T) of a layer's states.

    The mean is over a text's tokens and the teacher's width.

    Args:
        student: [T, d] states of the student, text after text.
        teacher: [T, d'] states of the teacher.
        texts: [T] int64, the text of each token.
        lengths: [U] tokens of each text.
        projection: [d, d'] W_e or W_h; None where the widths are equal: the identity.

    Returns:
        [U] loss of each text, float32 (float64 if given).

    Source: Jiao et al. 2020, equations 8 (hidden states) and 9 (embeddings).
    """
    if projection is not None:
        student = student @ projection
    difference = full_precision(student) - full_precision(teacher)
    return mean_by_text(difference.square().mean(dim=1), texts, lengths)


def attention_loss(student: Tensor, teacher: Tensor, texts: Tensor, pairs: Tensor) -> Tensor:
    """L_attn = 1/h sum_i MSE(A_i^S, A_i^T), A_i the attention scores of head i before the softmax.

    Args:
        student: [P, h] scores of every (query, key) pair within its text.
        teacher: [P, h], the same pairs in the same order.
        texts: [P] int64, the text of each pair.
        pairs: [U] pairs of each text, its length squared.

    Returns:
        [U] loss of each text, float32 (float64 if given).

    Raises:
        ValueError: student and teacher have not the same number of heads.

    Source: Jiao et al. 2020, equation 7.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"attention scores {list(student.shape)} of the student, {list(teacher.shape)} of the teacher")
    difference = full_precision(student) - full_precision(teacher)
    return mean_by_text(difference.square().mean(dim=1), texts, pairs)


def prediction_loss(
    teacher_scores: Tensor,
    student_scores: Tensor,
    temperature: float,
    weights: Tensor,
    count: float,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    """L_pred = CE(z^T / t, z^S / t), CE of the softmax of both; the scores of a sample's candidates are the logits z.

    Args:
        teacher_scores: [B, C].
        student_scores: [B, C].
        temperature: t > 0; 1 in the paper.
        weights: [B] weight of each sample, 0 for a slot without one.
        count: samples in the global batch.
        candidate_mask: [B, C] bool, True for a candidate that exists; None if all do.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Jiao et al. 2020, equation 10.
    """
    teacher_scores, student_scores = full_precision(teacher_scores), full_precision(student_scores)
    per_sample = soft_cross_entropy(teacher_scores / temperature, student_scores / temperature, candidate_mask)
    return mean_over_batch(per_sample, weights, count)


def joint_loss(
    prediction: Tensor, hidden: Tensor, attention: Tensor, target: Tensor, target_weight: float = 0.1
) -> Tensor:
    """L = L_pred + sum_m (L_hidn + L_attn) + lambda * CE(y^S, y), all parts in one training.

    Args:
        prediction: L_pred (`prediction_loss`), as are the others a scalar: this rank's share of the global mean.
        hidden: L_hidn (`state_loss`), summed over the layers that learn.
        attention: L_attn (`attention_loss`), summed over the layers that learn.
        target: CE(y^S, y) of the student's clicks (`losses.common.click_loss`).
        target_weight: lambda.

    Source: Tiny-NewsRec's authors' first release (its TinyBERT).
    """
    return prediction + hidden + attention + target_weight * target
