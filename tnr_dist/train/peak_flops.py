"""The most operations a second that a device can do: what `perf/mfu` is a share of."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import torch

from tnr_dist.engines.base import Engine

# Dense bf16 TFLOP/s of the makers' data sheets, by a part of the name that the driver gives; the first that fits counts.
_KNOWN = (
    ("B200", 2250.0),
    ("H200", 989.0),
    ("GH200", 989.0),
    ("H100 NVL", 835.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("A30", 165.0),
    ("A40", 149.7),
    ("L4", 121.0),
    ("MI300X", 1307.0),
    ("MI250X", 191.5),  # each of its two dies is a device
)


@dataclass(frozen=True)
class Peak:
    """Operations a second of one rank's device, and where the figure is from."""

    flops: float
    source: str


def device_peak(engine: Engine) -> Peak:
    """The data sheet's bf16 figure of a known GPU; else what a matrix product in the run's precision attains here."""
    name = torch.cuda.get_device_name(engine.device) if engine.device.type == "cuda" else ""
    known = next((tflops for part, tflops in _KNOWN if part in name), None)
    if known is not None:
        return Peak(known * 1e12, f"{name}: bf16, data sheet")
    with engine.autocast():
        low = torch.is_autocast_enabled(engine.device.type)
    dtype = torch.bfloat16 if low else torch.float32
    size = 4096 if engine.device.type == "cuda" else 1024
    flops = measured_peak(engine.device, dtype, size, torch.get_num_threads())
    kind = name or f"CPU, {torch.get_num_threads()} threads"
    return Peak(flops, f"{kind}: {'bf16' if low else 'fp32'}, measured on a product of {size} x {size} matrices")


@functools.cache
def measured_peak(device: torch.device, dtype: torch.dtype, size: int, threads: int, repeats: int = 3) -> float:
    """Operations a second of a matrix product [size, size] x [size, size], best of `repeats`; once a process.

    `threads` are those in use: with others it is another measurement.
    """
    # Numbers of its own: a measurement must not move the run's.
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    best = float("inf")
    for number in range(repeats + 1):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:  # the first one starts the threads
            best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
