"""Parts of a batch that are computed again for their gradient: with the dropout of the first time, on every device."""

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch.utils._pytree import tree_leaves

from tnr_dist.models import packed
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.parts.corpus_task import in_parts

BUDGET = 20


@pytest.fixture(params=["news encoder", "encoder in parts", "dropout in frozen layers"])
def work(request):
    """A function of a batch of 40 tokens that is computed in parts, and its module."""
    torch.manual_seed(0)
    news = NewsEncoder(encoder_from_config(EncoderConfig(50, 16, 2, 2, 32, 16)).set_dropout(0.5), 8, 4)
    news.token_budget = BUDGET
    if request.param == "dropout in frozen layers":
        news.encoder.freeze_below(1, dropout=True)
    if request.param != "encoder in parts":
        return news, news
    return news, lambda texts: in_parts(texts, BUDGET, lambda part, rows: news.encoder(part))


def texts(device):
    return Packed(torch.arange(40, device=device), np.full(8, 5))


def gradient(module, compute, device):
    module.train().zero_grad()
    torch.manual_seed(1)
    compute(texts(device)).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def test_torch_sees_the_device_whose_random_numbers_are_drawn(work, monkeypatch):
    """It looks for tensors among the arguments: here as if CUDA were in use, with the processor's tensors."""
    seen = []

    def device_states(*arguments):
        seen.append([one for one in tree_leaves(arguments) if isinstance(one, torch.Tensor)])
        return [], []

    monkeypatch.setattr(torch.cuda, "_initialized", True)
    monkeypatch.setattr(torch.utils.checkpoint.DefaultDeviceType, "get_device_type", lambda: "cuda")
    monkeypatch.setattr(torch.utils.checkpoint, "get_device_states", device_states)
    work[1](texts("cpu"))
    assert len(seen) == 2 and all(seen)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_gradient_is_that_of_what_was_computed_first(work, monkeypatch, device):
    module, compute = work
    module.to(device)
    again = gradient(module, compute, device)
    monkeypatch.setattr(packed, "checkpoint", lambda part, *arguments, use_reentrant: part(*arguments))
    torch.testing.assert_close(again, gradient(module, compute, device))
