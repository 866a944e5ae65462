"""A `ds_config.json` beside our configuration: what it may say, and what contradicts us."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from tnr_dist.config.schema import DeepSpeedConfig
from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import JsonObject

_AUTO = "auto"  # Hugging Face's word for: as the trainer says
_BUCKET = 50_000_000  # gradients sent at a time, at most; DeepSpeed's own default reserves 2 GB
# Sections that would do what the training loop does, or what no model of ours can.
_NOT_OURS = {
    "scheduler": "the learning rate's schedule is `schedule` and `warmup` of the stage",
    "amp": "the precision is `precision`",
    "managed_gradient_accumulation": "micro-batches are counted by the training loop (`accumulate`)",
    "gradient_allreduce_op": "gradients are weighted by the training loop",
}


@dataclass(frozen=True)
class OwnSettings:
    """What our own configuration says of the things a ds_config.json may say too."""

    batch_size: int  # 0: not said
    accumulate: int
    clip_norm: float
    precision: str  # fp32 or bf16
    world_size: int
    optimizer: torch.optim.Optimizer
    trained: int  # elements of the parameters that train


def read_ds_config(path: str) -> JsonObject:
    """The file's contents; empty without one. Raises InputError when it cannot be read or is no JSON object."""
    if not path:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"deepspeed.config={path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"deepspeed.config={path}: not valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"deepspeed.config={path}: expected an object of settings, found {type(found).__name__}")
    return found


def zero_stage(settings: DeepSpeedConfig, found: JsonObject) -> int:
    """The ZeRO stage that both agree on."""
    stage = _section(settings.config, found, "zero_optimization").get("stage")
    if stage in (None, _AUTO):
        return settings.zero_stage if settings.zero_stage >= 0 else 1
    if not isinstance(stage, int) or stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        raise InputError(f"{settings.config}: zero_optimization.stage={stage!r}: 0 to 3")
    if settings.zero_stage not in (-1, stage):
        raise _contradiction(
            settings.config, "zero_optimization.stage", stage, "deepspeed.zero_stage", settings.zero_stage
        )
    return stage


def resolve(path: str, found: JsonObject, stage: int, ours: OwnSettings) -> JsonObject:
    """The configuration that DeepSpeed is given: the file's, without what is ours to do, and our own defaults.

    Raises InputError for whatever contradicts us, naming both keys and values.
    """
    for key, instead in _NOT_OURS.items():
        if key in found:
            raise InputError(f"{path}: {key} is not taken from here; {instead}")
    _check_batch(path, found, ours)
    _check(path, "gradient_clipping", found.get("gradient_clipping"), "clip_norm", ours.clip_norm)
    _check_precision(path, found, ours.precision)
    _check_optimizer(path, _section(path, found, "optimizer"), ours.optimizer)
    bucket = -(-min(ours.trained, _BUCKET) // 1024) * 1024
    zero = {
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        **{k: v for k, v in _section(path, found, "zero_optimization").items() if v != _AUTO},
        "stage": stage,
    }
    # bf16 is autocast over float32 weights, at every stage, as in the other engines: no section for it. DeepSpeed's own
    # keeps no float32 weights in the module, and at stage 0 begins with a step that Adam's bias correction then counts.
    ours_to_do = ("train_batch_size", "fp16", "bf16", "torch_autocast", "optimizer")
    return {
        "zero_force_ds_cpu_optimizer": False,
        **{k: v for k, v in found.items() if k not in ours_to_do and v != _AUTO},
        # Sizes are only its bookkeeping: our shares may differ between ranks, and a micro-batch is one forward pass.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Stage 0 neither returns the norm nor can clip by it: that is done here.
        "gradient_clipping": ours.clip_norm if stage else 0.0,
        "zero_optimization": zero,
    }


def _check_batch(path: str, found: JsonObject, ours: OwnSettings) -> None:
    _check(path, "gradient_accumulation_steps", found.get("gradient_accumulation_steps"), "accumulate", ours.accumulate)
    if not ours.batch_size:
        return
    _check(path, "train_batch_size", found.get("train_batch_size"), "batch_size", ours.batch_size)
    micro = found.get("train_micro_batch_size_per_gpu")
    if micro in (None, _AUTO):
        return
    expected = -(-ours.batch_size // (ours.world_size * ours.accumulate))
    if micro != expected:
        raise InputError(
            f"{path}: train_micro_batch_size_per_gpu={micro!r}, but batch_size={ours.batch_size} in "
            f"accumulate={ours.accumulate} micro-batches on {ours.world_size} ranks is {expected}; make them agree"
        )


def _check_precision(path: str, found: JsonObject, precision: str) -> None:
    bf16 = precision == "bf16"
    for section, expected in (("fp16", False), ("bf16", bf16), ("torch_autocast", bf16)):
        enabled = _section(path, found, section).get("enabled")
        # A section that is off says nothing where another of the file says what is on.
        others = any(_section(path, found, name).get("enabled") is True for name in ("bf16", "torch_autocast"))
        if enabled in (None, _AUTO, expected) or (enabled is False and others):
            continue
        raise _contradiction(path, f"{section}.enabled", enabled, "precision", precision)
    dtype = _section(path, found, "torch_autocast").get("dtype")
    if bf16 and dtype not in (None, _AUTO, "bfloat16", "bf16"):
        raise _contradiction(path, "torch_autocast.dtype", dtype, "precision", precision)


def _check_optimizer(path: str, section: JsonObject, optimizer: torch.optim.Optimizer) -> None:
    group = optimizer.param_groups[0]
    name = type(optimizer).__name__
    kind = section.get("type")
    # DeepSpeed's Adam is AdamW unless told otherwise; without weight decay the two are one.
    same = {"adam", "adamw"} if name in ("Adam", "AdamW") and not group["weight_decay"] else {name.lower()}
    if kind not in (None, _AUTO) and str(kind).lower() not in same:
        raise _contradiction(path, "optimizer.type", kind, "the stage's optimiser", name)
    for key, value in _section(path, section, "params").items():
        if key in ("torch_adam", "fused", "adam_w_mode") or value == _AUTO:
            continue
        if key == "bias_correction" and value is True:
            continue
        if key not in ("lr", "betas", "eps", "weight_decay", "amsgrad"):
            raise InputError(f"{path}: optimizer.params.{key}={value!r} is no setting of {name} here; remove it")
        _check(path, f"optimizer.params.{key}", value, key, group[key])


def _section(path: str, found: JsonObject, key: str) -> JsonObject:
    section = found.get(key, {})
    if section is None or section == _AUTO:
        return {}
    if not isinstance(section, dict):
        raise InputError(f"{path}: {key}={section!r}: expected an object of settings")
    return section


def _check(path: str, key: str, theirs: object, our_key: str, ours: object) -> None:
    if theirs is None or theirs == _AUTO:
        return
    same = list(theirs) == list(ours) if isinstance(theirs, list) and isinstance(ours, list | tuple) else theirs == ours
    if not same:
        raise _contradiction(path, key, theirs, our_key, ours)


def _contradiction(path: str, key: str, theirs: object, our_key: str, ours: object) -> InputError:
    return InputError(f"{path}: {key}={theirs!r} contradicts {our_key}={ours!r}; make them agree, or leave {key} out")
