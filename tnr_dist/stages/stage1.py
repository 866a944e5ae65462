"""First-stage distillation: the student imitates the post-trained teacher on the matching task (Fig. 2a)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tnr_dist.config import Config, Stage1Config
from tnr_dist.data.loader import Batch
from tnr_dist.data.matching import MatchingLoader
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.scoring import encode_table
from tnr_dist.files import atomic_path
from tnr_dist.losses.stage1 import stage1_loss
from tnr_dist.models.recommender import Matcher, Recommender
from tnr_dist.models.weights import read_safetensors
from tnr_dist.stages import post_train
from tnr_dist.stages.common import (
    MODEL_SETTINGS,
    DataSet,
    continued_model,
    freeze,
    fresh_model,
    plm_parameters,
    recipe,
    train_model,
    trained_model,
)
from tnr_dist.stages.post_train import MatchingInputs, accuracy, matching_accuracy, matching_inputs, matching_loader
from tnr_dist.train.runfolder import RunFolder, completed_id


@dataclass
class Stage1Inputs:
    """A matching batch and what the teacher says of it."""

    batch: MatchingInputs
    teacher_bodies: Tensor  # [B, D]
    teacher_titles: Tensor  # [B, 1 + N, D]


class Stage1Module(nn.Module):
    """L^(1) on a batch."""

    def __init__(self, student: Matcher, train: Stage1Config) -> None:
        super().__init__()
        self.student, self.settings = student, train

    def forward(self, inputs: Stage1Inputs) -> dict[str, Tensor]:
        """This rank's share of the loss, of its parts and of the student's accuracy."""
        batch = inputs.batch
        scores, bodies, titles = self.student(batch.bodies, batch.titles, batch.candidates)
        loss = stage1_loss(
            teacher_scores=self.student.score(inputs.teacher_bodies, inputs.teacher_titles),
            student_scores=scores,
            teacher_titles=inputs.teacher_titles,
            student_titles=F.embedding(batch.candidates, titles),
            teacher_bodies=inputs.teacher_bodies,
            student_bodies=bodies,
            weights=batch.weights,
            count=batch.count,
            beta1=self.settings.beta1,
            temperature=self.settings.temperature,
        )
        return {
            "loss": loss.total,
            "loss_distill": loss.distill,
            "loss_emb": loss.embedding,
            "loss_target": loss.target,
            "accuracy": accuracy(scores, batch.weights, batch.count),
        }


class TeacherVectors:
    """The frozen teacher's vectors of every title and body of the corpus, computed once and kept with the teacher.

    A title is met 1 + N times an epoch and the teacher sees no dropout, so nothing is lost and a pass is saved.
    """

    def __init__(self, run: Path, loader: MatchingLoader, train: Stage1Config, engine: Engine, data: DataSet) -> None:
        file = run / "matching_vectors.safetensors"
        key = "/".join([completed_id(run, "post-train"), data.id, str(train.title_tokens), str(train.body_tokens)])
        if not file.is_file() or read_safetensors(file)[1].get("key") != key:
            teacher, _ = trained_model(run, "post-train")
            encoder = teacher.news_encoder.to(engine.device)
            tensors = {
                "titles": encode_table(encoder, loader.titles, train.title_tokens, engine, "teacher: titles").cpu(),
                "bodies": encode_table(encoder, loader.bodies, train.body_tokens, engine, "teacher: bodies").cpu(),
            }
            if engine.environment.rank == 0:
                with atomic_path(file) as temporary:
                    save_file(tensors, temporary, {"key": key})
            engine.barrier()
        tensors = load_file(file)
        self.titles, self.bodies = tensors["titles"], tensors["bodies"]  # [news, D] float32 each


@dataclass
class Stage1Task:
    """See `train.loop.Task`."""

    recommender: Recommender
    module: Stage1Module
    loader: MatchingLoader
    train: Stage1Config
    seed: int
    title: str
    make_teacher: Callable[[], TeacherVectors]
    device: torch.device
    prefetch: bool = True

    def begin(self, engine: Engine) -> None:
        """See `Task`."""
        self.teacher = self.make_teacher()

    def to_device(self, batch: Batch) -> Stage1Inputs:
        """See `Task`."""
        return Stage1Inputs(
            matching_inputs(batch, self.loader, self.train, self.device),
            self.teacher.bodies[torch.from_numpy(batch["body"])].to(self.device),
            self.teacher.titles[torch.from_numpy(batch["titles"])].to(self.device),
        )

    def plm_parameters(self) -> set[nn.Parameter]:
        """See `Task`."""
        return plm_parameters(self.module)

    def validate(self, engine: Engine) -> dict[str, float]:
        """See `Task`."""
        return matching_accuracy(self.module.student, self.loader, self.train, engine)


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the stage-1 student of `student.layers` layers lies and what it depends on."""
    layers = config.student.layers
    inputs: dict[str, str | RunFolder] = {"data": data.id, "post-train": post_train.run_folder(config, data)}
    settings = (*MODEL_SETTINGS, "student", *recipe("stage1", config.stage1))
    return RunFolder(f"stage1-{layers}", "stage1", config, settings, inputs, {})


def run(config: Config, engine: Engine) -> None:
    """Distil the post-trained teacher into a student of `student.layers` layers."""
    make(run_folder(config, DataSet.open(config)), engine)


def make(place: RunFolder, engine: Engine, *, redo: bool = False) -> None:
    """Make one result of this stage."""
    config = place.config

    def task() -> Any:
        data = DataSet.open(config)
        source = post_train.run_folder(config, data).path
        if config.student.init == "plm":
            student, _ = fresh_model(config, data, config.student.layers, config.seed)
        else:
            student, _ = continued_model(config, source, "post-train")
            student.news_encoder.encoder.truncate(config.student.layers)
        freeze(student.news_encoder, config.stage1, engine)
        loader = matching_loader(config, data, config.stage1, engine)
        return Stage1Task(
            student,
            Stage1Module(Matcher(student.news_encoder), config.stage1),
            loader,
            config.stage1,
            config.seed,
            f"stage1 ({config.student.layers} layers)",
            lambda: TeacherVectors(source, loader, config.stage1, engine, data),
            engine.device,
        )

    train_model(engine, place, task, redo)
