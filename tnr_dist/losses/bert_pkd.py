"""BERT-PKD's patient knowledge distillation (Sun et al. 2019, EMNLP, section 3).

    L_PKD = (1 - alpha) L_CE + alpha L_DS + beta L_PT

L_CE is the click loss (`losses.common.click_loss`), L_DS the teacher's soft labels (`losses.tinybert.prediction_loss` is the
same equation). The loss between layers is given per text, so that a text that stands in many slots is computed once.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tnr_dist.losses.common import full_precision


def patient_layers(student: int, teacher: int, strategy: Literal["skip", "last"]) -> list[int]:
    """I_pt: the teacher's layer that each of the student's layers but its last one learns from.

    The last layers are left out: their states make the scores, which L_DS compares. `skip` takes every (N / n)-th of the
    teacher's layers (rounded down where N / n is no whole number), `last` the ones right below its last.

    Args:
        student: n, the student's layers.
        teacher: N >= n, the teacher's layers.

    Returns:
        n - 1 layers, counted from 1, ascending.

    Source: Sun et al. 2019, section 3.2: for n = 6 and N = 12 PKD-Skip {2, 4, 6, 8, 10}, PKD-Last {7, 8, 9, 10, 11}.
    """
    if not 0 < student <= teacher:
        raise ValueError(f"{student} layers of a student cannot learn from {teacher} of its teacher")
    if strategy == "skip":
        return [layer * teacher // student for layer in range(1, student)]
    return [teacher - student + layer for layer in range(1, student)]


def patient_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One layer's part of L_PT: || h^s / ||h^s||_2 - h^t / ||h^t||_2 ||_2^2 of the [CLS] states h.

    Args:
        student: [U, d] states of each text's first token.
        teacher: [U, d].

    Returns:
        [U] loss of each text, float32 (float64 if given), between 0 and 4.

    Source: Sun et al. 2019, equation 7.
    """
    own, other = (F.normalize(full_precision(states), dim=1) for states in (student, teacher))
    return (own - other).square().sum(dim=1)


def pkd_loss(target: Tensor, distill: Tensor, patient: Tensor, alpha: float, beta: float, temperature: float) -> Tensor:
    """L_PKD = (1 - alpha) L_CE + alpha T^2 L_DS + beta L_PT.

    The factor T^2 keeps the soft labels' gradient from shrinking with 1 / T^2 (Hinton et al. 2015); the paper's code has
    it, its equation does not.

    Args:
        target: L_CE, as are the others a scalar: this rank's share of the global mean.
        distill: L_DS, of scores divided by T.
        patient: L_PT, summed over the layers that learn.
        alpha: share of the soft labels, 0 to 1.
        beta: weight of L_PT.
        temperature: T > 0.

    Source: Sun et al. 2019, equation 8 (with 5: L_KD = (1 - alpha) L_CE + alpha L_DS).
    """
    return (1 - alpha) * target + alpha * temperature**2 * distill + beta * patient
