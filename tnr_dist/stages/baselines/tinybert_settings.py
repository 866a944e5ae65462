"""Settings of TinyBERT, and what the other rooms know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tnr_dist.config.fields import LAYERS_LEARN, NOT_NEGATIVE, POSITIVE, TOKENS, setting
from tnr_dist.config.schema import Section
from tnr_dist.config.training import ClickTrainConfig, TrainConfig, ValidatedTrainConfig
from tnr_dist.stages.method import Made, Method


@dataclass
class GeneralConfig(TrainConfig):
    """TinyBERT's general distillation: layer by layer from the post-trained PLM, on the News corpus."""

    batch_size: int = setting(256, "news, each with its title and its body")
    epochs: int = 3
    schedule: Literal["constant", "linear"] = "linear"
    warmup: float = 0.1
    trainable_layers: int = setting(-1, "", LAYERS_LEARN)
    title_tokens: int = setting(24, "tokens read of a title; at least 3", TOKENS)
    body_tokens: int = setting(128, "tokens read of a body; at least 3", TOKENS)


@dataclass
class IntermediateConfig(ClickTrainConfig):
    """TinyBERT's task-specific distillation, first step: layer by layer from the finetuned teacher, on click samples."""

    trainable_layers: int = setting(2, "", LAYERS_LEARN)
    epochs: int = setting(
        2, "passes over the training samples; with those of `prediction` as many as the other methods make"
    )


@dataclass
class PredictionConfig(ValidatedTrainConfig):
    """TinyBERT's task-specific distillation, second step: the finetuned teacher's soft labels, on click samples."""

    epochs: int = setting(
        2, "passes over the training samples; with those of `intermediate` as many as the other methods make"
    )
    temperature: float = setting(1.0, "temperature t", POSITIVE)


@dataclass
class JointConfig(ValidatedTrainConfig):
    """TinyBERT as one training on click samples (`tinybert.form=joint`)."""

    trainable_layers: int = setting(2, "", LAYERS_LEARN)
    temperature: float = setting(1.0, "temperature t", POSITIVE)
    target_weight: float = setting(0.1, "weight of the student's CE", NOT_NEGATIVE)


@dataclass
class TinyBERTConfig(Section):
    """TinyBERT's trainings: general, intermediate and prediction, each from the one before, or joint alone."""

    key: ClassVar[str] = "tinybert"

    form: Literal["steps", "joint"] = setting(
        "steps",
        "steps: general, intermediate and prediction (TinyBERT's paper); joint: one training from the PLM's first "
        "layers, on the last layers' states and attention, soft labels and clicks together (the authors' first "
        "release)",
    )
    general: GeneralConfig = field(default_factory=GeneralConfig)
    intermediate: IntermediateConfig = field(default_factory=IntermediateConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    joint: JointConfig = field(default_factory=JointConfig)


METHOD = Method(
    "tinybert",
    TinyBERTConfig,
    (
        Made("tinybert-general", ("post-train",), trains="plm"),
        Made("tinybert-intermediate", ("tinybert-general", "finetune"), trains="plm"),
        Made("tinybert", ("tinybert-intermediate", "finetune")),
        Made("tinybert-joint", ("finetune",)),
    ),
    """TinyBERT: train a student of student.layers layers, in three trainings or in one.

    Reads the sections plm, model, data, student and tinybert; needs the runs of post-train and finetune.
    """,
    rows={"tinybert": ""},
    baseline=True,
)
