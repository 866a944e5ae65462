"""What the sections of all stages that train have: steps, rates, batches, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tnr_dist.config.fields import (
    BELOW_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    TOKENS,
    Limits,
    setting,
)


@dataclass
class TrainConfig:
    """Settings of every training stage."""

    batch_size: int = setting(128, "samples of a global batch, over all ranks", POSITIVE)
    epochs: int = setting(1, "passes over the training samples", POSITIVE)
    max_steps: int = setting(0, "stop after this number of steps; 0: whole epochs", NOT_NEGATIVE)
    lr: float = setting(5e-5, "learning rate", POSITIVE)
    head_lr: float = setting(
        0.0,
        "learning rate of everything but the PLM (pooling, dense, user encoder, projections, omega); 0: lr",
        NOT_NEGATIVE,
    )
    betas: list[float] = setting(
        [0.9, 0.999],
        "Adam's decay of its two moving averages",
        Limits(length=2, at_least=0, below=1, says="two numbers, at least 0 and below 1"),
    )
    eps: float = setting(1e-8, "Adam's epsilon, in the denominator of a step", POSITIVE)
    weight_decay: float = setting(0.0, "above 0: AdamW, decoupled from the gradient", NOT_NEGATIVE)
    amsgrad: bool = setting(False, "Adam with the largest second moment so far")
    schedule: Literal["constant", "linear"] = setting("constant", "learning rate after `warmup`; linear: decays to 0")
    warmup: float = setting(
        0.0,
        "share of all steps in which the learning rate rises from 0",
        Limits(at_least=0, below=1, says="a share of all steps, at least 0 and below 1"),
    )
    clip_norm: float = setting(0.0, "gradient norm above which gradients are clipped; 0: no clipping", NOT_NEGATIVE)
    trainable_layers: int = setting(
        2,
        "train the last n transformer layers; -1: everything, embeddings included",
        Limits(at_least=-1, says="-1 (everything), 0 (none) or more"),
    )
    dropout: float = setting(
        -1.0,
        "dropout of this stage; -1: model.dropout",
        Limits(at_least=0, below=1, also=-1, says="at least 0 and below 1, or -1 (model.dropout)"),
    )
    accumulate: int = setting(
        1,
        "Micro-batches that a rank's share of a global batch is cut into; each encodes its own distinct titles.",
        Limits(at_least=1),
    )
    token_budget: int = setting(
        0,
        "Tokens whose activations a rank keeps at a time; beyond, they are computed twice. 0: by memory; -1: no bound.",
        Limits(at_least=-1, says="tokens, 0 (by memory) or -1 (no bound)"),
    )


@dataclass
class ClickTrainConfig(TrainConfig):
    """Further settings of the stages that train on clicks."""

    epochs: int = setting(4, "passes over the training samples; 4 in both of the authors' releases")
    dedupe: Literal["local", "global"] = setting(
        "global", "encode each distinct title once per rank, or once per global batch"
    )
    frozen_cache: Literal["auto", "device", "host", "disk", "none"] = setting(
        "auto",
        "Where the frozen layers' output of every title is kept. host: one copy a node, in /dev/shm; none: computed in each "
        "step; auto: the fastest with room: on a GPU device, host, none; on a CPU memory, disk",
    )
    frozen_cache_gib: float = setting(4.0, "GiB on the device that auto may take, at most half of what is free")
    cuda_graphs: bool = setting(
        False,
        "Fill batches up to sizes that repeat and record the step as CUDA graphs (one GPU, engine=ddp, cached "
        "frozen layers)",
    )


@dataclass
class ValidatedTrainConfig(ClickTrainConfig):
    """What those of them add whose model scores clicks."""

    validate: float = setting(
        0.0,
        "Share of the train impressions, the last ones by time, that is held out: the model is scored on it during "
        "training, and the best one is the result. 0: train on all of them and keep the last model.",
        Limits(at_least=0, below=1, says="a share, at least 0 and below 1"),
    )
    validate_every: int = setting(
        0, "steps between two scores; 0: half an epoch", Limits(at_least=0, says="a number of steps, 0 or more")
    )
    fit_scale: bool = setting(
        True,
        "Scale the news vectors before the first step so that the click loss is minimal: the matching task leaves "
        "them too long for clicks. false: do not scale them.",
    )


@dataclass
class CorpusTrainConfig(TrainConfig):
    """What post-training, stage 1 and further pre-training add."""

    dropout_in: Literal["trainable", "all"] = setting(
        "trainable",
        "Where dropout acts in training. trainable: in the trainable layers; all: also after the embeddings and in "
        "the frozen layers (both releases of the authors' code).",
    )


@dataclass
class MatchingConfig(CorpusTrainConfig):
    """What the stages on the matching task share: match a body with its own title among N others."""

    batch_size: int = 32
    lr: float = 1e-6
    head_lr: float = 1e-5
    negatives: int = setting(9, "N: negative titles of each body", POSITIVE)
    negatives_from: Literal["corpus", "batch"] = setting(
        "corpus", "corpus: random titles; batch: other titles of the global batch, each encoded once"
    )
    title_tokens: int = setting(24, "tokens read of a title, [CLS] and [SEP] included; at least 3", TOKENS)
    body_tokens: int = setting(512, "tokens read of a body; at least 3", TOKENS)
    held_out: float = setting(0.02, "share of the pairs held out to measure matching accuracy", BELOW_ONE)
