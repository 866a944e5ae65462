"""Which settings a run is known by, and where what it needs lies."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from tnr_dist.config.schema import Config
from tnr_dist.config.training import TrainConfig

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
    "data.group",
)
# Settings of how the work is cut up and where intermediate results lie.
_HOW_NOT_WHAT = (
    "dedupe",
    "frozen_cache",
    "frozen_cache_gib",
    "token_budget",
    "accumulate",
    "teacher_tables_gib",
    "teacher_cache",
    "cuda_graphs",
)


def recipe(name: str, settings: TrainConfig, leave_out: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The keys of a training section that change what it makes; how the work is shared among ranks does not."""
    left_out = (*_HOW_NOT_WHAT, *leave_out)
    return tuple(f"{name}.{field.name}" for field in fields(settings) if field.name not in left_out)


def folder(config: Config, name: str) -> Path:
    """A folder beside the runs' own, such as that of the frozen layers' states."""
    return Path(config.output) / name
