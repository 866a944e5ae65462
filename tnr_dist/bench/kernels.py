"""`tnr bench kernels`: each fused kernel beside its plain torch form, and that under torch.compile, at the real sizes.

A row's time is that of a forward and a backward pass. On CUDA all three are captured in a CUDA graph, as in the training
step, so that it is the device's time and not the host's. Without a GPU only the plain forms are timed, and oneDNN's where
there is one: Triton's interpreter says nothing about speed.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tnr_dist.bench.titles import random_bodies
from tnr_dist.kernels.attention import (
    AttentionPlan,
    additive_pooling,
    bucket_attention,
    ragged_attention,
)
from tnr_dist.kernels.dispatch import Choice, gather_cast, linear, linear_gelu, residual_norm, use_kernels
from tnr_dist.kernels.ragged_attention import planned_attention
from tnr_dist.losses.stage2 import distillation
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import say

# Distinct titles of a batch of 128 samples of real MIND, and (by extrapolation) of 1,024; teachers, sizes of the model.
_TITLES = {128: 2_490, 1024: 9_000}
_SECONDS = 5.0  # of one form of one row, on a CPU; slow ones are timed fewer times
_TEACHERS, _DIM, _QUERY, _NEWS = 4, 256, 200, 101_527


@dataclass(frozen=True)
class Case:
    """One row: `call(kernels, *inputs)` gives the output; gradients are taken to the inputs that require them."""

    kernel: str
    shape: str
    dtype: str
    inputs: tuple[Tensor, ...]
    call: Callable[..., Tensor]
    # A bucket of attention is one call of SDPA on a GPU; on a CPU it is code of its own, minutes of C++ for all of them.
    compile_on_cpu: bool = True
    # Each form draws numbers of its own: their outputs are not comparable.
    random: bool = False
    # The fused form is a library's and runs on a CPU too.
    fused_on_cpu: bool = False

    def step(self, call: Callable[..., Tensor], inputs: tuple[Tensor, ...] | None = None) -> list[Tensor]:
        """Output and gradients of a sum with unequal factors."""
        inputs = self.inputs if inputs is None else inputs
        leaves = [x for x in inputs if x.requires_grad]
        out = call(*inputs)
        if not leaves:
            return [out]
        return [out.detach(), *torch.autograd.grad(out, leaves, _factors(out.shape, out.device, out.dtype))]


@functools.lru_cache(maxsize=1)
def _factors(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Made at the first, untimed call: of a large output it takes as long as a kernel."""
    return torch.linspace(0.5, 1.5, shape.numel(), device=device, dtype=dtype).view(shape)


def run(batch: int = 0, repeats: int = 20) -> dict[str, Any]:
    """Measure the kernels that are there.

    Args:
        batch: samples of the batch (128 or 1024); 0 = both on a GPU, 128 without one.
        repeats: passes timed, at most; the median counts.

    Raises InputError for another size of the batch.
    """
    if batch and batch not in _TITLES:
        raise InputError(f"tnr bench kernels: batch={batch}; {' or '.join(map(str, _TITLES))}, or 0")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = [batch] if batch else list(_TITLES) if device.type == "cuda" else [128]
    rows = []
    for size in batches:
        for case in _cases(size, device):
            say(f"{case.kernel} {case.shape}")
            rows.append(_row(case, device, repeats))
    found: dict[str, Any] = {"rows": rows, "passes": "forward and backward", "batches": batches}
    if device.type == "cpu":
        found["note"] = (
            "no GPU: Triton's ms and max_error are null, and attention's compiled_ms; the other times are of this CPU"
        )
    return found


def _row(case: Case, device: torch.device, repeats: int) -> dict[str, Any]:
    """Times of the three forms, and how far the fused one is from the plain one in float32, as part of the largest element.

    A form that cannot run has no time and leaves an `error`.
    """

    def plain(*inputs: Tensor) -> Tensor:
        return case.call("torch", *inputs)

    def fused(*inputs: Tensor) -> Tensor:
        return case.call("triton" if device.type == "cuda" else "auto", *inputs)

    torch.compiler.reset()
    forms = {"ms": fused, "torch_ms": plain, "compiled_ms": torch.compile(plain, dynamic=False)}
    row: dict[str, Any] = {"kernel": case.kernel, "shape": case.shape, "dtype": case.dtype, **dict.fromkeys(forms)}
    row["max_error"] = None
    if device.type == "cpu":
        if not case.fused_on_cpu:
            del forms["ms"]
        if not case.compile_on_cpu:
            del forms["compiled_ms"]
    for name, form in forms.items():
        try:
            row[name] = _milliseconds(lambda form=form: case.step(form), device, repeats)  # type: ignore[misc]
            if form is fused and not case.random:
                row["max_error"] = max(
                    float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp(min=1e-30))
                    for a, b in zip(case.step(fused), case.step(plain, _widened(case.inputs)), strict=True)
                )
        except Exception as error:  # one form that cannot run here must not cost the figures of all others
            say(f"{case.kernel} {case.shape}, {name}: {type(error).__name__}: {error}")
            row["error"] = f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return row


def _widened(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs in float32, those that require gradients as leaves of their own."""
    return tuple(x.detach().float().requires_grad_(x.requires_grad) if x.is_floating_point() else x for x in inputs)


def _milliseconds(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a call, after some that do not count (compilation, the allocator)."""
    if device.type == "cpu":
        step()
        times: list[float] = []
        while len(times) < repeats and sum(times) < 1e3 * _SECONDS:
            began = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - began))
        return statistics.median(times)
    # Capture wants a warm-up on a stream of its own.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    milliseconds: float = statistics.median(begin.elapsed_time(end) for begin, end in events)
    return milliseconds


def _cases(batch: int, device: torch.device) -> list[Case]:
    """The rows for one batch size; inputs are drawn on the host, so that they are the same everywhere."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True, scale: float = 1.0) -> Tensor:
        x = (scale * torch.randn(*shape, generator=generator)).to(device, dtype)
        return x.requires_grad_(grad)

    return [
        _distillation(batch, draw),
        *(_pooling(_lengths(_TITLES[batch]), width, draw, device) for width in (384, 768)),
        *(_pooling(random_bodies(batch // 4).lengths, width, draw, device) for width in (384, 768)),
        *_attention(_lengths(_TITLES[batch]), draw),
        *_attention(random_bodies(batch // 4).lengths, draw),
        *([_varlen(random_bodies(batch // 4).lengths, draw)] if device.type == "cuda" else []),
        _gather(_TITLES[batch], draw, device, generator),
        *(_residual(_TITLES[batch], width, p, draw) for width in (384, 768) for p in (0.0, 0.1)),
        *(_linear(_TITLES[batch], width, gelu, draw) for width in (384, 768) for gelu in (False, True)),
    ]


def _lengths(titles: int) -> np.ndarray:
    """[U] tokens of titles, ascending as the encoder packs them: 16 on average, 30 at most."""
    return np.sort(np.random.default_rng(0).normal(16, 5, titles).round().clip(5, 30).astype(np.int64))


def _distillation(batch: int, draw: Callable[..., Tensor]) -> Case:
    def call(kernels: Choice, logits: Tensor, omega: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        got = distillation(logits, omega, scores, weights, float(batch), kernels=kernels)
        return got.distill + 0.1 * got.target + got.teacher_weights.square().sum()

    inputs = (draw(batch, _TEACHERS, 5, grad=False), draw(1), draw(batch, 5), draw(batch, grad=False))
    return Case("distillation", f"B={batch} M={_TEACHERS} C=5", "float32", inputs, call)


def _pooling_weights(width: int, draw: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return draw(_QUERY, width, scale=width**-0.5), draw(_QUERY), draw(_QUERY, scale=_QUERY**-0.5)


def _pooling(lengths: np.ndarray, width: int, draw: Callable[..., Tensor], device: torch.device) -> Case:
    lengths = np.sort(lengths)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])).to(device)

    longest = int(lengths.max())

    def call(kernels: Choice, x: Tensor, weight: Tensor, bias: Tensor, query: Tensor) -> Tensor:
        return additive_pooling(x, weight, bias, query, offsets, longest, kernels)

    inputs = (draw(int(lengths.sum()), width, dtype=torch.bfloat16), *_pooling_weights(width, draw))
    return Case("additive_pooling", f"U={len(lengths)} T={lengths.sum()} d={width}", "bfloat16", inputs, call)


def _varlen(lengths: np.ndarray, draw: Callable[..., Tensor]) -> Case:
    """What the encoder takes for long sequences: torch's own FlashAttention where there is one."""
    lengths, heads, size = np.sort(lengths), 12, 64
    plan, tokens = AttentionPlan(lengths), int(lengths.sum())

    def call(kernels: Choice, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with use_kernels("torch" if kernels == "torch" else "auto"):
            return ragged_attention(q, k, v, plan)

    shape = f"U={len(lengths)} T={tokens} heads={heads} head_dim={size}"
    inputs = (*(draw(tokens, heads, size, dtype=torch.bfloat16) for _ in range(3)),)
    return Case("varlen_attention", shape, "bfloat16", inputs, call)


def _attention(lengths: np.ndarray, draw: Callable[..., Tensor]) -> list[Case]:
    lengths, heads = np.sort(lengths), 12
    tokens = int(lengths.sum())
    plan = AttentionPlan(lengths)

    def call(kernels: Choice, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        form = planned_attention if kernels == "triton" else bucket_attention
        return form(q, k, v, plan, None, 0.0)

    return [
        Case(
            "ragged_attention",
            f"U={len(lengths)} T={tokens} heads={heads} head_dim={size}",
            "bfloat16",
            (*(draw(tokens, heads, size, dtype=torch.bfloat16) for _ in range(3)),),
            call,
            compile_on_cpu=False,
        )
        for size in (32, 64)
    ]


def _gather(rows: int, draw: Callable[..., Tensor], device: torch.device, generator: torch.Generator) -> Case:
    def call(kernels: Choice, table: Tensor, index: Tensor) -> Tensor:
        return gather_cast(table, index, torch.float32, kernels)

    index = torch.randint(_NEWS, (rows,), generator=generator).to(device)
    inputs = (draw(_NEWS, _TEACHERS, _DIM, dtype=torch.bfloat16, grad=False), index)
    return Case("gather_cast", f"V={_NEWS} U={rows} M={_TEACHERS} D={_DIM}", "bfloat16", inputs, call)


def _residual(titles: int, width: int, p: float, draw: Callable[..., Tensor]) -> Case:
    tokens = int(_lengths(titles).sum())

    def call(kernels: Choice, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):  # what the plain form costs in the encoder
            return residual_norm(x, y, weight, bias, 1e-12, p, kernels)

    states = (draw(tokens, width, dtype=torch.bfloat16) for _ in range(2))
    inputs = (*states, draw(width), draw(width))
    return Case("residual_norm", f"T={tokens} d={width} dropout={p}", "bfloat16", inputs, call, random=p > 0)


def _linear(titles: int, width: int, gelu: bool, draw: Callable[..., Tensor]) -> Case:
    """The first half of a feed-forward block: in training without the GELU, in encoding (forward only) with it."""
    tokens = int(_lengths(titles).sum())

    def call(kernels: Choice, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16), torch.set_grad_enabled(not gelu):
            return linear_gelu(x, weight, bias, kernels) if gelu else linear(x, weight, bias, kernels)

    inputs = (
        draw(tokens, width, dtype=torch.bfloat16, grad=not gelu),
        draw(4 * width, width, scale=width**-0.5, grad=not gelu),
        draw(4 * width, grad=not gelu),
    )
    name, what = ("linear_gelu", "forward only") if gelu else ("linear", "bias")
    return Case(name, f"T={tokens} {width} to {4 * width} {what}", "bfloat16", inputs, call, fused_on_cpu=True)
