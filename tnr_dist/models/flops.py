"""Operations of the news encoder, counted from its shapes: a multiply-add is two."""

from __future__ import annotations

import numpy as np
import torch

from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.models.transformer import Encoder, EncoderConfig


def layer_flops(config: EncoderConfig, lengths: np.ndarray) -> float:
    """A forward pass of one layer over sequences of `lengths` [U]: the linear layers a token, attention a pair of them."""
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    return 2 * tokens * (4 * config.hidden**2 + 2 * config.hidden * config.intermediate) + 4 * pairs * config.hidden


def encoder_flops(encoder: Encoder, lengths: np.ndarray) -> float:
    """A forward pass of all layers over sequences of `lengths` [U]."""
    return len(encoder.layers) * layer_flops(encoder.config, lengths)


def news_encoder_flops(encoder: NewsEncoder, lengths: np.ndarray, first: int = 0) -> float:
    """What a step does for texts of `lengths` [U] from layer `first` on: forward, and backward where it trains.

    2 operations a parameter and token that only runs, 6 one that trains (Chowdhery et al. 2022, appendix B), attention
    alike; less the gradient by the lowest trained layer's input, which nothing wants when what lies below is frozen.
    What is computed twice to save memory counts once.
    """
    plm, width, news = encoder.encoder, encoder.encoder.config.hidden, len(lengths)
    tokens = float(lengths.sum())
    query = encoder.pooling.project.out_features
    top = 2 * tokens * (width + 1) * query + 2 * news * width * encoder.dense.out_features
    layer = layer_flops(plm.config, lengths)
    forward = (len(plm.layers) - first) * layer + top
    if not torch.is_grad_enabled() or not encoder.dense.weight.requires_grad:
        return forward
    lowest = max(first, plm.frozen_layers)
    trained = len(plm.layers) - lowest
    unwanted = 6 * tokens * width**2 if trained and plm.frozen_embeddings else 0.0
    return forward + 2 * (trained * layer + top) - unwanted
