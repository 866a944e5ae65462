"""Batches filled up to sizes that repeat, and steps recorded as CUDA graphs: the same loss, gradients and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tnr_dist.config import Stage2Config
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.kernels.dispatch import use_kernels
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.models.transformer import EncoderConfig, encoder_from_config
from tnr_dist.stages.clicks import ClickTitles
from tnr_dist.stages.common import freeze
from tnr_dist.stages.stage2 import Stage2Module
from tnr_dist.stages.static_shapes import fill, most_tiles, next_size
from tnr_dist.train.prefetch import prefetch

M, D, B, L, C, NEWS, LONGEST = 2, 16, 8, 6, 3, 60, 12


def make_batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    history = rng.integers(0, NEWS, (B, L))
    history[np.arange(L) >= rng.integers(0, L + 1, B)[:, None]] = -1
    return {
        "history": history.astype(np.int32),
        "candidates": rng.integers(0, NEWS, (B, C)).astype(np.int32),
        "weights": np.ones(B, np.float32),
        "count": np.array(B, np.float32),
        "teacher_users": rng.standard_normal((B, M, D)).astype(np.float32),
        "teacher_logits": rng.standard_normal((B, C, M)).astype(np.float32),
    }


def build(device: torch.device, dropout: float = 0.0, *, relative: bool = False) -> tuple[DDPEngine, Stage2Module]:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(2, LONGEST + 1, NEWS))])
    titles = RaggedTable(rng.integers(0, 30, offsets[-1]).astype(np.uint16), offsets)
    config = EncoderConfig(30, 32, 2, 2, 64, 16, relative_buckets=8 if relative else 0)
    encoder = encoder_from_config(config).set_dropout(dropout)
    student = Recommender(NewsEncoder(encoder, D), AttentionUserEncoder(D))
    settings = Stage2Config(trainable_layers=1, cuda_graphs=True, lr=1e-2)
    engine = DDPEngine(device.type, 1)
    freeze(student.news_encoder, settings, engine)
    student.news_encoder.token_budget = 0
    click_titles = ClickTitles(titles, LONGEST, student.news_encoder, settings, engine, Path("unused"))
    module = Stage2Module(student, click_titles, torch.randn(NEWS, M, D), settings, D).to(engine.device).train()
    click_titles.prepare("")
    return engine, module


@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("relative", [False, True])
def test_added_titles_change_neither_loss_nor_gradients(device, kernels, relative):
    _, module = build(device, relative=relative)
    batch = make_batch(np.random.default_rng(1))
    found = []
    with use_kernels(kernels):
        for repeats in (False, True):
            module.titles.repeats = repeats
            inputs = module.titles.inputs(batch)
            module.zero_grad()
            loss = module(inputs)["loss"]
            loss.backward()
            gradients = [p.grad.clone() for p in module.parameters() if p.grad is not None]
            found.append((loss.detach(), gradients, inputs))
    (loss, gradients, plain), (filled_loss, filled_gradients, filled) = found
    assert plain.shape_key() is None and filled.shape_key() is not None
    assert len(filled.news) > len(plain.news) and len(filled.titles.tokens) > len(plain.titles.tokens)
    torch.testing.assert_close(filled_loss, loss, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, filled_gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_batches_share_their_shapes(device):
    _, module = build(device)
    module.titles.repeats = True
    rng = np.random.default_rng(2)
    inputs = [module.titles.inputs(make_batch(rng)) for _ in range(20)]
    assert len({one.shape_key() for one in inputs}) < 5
    other = inputs[0].with_tensors([tensor.clone() for tensor in inputs[0].tensors()])
    assert other.shape_key() == inputs[0].shape_key()
    assert other.titles.device_offsets is other.static.offsets


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000, 12345, 2**20 + 1])
def test_sizes_waste_an_eighth_at_most(count):
    size = next_size(count)
    assert count <= size <= max(count + 64, count * 9 / 8)
    assert next_size(size) == size


@pytest.mark.parametrize("seed", range(20))
def test_filled_titles_keep_the_real_ones_in_place(seed):
    rng = np.random.default_rng(seed)
    lengths = np.sort(rng.integers(1, 31, rng.integers(1, 400)))
    starts = rng.integers(0, 1000, len(lengths))
    filled = fill(lengths, starts, 30)
    assert (np.diff(filled.lengths) >= 0).all() and filled.lengths[-1] == 30
    assert filled.lengths.sum() == next_size(int(lengths.sum()) + 30)
    assert (filled.lengths[filled.place] == lengths).all() and (filled.starts[filled.place] == starts).all()
    assert len(set(filled.place.tolist())) == len(lengths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(10))
def test_no_batch_needs_more_tiles_than_there_is_room_for(seed, dtype):
    from tnr_dist.kernels.tiles import Tiles

    rng = np.random.default_rng(seed)
    lengths = np.sort(np.append(rng.integers(0, 31, rng.integers(1, 500)), 30))
    tiles = Tiles.of(lengths, "cpu", dtype)
    room = most_tiles(lengths, dtype)
    assert len(tiles.closed) <= room and not len(tiles.opened)
    assert len(Tiles.of(lengths, "cpu", dtype, room).closed) == room


def trained(graphs: bool, dropout: float, steps: int = 12) -> tuple[list[float], list[torch.Tensor]]:
    engine, module = build(torch.device("cuda"), dropout)
    module.titles.repeats = graphs
    engine.setup(
        module,
        lambda m: torch.optim.Adam([p for p in m.parameters() if p.requires_grad], 1e-2, fused=True),
        precision="fp32",
        clip_norm=0.0,
    )
    rng, losses = np.random.default_rng(3), []
    batches = (make_batch(rng) for _ in range(steps))
    # Laid out by another thread, as in the training loop: its allocations and copies fall into the recording.
    for step, (_, inputs) in enumerate(prefetch(batches, module.titles.inputs, engine.device)):
        torch.manual_seed(step)
        parts = engine.forward(inputs)
        engine.backward(parts["loss"])
        losses.append(parts["loss"].detach())
        engine.step()
    assert engine._graphs.used is graphs
    return [float(loss) for loss in losses], [p.detach().cpu() for p in module.parameters()]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_recorded_steps_train_as_plain_ones():
    losses, weights = trained(False, 0.0)
    graph_losses, graph_weights = trained(True, 0.0)
    np.testing.assert_allclose(graph_losses, losses, rtol=1e-4)
    for one, other in zip(weights, graph_weights, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_recorded_dropout_follows_the_step_s_seed():
    first, again = trained(True, 0.2), trained(True, 0.2)
    assert first[0] == again[0]
    assert first[0] != trained(True, 0.0)[0]
