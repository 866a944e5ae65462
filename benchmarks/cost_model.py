"""A roofline of each stage, and what an epoch costs on R GPUs. Writes benchmarks/results/cost-model.{md,json}.

Command:  .venv/bin/python benchmarks/cost_model.py        (about a minute; the CPU's ceilings are measured first)
          .venv/bin/python benchmarks/cost_model.py --keep-ceilings        (those of the last run; seconds)
Counts:   operations and bytes of each stage from the model's shapes (docs/performance.md gives the formulas).
Measured: what the other files of benchmarks/results say: the rates of steps, passes and the loader, and the GPU's matrix
          product. Bandwidths of the GPU and of networks are data-sheet figures or assumptions, and say so.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tnr_dist.bench.common import describe_machine
from tnr_dist.bench.work import (
    BF16,
    DIM,
    FP32,
    Shape,
    Work,
    click_step,
    encode,
    forward,
    matching_epoch,
    projections,
    scores,
)

RESULTS = Path(__file__).parent / "results"
SAMPLES = 3_383_656  # an epoch of MINDlarge
TITLES, TITLE_TOKENS, ABSTRACT_TOKENS = 130_379, 16, 60
HISTORIES, CLICKED, CANDIDATES = 711_222, 33, 83_500_000  # of train: users, clicks of a history, candidates
DEV_CANDIDATES = 14_100_000
# Distinct titles of a batch, counted on real MIND rows at 128, 512 and 2,048 samples of 55 slots; between them the
# share is interpolated in the logarithm of the batch.
DISTINCT = {128: 2_490 / 7_040, 512: 0.21, 2_048: 0.10}
SLOTS, TEACHERS, NEGATIVES = 55, 4, 9
MATCHING_BATCH = 32


@dataclass(frozen=True)
class Setup:
    """A machine and the models that were measured on it."""

    machine: str
    student: Shape
    teacher: Shape
    batch: int
    flops: float  # a second, of a large bf16 matrix product
    bytes: float  # a second
    measured: dict[str, float]  # stage -> seconds


@dataclass(frozen=True)
class Network:
    """What ranks can tell each other: bytes a second of a rank, seconds of a hop."""

    node: int = 8  # ranks that share a node
    inside: float = 450e9  # NVLink, one direction
    between: float = 50e9  # of each rank, between nodes
    latency: float = 10e-6


def distinct(batch: int) -> float:
    """Share of a batch's slots that are distinct titles."""
    known = sorted(DISTINCT)
    low = max((b for b in known if b <= batch), default=known[0])
    high = min((b for b in known if b >= batch), default=known[-1])
    if low == high:
        return DISTINCT[low]
    at = math.log(batch / low) / math.log(high / low)
    return DISTINCT[low] * (DISTINCT[high] / DISTINCT[low]) ** at


def clicks_epoch(shape: Shape, batch: int, teachers: int = 0) -> Work:
    """An epoch of `click_step`, and the frozen layers' pass over all titles before it."""
    below = forward(shape.width, shape.layers - shape.trainable, TITLES, TITLE_TOKENS)
    return below + step(shape, batch, teachers) * (SAMPLES / batch)


def step(shape: Shape, batch: int, teachers: int = 0) -> Work:
    """A step on clicks of MINDlarge."""
    return click_step(shape, batch, distinct(batch) * SLOTS * batch, TITLE_TOKENS, SLOTS, teachers)


def matching(shape: Shape) -> Work:
    """An epoch of MIND's own titles and abstracts, 1 + N titles a pair."""
    return matching_epoch(shape, TITLES, MATCHING_BATCH, 1 + NEGATIVES, TITLE_TOKENS, ABSTRACT_TOKENS)


def stages(setup: Setup) -> dict[str, Work]:
    """Each stage over MINDlarge."""
    student, teacher = setup.student, setup.teacher
    post_trained = Shape(teacher.layers, 3, teacher.width)
    corpus = encode(teacher, TITLES, TITLE_TOKENS) + encode(teacher, TITLES, ABSTRACT_TOKENS)
    written = Work(0.0, TEACHERS * (HISTORIES * DIM * BF16 + CANDIDATES * FP32))
    return {
        "post-train, 1 epoch": matching(post_trained),
        "stage 1, 1 epoch, the teacher's vectors made before": corpus + matching(student),
        "finetune one teacher, 1 epoch": clicks_epoch(teacher, setup.batch),
        "cache: news vectors of M teachers": encode(teacher, TITLES, TITLE_TOKENS) * TEACHERS,
        "cache: user vectors and logits of M teachers": scores(HISTORIES, CLICKED, CANDIDATES) * TEACHERS + written,
        "stage 2, 1 epoch": clicks_epoch(student, setup.batch, TEACHERS),
        "evaluate: news vectors": encode(student, TITLES, TITLE_TOKENS),
        "evaluate: user vectors and scores of dev": scores(HISTORIES, CLICKED, DEV_CANDIDATES),
    }


def bound(work: Work, setup: Setup) -> float:
    """Seconds at the ceilings."""
    return max(work.flops / setup.flops, work.bytes / setup.bytes)


def epoch(
    shape: Shape, samples_per_s: float, loader: float, ranks: int, batch: int = 1024, network: Network | None = None
) -> dict[str, float]:
    """Seconds of a stage-2 epoch on `ranks` GPUs: one's measured rate shared among them, and what they tell each other.

    An all-reduce of the gradients, an all-gather of the distinct titles' vectors and the reduce-scatter of their gradients,
    as rings, inside a node and between nodes. The rate is that of a whole batch: smaller shares run less well, so that
    compute is a lower bound.
    """
    network = network or Network()
    steps = SAMPLES / batch
    gradients = FP32 * (shape.trained_parameters + projections(TEACHERS))
    vectors = FP32 * DIM * distinct(batch) * SLOTS * batch
    sent = 2 * (gradients + vectors)
    inside, nodes = min(ranks, network.node), math.ceil(ranks / network.node)
    talk = (inside - 1) / inside * sent / network.inside
    talk += (nodes - 1) / nodes * sent / (network.between * inside)
    talk += 3 * network.latency * 2 * math.log2(ranks)
    compute, read = batch / samples_per_s / ranks, batch / ranks / loader
    return {
        "ranks": ranks,
        "compute_s": compute * steps,
        "sent_mb_per_step": sent / 1e6 if ranks > 1 else 0.0,
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


def result(name: str) -> dict[str, Any]:
    """A committed result."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def encoding_rate(name: str, shape: Shape) -> float:
    """News a second of a shape, as `tnr bench inference` measured."""
    rows = result(name)["rows"]
    return next(r["news_per_s"] for r in rows if (r["layers"], r["width"]) == (shape.layers, shape.width))


def setups(top: dict[str, float]) -> list[Setup]:
    """The GPU and the CPU that were measured; `top`: the CPU's ceilings."""
    student, teacher = Shape(4, 2, 768), Shape(12, 2, 768)
    step, teacher_pass = result("gpu-h200/step"), result("gpu-h200/teacher-pass")
    measured = {
        "stage 2, 1 epoch": SAMPLES / step["samples_per_s"],
        "cache: news vectors of M teachers": TEACHERS * TITLES / teacher_pass["news_per_s"],
        "evaluate: news vectors": TITLES / encoding_rate("gpu-h200/inference", student),
    }
    gpu = Setup(step["gpu"], student, teacher, step["batch"], step["matmul_tflops"] * 1e12, 4.8e12, measured)
    student, teacher = Shape(4, 2, 384), Shape(6, 2, 384)
    step, teacher_pass = result("step"), result("teacher-pass")
    measured = {
        "stage 2, 1 epoch": SAMPLES / step["samples_per_s"],
        "cache: news vectors of M teachers": TEACHERS * TITLES / teacher_pass["news_per_s"],
        "cache: user vectors and logits of M teachers": 2_232_748 / result("cache")["impressions_per_s"],
        "evaluate: news vectors": TITLES / encoding_rate("inference", student),
    }
    peak, memory = top["matmul_bf16_tflops"] * 1e12, top["copy_gb_s"] * 1e9
    return [gpu, Setup("two CPU cores", student, teacher, step["batch"], peak, memory, measured)]


def roofline(setup: Setup) -> list[dict[str, Any]]:
    """A row for each stage."""
    rows = []
    for name, work in stages(setup).items():
        seconds = setup.measured.get(name)
        by = "products" if work.flops / setup.flops > work.bytes / setup.bytes else "memory"
        at_ceilings = bound(work, setup)
        share = None if seconds is None else at_ceilings / seconds
        rows.append(
            {"stage": name, "pflop": work.flops / 1e15, "tb": work.bytes / 1e12, "flop_per_byte": work.flops / work.bytes,
             "bound_by": by, "ceiling_s": at_ceilings, "measured_s": seconds, "share": share}
        )  # fmt: skip
    return rows


def seconds(value: float | None) -> str:
    """To three digits."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def roofline_lines(setup: Setup) -> list[str]:
    """The rows as a table."""
    student, teacher = setup.student, setup.teacher
    one = step(student, setup.batch, TEACHERS)
    return [
        "",
        f"## {setup.machine}",
        "",
        f"Students of {student.layers} layers ({student.trainable} trainable), teachers of {teacher.layers}, width "
        f"{student.width}; batches of {setup.batch:,} on clicks. Ceilings: {setup.flops / 1e12:.3g} TFLOP/s, "
        f"{setup.bytes / 1e9:,.0f} GB/s.",
        "",
        "| stage over MINDlarge | PFLOP | TB | FLOP a byte | bound by | s at the ceilings | s measured | share |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {r['stage']} | {r['pflop']:.3g} | {r['tb']:.3g} | {r['flop_per_byte']:.3g} | {r['bound_by']} | "
            f"{seconds(r['ceiling_s'])} | {seconds(r['measured_s'])} | {seconds(r['share'])} |"
            for r in roofline(setup)
        ),
        "",
        f"A stage-2 step of {setup.batch:,} samples: {one.flops / 1e12:.2f} TFLOP, {one.bytes / 1e9:.1f} GB, "
        f"{1e3 * bound(one, setup):,.0f} ms at the ceilings, {setup.batch / bound(one, setup):,.0f} samples/s.",
    ]


def main() -> None:
    """Measure, count, write."""
    parser = argparse.ArgumentParser(description="Roofline of each stage, and a stage-2 epoch on many GPUs")
    parser.add_argument("--keep-ceilings", action="store_true", help="do not measure the CPU's again")
    if parser.parse_args().keep_ceilings:
        where = result("cost-model")
        top = {name: where[name] for name in ("matmul_fp32_tflops", "matmul_bf16_tflops", "copy_gb_s")}
        where = {name: where[name] for name in describe_machine() if name in where}
    else:
        where, top = describe_machine(), ceilings()
    gpu, cpu = setups(top)
    rate = result("gpu-h200/step")["samples_per_s"]
    loaded = [row for row in result("loader")["rows"] if (row["batch"], row["teacher_columns"]) == (1024, "rows")]
    loader = loaded[0]["samples_per_s_per_core"]
    rows = [epoch(gpu.student, rate, loader, ranks) for ranks in (1, 8, 64, 512)]
    lines = [
        "# Roofline of each stage, and an extrapolated epoch",
        "",
        f"Ceilings of the CPU: {where['date']}, commit {where['commit']}, {where['cpu']}, {where['cores']} cores, load "
        f"{where['load_at_start']}: matrix product {top['matmul_fp32_tflops']:.3f} TFLOP/s in float32, "
        f"{top['matmul_bf16_tflops']:.3f} in bf16; copy {top['copy_gb_s']:.1f} GB/s. Of the GPU: a matrix product measured "
        "beside the step, the data sheet's 4.8 TB/s. Measured seconds are the other files' rates of this folder times the "
        "counts of MINDlarge, not runs over it.",
        *roofline_lines(gpu),
        *roofline_lines(cpu),
        "",
        "## A stage-2 epoch on more GPUs",
        "",
        f"Extrapolated, not measured: global batch 1,024, {rate:,.0f} samples/s of one {gpu.machine} at that batch shared "
        f"evenly, {loader / 1e6:.1f} M samples/s of a loader, rings at 450 GB/s inside a node of 8 and 50 GB/s a GPU between "
        "nodes.",
        "",
        "| GPUs | compute s | MB sent a step | messages s | loader s (beside) | epoch s |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['ranks']} | {r['compute_s']:.1f} | {r['sent_mb_per_step']:.0f} | {r['talk_s']:.1f} | "
            f"{r['loader_s']:.1f} | {r['epoch_s']:.1f} |"
            for r in rows
        ),
    ]
    (RESULTS / "cost-model.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = {**where, **top, "epochs": rows, "rooflines": {one.machine: roofline(one) for one in (gpu, cpu)}}
    (RESULTS / "cost-model.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
