"""How much each teacher counts on each sample: the better it predicts the click, the more."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from tnr_dist.losses.reduction import cross_entropy, full_precision
from tnr_dist.util.errors import InputError


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
