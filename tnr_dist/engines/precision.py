"""The precision that `precision=auto` stands for on a device."""

from __future__ import annotations

from pathlib import Path

import torch

from tnr_dist.engines.base import Engine


def choose_precision(precision: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies bf16 matrices faster than float32 ones, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def compute_dtype(engine: Engine) -> torch.dtype:
    """What a model's layers compute their states in under the engine's precision."""
    with engine.autocast():
        on = torch.is_autocast_enabled(engine.device.type)
        return torch.get_autocast_dtype(engine.device.type) if on else torch.float32


def _cpu_has_bf16() -> bool:
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
