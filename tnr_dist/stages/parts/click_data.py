"""The click samples that a stage trains on, as its configuration wants them."""

from __future__ import annotations

from tnr_dist.config.schema import Config
from tnr_dist.config.training import ClickTrainConfig, ValidatedTrainConfig
from tnr_dist.data.batches.clicks import ClickLoader, LoaderOptions, ReadTeachers
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.held_out import HeldOut, hold_out_last
from tnr_dist.data.shards import read_index
from tnr_dist.data.source import ShardSource
from tnr_dist.engines.base import Engine
from tnr_dist.models.recommender import (
    Recommender,
)
from tnr_dist.stages.parts.start_scale import fit_start_scale
from tnr_dist.util.progress import say


def click_loader(
    config: Config,
    data: DataSet,
    train: ClickTrainConfig,
    seed: int,
    engine: Engine,
    teachers: ReadTeachers | None = None,
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
        config.data.group,
    )
    loader = ClickLoader(
        index,
        source,
        options,
        rank=engine.environment.rank,
        world_size=engine.environment.world_size,
        workers=config.data.workers,
        teachers=teachers,
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
            say(f"news vectors are scaled by {scale:.2f}, which minimises the click loss")
