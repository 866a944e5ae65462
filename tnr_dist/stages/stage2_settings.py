"""Settings of stage 2, and what the other rooms know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tnr_dist.config.fields import NOT_NEGATIVE, POSITIVE, setting
from tnr_dist.config.schema import PROJECTION_STARTS, Config, ProjectionInit, Section
from tnr_dist.config.training import ValidatedTrainConfig
from tnr_dist.stages.method import Made, Method
from tnr_dist.util.errors import InputError


@dataclass
class Stage2Config(ValidatedTrainConfig, Section):
    """Second-stage distillation from M finetuned teachers."""

    key: ClassVar[str] = "stage2"

    init: Literal["stage1", "plm", "post-train"] = setting(
        "stage1",
        "What the student starts from. plm, post-train: without stage 1, from the first layers of the PLM or of "
        "the post-trained teacher.",
    )
    lr: float = setting(5e-5, "the authors' first release; 1e-4 in their later one")
    temperature: float = setting(1.0, "T2", POSITIVE)
    beta2: float = setting(0.1, "weight of the target loss", NOT_NEGATIVE)
    omega: float = setting(1.0, "initial value", POSITIVE)
    learn_omega: bool = setting(True, "false: omega keeps its initial value (the authors' later release)")
    omega_form: Literal["softplus", "free"] = setting(
        "softplus", "softplus: omega stays positive (the paper); free: a plain parameter (the authors' first release)"
    )
    projection_init: ProjectionInit = setting("identity", PROJECTION_STARTS)
    teacher_tables_gib: float = setting(
        8.0, "keep user vectors and logits on the device up to this size; else read them along"
    )
    share_projection: bool = setting(
        False,
        "true: one projection for news and user of a teacher (both releases of the authors' code); false: one for "
        "each (the paper)",
    )
    use_distill: bool = setting(True, "the distillation loss (soft labels), a part of the loss; for ablations")
    use_embedding: bool = setting(True, "the embedding loss, projections onto the teachers' vectors")
    use_target: bool = setting(True, "the target loss (clicks), of weight beta2")

    def check(self, config: Config) -> None:
        """Something is learned."""
        if not (self.use_distill or self.use_embedding or (self.use_target and self.beta2)):
            raise InputError(
                "stage2: without use_distill, use_embedding and use_target (of weight beta2) nothing is learned"
            )


METHOD = Method(
    "stage2",
    Stage2Config,
    (Made("stage2", ("stage1", "cache")),),
    """Second-stage distillation from the M cached teachers.

    Reads the sections plm, model, data, student, finetune (which teachers), cache and stage2; needs the runs of stage1 and
    cache.
    """,
    rows={"tiny-newsrec": ""},
)
