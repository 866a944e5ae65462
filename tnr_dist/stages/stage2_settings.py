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
        "What the student starts from. plm, post-train: no stage 1, but the first layers of the PLM or of "
        "the post-trained teacher.",
    )
    lr: float = setting(5e-5, "learning rate, as in the authors' first release; 1e-4 in their later one")
    temperature: float = setting(1.0, "temperature T2", POSITIVE)
    beta2: float = setting(0.1, "weight of the target loss", NOT_NEGATIVE)
    omega: float = setting(1.0, "initial value of omega", POSITIVE)
    learn_omega: bool = setting(True, "false: omega keeps its initial value (the authors' later release)")
    omega_form: Literal["softplus", "free"] = setting(
        "softplus", "softplus: omega stays positive (the paper); free: a plain parameter (the authors' first release)"
    )
    projection_init: ProjectionInit = setting("identity", PROJECTION_STARTS)
    teacher_tables_gib: float = setting(
        8.0, "GiB up to which user vectors and logits are kept on the device; above it they are read with the batches"
    )
    share_projection: bool = setting(
        False,
        "true: one projection for news and user of a teacher (both releases of the authors' code); false: one for "
        "each (the paper)",
    )
    use_distill: bool = setting(True, "use the distillation loss (soft labels); false for ablations")
    use_embedding: bool = setting(True, "use the embedding loss on news and user vectors; false for ablations")
    use_target: bool = setting(True, "use the target loss (clicks), of weight beta2; false for ablations")

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
