"""The models that a stage starts with: from a PLM or an earlier run, and which of their parameters train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from tnr_dist.config.schema import Config
from tnr_dist.config.training import CorpusTrainConfig, TrainConfig
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.launch.warn import warn_once
from tnr_dist.models.plm import load_plm
from tnr_dist.models.recommender import (
    ModelSpec,
    NewsEncoder,
    Recommender,
    build_recommender,
    load_recommender,
)
from tnr_dist.models.transformer import Encoder
from tnr_dist.runs.finished import check_file
from tnr_dist.runs.folder import completed_id
from tnr_dist.stages.parts.token_budget import token_budget
from tnr_dist.util.errors import InputError
from tnr_dist.util.streams import drawn_from


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


def freeze(news_encoder: NewsEncoder, train: TrainConfig, engine: Engine) -> None:
    """Let only the last `trainable_layers` train (-1: everything), within the stage's token budget and with its dropout.

    What stands on the PLM always trains.
    """
    encoder = news_encoder.encoder
    if train.dropout >= 0:
        encoder.set_dropout(train.dropout)
    news_encoder.token_budget = token_budget(news_encoder, train, engine)
    if train.trainable_layers < 0:
        encoder.requires_grad_(True)
    else:
        everywhere = isinstance(train, CorpusTrainConfig) and train.dropout_in == "all"
        encoder.freeze_below(min(train.trainable_layers, len(encoder.layers)), everywhere)


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


def plm_parameters(module: nn.Module) -> set[nn.Parameter]:
    """Parameters of every PLM inside a module."""
    return {p for part in module.modules() if isinstance(part, Encoder) for p in part.parameters()}
