"""Settings of the teachers' pass, and what the other rooms know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tnr_dist.config.fields import setting
from tnr_dist.config.schema import Config, Section, check_splits
from tnr_dist.stages.method import Made, Method
from tnr_dist.util.errors import InputError


@dataclass
class CacheConfig(Section):
    """The teachers' pass."""

    key: ClassVar[str] = "cache"

    dtype: Literal["bf16", "fp32"] = setting("bf16", "type of news and user vectors; logits are float32")
    history_padding: Literal["mask", "learned"] = setting(
        "mask",
        "Empty history slots of a teacher's user encoder. mask: masked, as in evaluation; learned: the vector of "
        "model.history_padding=learned, as in the teacher's training (both releases of the authors' code).",
    )
    splits: list[str] = setting(["train"], "splits whose impressions are computed: train, dev, test")
    shard_range: str = setting("", "A:B: only the shards A to B - 1, for a job array")

    def check(self, config: Config) -> None:
        """The splits exist, and the teachers have learned what is read of them."""
        if self.history_padding == "learned" and config.model.history_padding != "learned":
            raise InputError(
                "cache.history_padding=learned: the teachers have learned no padding; set model.history_padding=learned "
                "too"
            )
        check_splits("cache.splits", self.splits, self.splits)
        if "train" not in self.splits:
            raise InputError(f"cache.splits={self.splits}: train must be among them, stage 2 learns from it")


METHOD = Method(
    "cache",
    CacheConfig,
    (Made("cache", ("finetune",), trains="nothing"),),
    """Compute the teachers' vectors and logits once.

    Reads the sections plm, model, data, finetune (which teachers) and cache; needs the runs of finetune.
    """,
    chooses=("shard_range",),
)
