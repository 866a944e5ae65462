"""News and user encoder over padded batches: the graphs that other runtimes load.

The training code packs tokens, which no exporter can trace with dynamic shapes. `PaddedNewsEncoder` runs the same
submodules on [B, L] and equals `NewsEncoder` up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from tnr_dist.export.source import Source
from tnr_dist.kernels.attention import relative_buckets
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.models.transformer import Layer

#: Added to the scores of padded keys. Finite, so that a text without any token gives no NaN.
_MASKED = -1e9


class PaddedNewsEncoder(nn.Module):
    """`NewsEncoder` in evaluation, over padded texts."""

    buckets: Tensor

    def __init__(self, news_encoder: NewsEncoder) -> None:
        super().__init__()
        self.encoder, self.pooling, self.dense = news_encoder.encoder, news_encoder.pooling, news_encoder.dense
        config = self.encoder.config
        self.reach = config.max_length - 1
        if config.relative_buckets:
            table = relative_buckets(config.max_length, config.relative_buckets, config.relative_max_distance)
            # The bucket depends on the distance alone: [2 * reach + 1], from -reach to reach.
            self.register_buffer("buckets", torch.cat([table[1:, 0].flip(0), table[0]]), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode B texts.

        Args:
            input_ids: [B, L] int64, padded at the end.
            attention_mask: [B, L] int64, 1 at tokens, 0 at padding.

        Returns:
            [B, D] news vectors.
        """
        encoder, mask = self.encoder, attention_mask.bool()
        position = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = encoder.words(input_ids) + encoder.positions(position + encoder.config.position_offset)
        if encoder.types is not None:
            x = x + encoder.types.weight[0]
        x = encoder.embedding_norm(x)
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, _MASKED)[:, None, None, :]
        if encoder.relative_bias is not None:
            distance = position[None, :] - position[:, None]
            bias = bias + encoder.relative_bias(self.buckets[distance + self.reach]).permute(2, 0, 1)
        for layer in encoder.layers:
            assert isinstance(layer, Layer)
            x = _layer(layer, x, bias)
        vectors: Tensor = self.dense(self.pooling(x, mask))
        return vectors


def _layer(layer: Layer, x: Tensor, bias: Tensor) -> Tensor:
    """States [B, L, d] -> [B, L, d]; `bias` [B, 1 or heads, 1 or L, L] is added to the scores."""
    q, k, v = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
    # Not scaled_dot_product_attention: titles are too short for it to win, and its graph in ONNX is twice as large.
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + bias
    attended = torch.matmul(scores.softmax(-1), v).transpose(1, 2).flatten(2)
    x = layer.attention_norm(x + layer.attention_out(attended))
    out: Tensor = layer.ffn_norm(x + layer.ffn_out(layer.activation(layer.ffn_in(x))))
    return out


@dataclass(frozen=True)
class Graph:
    """What an exporter needs.

    Attributes:
        module: in evaluation mode.
        sample: inputs to trace it with: no size of 0 or 1, which tracing would fix.
        shapes: by the name of the input, its dynamic dimensions.
        output: name of the output.
    """

    module: nn.Module
    sample: tuple[Tensor, Tensor]
    shapes: dict[str, dict[int, Dim]]
    output: str


def news_graph(source: Source) -> Graph:
    """(input_ids [B, L] int64, attention_mask [B, L] int64) -> news_vector [B, D]; L ends with the position table."""
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    ids = torch.where(mask.bool(), torch.arange(7), source.pad_id)
    shapes = {0: Dim("batch"), 1: Dim("length", max=source.spec.encoder.max_length)}
    module = PaddedNewsEncoder(source.model.news_encoder).eval()
    return Graph(module, (ids, mask), {"input_ids": shapes, "attention_mask": shapes}, "news_vector")


def user_graph(source: Source) -> Graph:
    """(history [B, L, D] float32, mask [B, L] bool) -> user_vector [B, D]."""
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False
    sample = torch.randn(2, 7, source.spec.news_dim, generator=torch.Generator().manual_seed(0)), mask
    shapes = {0: Dim("batch"), 1: Dim("length")}
    return Graph(source.model.user_encoder.eval(), sample, {"history": shapes, "mask": shapes}, "user_vector")
