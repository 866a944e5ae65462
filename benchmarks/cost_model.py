"""Where does each stage's time go, and what does an epoch cost on R GPUs? Writes benchmarks/results/cost-model.{md,json}.

Command:  .venv/bin/python benchmarks/cost_model.py        (about a minute; the ceilings are measured first)
Counts:   operations and bytes of each stage from the model's shapes (docs/performance.md gives the formulas), against a
          matrix product and a memory copy measured in the same run. The GPU columns take rates from `GPU`, which are
          data-sheet figures or assumptions and say so: no GPU was at hand.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tnr_dist.bench.common import surroundings

RESULTS = Path(__file__).parent / "results"
SAMPLES = 3_383_656  # an epoch of MINDlarge
TITLES, TITLE_TOKENS, BODY_TOKENS, ABSTRACT_TOKENS = 130_379, 16, 512, 60
# Distinct titles of a batch, counted on real MIND rows at 128, 512 and 2,048 samples of 55 slots; between them the
# share is interpolated in the logarithm of the batch.
DISTINCT = {128: 2_490 / 7_040, 512: 0.21, 2_048: 0.10}
SLOTS, CANDIDATES, TEACHERS, DIM = 55, 5, 4, 256


@dataclass(frozen=True)
class Shape:
    """A student: layers, of which `trainable` train, over hidden size `width`."""

    layers: int
    trainable: int
    width: int

    @property
    def trained_parameters(self) -> int:
        """Layers, pooling, dense, user encoder and the projections of M teachers."""
        heads = self.width * 200 + self.width * DIM + DIM * 200 + 2 * TEACHERS * DIM * DIM
        return 12 * self.width**2 * self.trainable + heads


@dataclass(frozen=True)
class Machine:
    """What a rank can do; `gradient` bytes/s and seconds of latency of a collective among `r` ranks."""

    name: str
    flops: float  # attained, not peak
    bytes_per_s: float
    node: int  # ranks that share a node
    inside: float  # bytes/s of an all-reduce inside a node
    between: float  # ... between nodes, per rank
    latency: float  # of one hop


# Peak 989 TFLOP/s and 4.8 TB/s are the H200 data sheet's; half of the peak attained is the target, NOT measured; NVLink
# and network figures are those of common clusters (450 GB/s a direction inside, 50 GB/s a GPU between).
GPU = Machine("H200, half of the peak assumed", 0.5 * 989e12, 4.8e12, 8, 450e9, 50e9, 10e-6)


def distinct(batch: int) -> float:
    """Share of a batch's slots that are distinct titles."""
    known = sorted(DISTINCT)
    low = max((b for b in known if b <= batch), default=known[0])
    high = min((b for b in known if b >= batch), default=known[-1])
    if low == high:
        return DISTINCT[low]
    at = math.log(batch / low) / math.log(high / low)
    return DISTINCT[low] * (DISTINCT[high] / DISTINCT[low]) ** at


def layer_flops(width: int, length: float) -> float:
    """Forward operations of a transformer layer on one token of a sequence of `length` (24 d^2 + 4 s d)."""
    return 24 * width**2 + 4 * length * width


def stage2_step(shape: Shape, batch: int) -> dict[str, float]:
    """Operations and bytes of a step over the whole batch; the frozen layers' states are cached."""
    titles = distinct(batch) * SLOTS * batch
    tokens = titles * TITLE_TOKENS
    encoder = 3 * shape.trainable * layer_flops(shape.width, TITLE_TOKENS) - 6 * shape.width**2
    pooling = 3 * 2 * shape.width * 200
    loss = 3 * 2 * TEACHERS * DIM * DIM * (titles + batch)
    return {
        "flops": tokens * (encoder + pooling) + 3 * 2 * titles * shape.width * DIM + loss,
        # Each activation of a trainable layer is written once and read about three times, in bf16; frozen states are
        # read once; weights, gradients and Adam's two moments are streamed once a step.
        "bytes": tokens * shape.width * 2 * (1 + 34 * shape.trainable * 2) + 28 * shape.trained_parameters,
        "titles": titles,
        "tokens": tokens,
    }


def stages(shape: Shape, teacher_layers: int) -> dict[str, float]:
    """Operations of a whole stage over MINDlarge, forward and backward."""
    teacher = layer_flops(shape.width, TITLE_TOKENS)
    pairs = 10 * TITLE_TOKENS * (teacher_layers + 2 * 3) * teacher
    pairs += ABSTRACT_TOKENS * (teacher_layers + 2 * 3) * layer_flops(shape.width, ABSTRACT_TOKENS)
    frozen = TITLES * TITLE_TOKENS * teacher
    step = stage2_step(shape, 1024)["flops"] * SAMPLES / 1024
    teachers = Shape(teacher_layers, 2, shape.width)
    return {
        "post-train, 1 epoch of titles and abstracts": pairs * TITLES,
        "finetune one teacher, 1 epoch": frozen * (teacher_layers - 2)
        + stage2_step(teachers, 1024)["flops"] * SAMPLES / 1024,
        "teachers' pass over the news, M = 4": 4 * frozen * teacher_layers,
        "stage 2, 1 epoch": frozen * (shape.layers - shape.trainable) + step,
    }


def epoch(shape: Shape, machine: Machine, ranks: int, batch: int = 1024, loader: float = 1e6) -> dict[str, float]:
    """Seconds of a stage-2 epoch: compute and memory shared by the ranks, then what they tell each other."""
    step = stage2_step(shape, batch)
    compute = max(step["flops"] / machine.flops, step["bytes"] / machine.bytes_per_s) / ranks
    gradients = 4 * shape.trained_parameters
    vectors = 3 * step["titles"] * DIM * 4  # gathered forward, summed and kept in part backward (dedupe=global)
    inside, nodes = min(ranks, machine.node), math.ceil(ranks / machine.node)
    talk = 2 * (inside - 1) / inside * (gradients + vectors / 2) / machine.inside
    if nodes > 1:
        talk += 2 * (nodes - 1) / nodes * (gradients + vectors / 2) / (machine.between * inside)
    talk += 3 * machine.latency * 2 * math.log2(max(ranks, 1))
    read = batch / ranks / loader
    steps = SAMPLES / batch
    return {
        "ranks": ranks,
        "compute_s": compute * steps,
        "talk_s": talk * steps,
        "loader_s": read * steps,  # beside the step: it counts only where it is the longest
        "epoch_s": max(compute + talk, read) * steps,
    }


def ceilings() -> dict[str, float]:
    """Matrix products and a copy, best of 20, all threads."""

    def best(work, repeats: int = 20) -> float:
        work()
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return min(times)

    out = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(4096, 1536).to(dtype), torch.randn(1536, 384).to(dtype)
        out[f"matmul_{name}_tflops"] = 2 * 4096 * 1536 * 384 / best(lambda a=a, b=b: a @ b) / 1e12
    x, y = torch.randn(64 << 20), torch.empty(64 << 20)
    out["copy_gb_s"] = 2 * x.nbytes / best(lambda: y.copy_(x), 5) / 1e9
    return out


def main() -> None:
    """Measure, count, write."""
    where, top = surroundings(), ceilings()
    small, paper = Shape(4, 2, 384), Shape(4, 2, 768)
    step = stage2_step(small, 128)
    bound = max(step["flops"] / top["matmul_bf16_tflops"] / 1e12, step["bytes"] / top["copy_gb_s"] / 1e9)
    rows = [epoch(paper, GPU, ranks) for ranks in (1, 8, 64, 512)]
    lines = [
        "# Counted operations, measured ceilings, and an extrapolated epoch",
        "",
        f"{where['date']}, commit {where['commit']}, {where['cpu']}, {where['cores']} cores, load {where['load_at_start']}.",
        f"Measured: matrix product {top['matmul_fp32_tflops']:.3f} TFLOP/s in float32, {top['matmul_bf16_tflops']:.3f} in bf16; copy {top['copy_gb_s']:.1f} GB/s.",
        "",
        f"Stage-2 step of 128 samples, 4 layers (2 trainable) of width 384: {step['titles']:,.0f} titles, {step['tokens']:,.0f} tokens, "
        f"{step['flops'] / 1e12:.2f} TFLOP, {step['bytes'] / 1e9:.1f} GB: at the ceilings {bound:.2f} s, {128 / bound:.0f} samples/s.",
        "",
        "| stage, MINDlarge, 4-layer student and 12-layer teachers of width 768 | PFLOP |",
        "|---|---|",
        *(f"| {name} | {value / 1e15:,.1f} |" for name, value in stages(paper, 12).items()),
        "",
        f"Stage-2 epoch, global batch 1,024, {GPU.name} (extrapolated, not measured):",
        "",
        "| GPUs | compute s | messages s | loader s (beside) | epoch s |",
        "|---|---|---|---|---|",
        *(
            f"| {r['ranks']:.0f} | {r['compute_s']:.1f} | {r['talk_s']:.1f} | {r['loader_s']:.1f} | {r['epoch_s']:.1f} |"
            for r in rows
        ),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cost-model.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "cost-model.json").write_text(
        json.dumps({**where, **top, "step_128": step, "epochs": rows, "stages_flops": stages(paper, 12)}, indent=1)
        + "\n"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
