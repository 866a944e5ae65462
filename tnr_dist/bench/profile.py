"""`tnr bench profile`: where the time of a stage-2 step goes, by class of operation."""

from __future__ import annotations

import re
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tnr_dist.bench.step import Scene, our_step

# The first class whose pattern is found in a kernel's name (on a CPU: an operator's) gets its time.
_CLASSES = (
    ("copies", r"memcpy|memset|copy_|_to_copy|clone"),
    ("optimiser", r"multi_tensor|adam|fused_optim"),
    ("attention", r"^attention|flash|fmha|scaled_dot|exp2?_"),
    ("pooling", r"logits_kernel|pool_kernel|softmax_gradient|states_gradient"),
    ("norm and residual", r"norm|dropout"),
    ("gelu", r"gelu"),
    ("loss", r"distillation|log_softmax|logsumexp"),
    ("products", r"gemm|cutlass|nvjet|cublas|::mm$|::bmm|addmm|baddbmm|linear|matmul|einsum|sm90|sm80"),
    ("gathers", r"gather|index|scatter|embedding|repeat|cat|split"),
    ("sums", r"reduce|sum|mean"),
    ("elementwise", r"elementwise|vectorized|add|mul|sub|div|tanh|softmax|where|masked|fill|zero"),
)


def class_of(name: str) -> str:
    """The class of a kernel or operator; 'other' where no pattern fits."""
    return next((label for label, pattern in _CLASSES if re.search(pattern, name.lower())), "other")


def run(samples: int = 128, layers: int = 4, width: int = 384, trainable: int = 2, steps: int = 3) -> dict[str, Any]:
    """Shares of the device's time (on a CPU: of the operators' own time) over `steps` steps of ours, after one to warm up.

    `rows`: class, ms a step, share. `top`: the twenty longest kernels or operators. `busy`: the classes' time over the wall
    clock of the profiled steps; on a GPU what is missing there is launches and waiting.
    """
    scene = Scene.of(samples, layers, width, trainable)
    on_gpu = scene.engine.device.type == "cuda"
    step = our_step(scene.ours(), scene.batch)
    try:
        step()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as profiled:
            for _ in range(steps):
                step()
    finally:
        step.close()
    times: dict[str, float] = {}
    began, ended = float("inf"), 0.0
    for event in profiled.events() or ():
        began, ended = min(began, event.time_range.start), max(ended, event.time_range.end)
    for average in profiled.key_averages():
        mine = average.device_type == (DeviceType.CUDA if on_gpu else DeviceType.CPU)
        microseconds = average.self_device_time_total if on_gpu else average.self_cpu_time_total
        if mine and microseconds:
            times[average.key] = times.get(average.key, 0.0) + microseconds / 1e3
    classes: dict[str, float] = {}
    for name, milliseconds in times.items():
        classes[class_of(name)] = classes.get(class_of(name), 0.0) + milliseconds
    total = sum(classes.values())
    taken = steps * (10 if on_gpu else 1)  # `our_step` takes ten on a GPU
    longest = sorted(times.items(), key=lambda one: -one[1])[:20]
    return {
        "rows": [
            {"class": name, "ms": milliseconds / taken, "share": milliseconds / total}
            for name, milliseconds in sorted(classes.items(), key=lambda one: -one[1])
        ],
        "top": [{"name": name[:100], "ms": milliseconds / taken, "class": class_of(name)} for name, milliseconds in longest],
        "ms": total / taken,
        "busy": total / ((ended - began) / 1e3),
        "model": f"BERT {layers} x {width}, {trainable} trainable",
        "batch": samples,
    }  # fmt: skip
