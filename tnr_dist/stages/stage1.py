"""First-stage distillation: the student imitates the post-trained teacher on the matching task (Fig. 2a)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnr_dist.config import Config, Stage1Config
from tnr_dist.data.loader import Batch
from tnr_dist.data.matching import MatchingLoader
from tnr_dist.engines.base import Engine
from tnr_dist.errors import InputError
from tnr_dist.losses.stage1 import stage1_loss
from tnr_dist.models.recommender import Matcher, Recommender
from tnr_dist.stages import post_train
from tnr_dist.stages.common import (
    MODEL_SETTINGS,
    DataSet,
    folder,
    freeze,
    fresh_model,
    plm_parameters,
    train_model,
    trained_model,
)
from tnr_dist.stages.post_train import MatchingInputs, accuracy, matching_accuracy, matching_inputs, matching_loader
from tnr_dist.train.runfolder import RunFolder


class Stage1Module(nn.Module):
    """L^(1) on a batch; the frozen teacher is no part of the module's parameters."""

    def __init__(self, student: Matcher, teacher: Matcher, train: Stage1Config) -> None:
        super().__init__()
        self.student, self.settings = student, train
        self._teacher = [teacher]  # in a list: not registered, so neither trained, saved nor reduced

    def _apply(self, fn: Any, recurse: bool = True) -> Stage1Module:
        self._teacher[0]._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, inputs: MatchingInputs) -> dict[str, Tensor]:
        """This rank's share of the loss, of its parts and of the student's accuracy."""
        with torch.no_grad():
            teacher_scores, teacher_bodies, teacher_titles = self._teacher[0](
                inputs.bodies, inputs.titles, inputs.candidates
            )
        scores, bodies, titles = self.student(inputs.bodies, inputs.titles, inputs.candidates)
        loss = stage1_loss(
            teacher_scores=teacher_scores,
            student_scores=scores,
            teacher_titles=F.embedding(inputs.candidates, teacher_titles),
            student_titles=F.embedding(inputs.candidates, titles),
            teacher_bodies=teacher_bodies,
            student_bodies=bodies,
            weights=inputs.weights,
            count=inputs.count,
            beta1=self.settings.beta1,
            temperature=self.settings.temperature,
        )
        return {
            "loss": loss.total,
            "loss_distill": loss.distill,
            "loss_emb": loss.embedding,
            "loss_target": loss.target,
            "accuracy": accuracy(scores, inputs.weights, inputs.count),
        }


@dataclass
class Stage1Task:
    """See `train.loop.Task`."""

    recommender: Recommender
    module: Stage1Module
    loader: MatchingLoader
    train: Stage1Config
    seed: int
    title: str

    def to_device(self, batch: Batch, device: torch.device) -> MatchingInputs:
        """See `Task`."""
        return matching_inputs(batch, self.loader, self.train, device)

    def plm_parameters(self) -> set[nn.Parameter]:
        """See `Task`."""
        return plm_parameters(self.module)

    def validate(self, engine: Engine) -> dict[str, float]:
        """See `Task`."""
        return matching_accuracy(self.module.student, self.loader, self.train, engine)


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the stage-1 student of `student.layers` layers lies and what it depends on."""
    layers = config.student.layers
    inputs = {"data": data.id, "post-train": post_train.run_folder(config, data).id}
    settings = (*MODEL_SETTINGS, "student", "stage1")
    return RunFolder(folder(config, f"stage1-{layers}"), "stage1", config, settings, inputs, {})


def run(config: Config, engine: Engine, *, redo: bool = False) -> None:
    """Distil the post-trained teacher into a student of `student.layers` layers."""
    data = DataSet.open(config)

    def task() -> Any:
        source = post_train.run_folder(config, data).path
        teacher, _ = trained_model(source, "post-train", data)
        teacher.eval().requires_grad_(False)
        if config.student.init == "plm":
            student, _ = fresh_model(config, data, config.student.layers, config.seed)
        else:
            student, _ = trained_model(source, "post-train", data)
            student.news_encoder.encoder.truncate(config.student.layers)
        if student.news_encoder.encoder.config.layers > teacher.news_encoder.encoder.config.layers:
            raise InputError(f"student.layers={config.student.layers}: more than the teacher has")
        freeze(student.news_encoder, config.stage1.trainable_layers)
        module = Stage1Module(Matcher(student.news_encoder), Matcher(teacher.news_encoder), config.stage1)
        loader = matching_loader(config, data, config.stage1, engine)
        return Stage1Task(
            student, module, loader, config.stage1, config.seed, f"stage1 ({config.student.layers} layers)"
        )

    train_model(engine, config, run_folder(config, data), task, redo)
