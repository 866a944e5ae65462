"""`tnr bench step`: a stage-2 training step in four forms on the same batch, model and loss.

(a) paper form: every title slot encoded, padded to 30, float32, transformers' BertModel (eager attention, as in the
    versions of its time), teacher vectors of every slot gathered on the host, the loss per slot;
(b) stock form: (a) with what stock PyTorch offers: SDPA, bf16 autocast, fused Adam, and torch.compile if it is faster;
(c) distinct form: each distinct title once, sorted by length, in chunks padded to their longest, otherwise as (b): what a good
    engineer writes in a day;
(d) ours. Dropout is off in all four, so that the losses can be compared: `max_loss_difference`.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from tnr_dist.bench.encoding import matmul_tflops
from tnr_dist.bench.shapes import click_batch
from tnr_dist.bench.stock import PerSlot, distinct_step, per_slot_step
from tnr_dist.bench.titles import PADDED, encoder_of, random_titles, synchronise
from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.batches.epoch_order import Group
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.engines.graphs import StepGraphs
from tnr_dist.kernels.dispatch import use_kernels
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.stages.parts.click_task import ClickTitles
from tnr_dist.stages.parts.start_models import freeze
from tnr_dist.stages.stage2 import Stage2Module
from tnr_dist.stages.stage2_settings import Stage2Config
from tnr_dist.util.errors import InputError
from tnr_dist.util.memory import TreePeak
from tnr_dist.util.transfer import prefetch

_TEACHERS, _DIM, _HISTORY, _NEGATIVES = 4, 256, 50, 4
_NEWS = 20_000
_STEPS_BETWEEN = {"cpu": 1, "cuda": 10}


def _timed(step: Any, repeats: int, warm: int) -> tuple[float, float]:
    """(best seconds, loss of the first call)."""
    first, best = 0.0, float("inf")
    for number in range(warm + repeats):
        synchronise()
        began = time.perf_counter()
        loss = step()
        synchronise()
        if number == 0:
            first = loss
        if number >= warm:
            best = min(best, time.perf_counter() - began)
    return best, first


@dataclass(frozen=True)
class Ours:
    """Our module, what lays its batches out, and the engine of both."""

    module: Stage2Module
    titles: ClickTitles
    engine: DDPEngine


def our_step(ours: Ours, batch: Batch, graphs: bool = False, fused: bool = True, ahead: bool = True) -> Any:
    """A step as the training loop takes it, and on a GPU ten steps between two looks at the loss.

    `graphs`: recorded as a CUDA graph. `fused`: Adam in one kernel. `ahead`: batches laid out by another thread.
    """
    module, titles, engine = ours.module, ours.titles, ours.engine
    recorder = StepGraphs(module, engine.autocast) if graphs else None
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 0.0, fused=fused)
    same = itertools.repeat(batch)
    batches = prefetch(same, titles.inputs, engine.device) if ahead else ((b, titles.inputs(b)) for b in same)

    def step() -> float:
        loss = torch.zeros(())
        for _ in range(_STEPS_BETWEEN[engine.device.type]):
            _, inputs = next(batches)
            parts = recorder.run(inputs) if recorder is not None else None
            if parts is None:
                with engine.autocast():
                    parts = module(inputs)
                parts["loss"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=recorder is None)
            loss = parts["loss"].detach()
        return float(loss)

    step.close = batches.close  # type: ignore[attr-defined]
    return step


def time_ours(step: Any, engine: DDPEngine, repeats: int) -> tuple[float, float]:
    """(best seconds of one of our steps, loss)."""
    try:
        seconds, loss = _timed(step, repeats, 1)
    finally:
        step.close()
    return seconds / _STEPS_BETWEEN[engine.device.type], loss


def activation_mib(module: Stage2Module, engine: DDPEngine, inputs: Any) -> float:
    """MiB that a step keeps from its forward pass for its backward pass, parameters and tables left out."""
    ours = {p.untyped_storage().data_ptr() for p in module.parameters()}
    ours |= {table.untyped_storage().data_ptr() for table in module.buffers()}
    kept: dict[int, int] = {}
    alive = []  # or another tensor could come to lie where one was

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), engine.autocast():
        module(inputs)
    return sum(kept.values()) / 2**20


def _graphs(plain: Ours, recorded: Ours, batch: Batch, samples: int, repeats: int) -> dict[str, Any]:
    """Our step on the first `samples` samples of a batch, launched kernel by kernel and recorded as a CUDA graph."""
    part = {name: values[:samples] if values.ndim else np.array(samples, np.float32) for name, values in batch.items()}
    seconds, loss = time_ours(our_step(plain, part), plain.engine, repeats)
    graphed, graphed_loss = time_ours(our_step(recorded, part, True), recorded.engine, repeats)
    return {
        "batch": samples,
        "samples_per_s": samples / seconds,
        "graph_samples_per_s": samples / graphed,
        "loss_difference": abs(graphed_loss - loss),
    }


@dataclass(frozen=True)
class Scene:
    """What all forms of a step share: one batch, whose titles are rows of a table of its own, and one student."""

    batch: Batch
    titles: RaggedTable
    teacher_news: Tensor
    student: Recommender
    engine: DDPEngine
    place: Path = Path("unused")  # of frozen states that go to disk

    @classmethod
    def of(cls, samples: int, layers: int, width: int, trainable: int, group: str = "none") -> Scene:
        """A batch of `samples` random samples, and a student of `layers` layers, `width` wide, of which the last learn."""
        rng = np.random.default_rng(0)
        torch.manual_seed(0)
        batch = click_batch(samples, _NEWS, (_HISTORY, 1 + _NEGATIVES), (_TEACHERS, _DIM), rng, group)
        # Only the batch's own titles: the frozen layers' pass over a table is not part of a step.
        used, rows = np.unique(_slots(batch), return_inverse=True)
        encoder = encoder_of(width, layers).set_dropout(0.0)
        student = Recommender(NewsEncoder(encoder, _DIM), AttentionUserEncoder(_DIM))
        teacher_news = torch.randn(len(used), _TEACHERS, _DIM).to(torch.bfloat16)
        engine = DDPEngine("auto", torch.get_num_threads())
        freeze(student.news_encoder, Stage2Config(trainable_layers=trainable), engine)
        return cls(_with_slots(batch, rows), random_titles(len(used)), teacher_news, student, engine)

    def every_slot(self) -> Scene:
        """The same batch as if no title occurred twice."""
        rows = _slots(self.batch)
        titles = Packed.gather(self.titles.values, self.titles.offsets, rows)
        return replace(
            self,
            batch=_with_slots(self.batch, np.arange(len(rows))),
            titles=RaggedTable(titles.tokens.numpy().astype(self.titles.values.dtype), titles.offsets),
            teacher_news=self.teacher_news[torch.from_numpy(rows.astype(np.int64))],
        )

    def padded(self) -> Scene:
        """The same batch, every title of `PADDED` tokens."""
        place = np.minimum(np.arange(PADDED), self.titles.lengths[:, None] - 1) + self.titles.offsets[:-1, None]
        every = RaggedTable(self.titles.values[place.reshape(-1)], np.arange(len(self.titles) + 1) * PADDED)
        return replace(self, titles=every)

    def ours(self, precision: str = "bf16", **settings: Any) -> Ours:
        """Ours, ready for a step; `settings` of stage 2."""
        self.engine.use_precision(precision)
        stage2 = Stage2Config(**settings)
        click_titles = ClickTitles(self.titles, PADDED, self.student.news_encoder, stage2, self.engine, self.place)
        module = Stage2Module(self.student, self.teacher_news, stage2, _DIM).to(self.engine.device)
        module.train()
        click_titles.prepare("frozen layers")
        return Ours(module, click_titles, self.engine)

    def seconds(self, repeats: int, precision: str = "bf16", *, settings: Any = None, **form: Any) -> float:
        """Of one step of ours; `form` as for `our_step`."""
        ours = self.ours(precision, **(settings or {}))
        return time_ours(our_step(ours, self.batch, **form), self.engine, repeats)[0]


def _slots(batch: Batch) -> np.ndarray:
    """News of the filled slots: histories first, then candidates."""
    history = batch["history"]
    return np.concatenate([history[history >= 0], batch["candidates"].reshape(-1)])


def _with_slots(batch: Batch, news: np.ndarray) -> Batch:
    """The batch with other news in its filled slots."""
    known = batch["history"] >= 0
    history = batch["history"].copy()
    history[known] = news[: known.sum()]
    candidates = news[known.sum() :].reshape(batch["candidates"].shape).astype(np.int32)
    return {**batch, "history": history, "candidates": candidates}


def _shares(scene: Scene, seconds: float, repeats: int) -> dict[str, float]:
    """Of each technique: time of our step without it over `seconds`, the time with all."""
    without = {
        "distinct titles": scene.every_slot().seconds(1),
        "frozen layers cached": scene.seconds(repeats, settings={"frozen_cache": "none"}),
        "packed tokens": scene.padded().seconds(1),
        "bf16": scene.seconds(1, "fp32"),
        "fused Adam": scene.seconds(repeats, fused=False),
        "batches laid out ahead": scene.seconds(repeats, ahead=False),
    }
    with use_kernels("torch"):
        without["fused kernels"] = scene.seconds(repeats)
    return {name: time / seconds for name, time in without.items()}


def _others(scene: Scene, loss: float, seconds: float, repeats: int, compile: bool) -> dict[str, Any]:
    """The other forms on the same batch and weights; `loss` and `seconds`: of our step."""
    batch, titles, engine = scene.batch, scene.titles, scene.engine
    samples, found = len(batch["weights"]), {}
    shares = _shares(scene, seconds, repeats)
    module = scene.ours().module
    stock_model = PerSlot(module, "sdpa").to(engine.device).train()
    forms = batch, titles, scene.teacher_news
    stock, stock_loss = _timed(per_slot_step(stock_model, *forms, True), 1, 1)
    if compile:
        compiled: Any = torch.compile(stock_model)
        compiled_seconds, _ = _timed(per_slot_step(compiled, *forms, True), 1, 1)
        found["stock_form_compiled_samples_per_s"] = samples / compiled_seconds
        stock = min(stock, compiled_seconds)
    distinct, distinct_loss = _timed(distinct_step(stock_model, *forms, False), repeats, 1)
    if compile:
        compiled_distinct, _ = _timed(distinct_step(stock_model, *forms, True), repeats, 2)
        distinct = min(distinct, compiled_distinct)
    paper_model = PerSlot(module, "eager").to(engine.device).train()
    paper, paper_loss = _timed(per_slot_step(paper_model, *forms, False), 1, 0)
    return {
        "paper_form_samples_per_s": samples / paper,
        "stock_form_samples_per_s": samples / stock,
        "distinct_form_samples_per_s": samples / distinct,
        "ratio_paper": paper / seconds,
        "ratio_stock": stock / seconds,
        "ratio_distinct": distinct / seconds,
        "shares": shares,
        "max_loss_difference": max(abs(other - paper_loss) for other in (loss, stock_loss, distinct_loss)),
        "loss": paper_loss,
        **found,
    }


def run(
    samples: int = 128,
    layers: int = 4,
    width: int = 384,
    trainable: int = 2,
    repeats: int = 2,
    compile: bool = True,
    forms: bool = True,
    group: str = "none",
) -> dict[str, Any]:
    """Samples a second of the four forms, best of `repeats` steps of one batch; `shares` is each technique's factor.

    `group`: the samples are grouped as `data.group` says (none, user).

    On a GPU `graph_samples_per_s` is our step recorded as a CUDA graph (`stage2.cuda_graphs`), and `gpu_peak_gib` the most
    memory of ours. `activation_mib`: what our step keeps for its backward pass. A share is the time of our step without the
    technique over the time with it; that of distinct titles has the loss per distinct news in it. The paper form runs once
    (it takes most of the time). `compile` adds the stock and the distinct form under torch.compile, and the better of two counts.
    `forms=false` leaves the other forms and the shares out.
    `flops_utilisation`: operations of our step (`benchmarks/cost_model.py` counts alike) a second over `matmul_tflops`,
    measured beside it.
    """
    if group not in get_args(Group):
        raise InputError(f"tnr bench step: group={group}: one of {', '.join(get_args(Group))}")
    scene = Scene.of(samples, layers, width, trainable, group)
    batch, titles, engine = scene.batch, scene.titles, scene.engine
    on_gpu = engine.device.type == "cuda"
    results: dict[str, Any] = {}
    with TreePeak(every=0.05) as memory:
        ours = scene.ours()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds, loss = time_ours(our_step(ours, batch), engine, repeats)
        if on_gpu:
            results["gpu_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        results["activation_mib"] = activation_mib(ours.module, engine, ours.titles.inputs(batch))
        if on_gpu:
            with use_kernels("triton"):
                fused, fused_loss = time_ours(our_step(scene.ours(), batch), engine, repeats)
            results |= {"triton_samples_per_s": samples / fused, "triton_loss_difference": abs(fused_loss - loss)}
            recorded = scene.ours(cuda_graphs=True)
            results["graphs"] = [
                _graphs(ours, recorded, batch, size, repeats) for size in ((samples, 128) if forms else (samples,))
            ]
            results["graph_samples_per_s"] = results["graphs"][0]["graph_samples_per_s"]
        inputs = ours.titles.inputs(batch)
        results["matmul_tflops"] = matmul_tflops()
        per_token = 3 * trainable * (24 * width**2 + 4 * float(titles.lengths.mean()) * width) - 6 * width**2
        flops = len(inputs.titles.tokens) * per_token
        results["flops_utilisation"] = flops / seconds / (results["matmul_tflops"] * 1e12)
        results["distinct_histories"] = len(inputs.history)
        results["distinct_titles"], results["slots"] = len(inputs.news), samples * (_HISTORY + 1 + _NEGATIVES)
        results["filled_slots"] = len(_slots(batch))
        if forms:
            results |= _others(scene, loss, seconds, repeats, compile)
    return {
        "samples_per_s": samples / seconds,
        "model": f"BERT {layers} x {width}, {trainable} trainable",
        "batch": samples,
        "group": group,
        "tokens_per_title": float(titles.lengths.mean()),
        **results,
        "peak_gib": memory.gib,
    }
