"""Bytes that a news encoder's forward pass keeps for its backward pass, counted from its shapes and the form that runs."""

from __future__ import annotations

import torch

from tnr_dist.kernels.attention import SHORT_WITH_GRADIENT
from tnr_dist.kernels.dispatch import use_triton
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.transformer import Encoder


def layer_bytes(config: EncoderConfig, length: int, dtype: torch.dtype, device: torch.device) -> float:
    """Bytes that a layer which trains keeps of each token of a text of `length` tokens.

    Inputs and outputs of its matrices and what it normalises: 8 times the hidden size and twice the inner one (16 d of
    BERT's shape), in the dtype in which it computes. Attention beside that: a short text's probabilities on a CPU, else what
    its fused form keeps. Dropout: its masks.
    """
    d, heads, size = config.hidden, config.heads, dtype.itemsize
    triton = use_triton(None, torch.empty(0, dtype=dtype, device=device), "ragged_attention")
    kept = (8 * d + 2 * config.intermediate) * size + 16
    if device.type == "cpu":
        dropped = config.attention_dropout > 0
        if length <= SHORT_WITH_GRADIENT:
            kept += heads * (length * (4 + size + 4 * dropped) + 4)
        elif dropped:  # torch has no fused form of it
            kept += heads * length * 12 + (2 * d * size if size < 4 else 0)
        else:
            kept += d * size + 4 * heads
        return kept + (2 * d * size if config.dropout else 0)
    kept += 4 * heads + (0 if triton else d * size)
    return kept + (2 * d if config.dropout and not triton else 0)


def token_bytes(
    encoder: Encoder, trained: int, query_dim: int, length: int, dtype: torch.dtype, device: torch.device
) -> float:
    """Bytes that a step of a news encoder, of whose layers the last `trained` train, has in use for each token at its peak.

    What the layers and the pooling keep, and the gradients of one layer, which stand beside it when the backward pass begins.
    """
    config, size = encoder.config, dtype.itemsize
    pooling = (config.hidden + query_dim) * size + (4 * config.hidden if size < 4 else 0)
    gradients = 2 * (config.hidden + config.intermediate) * size
    return trained * layer_bytes(config, length, dtype, device) + pooling + gradients
