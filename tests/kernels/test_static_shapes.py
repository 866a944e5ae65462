"""Batches filled up to sizes that repeat, and steps recorded as CUDA graphs: the same loss, gradients and weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.click_batches import WORDS, random_batch, random_titles
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.engines.graphs import StepGraphs
from tnr_dist.kernels.dispatch import use_kernels
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.parts.click_task import ClickTitles
from tnr_dist.stages.parts.fill_batches import fill, fill_rows, most_tiles, next_size
from tnr_dist.stages.parts.start_models import freeze
from tnr_dist.stages.stage2 import Stage2Module
from tnr_dist.stages.stage2_settings import Stage2Config
from tnr_dist.util.transfer import prefetch

M, D, B, L, C, NEWS, LONGEST = 2, 16, 8, 6, 3, 60, 12


def make_batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return random_batch(rng, B, L, C, NEWS, M, D)


def build(
    device: torch.device, dropout: float = 0.0, *, relative: bool = False
) -> tuple[DDPEngine, Stage2Module, ClickTitles]:
    torch.manual_seed(0)
    titles = random_titles(np.random.default_rng(0), NEWS, LONGEST)
    config = EncoderConfig(WORDS, 32, 2, 2, 64, 16, relative_buckets=8 if relative else 0)
    encoder = encoder_from_config(config).set_dropout(dropout)
    student = Recommender(NewsEncoder(encoder, D), AttentionUserEncoder(D))
    settings = Stage2Config(trainable_layers=1, cuda_graphs=True, lr=1e-2)
    engine = DDPEngine(device.type, 1)
    freeze(student.news_encoder, settings, engine)
    student.news_encoder.token_budget = 0
    click_titles = ClickTitles(titles, LONGEST, student.news_encoder, settings, engine, Path("unused"))
    module = Stage2Module(student, torch.randn(NEWS, M, D), settings, D).to(engine.device)
    click_titles.prepare("")
    return engine, module.train(), click_titles


@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("relative", [False, True])
def test_added_titles_change_neither_loss_nor_gradients(device, kernels, relative):
    _, module, titles = build(device, relative=relative)
    batch = make_batch(np.random.default_rng(1))
    found = []
    with use_kernels(kernels):
        for repeats in (False, True):
            titles.repeats = repeats
            inputs = titles.inputs(batch)
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
    _, _, titles = build(device)
    titles.repeats = True
    rng = np.random.default_rng(2)
    inputs = [titles.inputs(make_batch(rng)) for _ in range(20)]
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


def test_histories_are_filled_up_to_a_few_sizes(device):
    """With empty ones that no sample points at."""
    assert {len(fill_rows(np.zeros((n, 3), np.int32), 1000)) for n in range(1, 1001)} == {*range(125, 1001, 125)}
    _, module, titles = build(device)
    batch = random_batch(np.random.default_rng(1), 100, L, C, NEWS, M, D)
    batch["history"] = batch["history"][np.arange(100) // 10]
    losses = []
    for titles.repeats in (False, True):
        inputs = titles.inputs(batch)
        assert len(inputs.history) == (64 if titles.repeats else 10)
        losses.append(module(inputs)["loss"].detach())
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


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


@pytest.fixture
def cpu(device):
    """Skips where the kernels are compiled: there the real graphs are tested."""
    if device.type != "cpu":
        pytest.skip("a GPU records real graphs")
    return device


def same_key(titles: ClickTitles, count: int) -> list[dict[str, np.ndarray]]:
    """Different batches whose inputs have one shape."""
    found: dict[object, list[dict[str, np.ndarray]]] = {}
    for seed in range(100):
        batch = make_batch(np.random.default_rng(seed))
        alike = found.setdefault(titles.inputs(batch).shape_key(), [])
        alike.append(batch)
        if len(alike) == count:
            return alike
    raise AssertionError("no shape repeats")


@pytest.mark.parametrize(("precision", "relative"), [("fp32", True), ("bf16", False)])
def test_a_replay_is_the_step_of_its_own_batch(cpu, recorded, precision, relative):
    """Loss and gradients of each batch, in a recording of another one; nothing that a graph cannot hold is recorded."""
    engine, module, titles = build(cpu, relative=relative)
    engine.use_precision(precision)
    titles.repeats = True
    batches = same_key(titles, 3)
    graphs = StepGraphs(module, engine.autocast)
    with use_kernels("triton"):
        for number, batch in enumerate(batches):
            inputs = titles.inputs(batch)
            found = []
            for step in (graphs.run, plain_step(module, engine)):
                for parameter in graphs.parameters:
                    if parameter.grad is not None:
                        parameter.grad.zero_()
                parts = step(inputs)
                found.append((parts, [p.grad.clone() for p in graphs.parameters if p.grad is not None]))
            (parts, gradients), (wanted_parts, wanted) = found
            tolerance = 1e-5 if precision == "fp32" else 1e-2
            for name, value in wanted_parts.items():
                torch.testing.assert_close(parts[name], value.detach(), rtol=tolerance, atol=tolerance)
            for one, other in zip(gradients, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
            assert len(recorded) == 1 and recorded[0].replays == number + 1
    losses = [plain_step(module, engine)(titles.inputs(batch))["loss"].detach() for batch in batches]
    assert len(set(map(float, losses))) == len(batches)


def plain_step(module, engine):
    def step(inputs):
        with engine.autocast():
            parts = module(inputs)
        parts["loss"].backward()
        return parts

    return step


def test_a_replay_draws_its_own_dropout(cpu, recorded):
    """And the recording leaves the generator as it was."""
    engine, module, titles = build(cpu, dropout=0.5)
    titles.repeats = True
    graphs = StepGraphs(module, engine.autocast)
    inputs = titles.inputs(make_batch(np.random.default_rng(1)))
    with use_kernels("triton"):
        losses = []
        for seed in (1, 2, 1):
            torch.manual_seed(seed)
            losses.append(float(graphs.run(inputs)["loss"]))
    assert losses[0] == losses[2] != losses[1]
    assert len(recorded) == 1


def test_gradients_are_added_from_the_first_replay_on(cpu, recorded):
    """What the warm-up and the recording left is undone; gradients of several micro-batches add up."""
    engine, module, titles = build(cpu)
    titles.repeats = True
    graphs = StepGraphs(module, engine.autocast)
    inputs = titles.inputs(make_batch(np.random.default_rng(1)))
    with use_kernels("triton"):
        graphs.run(inputs)
        once = [p.grad.clone() for p in graphs.parameters]
        graphs.run(inputs)
    for parameter, one in zip(graphs.parameters, once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * one, rtol=1e-5, atol=1e-6)


def test_what_a_graph_cannot_hold_is_refused_here_too(recorded):
    """The stand-in would notice: it is what these tests rest on."""

    class Inputs:
        def __init__(self, values):
            self.values = values

        def shape_key(self):
            return self.values.shape

        def tensors(self):
            return [self.values]

        def with_tensors(self, tensors):
            return Inputs(tensors[0])

    class Module(torch.nn.Module):
        def __init__(self, form):
            super().__init__()
            self.weight, self.form = torch.nn.Parameter(torch.ones(3)), form

        def forward(self, inputs):
            return {"loss": self.form(self.weight, inputs.values)}

    forms = {
        "read on the host": lambda w, x: (w * x).sum() * x[0].item(),
        "size depends": lambda w, x: (w * x)[x > 0].sum(),
        "host's memory": lambda w, x: (w * torch.tensor([1.0, 2.0, 3.0])).sum(),
    }
    for words, form in forms.items():
        with pytest.raises(RuntimeError, match=words):
            StepGraphs(Module(form), contextlib.nullcontext).run(Inputs(torch.ones(3)))
    # A number that Python took from the recorded batch is that of the next one too.
    baked = StepGraphs(Module(lambda w, x: (w * x).sum() * float(x.numpy()[0])), contextlib.nullcontext)
    assert [float(baked.run(Inputs(x * torch.ones(3)))["loss"]) for x in (2.0, 3.0)] == [12.0, 18.0]


def trained(
    device: torch.device, graphs: bool, dropout: float = 0.0, steps: int = 6
) -> tuple[list[float], list[torch.Tensor]]:
    engine, module, titles = build(device, dropout)
    titles.repeats = graphs
    engine.setup(
        module,
        # A gradient that is zero but for rounding (the keys' biases) must not become a whole step.
        lambda m: torch.optim.Adam([p for p in m.parameters() if p.requires_grad], 1e-2, eps=1e-4, fused=True),
        precision="fp32",
        clip_norm=1.0,
    )
    if graphs and device.type == "cpu":
        engine._graphs = StepGraphs(module, engine.autocast)
    rng, losses = np.random.default_rng(3), []
    batches = (make_batch(rng) for _ in range(steps))
    # Laid out by another thread, as in the training loop: its allocations and copies fall into the recording.
    with use_kernels("triton"):
        for step, (_, inputs) in enumerate(prefetch(batches, titles.inputs, engine.device)):
            torch.manual_seed(step)
            parts = engine.forward(inputs)
            engine.backward(parts["loss"])
            losses.append(parts["loss"].detach())
            engine.step()
    assert (engine._graphs is not None and engine._graphs.used) is graphs
    return [float(loss) for loss in losses], [p.detach().cpu() for p in module.parameters()]


def recorded_training_is_plain_training(device: torch.device) -> None:
    losses, weights = trained(device, False)
    graph_losses, graph_weights = trained(device, True)
    np.testing.assert_allclose(graph_losses, losses, rtol=1e-4)
    for one, other in zip(weights, graph_weights, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


def test_an_engine_trains_on_recorded_steps(cpu, recorded):
    recorded_training_is_plain_training(cpu)
    assert sum(graph.replays for graph in recorded) == 6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_recorded_steps_train_as_plain_ones():
    recorded_training_is_plain_training(torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_recorded_dropout_follows_the_step_s_seed():
    device = torch.device("cuda")
    first, again = trained(device, True, 0.2), trained(device, True, 0.2)
    assert first[0] == again[0]
    assert first[0] != trained(device, True)[0]
