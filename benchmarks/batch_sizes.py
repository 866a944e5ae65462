"""Does a larger global batch lose anything at equal epochs? A sweep of learning rates at each size, then seeds of the best.

    python benchmarks/batch_sizes.py [--batches 128,512,1024] [--grid 1e-4,3e-4,1e-3] [--best-seeds 3] [key=value ...]

PLM-NR-2 (FT) trains at each size and rate with seed 0. At each size's rate with the highest AUC on dev it and Tiny-NewsRec-2 (the
batch and rate being those of stage 2) are then made with all seeds.
Writes benchmarks/results/batch-sizes.{md,json}. The settings beside batch and rate are those of benchmarks/batch_sizes.yaml;
what is not the PLM learns at 10 times its rate. A run that was made is not made again.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from common import HERE, configuration, finish, parser, trained
from learning_rates import GRID, Method, best, head_rate, mean_auc, methods, rates

from tnr_dist.bench.common import describe_machine
from tnr_dist.config.schema import Config, RowConfig
from tnr_dist.evaluation.statistics import mean_and_deviation
from tnr_dist.reproduce.results import RowResult
from tnr_dist.reproduce.studies import Study
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_json, write_text

BATCHES = "128,512,1024"
HEAD_RATIO = 10.0
METHODS = ("PLM-NR-2 (FT)", "Tiny-NewsRec-2")


def sizes(text: str) -> list[int]:
    """Batch sizes, ascending. Raises InputError for what are no two or more different sizes."""
    parts = text.split(",")
    found = sorted({int(part) for part in parts if part.isdecimal()})
    if len(found) < 2 or len(found) != len(parts) or found[0] < 1:
        raise InputError(f"--batches {text}: two or more different batch sizes, such as {BATCHES}")
    return found


def point(method: Method, batch: int, rate: float) -> RowConfig:
    """A method at one batch size and rate as a row of a results table."""
    settings = [
        f"{section}.{key}={value!r}"
        for section in method.sections
        for key, value in (("batch_size", batch), ("lr", rate), ("head_lr", head_rate(rate, HEAD_RATIO)))
    ]
    return RowConfig(f"{method.name}, batch {batch}, {rate:g}", method.method, method.layers, settings)


def record(method: Method, batch: int, rate: float, rows: dict[str, RowResult]) -> dict[str, Any]:
    """The AUC of one point, a value a seed; an empty list where it failed."""
    row = rows.get(point(method, batch, rate).name)
    auc = row.values["auc"] if row else []
    return {"method": f"{method.name}, batch {batch}", "batch": batch, "lr": rate, "auc": auc}


def made(rows: list[RowConfig], config: Config, jobs: int) -> tuple[dict[str, RowResult], dict[str, str]]:
    """The rows that are complete, and the failures by run."""
    found, outcome = trained(Study("batch-sizes", "Batch sizes", "table", rows, [], ""), config, jobs)
    return found, {str(run): error for run, error in outcome.failed.items()}


def page(facts: dict[str, Any]) -> str:
    """The chosen points with all seeds, then the sweep, as Markdown; AUC in percent."""
    lines = [
        "# Batch sizes at equal epochs",
        "",
        f"{facts['date']}, commit {facts['commit']}, {facts['cpu']}; `{facts['command']}`. AUC on {facts['split']}, percent. "
        f"The rate of each size was chosen with {METHODS[0]}, seed 0; what is not the PLM learns at {HEAD_RATIO:g} times it.",
        "",
        "| Model | Batch | Learning rate | AUC, mean ± deviation | Seeds |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for one in facts["chosen"]:
        mean, deviation = mean_and_deviation(one["auc"])
        seeds = ", ".join(f"{100 * value:.2f}" for value in one["auc"])
        spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
        name = one["method"].rpartition(",")[0]
        lines.append(f"| {name} | {one['batch']} | {one['lr']:g} | {100 * mean:.2f}{spread} | {seeds} |")
    grid = facts["grid"]
    lines += ["", "Seed 0 at every rate:", "", "| Model | " + " | ".join(f"{rate:g}" for rate in grid) + " |"]
    lines.append("| --- |" + " ---: |" * len(grid))
    for name in dict.fromkeys(one["method"] for one in facts["points"]):
        cells = [
            f"{100 * mean_auc(one):.2f}" if one["auc"] else "failed" for one in facts["points"] if one["method"] == name
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if facts["failed"]:
        lines += ["", "Failed:", "", *(f"- {run}: {error}" for run, error in facts["failed"].items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Sweep, choose, repeat the chosen with all seeds, write."""
    arguments = parser(__doc__ or "", HERE / "batch_sizes.yaml", "batch-sizes")
    arguments.add_argument("--batches", default=BATCHES, help=f"global batch sizes, default {BATCHES}")
    arguments.add_argument("--grid", default=GRID, help=f"learning rates of the PLM, default {GRID}")
    arguments.add_argument("--best-seeds", type=int, default=3, help="seeds of the best rate of each size, default 3")
    asked = arguments.parse_args()
    batches, grid = sizes(asked.batches), rates(asked.grid)
    config = configuration(asked, ["seeds=1"])
    swept, distilled = (next(one for one in methods(config, 2) if one.name == name) for name in METHODS)
    found, failed = made([point(swept, batch, rate) for batch in batches for rate in grid], config, asked.jobs)
    points = [record(swept, batch, rate, found) for batch in batches for rate in grid]
    top = {one["method"]: one["lr"] for one in best(points, grid)}
    rate_of = {batch: top[name] for batch in batches if (name := record(swept, batch, 0.0, {})["method"]) in top}
    chosen = [(method, batch, rate) for method in (swept, distilled) for batch, rate in rate_of.items()]
    seeds = dataclasses.replace(config, seeds=asked.best_seeds)
    found, failed_later = made([point(*one) for one in chosen], seeds, asked.jobs)
    facts = {
        **describe_machine(),
        "command": shlex.join(["python", "benchmarks/batch_sizes.py", *sys.argv[1:]]),
        "split": config.evaluate.split,
        "grid": grid,
        "points": points,
        "chosen": [record(*one, found) for one in chosen],
        "failed": failed | failed_later,
    }
    write_json(asked.out / "batch-sizes.json", facts)
    write_text(asked.out / "batch-sizes.md", page(facts))
    print(json.dumps(facts["chosen"]))
    print(page(facts))
    return 1 if facts["failed"] else 0


if __name__ == "__main__":
    finish(main, Path(__file__).name)
