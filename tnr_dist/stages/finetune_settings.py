"""Settings of finetuning, and what the other rooms know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tnr_dist.config.fields import NOT_NEGATIVE, POSITIVE, Limits, setting
from tnr_dist.config.schema import Config, Section
from tnr_dist.config.training import ValidatedTrainConfig
from tnr_dist.stages.method import Made, Method
from tnr_dist.stages.post_train_settings import PostTrainConfig


@dataclass
class FinetuneConfig(ValidatedTrainConfig, Section):
    """Click prediction from a post-trained (or plain) PLM."""

    key: ClassVar[str] = "finetune"

    teachers: int = setting(4, "M: number of teachers, each with its own seed", POSITIVE)
    teachers_by: Literal["seeds", "checkpoints"] = setting(
        "seeds",
        "seeds: all start from the post-trained model (the paper); checkpoints: teacher i from the model of "
        "post-training i intervals before its end (the authors' later release)",
    )
    teacher: int = setting(
        -1,
        "train only this one (for a job array); -1: all M",
        Limits(at_least=-1, says="a teacher's number, or -1 for all"),
    )
    init: Literal["post-train", "plm", "stage1", "further-pretrain"] = setting(
        "post-train",
        "post-train: the teachers; plm: no post-training, PLM-NR-n (FT) of `layers` layers; stage1: the student "
        "of stage 1, finetuned instead of stage 2; further-pretrain: PLM-NR-n (FP)",
    )
    layers: int = setting(0, "with init=plm or further-pretrain: keep the first n layers; 0: all", NOT_NEGATIVE)
    lr: float = 5e-5

    def check(self, config: Config) -> None:
        """The models that teachers start from are kept."""
        if self.teachers_by == "checkpoints":
            PostTrainConfig.of(config).check_kept("finetune.teachers", self.teachers)


METHOD = Method(
    "finetune",
    FinetuneConfig,
    (Made("finetune", ("post-train",), input_name="teacher"),),
    """Finetune the M teachers on clicks (finetune.teacher=i: one of them; finetune.init=plm: PLM-NR-n).

    Reads the sections plm, model, data and finetune; needs the run of post-train, or of what finetune.init names.
    """,
    rows={
        "teacher": "PLM-NR (DP)",
        "finetune": "PLM-NR (FT)",
        "further-pretrain": "PLM-NR (FP)",
        "stage1": "stage 1, then finetuning instead of stage 2",
    },
    chooses=("teacher", "layers", "init"),
)
