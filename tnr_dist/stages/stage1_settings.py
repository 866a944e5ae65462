"""Settings of stage 1, and what the other rooms know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tnr_dist.config.fields import NOT_NEGATIVE, POSITIVE, setting
from tnr_dist.config.schema import PROJECTION_STARTS, Config, ProjectionInit, Section
from tnr_dist.config.training import MatchingConfig
from tnr_dist.stages.method import Made, Method
from tnr_dist.stages.post_train_settings import PostTrainConfig


@dataclass
class Stage1Config(MatchingConfig, Section):
    """First-stage distillation on the matching task."""

    key: ClassVar[str] = "stage1"

    trainable_layers: int = 2
    temperature: float = setting(1.0, "temperature T1", POSITIVE)
    beta1: float = setting(1.0, "weight of the target loss", NOT_NEGATIVE)
    teachers: int = setting(
        1,
        "More than 1: the last M models of post-training, weighted by how well each matches a sample (the "
        "authors' later release)",
        POSITIVE,
    )
    project: Literal["several", "always"] = setting(
        "several",
        "When the teachers' vectors are projected into the student's space. several: only with several teachers "
        "(the paper); always: with one teacher too (the authors' first release).",
    )
    projection_init: ProjectionInit = setting("identity", f"With projections only. {PROJECTION_STARTS}")

    teacher_cache: bool = setting(
        True,
        "Encode every title and body of the corpus once with the post-trained teachers and keep the vectors with "
        "post-training, for all students. false: the teachers run in every step, on the texts of its batch.",
    )

    def check(self, config: Config) -> None:
        """The teachers are kept."""
        PostTrainConfig.of(config).check_kept("stage1.teachers", self.teachers)


METHOD = Method(
    "stage1",
    Stage1Config,
    (Made("stage1", ("post-train",), trains="news encoder"),),
    """First-stage distillation of a student of student.layers layers on the matching task.

    Reads the sections plm, model, data, student and stage1; needs the run of post-train.
    """,
)
