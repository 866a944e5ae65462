"""BERT-PKD (Sun et al. 2019): the student learns from clicks, the finetuned teacher's soft labels, and patiently from the
[CLS] states of its layers in between.

The student starts from the PLM's first layers, as every student in Tiny-NewsRec; the teacher is teacher 0. A text is a
news. L_PT is its sum over the layers that learn (the last `trainable_layers`, but for the student's last), then the mean
over a sample's news. A student of which one layer learns has no such layer: L_PT is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tnr_dist.config.fields import LAYERS_LEARN, NOT_NEGATIVE, POSITIVE, SHARE, setting
from tnr_dist.config.schema import Config, Section
from tnr_dist.config.training import ValidatedTrainConfig
from tnr_dist.stages.method import Made, Method
from tnr_dist.stages.stage import RowRun, Training

if TYPE_CHECKING:  # the settings are read without torch
    from torch import Tensor

    from tnr_dist.data.dataset import DataSet
    from tnr_dist.engines.base import Engine
    from tnr_dist.models.packed import Packed
    from tnr_dist.models.recommender import Recommender
    from tnr_dist.runs.folder import RunFolder
    from tnr_dist.stages.baselines.common import TeacherClickTask
    from tnr_dist.stages.baselines.layerwise import LayerwiseModule, States
    from tnr_dist.stages.parts.click_task import ClickInputs


@dataclass
class BertPKDConfig(ValidatedTrainConfig, Section):
    """BERT-PKD: patient distillation from the finetuned teacher, on click samples."""

    key: ClassVar[str] = "bert_pkd"

    trainable_layers: int = setting(2, "", LAYERS_LEARN)
    strategy: Literal["skip", "last"] = setting(
        "skip",
        "The teacher's layers that the student's intermediate layers learn from. skip: every (N / n)-th of N, for a "
        "student of n layers; last: those right below its last.",
    )
    temperature: float = setting(5.0, "temperature T", POSITIVE)
    alpha: float = setting(0.5, "share of the teacher's soft labels; the clicks have the rest", SHARE)
    beta: float = setting(
        0.5,
        "weight of the loss between layers, a sum over the width; the authors' code takes the mean, of weight 10 to 1000",
        NOT_NEGATIVE,
    )


METHOD = Method(
    "bert-pkd",
    BertPKDConfig,
    (Made("bert-pkd", ("finetune",)),),
    """BERT-PKD: a student of student.layers layers imitates intermediate layers of the finetuned teacher.

    Reads the sections plm, model, data, student and bert_pkd; needs the first run of finetune.
    """,
    rows={"bert-pkd": ""},
    baseline=True,
)


def make_module(student: Recommender, teacher: Recommender, settings: BertPKDConfig) -> LayerwiseModule:
    """L_PKD on a batch: a student, its frozen layers set, beside its teacher."""
    from tnr_dist.losses.bert_pkd import patient_layers, patient_loss, pkd_loss
    from tnr_dist.losses.common import click_loss
    from tnr_dist.losses.tinybert import prediction_loss
    from tnr_dist.stages.baselines.layerwise import LayerwiseModule

    own, other = student.news_encoder.encoder, teacher.news_encoder.encoder
    mapping = patient_layers(len(own.layers), len(other.layers), settings.strategy)[own.frozen_layers :]

    def patient(student: States, teacher: States, texts: Packed, layers: list[int]) -> list[Tensor]:
        first = texts.device_offsets[:-1]  # [CLS] of each text
        total = student[0][-1].new_zeros(len(texts)).float()
        for number, layer in enumerate(layers, 1):
            total = total + patient_loss(student[0][number][first], teacher[0][layer][first])
        return [total]

    def losses(
        scores: Tensor, teacher_scores: Tensor, parts: Sequence[Tensor], inputs: ClickInputs
    ) -> dict[str, Tensor]:
        weights, count, known = inputs.weights, inputs.count, inputs.candidate_mask
        distill = prediction_loss(teacher_scores, scores, settings.temperature, weights, count, known)
        target = click_loss(scores, weights, count, known)
        return {
            "loss": pkd_loss(target, distill, parts[0], settings.alpha, settings.beta, settings.temperature),
            "loss_patient": parts[0],
            "loss_distill": distill,
            "loss_target": target,
        }

    return LayerwiseModule(student, teacher, mapping, patient, losses, attention=False)


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where BERT-PKD-n lies, n = `student.layers`, and what it depends on."""
    from tnr_dist.stages.baselines.layerwise import run_beside_teacher

    return run_beside_teacher(config, data, "bert-pkd", BertPKDConfig.key, BertPKDConfig.of(config))


def build(run: RunFolder, data: DataSet, engine: Engine) -> TeacherClickTask:
    """The PLM's first layers beside teacher 0."""
    from tnr_dist.stages.baselines.layerwise import build_beside_teacher

    train = BertPKDConfig.of(run.config)
    return build_beside_teacher(run, data, engine, train, lambda student, teacher: make_module(student, teacher, train))


STAGES = (Training("bert-pkd", build),)
ROWS: dict[str, RowRun] = {"bert-pkd": lambda config, data, layers: run_folder(config, data)}
