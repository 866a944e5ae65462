"""Every parameter's gradient of stage 2 in bf16 against float32, over 20,000 tokens.

A sum over tokens that is kept in bf16 stops growing: its error grows with the number of tokens, and a small batch does
not show it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.click_batches import random_titles
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.kernels.dispatch import layer_norm, residual_norm, use_kernels
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.parts.click_task import ClickTitles
from tnr_dist.stages.stage2 import Stage2Module
from tnr_dist.stages.stage2_settings import Stage2Config

TOKENS, M, B, L, C = 20_000, 2, 400, 20, 5
BOUND = 0.02


def gradients(kernels: str, precision: str, width: int, layers: int, device: str) -> dict[str, Tensor]:
    """Gradients of L^(2) on a batch that holds all titles, by parameter; the same weights and data in every call."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    titles = random_titles(rng, TOKENS // 13, 24)
    assert TOKENS - 500 < len(titles.values) < 1.1 * TOKENS
    news = len(titles)
    encoder = encoder_from_config(
        EncoderConfig(
            vocab_size=1000, hidden=width, layers=layers, heads=width // 32, intermediate=2 * width, max_positions=32
        )
    )
    student = Recommender(NewsEncoder(encoder.set_dropout(0.0), 64), AttentionUserEncoder(64))
    student.news_encoder.token_budget = 0
    everything = rng.permutation(np.arange(B * (L + C)) % news).astype(np.int32).reshape(B, L + C)
    batch = {
        "history": everything[:, :L],
        "candidates": everything[:, L:],
        "weights": np.ones(B, np.float32),
        "count": np.array(B, np.float32),
        # Teachers that agree on a direction: its gradient is common to all titles, and adds up.
        "teacher_users": rng.standard_normal((B, M, 64)).astype(np.float32) + 1,
        "teacher_logits": rng.standard_normal((B, C, M)).astype(np.float32),
    }
    engine = DDPEngine(device, 1)
    settings = Stage2Config()
    click_titles = ClickTitles(titles, 24, student.news_encoder, settings, engine, Path("unused"))
    module = Stage2Module(student, torch.randn(news, M, 64) + 1, settings, 64).to(engine.device)
    engine.use_precision(precision)
    with use_kernels(kernels), engine.autocast():
        loss = module(click_titles.inputs(batch))["loss"]
        loss.backward()
    return {name: p.grad.double() for name, p in module.named_parameters() if p.grad is not None}


def check(kernels: str, device: str) -> None:
    """Fail for the parameters whose gradient in bf16 is more than `BOUND` away from that in float32."""
    exact, found = (gradients(kernels, precision, 64, 2, device) for precision in ("fp32", "bf16"))
    assert len(exact) == len(found) > 30
    errors = {name: float((found[name] - g).norm() / g.norm()) for name, g in exact.items()}
    assert all(np.isfinite(list(errors.values())))
    bad = {name: round(error, 4) for name, error in errors.items() if error > BOUND}
    assert not bad, bad


def test_every_gradient_in_bf16_is_that_of_float32():
    check("torch", "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_every_gradient_in_bf16_is_that_of_float32_on_a_gpu(kernels):
    check(kernels, "cuda")


def test_the_kernel_of_the_norm_sums_its_gradients_in_float32(device):
    """In the interpreter the whole model would take many minutes; this is the operation that sums over all tokens."""
    g = torch.Generator().manual_seed(0)
    x, y, weight, bias = (torch.randn(*shape, generator=g) for shape in ((TOKENS, 32), (TOKENS, 32), (32,), (32,)))
    upstream = (0.01 * torch.randn(TOKENS, 32, generator=g) + 0.002).to(device, torch.bfloat16)
    leaves = [t.to(device).requires_grad_() for t in (x.bfloat16(), y.bfloat16(), weight, bias)]
    found = torch.autograd.grad(residual_norm(*leaves, 1e-12, 0.0, "triton"), leaves, upstream)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    out = torch.nn.functional.layer_norm(exact[0] + exact[1], (32,), exact[2], exact[3], 1e-12)
    for a, b in zip(found, torch.autograd.grad(out, exact, upstream.double()), strict=True):
        assert float((a.double() - b).norm() / b.norm()) < BOUND / 4


@pytest.mark.parametrize("rows", [1, 100, 20_000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layer_norm_sums_its_gradients_in_float32(rows, dtype):
    """Also with an upstream part that all rows share, over which a sum in half precision loses most."""
    g = torch.Generator().manual_seed(rows)
    x, weight, bias = (torch.randn(*shape, generator=g) for shape in ((rows, 384), (384,), (384,)))
    upstream = 0.01 * torch.randn(rows, 384, generator=g) + 0.002 * torch.randn(1, 384, generator=g)
    x, upstream = x.to(dtype), upstream.to(dtype)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    out = layer_norm(*leaves, 1e-12)
    assert out.dtype == dtype
    found = torch.autograd.grad(out, leaves, upstream)
    leaves = [t.double().requires_grad_() for t in (x, weight, bias)]
    wanted = torch.autograd.grad(
        torch.nn.functional.layer_norm(leaves[0], (384,), leaves[1], leaves[2], 1e-12), leaves, upstream.double()
    )
    for name, a, b in zip(("x", "weight", "bias"), found, wanted, strict=True):
        error = float((a.double() - b).norm() / b.norm())
        assert error < (0.005 if name == "x" else 1e-4), (name, error)


def test_layer_norm_of_other_inputs_is_torchs():
    x, weight, bias = torch.randn(7, 16), torch.randn(16), torch.randn(16)
    for inputs in ((x, weight, bias), (x.double(), weight.double(), bias.double())):
        assert torch.equal(
            layer_norm(*inputs, 1e-5), torch.nn.functional.layer_norm(inputs[0], (16,), *inputs[1:], 1e-5)
        )
    frozen = layer_norm(x.bfloat16().requires_grad_(), weight, bias, 1e-5)
    assert frozen.grad_fn.name().startswith("NativeLayerNorm")  # nothing to sum: torch's own
