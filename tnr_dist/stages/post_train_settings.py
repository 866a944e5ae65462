"""Settings of post-training, and what the other rooms know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tnr_dist.config.fields import NOT_NEGATIVE, POSITIVE, setting
from tnr_dist.config.schema import Section
from tnr_dist.config.training import MatchingConfig
from tnr_dist.stages.method import Made, Method
from tnr_dist.util.errors import InputError


@dataclass
class PostTrainConfig(MatchingConfig, Section):
    """Domain-specific post-training."""

    key: ClassVar[str] = "post_train"

    trainable_layers: int = 3
    keep_models: int = setting(
        1,
        "M models are kept: the last, and those 1, 2, ... M - 1 intervals before it (the M teachers of the "
        "authors' later release).",
        POSITIVE,
    )
    keep_models_every: int = setting(0, "steps of an interval; 0: an M-th of all steps", NOT_NEGATIVE)

    def check_kept(self, key: str, teachers: int) -> None:
        """Teachers that are checkpoints of post-training must be kept by it."""
        if teachers > self.keep_models:
            raise InputError(
                f"{key}={teachers}: so many checkpoints of post-training must be kept, but "
                f"post_train.keep_models={self.keep_models}; set it to {teachers} or more"
            )


METHOD = Method(
    "post-train",
    PostTrainConfig,
    (Made("post-train", trains="news encoder", first=True),),
    """Domain-specific post-training: match bodies with titles.

    Reads the sections plm, model, data and post_train. Every stage also reads log and wandb.
    """,
)
