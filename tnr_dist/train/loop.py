"""The one training loop. A stage declares what is trained (`Task`); how is decided here, once.

`train_step` is one step from top to bottom; `train` repeats it, and between steps logs, scores and saves.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tnr_dist.config.schema import Config
from tnr_dist.config.training import TrainConfig
from tnr_dist.engines.allocator import FreedMemory
from tnr_dist.engines.base import Engine
from tnr_dist.models.projection import Projection
from tnr_dist.models.recommender import count_parameters
from tnr_dist.runs.checkpoint_files import Progress
from tnr_dist.runs.folder import RunFolder
from tnr_dist.runs.tracker import Tracker
from tnr_dist.train.best import Best, Scorer
from tnr_dist.train.checkpoint import Checkpoints
from tnr_dist.train.heartbeat import watched
from tnr_dist.train.peak_flops import device_peak
from tnr_dist.train.throughput import Texts, Throughput, status
from tnr_dist.util import preemption
from tnr_dist.util.errors import InputError, Preempted
from tnr_dist.util.progress import Bar, say
from tnr_dist.util.transfer import prefetch

Batch = dict[str, np.ndarray]  # a row per sample of this rank, and "count" [], the samples of the global batch

_DUE = "checkpoint_due"


class Loader(Protocol):
    """Global batches whose sequence depends on the seed, the epoch and the data only."""

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns of a batch that name a text in each of their slots, empty ones of a history included."""

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on all ranks."""

    def fingerprint(self) -> str:
        """Identifies the sequence of batches."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch from step `start` on."""

    def skipped(self, batch: Batch) -> int:
        """Samples of a batch that are of a damaged shard (data.on_bad_shard=skip)."""


class Task(Protocol):
    """What a stage trains.

    Attributes:
        title: for the progress bar.
        module: forward(batch) -> {"loss": this rank's share of the global mean, further parts likewise}.
        loader: the batches.
        train: the settings of the training.
        seed: of the random numbers of each step.
    """

    title: str
    module: nn.Module
    loader: Loader
    train: TrainConfig
    seed: int

    @property
    def prefetch(self) -> bool:
        """Whether `to_device` may run in a thread ahead of the step: it then talks to no other rank."""

    def begin(self, engine: Engine) -> None:
        """What is computed once before the first step, with the module on the engine's device."""
        return

    def to_device(self, batch: Batch) -> Any:
        """Arrays of the loader as what the module takes, on the engine's device."""

    def texts(self, inputs: Any) -> list[Texts]:
        """What the module's forward pass on `inputs` encodes, counted from shapes on the host."""

    def plm_parameters(self) -> set[nn.Parameter]:
        """Parameters that learn at `lr`; the others at `head_lr`."""

    def validation(self) -> Scorer | None:
        """What scores the model as it trains, if anything does; the best model is then the result, not the last."""
        return None

    def validate(self, engine: Engine) -> dict[str, float]:
        """Figures measured after the last step, logged under their own keys; may be empty."""


def learning_rate(step: int, total: int, train: TrainConfig, base: float) -> float:
    """The rate of step `step` (from 0): linear warm-up, then constant or linear to 0 at `total`."""
    warmup = int(train.warmup * total)
    if step < warmup:
        return base * (step + 1) / warmup
    if train.schedule == "linear":
        return base * max(total - step, 0) / max(total - warmup, 1)
    return base


def make_optimizer(task: Task, module: nn.Module) -> torch.optim.Optimizer:
    """Adam (the paper's Table 3) with one group for the PLM and one for what stands on top.

    With `weight_decay` each is cut in two, for it pulls towards zero: matrices that start near it decay; biases, norms,
    omega and projections, which start as ones or identities or mean something as they are, do not decay.
    """
    train = task.train
    plm, kept = task.plm_parameters(), _not_decayed(module) if train.weight_decay else set()
    groups = []
    for members, rate in ((True, train.lr), (False, train.head_lr or train.lr)):
        for decays in (True, False):
            parameters = [
                p
                for p in module.parameters()
                if p.requires_grad and (p in plm) is members and (p not in kept) is decays
            ]
            decay = train.weight_decay if decays else 0.0
            if parameters:
                groups.append({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay})
    beta1, beta2 = train.betas
    kind = torch.optim.AdamW if train.weight_decay else torch.optim.Adam
    return kind(
        groups, betas=(beta1, beta2), eps=train.eps, weight_decay=train.weight_decay, amsgrad=train.amsgrad, fused=True
    )


def _not_decayed(module: nn.Module) -> set[nn.Parameter]:
    vectors = {p for p in module.parameters() if p.ndim < 2}
    return vectors | {p for part in module.modules() if isinstance(part, Projection) for p in part.parameters()}


def train(
    engine: Engine,
    task: Task,
    run: RunFolder,
    config: Config,
    tracker: Tracker,
    after_step: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Train to the end, resuming from the newest checkpoint; returns facts for `RunFolder.finish`.

    `after_step(step, total)` is called on every rank after each step, before a checkpoint of it is written.

    Raises Preempted after a checkpoint when the process was asked to stop, and RankLost when another rank is gone.
    """
    with preemption.listening(), watched(run.path / "heartbeat", engine.environment):
        return _train(engine, task, run, config, tracker, after_step)


def _train(
    engine: Engine,
    task: Task,
    run: RunFolder,
    config: Config,
    tracker: Tracker,
    after_step: Callable[[int, int], None] | None,
) -> dict[str, float]:
    rank, world = engine.environment.rank, engine.environment.world_size
    began = time.monotonic()
    settings = task.train
    facts: dict[str, object] = {
        "parameters": count_parameters(task.module),
        "trained_parameters": count_parameters(task.module, trainable=True),
    }
    engine.setup(
        task.module,
        lambda module: make_optimizer(task, module),
        precision=config.precision,
        clip_norm=settings.clip_norm,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
    )
    total = int(min(settings.epochs * task.loader.steps, settings.max_steps or math.inf))
    fingerprint = task.loader.fingerprint()
    checkpoints = Checkpoints(run.path / "checkpoints", engine, config.log.keep, config.log.keep_every)
    state = checkpoints.load_newest(fingerprint)
    step = int(state["step"]) if state else 0
    samples = float(state["samples"]) if state else 0.0
    best = Best()
    if state and "best" in state:
        best.restore(state["best"], state["tensors"]["best"])
    skipped = float(state.get("skipped_samples", 0)) if state and rank == 0 else 0.0  # this rank's
    earlier = float(state["seconds"]) if state else 0.0
    if step and rank == 0:
        say(f"{task.title}: resuming at step {step:,} of {total:,}")
    peak = device_peak(engine) if rank == 0 else None
    if peak is not None:
        facts |= {"peak_tflops": peak.flops / 1e12, "peak_source": peak.source}
    tracker.start(step, str(state.get("wandb_id", "")) if state else "", facts)

    def lost() -> int:
        return int(engine.all_reduce(torch.tensor([skipped], device=engine.device)).item())

    def save() -> None:
        # Weights that have become NaN between two logged steps must not replace sound ones.
        _check_finite({"step": step, "optim/grad_norm": float(norm)}, task.title)
        seconds = earlier + time.monotonic() - began
        position = Progress(fingerprint=fingerprint, samples=samples, skipped_samples=lost(), seconds=seconds)
        kept = Progress(best=best.state()) if best.tensors else Progress()
        extra = {"best": best.tensors} if best.tensors else {}
        checkpoints.save(step, {**position, **kept, "wandb_id": tracker.wandb_id}, extra)

    task.begin(engine)
    scorer = task.validation()
    engine.module.train()
    throughput, freed = Throughput(engine, peak), FreedMemory(engine.device)
    batches, saved_at = _inputs(task, _batches(task.loader, step, total), engine.device), time.monotonic()
    with (
        Bar(task.title, total, "steps", enabled=rank == 0) as bar,
        contextlib.closing(batches),
        contextlib.closing(checkpoints),
    ):
        bar.skip(step)
        while step < total:
            asked = time.monotonic()
            batch, pieces = next(batches)
            waited = time.monotonic() - asked
            parts, norm, texts = train_step(engine, task, pieces, step, total)
            freed.after_step()
            slots = sum(batch[name].size for name in task.loader.text_columns)
            throughput.step(float(batch["count"]), slots, texts, waited)
            step += 1
            samples += float(batch["count"])
            skipped += task.loader.skipped(batch)
            if after_step is not None:
                after_step(step, total)
            note, due = "", False
            if step % config.log.every == 0 or step == total:
                parts["skipped_samples"] = torch.tensor(skipped, device=engine.device)
                # Rank 0's clock decides for all, on a step where the ranks talk anyway.
                late = rank == 0 and 0 < config.log.checkpoint_minutes * 60 < time.monotonic() - saved_at
                parts[_DUE] = torch.tensor(float(late), device=engine.device)
                record = _record(engine, parts, norm, step, task.loader.steps, samples, throughput)
                due = record.pop(f"train/{_DUE}") > 0
                _check_finite(record, task.title)
                note = status(record, world)
                tracker.write(record, more=step == total or (scorer is not None and scorer.due(step, total)))
                throughput.restart()
            if scorer is not None and scorer.due(step, total):
                score = scorer.score(engine)
                engine.module.train()
                best.offer(score, step, engine)
                tracker.write(
                    {"step": step, "samples": int(samples), f"valid/{scorer.name}": score}, more=step == total
                )
                throughput.restart()
            bar.advance(1, note)
            if engine.any_rank(preemption.stop_requested()) and step < total:
                save()
                checkpoints.wait(must=True)
                engine.barrier()  # a launcher that sees one rank end may end the others: first it is written
                preemption.clear_request()
                raise Preempted(
                    f"{task.title}: stopped at step {step:,} of {total:,} after a checkpoint; run it again to resume"
                )
            due |= config.log.checkpoint_every > 0 and step % config.log.checkpoint_every == 0
            if due and step < total:
                save()
                saved_at = time.monotonic()
    engine.finish()
    skipped_samples = lost()
    if 0 < samples <= skipped_samples:  # a rank sees a part of the shards, so no loader could tell
        raise InputError(
            f"{task.title}: every sample was of a damaged shard; prepare the data again, nothing was trained"
        )
    best.load_into(engine.module)
    engine.module.eval()
    figures = task.validate(engine)
    seconds = earlier + time.monotonic() - began
    if figures:
        tracker.write({"step": step, "samples": int(samples), **figures})
    if skipped_samples and rank == 0:
        say(f"{task.title}: {skipped_samples:,} samples of damaged shards were skipped")
    chosen = {"best_step": best.step, f"valid_{scorer.name}": best.score} if best.tensors and scorer else {}
    return {
        "steps": step,
        **chosen,
        "skipped_samples": skipped_samples,
        "samples": int(samples),
        "seconds": round(seconds, 2),
        "ranks": world,
        **figures,
    }


def train_step(
    engine: Engine, task: Task, pieces: Iterable[Any], step: int, total: int
) -> tuple[dict[str, Tensor], Tensor, list[Texts]]:
    """One step: forward and backward of each micro-batch, then the update.

    Args:
        pieces: the device inputs of the step's micro-batches (`Task.to_device`), as many as `task.train.accumulate`.
        step: its number from 0; total: how many there are.

    Returns:
        The loss and its parts, this rank's shares, summed over micro-batches; the gradients' norm before clipping; the
        texts that were encoded.
    """
    # Dropout's numbers are a function of (seed, step, rank): a resumed run draws what an unbroken one does.
    entropy = [task.seed, step, engine.environment.rank]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate(step, total, task.train, group["base_lr"])
    sums: dict[str, Tensor] = {}
    texts: list[Texts] = []
    for number, inputs in enumerate(pieces, 1):
        with engine.micro_batch(last=number == task.train.accumulate):
            parts = engine.forward(inputs)
            engine.backward(parts["loss"])
        for name, value in parts.items():
            sums[name] = value.detach() if name not in sums else sums[name] + value.detach()
        texts += task.texts(inputs)
    return sums, engine.step(), texts


def _inputs(task: Task, batches: Iterator[Batch], device: torch.device) -> Generator[tuple[Batch, Iterable[Any]]]:
    """Each batch with the device inputs of its micro-batches; one after another where they cannot be made ahead."""
    pieces = task.train.accumulate

    def to_device(batch: Batch) -> list[Any]:
        return [task.to_device(piece) for piece in micro_batches(batch, pieces)]

    if task.prefetch:
        yield from prefetch(batches, to_device, device)
        return
    for batch in batches:
        yield batch, map(task.to_device, micro_batches(batch, pieces))


def micro_batches(batch: Batch, pieces: int) -> list[Batch]:
    """Cut this rank's samples into `pieces`, equally many on all ranks; where samples run out, one of weight 0."""
    if pieces == 1:
        return [batch]
    out = []
    for rows in np.array_split(np.arange(len(batch["weights"])), pieces):
        chosen = rows if len(rows) else np.zeros(1, np.int64)
        piece = {name: values[chosen] if values.ndim else values for name, values in batch.items()}
        if not len(rows):
            piece["weights"] = np.zeros_like(piece["weights"])
        out.append(piece)
    return out


def _batches(loader: Loader, step: int, total: int) -> Iterator[Batch]:
    while step < total:
        epoch, start = divmod(step, loader.steps)
        for batch in itertools.islice(loader.epoch(epoch, start), total - step):
            yield batch
            step += 1


def _record(
    engine: Engine,
    parts: dict[str, Tensor],
    norm: Tensor,
    step: int,
    steps_per_epoch: int,
    samples: float,
    throughput: Throughput,
) -> dict[str, float]:
    """One line of metrics.jsonl; shares of the ranks are summed here, on logging steps only."""
    names = list(parts)
    shares = [parts[name].detach().float().reshape(-1) for name in names]
    summed = engine.all_reduce(torch.cat([*shares, throughput.shares()])).tolist()
    record: dict[str, float] = {"step": step, "epoch": step / steps_per_epoch, "samples": int(samples)}
    position = 0
    for name in names:
        size = parts[name].numel()
        values = summed[position : position + size]
        position += size
        if size == 1:
            record[f"train/{name}"] = values[0]
        else:
            record.update({f"train/{name}_{i}": value for i, value in enumerate(values)})
    record["optim/lr"] = engine.optimizer.param_groups[0]["lr"]
    record["optim/grad_norm"] = float(norm)
    return {**record, **throughput.record(summed[position:])}


def _check_finite(record: Mapping[str, float], title: str) -> None:
    bad = [key for key, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"{title}: {bad[0]} is {record[bad[0]]} at step {record['step']}; lower the learning rate, set precision=fp32, or look for it in the data and the teacher cache"
        )
