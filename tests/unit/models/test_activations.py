"""What a forward pass keeps for its backward pass, counted, against what autograd keeps."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from tnr_dist.models.activations import layer_bytes
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.models.transformer import encoder_from_config


def _kept(trained: int, length: int, dtype: torch.dtype, dropout: float, texts: int) -> int:
    """Bytes of the distinct storages that autograd keeps of `texts` texts, parameters left out."""
    config = EncoderConfig(50, 64, 3, 2, 256, 512, dropout=dropout, attention_dropout=dropout)
    news = NewsEncoder(encoder_from_config(config), 16, 16)
    news.encoder.freeze_below(trained)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in news.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    half = torch.autocast("cpu", torch.bfloat16) if dtype == torch.bfloat16 else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), half:
        news(Packed.pack(np.ones(texts * length, np.int64), np.full(texts, length)))
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("length", [16, 48, 96, 256])
def test_the_count_is_what_autograd_keeps(length, dtype, dropout):
    few, many = 512 // length, 1536 // length
    tokens = (many - few) * length
    # The second trained layer alone, and by token: what does not grow with the batch (cast weights) is left out.
    one, two = (_kept(n, length, dtype, dropout, many) - _kept(n, length, dtype, dropout, few) for n in (1, 2))
    config = EncoderConfig(50, 64, 3, 2, 256, 512, dropout=dropout, attention_dropout=dropout)
    assert layer_bytes(config, length, dtype, torch.device("cpu")) == pytest.approx((two - one) / tokens, rel=0.05)
