"""What the stages share: the data set, models from a PLM or from an earlier run, run folders by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from torch import nn

from tnr_dist.config import (
    ClickTrainConfig,
    Config,
    CorpusTrainConfig,
    DataConfig,
    TrainConfig,
    ValidatedTrainConfig,
)
from tnr_dist.data.held_out import HeldOut, hold_out_last
from tnr_dist.data.loader import ClickLoader, Columns, LoaderOptions
from tnr_dist.data.manifest import check_file as check_data_file
from tnr_dist.data.manifest import manifest_hash, open_table, read_manifest
from tnr_dist.data.shards import read_index
from tnr_dist.data.source import ShardSource
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.digests import plm_digest
from tnr_dist.ends import result
from tnr_dist.engines.base import Engine
from tnr_dist.errors import InputError, Preempted
from tnr_dist.lock import held
from tnr_dist.models.plm import load_plm
from tnr_dist.models.recommender import (
    ModelSpec,
    NewsEncoder,
    Recommender,
    build_recommender,
    load_recommender,
    save_recommender,
)
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.models.transformer import Encoder
from tnr_dist.progress import say
from tnr_dist.stages.start_scale import fit_start_scale
from tnr_dist.streams import drawn_from, stream_seed
from tnr_dist.train import preemption
from tnr_dist.train.checkpoint import Room
from tnr_dist.train.finished import check_file, warn_once
from tnr_dist.train.loop import Task, train
from tnr_dist.train.runfolder import RunFolder, completed_id
from tnr_dist.train.tracking import Tracker

# Settings that every model depends on, beside its own stage's.
MODEL_SETTINGS = ("seed", "precision", "plm", "model")
# What a click model reads of a news.
NEWS_SETTINGS = (
    "data.news_inputs",
    "data.title_tokens",
    "data.category_tokens",
    "data.subcategory_tokens",
    "data.abstract_tokens",
)
BATCH_SETTINGS = (
    *NEWS_SETTINGS,
    "data.history",
    "data.negatives",
    "data.few_negatives",
    "data.streams",
    "data.window_shards",
)
# Settings of how the work is cut up and where intermediate results lie.
_HOW_NOT_WHAT = (
    "dedupe",
    "frozen_cache",
    "frozen_cache_gib",
    "token_budget",
    "accumulate",
    "teacher_tables_gib",
    "cuda_graphs",
)


class TrainsRecommender(Task, Protocol):
    """A task whose result is a recommender."""

    @property
    def recommender(self) -> Recommender:
        """The result."""


@dataclass(frozen=True)
class DataSet:
    """A prepared data set."""

    folder: Path
    manifest: dict[str, Any]
    id: str

    @classmethod
    def open(cls, config: Config) -> DataSet:
        """Raises InputError when `data.dir` is no prepared data set, or its news or tokenizer are damaged.

        Token tables, indices and shards are checked where they are read.
        """
        folder = Path(config.data.dir)
        data = cls(folder, read_manifest(folder), manifest_hash(folder))
        files = data.manifest.get("files")
        if files is None:
            warn_once(folder, "prepared by an older version, which kept no digests: damage to it may go unseen")
        for name in files or ():
            if name == "news.parquet" or name.startswith("tokenizer/"):
                check_data_file(folder, name)
        return data

    def news_tokens(self, wanted: DataConfig) -> RaggedTable:
        """Token ids of what `wanted.news_inputs` names of every news, in memory; a click model reads these.

        Raises InputError when the data was prepared for other inputs or fewer tokens, or is damaged.
        """
        if wanted.news_inputs == ["title"]:
            table = open_table(self.folder, "title").resident()
            # Fewer may be read: a title is cut as the tokenizer cuts it.
            if wanted.title_tokens > (kept := self.manifest["max_lengths"].get("title", wanted.title_tokens)):
                raise InputError(
                    f"{self.folder}: prepared with {kept} tokens a title, but data.title_tokens={wanted.title_tokens}; set "
                    f"data.title_tokens={kept}, or prepare the data again into another folder"
                )
            return table
        made = self.manifest.get("news_inputs", {"title": self.manifest["max_lengths"]["title"]})
        lengths = {name: getattr(wanted, f"{name}_tokens") for name in wanted.news_inputs}
        if made != lengths:
            raise InputError(
                f"{self.folder}: prepared with the news inputs {_described(made)}, but data.news_inputs asks for "
                f"{_described(lengths)}; prepare the data again, into another folder"
            )
        return open_table(self.folder, "news").resident()

    def check_tokenizer(self, tokenizer_hash: str, plm: str) -> None:
        """The token ids must be those of the PLM that reads them."""
        if self.manifest["tokenizer"]["hash"] != tokenizer_hash:
            raise InputError(
                f"{self.folder}: prepared with the tokenizer of {self.manifest['tokenizer']['name']}, which is not that of "
                f"{plm}; prepare the data for this PLM"
            )

    def changed_plm(self, plm: str) -> str:
        """What is to be said when the PLM in the place of the one that the data was prepared with is another; '' if not.

        Of a folder of one's own nobody can say whether it was replaced or damaged; runs of the two are told apart by it.
        """
        stated, name = self.manifest.get("plm_digest"), str(self.manifest["tokenizer"].get("name"))
        same_place = Path(name).expanduser().resolve() == Path(plm).expanduser().resolve()
        if not stated or not same_place or plm_digest(plm) == stated:
            return ""
        return f"not the PLM that {self.folder} was prepared with: its files have changed since, replaced or damaged"

    def check_tokenizer_name(self, plm: str) -> None:
        """`check_tokenizer` by the PLM's name."""
        self.check_tokenizer(load_tokenizer(plm).hash, plm)


def _described(inputs: dict[str, int]) -> str:
    return ", ".join(f"{name} ({length} tokens)" for name, length in inputs.items())


def click_loader(
    config: Config, data: DataSet, train: ClickTrainConfig, seed: int, engine: Engine, columns: Columns | None = None
) -> tuple[ClickLoader, HeldOut | None]:
    """The training split's loader for this rank, and what `train.validate` keeps apart from it."""
    index = read_index(data.folder, "train")
    source = ShardSource.of(data.folder / "train", index, config.data.shards)
    held_out = None
    if isinstance(train, ValidatedTrainConfig) and train.validate:
        held_out = hold_out_last(index, source, train.validate, config.data.on_bad_shard == "skip")
        index = held_out.index
    options = LoaderOptions(
        train.batch_size,
        config.data.history,
        config.data.negatives,
        config.data.few_negatives,
        seed,
        config.data.streams,
        config.data.window_shards,
        config.data.on_bad_shard,
        held_out.before if held_out else None,
    )
    loader = ClickLoader(
        index,
        source,
        options,
        rank=engine.environment.rank,
        world_size=engine.environment.world_size,
        workers=config.data.workers,
        columns=columns,
    )
    return loader, held_out


def fit_scale(
    config: Config, data: DataSet, train: ValidatedTrainConfig, model: Recommender, loader: ClickLoader, engine: Engine
) -> None:
    """Where `train.fit_scale` says so, give a model's vectors the scale that clicks want (`start_scale.py`)."""
    if train.fit_scale:
        engine.use_precision(config.precision)
        scale = fit_start_scale(model, data.news_tokens(config.data), config.data.news_tokens, loader, engine)
        if engine.environment.rank == 0 and scale != 1:
            say(f"news vectors start {scale:.2f} times as long: the scale under which the click loss is least")


def fresh_model(config: Config, data: DataSet, layers: int, seed: int, stage: str) -> tuple[Recommender, ModelSpec]:
    """A recommender around the PLM's first `layers` layers (0: all).

    What stands on top is drawn from the stream of `seed` and `stage`, so that no two stages start from one head.
    """
    encoder, tokenizer = load_plm(config.plm.name, layers or config.plm.layers or None)
    data.check_tokenizer(tokenizer.hash(), config.plm.name)
    if said := data.changed_plm(config.plm.name):
        warn_once(Path(config.plm.name), said)
    encoder.set_dropout(config.model.dropout)
    spec = model_spec(config, encoder)
    with drawn_from(seed, stage, "model"):
        return build_recommender(spec, encoder), spec


def kept_model(run: Path, before_end: int) -> Path:
    """The file of a run's model as it was `before_end` intervals before the end; 0: its final model."""
    return run / "models" / f"{before_end}-before-the-end.safetensors" if before_end else run / "model.safetensors"


def trained_model(run: Path, what: str, before_end: int = 0) -> tuple[Recommender, ModelSpec]:
    """The model of a finished run, or an earlier one (`kept_model`).

    Raises InputError when the run is not finished, or the model is not the one that it ended with.
    """
    completed_id(run, what)
    path = kept_model(run, before_end)
    found = load_recommender(path)
    check_file(run, str(path.relative_to(run)))
    return found


def continued_model(config: Config, run: Path, what: str, before_end: int = 0) -> tuple[Recommender, ModelSpec]:
    """The model of a finished run, or an earlier one (`kept_model`), to be trained further under `config.model`.

    Raises InputError when the run is not finished or made a model of another shape than the configuration's.
    """
    model, spec = trained_model(run, what, before_end)
    names = ["news_dim", "query_dim", "user_encoder", "history_padding"]
    if spec.user_encoder == "nrms":
        names.append("user_heads")  # the same weights under any number of heads: loading would not notice
    for name in names:
        made, wanted = getattr(spec, name), getattr(config.model, name)
        if made != wanted:
            raise InputError(
                f"model.{name}={wanted}: {run} was made with {made}; run {what} again, or restore the setting"
            )
    encoder = model.news_encoder.encoder.set_dropout(config.model.dropout)
    return model, replace(spec, encoder=encoder.config)


def with_fresh_user_encoder(model: Recommender, spec: ModelSpec, seed: int, stage: str) -> Recommender:
    """Keep the news encoder, draw a new user encoder from `seed` and `stage`: the M teachers differ by it (Fig. 2b)."""
    with drawn_from(seed, stage, "user encoder"):
        model.user_encoder = build_recommender(spec, model.news_encoder.encoder).user_encoder
    return model


def token_budget(encoder: Encoder, train: TrainConfig, engine: Engine) -> int:
    """Tokens whose activations fit into 40 % of a GPU's memory, or into a rank's share of a quarter of the machine's."""
    if train.token_budget:
        return max(train.token_budget, 0)
    trained = len(encoder.layers) if train.trainable_layers < 0 else min(train.trainable_layers, len(encoder.layers))
    # About 34 values of hidden size are kept a layer and token (Korthikanti et al. 2022, section 4), here in float32.
    per_token = 34 * 4 * encoder.config.hidden * max(trained, 1)
    if engine.device.type == "cuda":
        room = 0.4 * torch.cuda.get_device_properties(engine.device).total_memory
    else:
        room = 0.25 * psutil.virtual_memory().total / engine.environment.local_world_size
    return int(room / per_token)


def freeze(news_encoder: NewsEncoder, train: TrainConfig, engine: Engine) -> None:
    """Let only the last `trainable_layers` train (-1: everything), within the stage's token budget and with its dropout.

    What stands on the PLM always trains.
    """
    encoder = news_encoder.encoder
    if train.dropout >= 0:
        encoder.set_dropout(train.dropout)
    news_encoder.token_budget = token_budget(encoder, train, engine)
    if train.trainable_layers < 0:
        encoder.requires_grad_(True)
    else:
        everywhere = isinstance(train, CorpusTrainConfig) and train.dropout_in == "all"
        encoder.freeze_below(min(train.trainable_layers, len(encoder.layers)), everywhere)


def may_start(run: RunFolder, engine: Engine, redo: bool, alone: contextlib.ExitStack | None = None) -> bool:
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
    """Make a run folder ready that `may_start`, on all ranks; `alone` holds the folder's lock."""
    if engine.environment.rank == 0 and run.begin(redo=redo) and alone is not None:
        alone.enter_context(held(run.path))  # the lock went with the folder that was set aside
    engine.barrier()


def stop_if_asked(engine: Engine, title: str) -> None:
    """Between two pieces of work that need no checkpoint: raise Preempted on all ranks when one was told to stop."""
    if engine.all_reduce(torch.tensor([float(preemption.asked())], device=engine.device)).item():
        preemption.forget()
        raise Preempted(f"{title}: told to stop before it; run it again to go on")


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
        if not may_start(run, engine, redo, alone):
            return
        # Projections and whatever else a stage draws beside its models.
        torch.manual_seed(stream_seed(run.config.seed, run.stage))
        # Bad data, models and settings are found here, before anything of an earlier run is given up.
        config, task = run.config, make_task()
        begin(run, engine, redo, alone)
        with Tracker(run, engine) as tracker:
            facts = train(engine, task, run, config, tracker, _keeper(engine, run, task, keep_models, keep_every))
            if engine.environment.rank == 0:
                room = Room(run.path / "checkpoints", config.log.keep_every)
                room.write(lambda: _save_model(run, task, run.path / "model.safetensors"))
                room.write(lambda: run.finish(**facts))
                tracker.finished()
                result(f"{run.path}: {_figures(facts, tracker.last)}")
        engine.barrier()


def _keeper(
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


def _figures(facts: dict[str, Any], last: dict[str, Any]) -> str:
    """A training's main figures in a few words, from its facts and the last value of everything it has logged."""
    steps = facts["steps"]
    parts = [f"{steps:,} step{'s' * (steps != 1)} in {facts['seconds']:,.0f} s"]
    if "train/loss" in last:
        parts.append(f"loss {last['train/loss']:.4f}")
    if "best_step" in facts:
        parts.append(f"AUC {facts['valid_auc']:.4f} on what train keeps apart, best at step {facts['best_step']:,}")
    parts += [f"{key} {value:.4f}" for key, value in facts.items() if key.startswith("eval/")]
    return ", ".join(parts)


def _save_model(run: RunFolder, task: TrainsRecommender, path: Path) -> None:
    save_recommender(task.recommender, model_spec(run.config, task.recommender.news_encoder.encoder), path)


def model_spec(config: Config, encoder: Encoder) -> ModelSpec:
    """The specification of a recommender that `config` builds around `encoder`."""
    return ModelSpec(
        encoder.config,
        config.model.news_dim,
        config.model.query_dim,
        config.model.user_encoder,
        config.model.user_heads,
        config.model.history_padding,
    )


def recipe(name: str, settings: TrainConfig, leave_out: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The keys of a training section that change what it makes; how the work is shared among ranks does not."""
    left_out = (*_HOW_NOT_WHAT, *leave_out)
    return tuple(f"{name}.{field.name}" for field in fields(settings) if field.name not in left_out)


def plm_parameters(module: nn.Module) -> set[nn.Parameter]:
    """Parameters of every PLM inside a module."""
    return {p for part in module.modules() if isinstance(part, Encoder) for p in part.parameters()}


def folder(config: Config, name: str) -> Path:
    """A folder beside the runs' own, such as that of the frozen layers' states."""
    return Path(config.output) / name
