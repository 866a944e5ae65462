"""Additive attention pooling: many vectors to one, by learned importance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tnr_dist.kernels.additive_pooling import additive_pooling, additive_pooling_padded
from tnr_dist.models.packed import Packed


class AttentionPooling(nn.Module):
    """sum_t softmax_t(q^T tanh(W x_t + b)) x_t over the valid t (the paper's "attention network", query size 200).

    One set of weights, two forms: packed sequences (tokens of news) and padded ones (histories of users). Which
    kernels compute them is `kernels.dispatch.use_kernels`'.
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
        longest = int(batch.lengths.max(initial=0))
        return additive_pooling(
            hidden, self.project.weight, self.project.bias, self.query.weight.squeeze(0), batch.device_offsets, longest
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pool padded sequences.

        Args:
            x: [B, L, d]; what stands in the padding does not matter, as long as it is finite.
            mask: [B, L] bool, True = valid. A row with no valid slot gives zeros and has zero gradient.

        Returns:
            [B, d] in the dtype of x, or in autocast's.
        """
        return additive_pooling_padded(x, mask, self.project.weight, self.project.bias, self.query.weight.squeeze(0))
