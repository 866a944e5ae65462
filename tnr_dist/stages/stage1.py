"""First-stage distillation: the student imitates the post-trained teacher on the matching task (Fig. 2a)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnr_dist.config.schema import Config
from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.scoring import encode_table
from tnr_dist.losses.stage1 import multi_teacher_stage1_loss, stage1_loss
from tnr_dist.models.projection import Projection
from tnr_dist.models.recommender import Matcher, ModelSpec, Recommender
from tnr_dist.models.weights import DIGEST, read_safetensors, save_tensors, tensors_digest
from tnr_dist.runs.folder import RunFolder, completed_id
from tnr_dist.stages import post_train
from tnr_dist.stages.parts.frozen import compute_dtype
from tnr_dist.stages.parts.recipes import MODEL_SETTINGS, recipe
from tnr_dist.stages.parts.start_models import continued_model, freeze, fresh_model, plm_parameters, trained_model
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
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path
from tnr_dist.util.progress import say
from tnr_dist.util.transfer import to_device


@dataclass
class Stage1Inputs:
    """A matching batch and what the teacher says of it."""

    batch: MatchingInputs
    teacher_bodies: Tensor  # [B, M, D]
    teacher_titles: Tensor  # [B, M, 1 + N, D]


class Stage1Module(nn.Module):
    """L^(1) on a batch."""

    def __init__(self, student: Matcher, train: Stage1Config) -> None:
        super().__init__()
        self.student, self.settings = student, train
        dim = student.news_encoder.dense.out_features
        # One teacher is imitated as it is (the paper); several do not agree, so each gets a projection.
        projected = train.teachers > 1 or train.project == "always"
        self.projection = Projection(train.teachers, dim, train.projection_init) if projected else None

    def forward(self, inputs: Stage1Inputs) -> dict[str, Tensor]:
        """This rank's share of the loss, of its parts and of the student's accuracy."""
        batch = inputs.batch
        scores, bodies, titles = self.student(batch.bodies, batch.titles, batch.candidates)
        teacher_bodies, teacher_titles = inputs.teacher_bodies, inputs.teacher_titles
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


class TeacherVectors:
    """The frozen teachers' vectors of every title and body of the corpus, computed once and kept with post-training.

    A title is met 1 + N times an epoch and a teacher sees no dropout, so nothing is lost and a pass is saved.

    Attributes:
        titles, bodies: [M][news, D] float32, on the host; teacher i is post-training's model i intervals before its end.
    """

    def __init__(self, run: Path, loader: MatchingLoader, train: Stage1Config, engine: Engine, data: DataSet) -> None:
        self.titles: list[Tensor] = []
        self.bodies: list[Tensor] = []
        for number in range(train.teachers):
            tensors = self._of_one(number, run, loader, train, engine, data)
            self.titles.append(tensors["titles"])
            self.bodies.append(tensors["bodies"])

    @staticmethod
    def _of_one(
        number: int, run: Path, loader: MatchingLoader, train: Stage1Config, engine: Engine, data: DataSet
    ) -> dict[str, Tensor]:
        """Titles and bodies [news, D] of one teacher."""
        file = run / (f"matching_vectors-{number}.safetensors" if number else "matching_vectors.safetensors")
        made_from = (
            completed_id(run, "post-train"),
            data.id,
            train.title_tokens,
            train.body_tokens,
            compute_dtype(engine),
        )
        key = "/".join(map(str, made_from))
        # Another student's job may write it just now: all ranks of this one must come to the same conclusion.
        found = _read_vectors(file, key)
        if engine.all_reduce(torch.tensor([float(found is None)], device=engine.device)).item():
            teacher, _ = trained_model(run, "post-train", number)
            encoder = teacher.news_encoder.to(engine.device)
            name = f"teacher {number}" if train.teachers > 1 else "teacher"
            tensors = {
                "titles": encode_table(encoder, loader.titles, train.title_tokens, engine, f"{name}: titles").cpu(),
                "bodies": encode_table(encoder, loader.bodies, train.body_tokens, engine, f"{name}: bodies").cpu(),
            }
            if engine.environment.rank == 0:
                with atomic_path(file) as temporary:
                    save_tensors(tensors, temporary, {"key": key, DIGEST: tensors_digest(tensors)})
            engine.barrier()
            found = _read_vectors(file, key)
        if found is None:
            raise InputError(f"{file}: damaged right after it was written; look at the disk, then run stage1 again")
        return found


def _read_vectors(file: Path, key: str) -> dict[str, Tensor] | None:
    """What is kept with post-training; None where it is missing, of another key, or damaged."""
    if not file.is_file():
        return None
    try:
        tensors, metadata = read_safetensors(file)
    except InputError as error:
        say(f"{error}; made again")
        return None
    if metadata.get("key") != key:
        return None
    if metadata.get(DIGEST) != tensors_digest(tensors):
        say(f"{file}: damaged or of an older version; made again")
        return None
    return tensors


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
        body, titles = torch.from_numpy(batch["body"]), torch.from_numpy(batch["titles"])
        return Stage1Inputs(
            matching_inputs(batch, self.loader, self.train, self.device),
            to_device(torch.stack([vectors[body] for vectors in self.teacher.bodies], 1), self.device),
            to_device(torch.stack([vectors[titles] for vectors in self.teacher.titles], 1), self.device),
        )

    def texts(self, inputs: Stage1Inputs) -> list[Texts]:
        """See `Task`."""
        return matching_texts(self.recommender.news_encoder, inputs.batch)

    def plm_parameters(self) -> set[nn.Parameter]:
        """See `Task`."""
        return plm_parameters(self.module)

    def validation(self) -> None:
        """See `Task`."""

    def validate(self, engine: Engine) -> dict[str, float]:
        """See `Task`."""
        return matching_accuracy(self.module.student, self.loader, self.train, engine)


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
    return Stage1Task(
        student,
        Stage1Module(Matcher(student.news_encoder), train),
        loader,
        train,
        config.seed,
        f"stage1 ({config.student.layers} layers)",
        lambda: TeacherVectors(source, loader, train, engine, data),
        engine.device,
    )


STAGES = (Training("stage1", build),)
