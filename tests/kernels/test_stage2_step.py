"""A step of stage 2 with `kernels=triton` equals one with `kernels=torch`, and runs every kernel there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.kernels.dispatch import Choice, use_kernels
from tnr_dist.kernels.launch import Kernel
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTitles
from tnr_dist.stages.stage2 import Stage2Module
from tnr_dist.stages.stage2_settings import Stage2Config

M, D, B, L, C, NEWS, VOCABULARY = 3, 24, 6, 7, 4, 30, 40

Step = tuple[Stage2Module, Callable[[], ClickInputs], DDPEngine]

# The teachers' table is a constant, so that nothing scatters gradients to it.
LAUNCHED = {
    "residual_norm_kernel",
    "residual_norm_gradient_kernel",
    "attention_kernel",
    "attention_gradient_kernel",
    "logits_kernel",
    "pool_kernel",
    "softmax_gradient_kernel",
    "states_gradient_kernel",
    "gather_kernel",
    "distillation_kernel",
}


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel was launched."""
    counts: Counter[str] = Counter()
    original = Kernel.__getitem__

    def counting(kernel: Kernel, grid: tuple[int, ...]) -> Any:
        counts[kernel.__name__] += 1
        return original(kernel, grid)

    monkeypatch.setattr(Kernel, "__getitem__", counting)
    return counts


@pytest.fixture
def step(device: torch.device) -> Step:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    lengths = rng.integers(2, 17, NEWS)
    lengths[0] = 40  # longer than a tile in float32
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    titles = RaggedTable(rng.integers(0, VOCABULARY, offsets[-1]).astype(np.uint16), offsets)
    encoder = encoder_from_config(
        EncoderConfig(
            vocab_size=VOCABULARY, hidden=32, layers=2, heads=2, intermediate=48, max_positions=64, relative_buckets=8
        )
    ).set_dropout(0.0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    student = Recommender(NewsEncoder(encoder, D, 20), AttentionUserEncoder(D, 20))
    history = rng.integers(0, NEWS, (B, L))
    history[np.arange(L) >= rng.integers(0, L + 1, B)[:, None]] = -1
    history[0, 0] = 0
    candidates = rng.integers(0, NEWS, (B, C))
    candidates[2, 3] = -1
    batch: Batch = {
        "history": history.astype(np.int32),
        "candidates": candidates.astype(np.int32),
        "weights": np.array([1, 1, 0, 1, 1, 1], np.float32),
        "count": np.array(7, np.float32),
        "teacher_users": rng.standard_normal((B, M, D)).astype(np.float32),
        "teacher_logits": rng.standard_normal((B, C, M)).astype(np.float32),
    }
    engine = DDPEngine(device.type, 1)
    settings = Stage2Config(temperature=1.5, beta2=0.3)
    click_titles = ClickTitles(titles, 64, student.news_encoder, settings, engine, Path("unused"))
    module = Stage2Module(student, torch.randn(NEWS, M, D), settings, D).to(engine.device).train()
    return module, partial(click_titles.inputs, batch), engine


def run(step: Step, kernels: Choice, precision: str) -> dict[str, Tensor]:
    """The loss, its parts and all gradients."""
    module, make_inputs, engine = step
    engine.use_precision(precision)
    module.zero_grad(set_to_none=True)
    with use_kernels(kernels):
        with engine.autocast():
            out = module(make_inputs())
        out["loss"].backward()
    found = {name: value.detach().float() for name, value in out.items()}
    return found | {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


# Of each tensor's largest element. bfloat16: both forms round what they multiply and store, at different places, and
# the interpreter truncates where it should round; rounding of 2^-8 adds up over two layers, forwards and backwards.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.08)])
def test_triton_equals_torch(step: Step, launches: Counter[str], precision: str, tolerance: float) -> None:
    wanted = run(step, "torch", precision)
    assert not launches, "kernels=torch launches nothing"
    got = run(step, "triton", precision)
    assert set(launches) == LAUNCHED
    # Two layers; token pooling; the loss forwards and backwards; one table.
    assert launches["attention_gradient_kernel"] >= 2
    assert launches["pool_kernel"] == launches["states_gradient_kernel"] == 1
    assert launches["distillation_kernel"] == 2 and launches["gather_kernel"] == 1
    assert set(got) == set(wanted) and {"omega.raw", "news_projection.weight"} <= set(got)
    for name, value in wanted.items():
        scale = max(float(value.abs().max()), 1e-3)
        error = float((got[name] - value).abs().max()) / scale
        assert error <= tolerance, f"{name}: {error}"


def sample_losses(step: Step, batch: Batch, kernels: Choice) -> np.ndarray:
    """The loss of each sample of a batch, whose histories are encoded once each."""
    module, make_inputs, _ = step
    losses = []
    for sample in range(len(batch["weights"])):
        weights = np.zeros(len(batch["weights"]), np.float32)
        weights[sample] = 1
        with use_kernels(kernels), torch.no_grad():
            inputs = make_inputs.func({**batch, "weights": weights, "count": np.array(1.0, np.float32)})
            losses.append(float(module(inputs)["loss"]))
    return np.array(losses)


@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_samples_of_a_user_have_the_losses_that_they_have_alone(step: Step, kernels: Choice) -> None:
    batch = dict(step[1].args[0])  # type: ignore[attr-defined]
    batch["history"] = batch["history"][[0, 0, 1, 2, 2, 2]]
    assert len(step[1].func(batch).history) == 3  # type: ignore[attr-defined]
    alone = [
        sample_losses(step, {name: values[[i]] if values.ndim else values for name, values in batch.items()}, "torch")
        for i in range(B)
    ]
    np.testing.assert_allclose(sample_losses(step, batch, kernels), np.concatenate(alone), rtol=1e-5, atol=1e-5)


def test_auto_launches_nothing_unmeasured(step: Step, launches: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tnr_dist.kernels import dispatch

    monkeypatch.setattr(dispatch, "AUTO", dict.fromkeys(dispatch.AUTO, False))
    run(step, "auto", "fp32")
    assert not launches


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: only there is there something to wait for")
@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_a_step_waits_for_nothing(step: Step, kernels: Choice) -> None:
    """CUDA itself looks, after a step in which everything was compiled."""
    run(step, kernels, "bf16")
    torch.cuda.set_sync_debug_mode("error")
    try:
        module, make_inputs, engine = step
        with use_kernels(kernels), engine.autocast():
            module(make_inputs())["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
