"""Operations of the news encoder, counted from its shapes: a multiply-add is two."""

from __future__ import annotations

import numpy as np
import torch

from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.models.transformer import Encoder


def layer_flops(config: EncoderConfig, lengths: np.ndarray) -> float:
    """A forward pass of one layer over sequences of `lengths` [U]: the linear layers a token, attention a pair of them."""
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    return 2 * tokens * (4 * config.hidden**2 + 2 * config.hidden * config.intermediate) + 4 * pairs * config.hidden


def encoder_flops(encoder: Encoder, lengths: np.ndarray) -> float:
    """A forward pass of all layers over sequences of `lengths` [U]."""
    return len(encoder.layers) * layer_flops(encoder.config, lengths)


def plm_flops(plm: Encoder, lengths: np.ndarray, first: int = 0, trains: bool = True) -> float:
    """What a step does in a PLM for texts of `lengths` [U] from layer `first` on: forward, and backward if it `trains`.

    2 operations a parameter and token that only runs, 6 one that trains (Chowdhery et al. 2022, appendix B), attention
    alike; less the gradient by the lowest trained layer's input, which nothing wants when what lies below is frozen.
    What is computed twice to save memory counts once.
    """
    layer = layer_flops(plm.config, lengths)
    forward = (len(plm.layers) - first) * layer
    if not trains:
        return forward
    trained = len(plm.layers) - max(first, plm.frozen_layers)
    unwanted = 6 * float(lengths.sum()) * plm.config.hidden**2 if trained and plm.frozen_embeddings else 0.0
    return forward + 2 * trained * layer - unwanted


def top_flops(encoder: NewsEncoder, lengths: np.ndarray, trains: bool = True) -> float:
    """The same for what stands on the PLM: pooling and dense layer."""
    width = encoder.encoder.config.hidden
    pooling = 2 * float(lengths.sum()) * (width + 1) * encoder.pooling.project.out_features
    return (3 if trains else 1) * (pooling + 2 * len(lengths) * width * encoder.dense.out_features)


def news_encoder_flops(encoder: NewsEncoder, lengths: np.ndarray, first: int = 0) -> float:
    """`plm_flops` and `top_flops`; of a frozen encoder, or where no gradient is wanted, the forward pass."""
    trains = torch.is_grad_enabled() and encoder.dense.weight.requires_grad
    return plm_flops(encoder.encoder, lengths, first, trains) + top_flops(encoder, lengths, trains)
