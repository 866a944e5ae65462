"""One run from its folder's beginning to its completion."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from tnr_dist.engines.base import Engine
from tnr_dist.models.recommender import (
    save_recommender,
)
from tnr_dist.runs.checkpoint_files import Room
from tnr_dist.runs.folder import RunFolder
from tnr_dist.runs.tracker import Tracker
from tnr_dist.stages.parts.start_models import kept_model, model_spec
from tnr_dist.stages.parts.task import TrainsRecommender
from tnr_dist.train.loop import train
from tnr_dist.util import preemption
from tnr_dist.util.ends import result
from tnr_dist.util.errors import InputError, Preempted
from tnr_dist.util.lock import held
from tnr_dist.util.progress import say
from tnr_dist.util.streams import stream_seed


def must_run(run: RunFolder, engine: Engine, redo: bool, alone: contextlib.ExitStack | None = None) -> bool:
    """Whether a run is to be made, the same on all ranks; False when it is already complete (and says so).

    Nothing is touched yet. `redo` allows to replace one made from other settings or inputs; without it that is an
    InputError on every rank. `alone` gets the folder's lock, so that no other process works in it.
    """
    rank = engine.environment.rank
    if alone is not None and rank == 0 and run.state()[0] != "complete":
        alone.enter_context(held(run.path))
    state, why = run.state()
    # Another job of an array may complete the run just now, between two ranks' looks at it: rank 0's counts.
    seen = torch.tensor([float(rank == 0 and state == "complete")], device=engine.device)
    if engine.all_reduce(seen).item():
        run.check_files()
        if rank == 0:
            say(f"{run.path}: complete, skipped")
            result(f"{run.path}: was complete")
        return False
    fault = ""
    if rank == 0:
        try:
            run.check(redo=redo)
        except InputError as error:
            fault = str(error)
    # Raised by all in the same words: else the others would say in their own what they think of it, or miss rank 0.
    if fault := engine.gather(np.frombuffer(fault.encode(), np.uint8))[0].tobytes().decode():
        raise InputError(fault)
    if rank == 0 and state == "stale":
        say(f"{run.path}: replaced once the new one is complete ({why} changed)")
    return True


def begin(run: RunFolder, engine: Engine, redo: bool, alone: contextlib.ExitStack | None = None) -> None:
    """Make a run folder ready that `must_run`, on all ranks; `alone` holds the folder's lock."""
    if engine.environment.rank == 0 and run.begin(redo=redo) and alone is not None:
        alone.enter_context(held(run.path))  # the lock went with the folder that was set aside
    engine.barrier()


def stop_if_asked(engine: Engine, title: str) -> None:
    """Between two pieces of work that need no checkpoint: raise Preempted on all ranks when one was asked to stop."""
    if engine.all_reduce(torch.tensor([float(preemption.stop_requested())], device=engine.device)).item():
        preemption.clear_request()
        raise Preempted(f"{title}: stopped before it; run it again to resume")


def train_model(
    engine: Engine,
    run: RunFolder,
    make_task: Callable[[], TrainsRecommender],
    redo: bool,
    keep_models: int = 1,
    keep_every: int = 0,
) -> None:
    """Train a stage's task into its run folder: begin, train, save the model, mark as complete.

    A complete run is left as it is; `redo` replaces one made from other settings or inputs, once the new one is complete. With `keep_models` above 1
    the models of as many intervals of `keep_every` steps before the end are kept too (`kept_model`; 0: of all steps cut
    into `keep_models` parts).
    """
    with contextlib.ExitStack() as alone:
        if not must_run(run, engine, redo, alone):
            return
        # Projections and whatever else a stage draws beside its models.
        torch.manual_seed(stream_seed(run.config.seed, run.stage))
        engine.use_precision(run.config.precision)  # memory is planned for it
        # Bad data, models and settings are found here, before anything of an earlier run is given up.
        config, task = run.config, make_task()
        begin(run, engine, redo, alone)
        with Tracker(run, engine) as tracker:
            facts = train(engine, task, run, config, tracker, _model_saver(engine, run, task, keep_models, keep_every))
            if engine.environment.rank == 0:
                room = Room(run.path / "checkpoints", config.log.keep_every)
                room.write(lambda: _save_model(run, task, run.path / "model.safetensors"))
                room.write(lambda: run.finish(**facts))
                tracker.finished()
                result(f"{run.path}: {_training_summary(facts, tracker.last)}")
        engine.barrier()


def _model_saver(
    engine: Engine, run: RunFolder, task: TrainsRecommender, models: int, every: int
) -> Callable[[int, int], None]:
    """What saves the model whenever a whole number of intervals is left to train."""

    def after_step(step: int, total: int) -> None:
        interval = every or max(total // models, 1)
        if interval * (models - 1) >= total:
            raise InputError(
                f"{run.path}: training has {total:,} steps, too few to keep {models} models {interval:,} steps apart"
            )
        before_end, left = divmod(total - step, interval)
        if left or not 0 < before_end < models:
            return
        with engine.whole():
            if engine.environment.rank == 0:
                path = kept_model(run.path, before_end)
                Room(run.path / "checkpoints", run.config.log.keep_every).write(lambda: _save_model(run, task, path))

    return after_step


def _training_summary(facts: Mapping[str, float], last: Mapping[str, float | str]) -> str:
    """A training's main figures in a few words, from its facts and the last value of everything it has logged."""
    steps = facts["steps"]
    parts = [f"{steps:,} step{'s' * (steps != 1)} in {facts['seconds']:,.0f} s"]
    if "train/loss" in last:
        parts.append(f"loss {float(last['train/loss']):.4f}")
    if "best_step" in facts:
        parts.append(f"AUC {facts['valid_auc']:.4f} on what train keeps apart, best at step {facts['best_step']:,}")
    parts += [f"{key} {value:.4f}" for key, value in facts.items() if key.startswith("eval/")]
    return ", ".join(parts)


def _save_model(run: RunFolder, task: TrainsRecommender, path: Path) -> None:
    save_recommender(task.recommender, model_spec(run.config, task.recommender.news_encoder.encoder), path)
