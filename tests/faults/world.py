"""A tiny real chain up to stage 2, prepared once, and the uninterrupted runs that every fault is compared with."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tests.cluster.harness import Cluster
from tests.faults.process import Attempt
from tests.tiny_plm import write_tiny_plm
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command
from tnr_dist.synth.generate import synthesize
from tnr_dist.util.files import read_json

LIMIT = 150.0  # seconds that a whole run may take on a busy machine; it takes about 10
_SETTINGS = """\
threads: 1
precision: fp32
data: {{dir: {root}/data, title_tokens: 24, body_tokens: 40, history: 10, streams: 12, window_shards: 1}}
plm: {{name: {root}/plm}}
model: {{news_dim: 16, query_dim: 8, dropout: {dropout}}}
student: {{layers: 2}}
post_train: {{batch_size: 16, max_steps: 3, negatives: 3, lr: 1e-3, body_tokens: 40, held_out: 0.1}}
stage1: {{batch_size: 16, max_steps: 3, negatives: 3, lr: 1e-3, body_tokens: 40, held_out: 0.1}}
finetune: {{teachers: 2, batch_size: 32, max_steps: 3, lr: 1e-3}}
stage2: {{batch_size: 64, epochs: 4, lr: 3e-4, trainable_layers: 1}}
log: {{every: 2, checkpoint_every: 3}}
output: {root}/run
"""


@dataclass(frozen=True)
class Variant:
    """What the weights of an uninterrupted run depend on, and (`same`) what they must not."""

    ranks: int = 2
    dedupe: str = "global"
    dropout: float = 0.1
    engine: str = "ddp"
    same: tuple[str, ...] = ()  # further overrides: how the work is cut up, not what comes out
    anew: bool = False  # see `Attempt`

    def overrides(self) -> list[str]:
        return [f"engine={self.engine}", f"stage2.dedupe={self.dedupe}", *self.same]


@dataclass(frozen=True)
class Result:
    """What a finished run leaves."""

    weights: dict[str, torch.Tensor]
    records: list[dict[str, Any]]  # metrics.jsonl without what the clock says
    steps: int
    samples: int

    @classmethod
    def read(cls, run: Path) -> Result:
        done = read_json(run / "complete.json")
        clock = ("perf/", "memory/", "time/", "throughput/")
        records = [
            {key: value for key, value in record.items() if not key.startswith(clock)}
            for record in read_metrics(run / "metrics.jsonl")
        ]
        return cls(load_file(run / "model.safetensors"), records, done["steps"], done["samples"])

    def difference(self, reference: Result, tolerance: float) -> str:
        """What is not as in the uninterrupted run; '' when nothing is."""
        if (self.steps, self.samples) != (reference.steps, reference.samples):
            return f"{self.steps} steps and {self.samples} samples, not {reference.steps} and {reference.samples}"
        seen, expected = ([(r["step"], r["samples"]) for r in x.records] for x in (self, reference))
        if seen != expected:
            wrong = [place for place in expected if place not in seen] or seen
            return f"metrics.jsonl: steps or samples lost or repeated (first {wrong[0]})"
        for mine, theirs in zip(self.records, reference.records, strict=True):
            keys = sorted(key for key in theirs if key.startswith(("train/", "epoch")))
            far = [key for key in keys if not _equal(mine.get(key, np.nan), theirs[key], tolerance)]
            if far:
                return f"step {mine['step']}: {far[0]} is {mine.get(far[0])}, not {theirs[far[0]]}"
        if set(self.weights) != set(reference.weights):
            return "other weights by name"
        for name, value in reference.weights.items():
            if not _equal(self.weights[name].numpy(), value.numpy(), tolerance):
                return f"{name} differs by {(self.weights[name] - value).abs().max():.1e}"
        return ""


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    return bool(
        np.array_equal(one, other) if tolerance == 0 else np.allclose(one, other, rtol=tolerance, atol=tolerance)
    )


class World:
    """`template(dropout)`: data and every stage before stage 2; each case works on a copy of its own.

    `cluster`: where the faults of a Slurm job happen, if there is one.
    """

    def __init__(self, root: Path, cluster: Cluster | None = None) -> None:
        self.root, self.cluster = root, cluster
        self._references: dict[Variant, Result] = {}

    def template(self, dropout: float) -> Path:
        """A folder with config.yaml, data/ and run/, made when first asked for."""
        folder = self.root / f"template-{dropout}"
        if (folder / "ready").exists():
            return folder
        plm, raw = folder / "plm", folder / "raw"
        write_tiny_plm(plm)
        (folder / "config.yaml").write_text(_SETTINGS.format(root=folder, dropout=dropout))
        synthesize(
            raw, news=300, users=200, impressions=600, dev_impressions=60, test_impressions=9, bodies=True, seed=3
        )
        options = PrepareOptions(str(raw), str(raw / "corpus.tsv"), str(plm), 24, 40, block_size=64)
        prepare(options, folder / "data", processes=1)
        config, engine = load_config(folder / "config.yaml"), DDPEngine("cpu", 1)
        for command in ("post-train", "finetune", "cache", "stage1"):
            run_command(command, config, engine)
        (folder / "ready").touch()
        return folder

    def reference(self, variant: Variant) -> Result:
        """The uninterrupted run of a variant, made when first asked for."""
        key = dataclasses.replace(variant, same=(), anew=False)
        if key not in self._references:
            case = Case(self, self.root / f"reference-{key.engine}-{key.ranks}-{key.dedupe}-{key.dropout}", key)
            attempt = case.start()
            code = attempt.wait(LIMIT)
            assert code == 0, f"the uninterrupted run ended with {code}:\n{attempt.text()}"
            self._references[key] = Result.read(case.run)
            case.clear()
        return self._references[key]


class Case:
    """A copy of the template in which one fault happens."""

    def __init__(self, world: World, folder: Path, variant: Variant) -> None:
        self.world, self.folder, self.variant = world, folder, variant
        self.template = world.template(variant.dropout)
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("data", "run"):
            shutil.copytree(self.template / part, folder / part)
        self.data, self.cache = folder / "data", folder / "run" / "cache"
        self.run = folder / "run" / "stage2-2"
        self.attempts: list[Any] = []  # of Attempt, or of a job that takes its place
        self.environment: dict[str, str] = {}  # of the runs to come
        self.undo: list[Any] = []  # called when the case is over, whatever came of it

    def arguments(self) -> list[str]:
        """Of stage 2: the configuration and what is this case's own."""
        places = (f"data.dir={self.data}", f"output={self.folder / 'run'}")
        return [str(self.template / "config.yaml"), *places, *self.variant.overrides()]

    def start(self, ranks: int = 0, *overrides: str) -> Attempt:
        """Run stage 2 as a user or a requeue would: always the same command."""
        arguments = ["stage2", *self.arguments(), *overrides]
        log = self.folder / f"stderr-{len(self.attempts)}.txt"
        self.attempts.append(
            Attempt(ranks or self.variant.ranks, arguments, log, anew=self.variant.anew, environment=self.environment)
        )
        return self.attempts[-1]

    def reached(self) -> int:
        """The last step in metrics.jsonl."""
        records = read_metrics(self.run / "metrics.jsonl")
        return int(records[-1]["step"]) if records else 0

    def wait_for(self, attempt: Attempt, step: int, limit: float = LIMIT) -> None:
        """Until metrics.jsonl has `step`, or the run has ended. Raises TimeoutError."""
        end = time.monotonic() + limit
        while attempt.running() and self.reached() < step:
            if time.monotonic() > end:
                raise TimeoutError(f"step {step} is not reached in {limit:.0f} s")
            time.sleep(0.004)

    def checkpoints(self) -> list[Path]:
        """Newest first."""
        found = [path for path in (self.run / "checkpoints").glob("*") if path.name.isdigit()]
        return sorted(found, key=lambda path: -int(path.name))

    def clear(self) -> None:
        """End what may still run and remove the copy."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def end(self) -> None:
        for attempt in self.attempts:
            attempt.end()
        while self.undo:
            self.undo.pop()()
