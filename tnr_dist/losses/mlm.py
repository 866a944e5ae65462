"""Masked language modelling, the task of further pre-training."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tnr_dist.losses.common import full_precision, mean_over_batch


def mlm_loss(logits: Tensor, labels: Tensor, weights: Tensor, count: float) -> Tensor:
    """Masked language modelling loss over the whole vocabulary, the mean over the masked tokens.

    L_mlm = -1/|M| sum_{t in M} log softmax(z_t)_{x_t}, M the masked tokens of the global batch.

    Args:
        logits: [P, V] scores of every word of the vocabulary at this rank's masked tokens.
        labels: [P] int64, the tokens that stood there.
        weights: [P] weight of each masked token, 0 for one of a slot without a sample.
        count: masked tokens of the global batch; 0 is taken as 1.

    Returns:
        A scalar: this rank's share of the global mean.

    Source: Devlin et al. 2019 (BERT), section 3.1, "Task #1: Masked LM".
    """
    per_token = F.cross_entropy(full_precision(logits), labels, reduction="none")
    return mean_over_batch(per_token, weights, max(count, 1.0))
