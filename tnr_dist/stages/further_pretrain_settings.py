"""Settings of further pre-training, and what the other rooms know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tnr_dist.config.fields import TOKENS, Limits, setting
from tnr_dist.config.schema import Section
from tnr_dist.config.training import CorpusTrainConfig
from tnr_dist.stages.method import Made, Method


@dataclass
class MLMConfig(CorpusTrainConfig, Section):
    """Further pre-training of PLM-NR (FP): masked language modelling on the News corpus, titles and bodies."""

    key: ClassVar[str] = "further_pretrain"

    batch_size: int = setting(32, "news, each with its title and its body")
    lr: float = 1e-6
    head_lr: float = 1e-5
    trainable_layers: int = 3
    mask: float = setting(
        0.15,
        "share of the tokens that is masked and predicted",
        Limits(above=0, below=1, says="a share above 0 and below 1"),
    )
    title_tokens: int = setting(24, "tokens read of a title; at least 3", TOKENS)
    body_tokens: int = setting(512, "tokens read of a body; at least 3", TOKENS)


METHOD = Method(
    "further-pretrain",
    MLMConfig,
    (Made("further-pretrain", trains="plm", first=True),),
    """PLM-NR (FP): further pre-training of the PLM on the News corpus.

    Reads the sections plm, model, data and further_pretrain. After it: tnr finetune CONFIG finetune.init=further-pretrain.
    """,
    baseline=True,
)
