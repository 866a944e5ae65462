"""Milliseconds a step of every engine on 1 and 2 local ranks, beside the same step without any engine."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnr_dist.bench.titles import encoder_of, random_titles
from tnr_dist.engines.base import Engine
from tnr_dist.engines.make import make_engine
from tnr_dist.losses.common import click_loss
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.util.progress import say

ENGINES = ("ddp", "deepspeed", "horovod")
_LIMIT = 180.0  # seconds of one engine on one number of ranks
_HISTORY, _CANDIDATES = 6, 5


class _Clicks(nn.Module):
    """A student's click loss."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        encoder = encoder_of(width, layers).set_dropout(0.0)
        self.model = Recommender(NewsEncoder(encoder, width), AttentionUserEncoder(width))
        encoder.freeze_below(2)

    def forward(self, titles: Packed, rows: Tensor, count: float) -> Tensor:
        """This rank's share of the loss; rows [B, L + C] of `titles`."""
        news = self.model.encode_news(titles)
        history = rows[:, :_HISTORY]
        users = self.model.encode_users(F.embedding(history, news), torch.ones_like(history, dtype=torch.bool))
        scores = self.model.score(users, F.embedding(rows[:, _HISTORY:], news))
        return click_loss(scores.float(), torch.ones(len(rows), device=news.device), count)


def _adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 1e-4, fused=True)


def _bare(module: nn.Module) -> Callable[..., Tensor]:
    optimizer = _adam(module)

    def step(*inputs: object) -> Tensor:
        loss: Tensor = module(*inputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def _with_engine(engine: Engine, module: nn.Module) -> Callable[..., Tensor]:
    engine.setup(module, _adam, precision="fp32", clip_norm=0.0)

    def step(*inputs: object) -> Tensor:
        loss: Tensor = engine.forward(*inputs)
        engine.backward(loss)
        engine.step()
        return loss.detach()

    return step


def measure(name: str, samples: int, layers: int, width: int, steps: int) -> dict[str, Any]:
    """What one rank measures: `samples` of its own in every step, so that the work per rank is the same on any number.

    Bare and engine steps take turns. The losses are those of the first steps on the global batch, without and with the
    engine.
    """
    engine = make_engine(name, "auto", 1)
    rank, world = engine.environment.rank, engine.environment.world_size
    titles = random_titles(2000)

    def inputs(step: int, everyone: bool = False) -> tuple[Packed, Tensor, float]:
        ids = np.random.default_rng([step]).integers(0, len(titles), (world * samples, _HISTORY + _CANDIDATES))
        if not everyone:
            ids = ids[rank * samples : (rank + 1) * samples]
        news, rows = np.unique(ids, return_inverse=True)
        packed = Packed.gather(titles.values, titles.offsets, news).to(engine.device)
        return packed, torch.from_numpy(rows.reshape(ids.shape)).to(engine.device), float(world * samples)

    reference, compared = _bare(_Clicks(layers, width).to(engine.device)), min(steps, 5)
    expected = [float(reference(*inputs(step, everyone=True))) for step in range(compared)]
    bare, ours = _bare(_Clicks(layers, width).to(engine.device)), _with_engine(engine, _Clicks(layers, width))
    losses: list[float] = []
    times: dict[str, list[float]] = {"bare": [], "engine": []}
    for step in range(compared + steps):
        batch = inputs(step)
        for kind, run in (("bare", bare), ("engine", ours)):
            engine.barrier()
            began = time.perf_counter()
            loss = run(*batch)
            if engine.device.type == "cuda":
                torch.cuda.synchronize()
            if step >= compared:  # the first ones also warm up
                times[kind].append(time.perf_counter() - began)
            elif kind == "engine":
                losses.append(float(engine.all_reduce(loss.reshape(1))))
    engine.finish()
    engine.close()
    return {
        "ms_per_step": 1000 * statistics.median(times["engine"]),
        "compute_ms": 1000 * statistics.median(times["bare"]),
        "max_loss_difference": max(abs(a - b) for a, b in zip(losses, expected, strict=True)),
        "parameters": sum(p.numel() for p in engine.module.parameters() if p.requires_grad),
        "rank": rank,
    }


def run(samples: int = 4, layers: int = 4, width: int = 384, steps: int = 20, max_ranks: int = 2) -> dict[str, Any]:
    """Rows engine, ranks, ms_per_step, compute_ms (the same work on as many ranks, without an engine), overhead_pct and
    max_loss_difference (to the whole batch on one rank). An engine that is not installed is left out, and named."""
    rows, left_out = [], {}
    for name in ENGINES:
        for ranks in range(1, max_ranks + 1):
            found, error = _launch(name, ranks, samples, layers, width, steps)
            if found is None:
                left_out[f"{name} on {ranks}"] = error
                say(f"bench engines: {name} on {ranks} rank(s) left out: {error}")
                continue
            parameters = found.pop("parameters")
            overhead = 100 * (found["ms_per_step"] / found["compute_ms"] - 1)
            rows.append({"engine": name, "ranks": ranks, **found, "overhead_pct": overhead})
    return {
        "rows": rows,
        "left_out": left_out,
        "model": f"BERT {layers} x {width}, 2 trainable",
        "trained_parameters": parameters if rows else 0,
        "samples_per_rank": samples,
        "steps": steps,
        "threads_per_rank": 1,
    }


def _launch(name: str, ranks: int, *sizes: int) -> tuple[dict[str, Any] | None, str]:
    """Rank 0's figures from `ranks` local processes, or what they said."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "tnr_dist.launch.local", str(ranks), "--", sys.executable, "-m"]
        command += ["tnr_dist.bench.engines", str(out), name, *map(str, sizes)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            return None, f"not done after {_LIMIT:.0f} s"
        if done.returncode or not out.exists():
            return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return json.loads(out.read_text(encoding="utf-8")), ""


def main() -> None:
    """One rank: FILE ENGINE SAMPLES LAYERS WIDTH STEPS."""
    out, name, *sizes = sys.argv[1:]
    found = measure(name, *map(int, sizes))
    if found.pop("rank") == 0:
        Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
