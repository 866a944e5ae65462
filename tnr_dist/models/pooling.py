"""Additive attention pooling: many vectors to one, by learned importance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnr_dist.models.packed import Packed


class AttentionPooling(nn.Module):
    """sum_t softmax_t(q^T tanh(W x_t + b)) x_t over the valid t (the paper's "attention network", query size 200).

    One set of weights, two forms: packed sequences (tokens of news) and padded ones (histories of users).
    """

    def __init__(self, dim: int, query_dim: int = 200) -> None:
        super().__init__()
        self.project = nn.Linear(dim, query_dim)
        self.query = nn.Linear(query_dim, 1, bias=False)

    def logits(self, x: Tensor) -> Tensor:
        """[..., d] -> [...] float32: importance before the softmax."""
        return self.query(torch.tanh(self.project(x))).squeeze(-1).float()

    def forward_packed(self, hidden: Tensor, batch: Packed) -> Tensor:
        """Pool each sequence of a packed batch.

        Args:
            hidden: [T, d] states of `batch`'s tokens, in its order.
            batch: U sequences; one of length 0 gives zeros.

        Returns:
            [U, d] float32.
        """
        logits, count = self.logits(hidden), len(batch)
        with torch.no_grad():
            top = logits.new_full((count,), -torch.inf).scatter_reduce(0, batch.sequences, logits, "amax")
        weights = (logits - top[batch.sequences]).exp()
        total = weights.new_zeros(count).index_add(0, batch.sequences, weights)
        weights = weights / total[batch.sequences]
        # A weighted segment sum: one pass over `hidden`, no [T, d] product in between.
        with torch.autocast(hidden.device.type, enabled=False):
            rows = torch.arange(len(hidden), device=hidden.device)
            return F.embedding_bag(rows, hidden.float(), batch.starts, mode="sum", per_sample_weights=weights)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pool padded sequences.

        Args:
            x: [B, L, d]; what stands in the padding does not matter, as long as it is finite.
            mask: [B, L] bool, True = valid. A row with no valid slot gives zeros and has zero gradient.

        Returns:
            [B, d] in the dtype of x.
        """
        logits = self.logits(x)
        weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(-1)
        weights = weights.masked_fill(~mask, 0.0).to(x.dtype)
        return torch.bmm(weights.unsqueeze(1), x).squeeze(1)
