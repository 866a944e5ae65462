"""First-stage distillation: the student imitates the post-trained teacher on the matching task (Fig. 2a)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.config.schema import Config
from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.losses.stage1 import multi_teacher_stage1_loss, stage1_loss
from tnr_dist.models.projection import Projection
from tnr_dist.models.recommender import Matcher, ModelSpec, Recommender
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import post_train
from tnr_dist.stages.parts.matching_vectors import TeacherVectors
from tnr_dist.stages.parts.recipes import MODEL_SETTINGS, recipe
from tnr_dist.stages.parts.start_models import continued_model, freeze, fresh_model, plm_parameters, trained_model
from tnr_dist.stages.parts.task import TrainsRecommender
from tnr_dist.stages.post_train import (
    MatchingInputs,
    accuracy,
    matching_accuracy,
    matching_inputs,
    matching_loader,
    matching_texts,
)
from tnr_dist.stages.stage import Training
from tnr_dist.stages.stage1_settings import Stage1Config
from tnr_dist.train.throughput import Texts
from tnr_dist.util.transfer import to_device


@dataclass
class Teachers:
    """What M teachers make of a batch."""

    bodies: Tensor  # [B, M, D]
    titles: Tensor  # [B, M, 1 + N, D]


@dataclass
class Stage1Inputs:
    """A matching batch and the teachers' vectors of it; None where they are computed in the step."""

    batch: MatchingInputs
    teachers: Teachers | None


class Stage1Module(nn.Module):
    """L^(1) on a batch."""

    def __init__(self, student: Matcher, train: Stage1Config) -> None:
        super().__init__()
        self.student, self.settings = student, train
        dim = student.news_encoder.dense.out_features
        # One teacher is imitated as it is (the paper); several do not agree, so each gets a projection.
        projected = train.teachers > 1 or train.project == "always"
        self.projection = Projection(train.teachers, dim, train.projection_init) if projected else None
        self.teachers: list[
            Matcher
        ] = []  # those that run in the step; not part of the module, which is trained and saved

    @torch.no_grad()
    def teach(self, batch: MatchingInputs) -> Teachers:
        """The vectors of the teachers that run beside the student."""
        found = [teacher(batch.bodies, batch.titles, batch.candidates) for teacher in self.teachers]
        bodies = torch.stack([bodies.float() for _, bodies, _ in found], 1)
        return Teachers(bodies, torch.stack([F.embedding(batch.candidates, t.float()) for _, _, t in found], 1))

    def forward(self, inputs: Stage1Inputs) -> dict[str, Tensor]:
        """This rank's share of the loss, of its parts and of the student's accuracy."""
        batch = inputs.batch
        scores, bodies, titles = self.student(batch.bodies, batch.titles, batch.candidates)
        teachers = self.teach(batch) if inputs.teachers is None else inputs.teachers
        teacher_bodies, teacher_titles = teachers.bodies, teachers.titles
        teacher_scores = (teacher_titles @ teacher_bodies.unsqueeze(-1)).squeeze(-1)  # [B, M, 1 + N]
        student: dict[str, Any] = {
            "student_scores": scores,
            "student_titles": F.embedding(batch.candidates, titles),
            "student_bodies": bodies,
            "weights": batch.weights,
            "count": batch.count,
            "beta1": self.settings.beta1,
            "temperature": self.settings.temperature,
        }
        if self.projection is None:
            loss = stage1_loss(
                teacher_scores=teacher_scores[:, 0],
                teacher_titles=teacher_titles[:, 0],
                teacher_bodies=teacher_bodies[:, 0],
                **student,
            )
        else:
            loss = multi_teacher_stage1_loss(
                teacher_scores=teacher_scores,
                teacher_titles=teacher_titles.transpose(1, 2),
                teacher_bodies=teacher_bodies,
                weight=self.projection.weight,
                bias=self.projection.bias,
                **student,
            )
        return {
            "loss": loss.total,
            "loss_distill": loss.distill,
            "loss_emb": loss.embedding,
            "loss_target": loss.target,
            "accuracy": accuracy(scores, batch.weights, batch.count),
        }


@dataclass
class Stage1Task(TrainsRecommender):
    """Distillation of a student of the matching task."""

    recommender: Recommender
    module: Stage1Module
    loader: MatchingLoader
    train: Stage1Config
    seed: int
    title: str
    make_teacher: Callable[[], TeacherVectors | list[Matcher]]
    device: torch.device
    prefetch: bool = True
    vectors: TeacherVectors | None = None

    @override
    def begin(self, engine: Engine) -> None:
        made = self.make_teacher()
        if isinstance(made, TeacherVectors):
            self.vectors = made
        else:
            self.module.teachers = made

    @override
    def to_device(self, batch: Batch) -> Stage1Inputs:
        teachers = None
        if self.vectors is not None:
            slots = (self.vectors.bodies, batch["body"]), (self.vectors.titles, batch["titles"])
            found = (np.stack([vectors[rows] for vectors in tables], 1) for tables, rows in slots)
            teachers = Teachers(*(to_device(one, self.device) for one in found))
        return Stage1Inputs(matching_inputs(batch, self.loader, self.train, self.device), teachers)

    @override
    def texts(self, inputs: Stage1Inputs) -> list[Texts]:
        return matching_texts(self.recommender.news_encoder, inputs.batch)

    @override
    def plm_parameters(self) -> set[nn.Parameter]:
        return plm_parameters(self.module)

    @override
    def validate(self, engine: Engine) -> dict[str, float]:
        return matching_accuracy(self.module.student, self.loader, self.train, engine)


def running_teachers(run: Path, train: Stage1Config, engine: Engine) -> list[Matcher]:
    """The last M models of post-training, to run in every step."""
    teachers = []
    for number in range(train.teachers):
        model, _ = trained_model(run, "post-train", number)
        encoder = model.news_encoder.eval().requires_grad_(False).to(engine.device)
        with engine.autocast():
            encoder.encoder.serve()
        teachers.append(Matcher(encoder))
    return teachers


def first_layers(
    config: Config, data: DataSet, source: Literal["plm", "post-train"], stage: str
) -> tuple[Recommender, ModelSpec]:
    """A student of the first `student.layers` layers of the PLM, with a head of `stage`'s own, or of the post-trained teacher."""
    layers = config.student.layers
    if source == "plm":
        return fresh_model(config, data, layers, config.seed, stage)
    student, spec = continued_model(config, post_train.run_folder(config, data).path, "post-train")
    encoder = student.news_encoder.encoder.truncate(layers)
    return student, replace(spec, encoder=encoder.config)


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the stage-1 student of `student.layers` layers lies and what it depends on."""
    layers = config.student.layers
    inputs: dict[str, str | RunFolder] = {"data": data.id, "post-train": post_train.run_folder(config, data)}
    settings = (*MODEL_SETTINGS, "student", *recipe("stage1", Stage1Config.of(config)))
    return RunFolder(f"stage1-{layers}", "stage1", config, settings, inputs, {})


def build(run: RunFolder, data: DataSet, engine: Engine) -> Stage1Task:
    """A student of `student.layers` layers, on the post-trained teachers' vectors."""
    config, train = run.config, Stage1Config.of(run.config)
    source = post_train.run_folder(config, data).path
    student, _ = first_layers(config, data, config.student.init, "stage1")
    freeze(student.news_encoder, train, engine)
    loader = matching_loader(config, data, train, engine)

    def make_teacher() -> TeacherVectors | list[Matcher]:
        if train.teacher_cache:
            return TeacherVectors.find(source, train.teachers, loader, train, engine, data)
        return running_teachers(source, train, engine)

    return Stage1Task(
        student,
        Stage1Module(Matcher(student.news_encoder), train),
        loader,
        train,
        config.seed,
        f"stage1 ({config.student.layers} layers)",
        make_teacher,
        engine.device,
    )


STAGES = (Training("stage1", build),)
