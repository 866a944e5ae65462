"""Settings of NewsBERT, and what the other rooms know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tnr_dist.config.fields import LAYERS_LEARN, NOT_NEGATIVE, POSITIVE, SHARE, setting
from tnr_dist.config.schema import Section
from tnr_dist.config.training import ValidatedTrainConfig
from tnr_dist.stages.method import Made, Method


@dataclass
class NewsBERTConfig(ValidatedTrainConfig, Section):
    """NewsBERT: teacher and student trained together; `trainable_layers` is of both."""

    key: ClassVar[str] = "newsbert"

    trainable_layers: int = setting(2, "", LAYERS_LEARN)
    temperature: float = setting(1.0, "temperature t", POSITIVE)
    beta: float = setting(0.1, "share of the teacher's gradient in the student's", SHARE)
    target_weight: float = setting(1.0, "weight of the student's CE; 0.1 in the authors' first release", NOT_NEGATIVE)
    match: Literal["pooled", "vectors"] = setting(
        "pooled",
        "What is matched beside the layers' states. pooled: each text's pooled states (NewsBERT's paper); "
        "vectors: news and user vectors (the authors' first release).",
    )


METHOD = Method(
    "newsbert",
    NewsBERTConfig,
    (Made("newsbert", ("post-train",)),),
    """NewsBERT: train a teacher and a student of student.layers layers together.

    Reads the sections plm, model, data, student and newsbert; needs the run of post-train.
    """,
    rows={"newsbert": ""},
    baseline=True,
)
