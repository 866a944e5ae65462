"""Run folders as the stages write them, without training: figures are made up, names and files are the real ones."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from tnr_dist.config.schema import Config, RowConfig, to_yaml
from tnr_dist.data.dataset import DataSet
from tnr_dist.evaluation.metrics import NAMES, ImpressionMetrics
from tnr_dist.runs.folder import RunFolder, in_order
from tnr_dist.stages.evaluate import write_impressions
from tnr_dist.stages.methods import Tree
from tnr_dist.stages.targets import each_seed, row_folder
from tnr_dist.util.files import write_json, write_text

LAYERS = {"teacher": 3, "tiny-newsrec": 1}
BEGUN = 1_700_000_000  # seconds since 1970: the time of every file


def make_config(output: Path, rows: list[RowConfig] | None = None, **settings: Any) -> Config:
    """Two seeds, two teachers, a teacher's and a student's row."""
    config = Tree(output=str(output), seeds=2)
    config.data.dir = str(settings.pop("data", output / "data"))
    config.finetune.teachers = 2
    config.finetune.epochs = config.stage2.epochs = 1  # of the 12 steps that `write_run` makes up
    config.rows = rows or [RowConfig("PLM-NR-3 (DP)", "teacher"), RowConfig("Tiny-NewsRec-1", "tiny-newsrec", 1)]
    for key, value in settings.items():
        section, _, name = key.partition("__")
        setattr(getattr(config, section), name, value)
    return config


def write_experiment(config: Config, impressions: np.ndarray | None = None, data_id: str = "0" * 64) -> list[Path]:
    """Every run of every seed, complete, those of a row evaluated; returns the folders."""
    data = DataSet(Path(config.data.dir), {}, data_id)
    rows = np.arange(60) if impressions is None else impressions
    folders = []
    for one in each_seed(config):
        targets = {row_folder(one, data, row).key: row for row in config.rows}
        for place in in_order(row_folder(one, data, row) for row in config.rows):
            if place.path in folders:
                continue
            write_run(place)
            if place.key in targets:
                write_results(place, targets[place.key].method, rows)
            folders.append(place.path)
    yardsticks = {"random": 0.5, "most popular": 0.52, "oracle": 0.83}
    levels = {name: dict.fromkeys(NAMES, auc) | {"impressions": len(rows)} for name, auc in yardsticks.items()}
    write_json(Path(config.output) / "baselines.json", {"made_from": {}, "rows": levels})
    return folders


def write_run(place: RunFolder, steps: int = 12) -> None:
    """A complete run of 12 logged steps."""
    write_text(place.path / "config.yaml", to_yaml(place.config))
    made_from = place.identity() | {"key": place.key}
    write_json(place.path / "begun.json", made_from)
    if place.stage != "cache":
        records = [record(place, step) for step in range(1, steps + 1)]
        write_text(place.path / "metrics.jsonl", "".join(json.dumps(one) + "\n" for one in records))
    facts = {"steps": steps, "samples": 64 * steps, "seconds": 90.5, "ranks": 1}
    if place.stage == "post-train":
        facts["eval/matching_accuracy"] = 0.91
    identity = f"{place.config.output}/{place.path.name}"
    write_json(place.path / "complete.json", {"id": identity, **made_from, **facts})


def record(place: RunFolder, step: int) -> dict[str, Any]:
    """A logged step as the stage writes it."""
    seed = place.config.seed
    out = {"step": step, "epoch": step / 12, "samples": 64 * step, "train/loss": 2.0 / step**0.3 + 0.05 * seed}
    if place.stage in ("post-train", "stage1"):
        out["train/accuracy"] = 1 - 0.6 / step
    if place.stage == "stage2":
        weight = 0.5 + 0.04 * math.sin(step / 2 + seed)
        entropy = -weight * math.log(weight) - (1 - weight) * math.log(1 - weight)
        out |= {
            "train/loss_distill": 1.6 / step**0.2,
            "train/loss_emb_news": 0.04 / step,
            "train/omega": 1 + step / 900,
        }
        out |= {
            "train/teacher_weight_0": weight,
            "train/teacher_weight_1": 1 - weight,
            "train/teacher_entropy": entropy,
        }
    perf = {"samples_per_s": 300.0 + step, "data_wait_pct": 1.5, "news_per_s": 700.0, "dedupe_ratio": 0.04, "mfu": 0.3}
    return (
        out
        | {"train/skipped_samples": 0.0, "optim/lr": 1e-4, "optim/grad_norm": 3.0 / step, "memory/max_gib": 1.25}
        | {f"perf/{name}": value for name, value in perf.items()}
    )


def write_results(place: RunFolder, method: str, rows: np.ndarray) -> None:
    """results.json and impressions.parquet of a model; a teacher is better and slower than a student."""
    teacher = method == "teacher"
    rng = np.random.default_rng(place.config.seed + 10 * teacher)
    auc = np.clip(rng.normal(0.68 if teacher else 0.66, 0.2, len(rows)), 0, 1)
    metrics = ImpressionMetrics(*(auc * share for share in (1.0, 0.5, 0.55, 0.6)), valid=np.ones(len(rows), bool))
    write_impressions(place.path / "impressions.parquet", rows, metrics)
    write_json(
        place.path / "results.json",
        {
            "stage": place.stage,
            "split": "dev",
            **{name: float(getattr(metrics, name).mean()) for name in NAMES},
            "impressions": len(rows),
            "model": {"layers": LAYERS.get(method, 1), "parameters": 17_500_000 if teacher else 13_900_000},
            "seed": place.config.seed,
            "seconds": 2.5,
            "news_per_s": 400.0 if teacher else 900.0,
            "made_from": {"run": place.id},
        },
    )


def unfinish(path: Path, steps: int) -> None:
    """As if the run had been stopped after `steps` logged steps of the 12."""
    (path / "complete.json").unlink()
    (path / "results.json").unlink(missing_ok=True)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    write_text(path / "metrics.jsonl", "".join(lines[:steps]))
    for file in path.iterdir():
        os.utime(file, (BEGUN, BEGUN))
