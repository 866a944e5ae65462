"""Finetuning on clicks: the M teachers from the post-trained PLM, and PLM-NR-n (FT) from the plain one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tnr_dist.config import Config, FinetuneConfig
from tnr_dist.data.loader import Batch, ClickLoader
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.engines.base import Engine
from tnr_dist.errors import InputError
from tnr_dist.losses.click import click_loss
from tnr_dist.models.recommender import Recommender
from tnr_dist.stages import post_train
from tnr_dist.stages.common import (
    BATCH_SETTINGS,
    MODEL_SETTINGS,
    ClickInputs,
    DataSet,
    click_inputs,
    click_loader,
    folder,
    freeze,
    fresh_model,
    plm_parameters,
    train_model,
    trained_model,
    with_fresh_user_encoder,
)
from tnr_dist.train.runfolder import RunFolder

_TEACHER_SEED = 1000  # teacher i of seed s draws from seed 1000 * (i + 1) + s: other numbers than any stage's own


class ClickModule(nn.Module):
    """The click loss on a batch."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: ClickInputs) -> dict[str, Tensor]:
        """This rank's share of the loss."""
        out = self.model(inputs.titles, inputs.history, inputs.history_mask, inputs.candidates)
        return {"loss": click_loss(out.scores, inputs.weights, inputs.count, inputs.candidate_mask)}


@dataclass
class FinetuneTask:
    """See `train.loop.Task`."""

    recommender: Recommender
    module: ClickModule
    loader: ClickLoader
    train: FinetuneConfig
    seed: int
    title: str
    titles: RaggedTable
    title_tokens: int

    def to_device(self, batch: Batch, device: torch.device) -> ClickInputs:
        """See `Task`."""
        return click_inputs(batch, self.titles, self.title_tokens, device)

    def plm_parameters(self) -> set[nn.Parameter]:
        """See `Task`."""
        return plm_parameters(self.module)

    def validate(self, engine: Engine) -> dict[str, float]:
        """See `Task`."""
        return {}


def _settings() -> tuple[str, ...]:
    keys = [
        f"finetune.{name}"
        for name in FinetuneConfig.__dataclass_fields__
        if name not in ("teachers", "teacher", "layers", "init")
    ]
    return (*MODEL_SETTINGS, *BATCH_SETTINGS, *keys)


def teacher_folder(config: Config, data: DataSet, teacher: int) -> RunFolder:
    """Where teacher `teacher` lies and what it depends on; M itself does not matter to one teacher."""
    inputs = {"data": data.id, "post-train": post_train.run_folder(config, data).id}
    return RunFolder(
        folder(config, f"teacher-{teacher}"), "finetune", config, _settings(), inputs, {"teacher": teacher}
    )


def plain_folder(config: Config, data: DataSet, layers: int) -> RunFolder:
    """Where PLM-NR-n (FT) lies: the plain PLM's first `layers` layers, finetuned."""
    extra = {"layers": layers}
    return RunFolder(
        folder(config, f"finetune-{layers or 'all'}"), "finetune", config, _settings(), {"data": data.id}, extra
    )


def run(config: Config, engine: Engine, *, redo: bool = False) -> None:
    """Train the M teachers (or the one that `finetune.teacher` names), or PLM-NR-n (FT) with finetune.init=plm."""
    if config.finetune.init == "plm":
        run_plain(config, engine, config.finetune.layers, redo=redo)
        return
    if config.finetune.teacher >= config.finetune.teachers:
        raise InputError(
            f"finetune.teacher={config.finetune.teacher}: the teachers are 0 to {config.finetune.teachers - 1}"
        )
    chosen = range(config.finetune.teachers) if config.finetune.teacher < 0 else [config.finetune.teacher]
    for teacher in chosen:
        run_teacher(config, engine, teacher, redo=redo)


def run_teacher(config: Config, engine: Engine, teacher: int, *, redo: bool = False) -> None:
    """Finetune the post-trained PLM with the seed of teacher `teacher`."""
    data = DataSet.open(config)
    seed = _TEACHER_SEED * (teacher + 1) + config.seed

    def task() -> FinetuneTask:
        model, spec = trained_model(post_train.run_folder(config, data).path, "post-train", data)
        return _task(config, data, engine, with_fresh_user_encoder(model, spec, seed), seed, f"teacher {teacher}")

    train_model(engine, config, teacher_folder(config, data, teacher), task, redo)


def run_plain(config: Config, engine: Engine, layers: int, *, redo: bool = False) -> None:
    """Finetune the plain PLM's first `layers` layers: PLM-NR-n (FT)."""
    data = DataSet.open(config)

    def task() -> FinetuneTask:
        model, _ = fresh_model(config, data, layers, config.seed)
        return _task(
            config, data, engine, model, config.seed, f"finetune ({model.news_encoder.encoder.config.layers} layers)"
        )

    train_model(engine, config, plain_folder(config, data, layers), task, redo)


def _task(config: Config, data: DataSet, engine: Engine, model: Recommender, seed: int, title: str) -> Any:
    freeze(model.news_encoder, config.finetune.trainable_layers)
    loader = click_loader(config, data, config.finetune.batch_size, seed, engine)
    return FinetuneTask(
        model, ClickModule(model), loader, config.finetune, seed, title, data.titles(), config.data.title_tokens
    )
