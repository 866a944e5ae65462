"""Which learning rate suits each method? One grid for all of them, one student size, one seed.

    python benchmarks/learning_rates.py [--grid 1e-4,3e-4,1e-3] [--size 2] [key=value ...] [--json]

Trains what is missing of every method at every rate, scores it on dev and writes benchmarks/results/learning-rates.{md,json}.
A rate is that of the trainings on clicks alone: what a method starts from (post-training, stage 1, TinyBERT's general
distillation, the teachers of the students) is made once, as configured. What is not the PLM learns at `--head-ratio` times
the rate. A point that was made is not made again, so a wider grid or more seeds (seeds=3) cost only what they add.

The best rate of a grid is chosen on the data it was tried on. To choose rates for benchmarks/quality.py, whose data nothing
is to be tuned on, generate other data of the same recipe:

    python benchmarks/learning_rates.py output=runs/learning-rates data.dir=runs/learning-rates/data synth.seed=31
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import HERE, configuration, finish, parser, trained

from tnr_dist.bench.common import describe_machine
from tnr_dist.config.schema import Config, RowConfig
from tnr_dist.evaluation.metrics import NAMES
from tnr_dist.models.plm import read_config
from tnr_dist.models.sources import find_folder
from tnr_dist.reproduce.results import RowResult
from tnr_dist.reproduce.studies import Study
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_json, write_text

GRID = "1e-4,3e-4,1e-3"


@dataclass(frozen=True)
class Method:
    """A method of Table 2 and the sections of its trainings on clicks, which have one rate."""

    name: str
    method: Any
    layers: int
    sections: tuple[str, ...]


def methods(config: Config, size: int) -> list[Method]:
    """All methods, students of `size` layers. Raises InputError for a size that the PLM does not have."""
    layers = config.plm.layers or read_config(find_folder(config.plm.name)).layers
    if not 1 <= size < layers:
        raise InputError(f"--size {size}: a student of 1 to {layers - 1} layers, for {config.plm.name} has {layers}")
    steps = ("tinybert.intermediate", "tinybert.prediction")
    return [
        Method(f"PLM-NR-{layers} (FT)", "finetune", 0, ("finetune",)),
        Method(f"PLM-NR-{layers} (DP)", "teacher", 0, ("finetune",)),
        Method(f"PLM-NR-{size} (FT)", "finetune", size, ("finetune",)),
        Method(f"TinyBERT-{size}", "tinybert", size, steps if config.tinybert.form == "steps" else ("tinybert.joint",)),
        Method(f"NewsBERT-{size}", "newsbert", size, ("newsbert",)),
        Method(f"Tiny-NewsRec-{size}", "tiny-newsrec", size, ("stage2",)),
    ]


def rates(text: str) -> list[float]:
    """The grid, ascending. Raises InputError for what are no two or more different rates above 0."""
    try:
        grid = sorted({float(part) for part in text.split(",")})
    except ValueError:
        grid = []
    if len(grid) < 2 or not 0 < grid[0] <= grid[-1] < 1:
        raise InputError(f"--grid {text}: two or more learning rates between 0 and 1, such as {GRID}")
    return grid


def head_rate(rate: float, ratio: float) -> float:
    """The rate of what is not the PLM, without the last digits that a product of decimal fractions leaves."""
    return float(f"{rate * ratio:.10g}")


def point(method: Method, rate: float, ratio: float) -> RowConfig:
    """One point of the grid as a row of a results table."""
    settings = [
        f"{section}.{key}={value!r}"
        for section in method.sections
        for key, value in (("lr", rate), ("head_lr", head_rate(rate, ratio)))
    ]
    return RowConfig(f"{method.name}, {rate:g}", method.method, method.layers, settings)


def records(tried: list[Method], grid: list[float], ratio: float, rows: dict[str, RowResult]) -> list[dict[str, Any]]:
    """One record for each method and rate: its metrics on dev, a value a seed; empty lists where it failed."""
    out = []
    for method in tried:
        for rate in grid:
            row = rows.get(point(method, rate, ratio).name)
            values: dict[str, list[float]] = row.values if row else {name: [] for name in NAMES}
            seeds = row.seeds if row else []
            out.append({"method": method.name, "lr": rate, "head_lr": head_rate(rate, ratio), "seeds": seeds, **values})
    return out


def best(found: list[dict[str, Any]], grid: list[float]) -> list[dict[str, Any]]:
    """Each method's rate of the highest mean AUC, and whether it lies at an end of the grid, so that it may be beyond.

    A point of which a seed is missing (it diverged, say) is not chosen before one that has them all.
    """
    out = []
    for name in dict.fromkeys(one["method"] for one in found):
        points = [one for one in found if one["method"] == name and one["auc"]]
        if not points:
            continue
        most = max(len(one["auc"]) for one in points)
        top = max((one for one in points if len(one["auc"]) == most), key=mean_auc)
        at_an_end = top["lr"] in (grid[0], grid[-1])
        out.append({"method": name, "lr": top["lr"], "auc": mean_auc(top), "at_an_end_of_the_grid": at_an_end})
    return out


def mean_auc(record: dict[str, Any]) -> float:
    """Mean over the seeds."""
    return sum(record["auc"]) / len(record["auc"])


def page(facts: dict[str, Any]) -> str:
    """The sweep as Markdown, AUC in percent, each method's best in bold."""
    grid, chosen = facts["grid"], {one["method"]: one for one in facts["best"]}
    lines = [
        "# Learning rates",
        "",
        f"{facts['date']}, commit {facts['commit']}, {facts['cpu']}; `{facts['command']}`. AUC on {facts['split']}, percent, mean over "
        f"{facts['seeds']} seed{'s' * (facts['seeds'] > 1)}. The rate is that of the PLM in the trainings on clicks; what is not "
        f"the PLM learns at {facts['head_ratio']:g} times it. Bold: a method's best.",
        "",
        "| Model | " + " | ".join(f"{rate:g}" for rate in grid) + " | best |",
        "| --- |" + " ---: |" * (len(grid) + 1),
    ]
    for name in dict.fromkeys(one["method"] for one in facts["points"]):
        top = chosen.get(name)
        cells = []
        for one in facts["points"]:
            if one["method"] == name:
                text = f"{100 * mean_auc(one):.2f}" if one["auc"] else "failed"
                cells.append(f"**{text}**" if top and one["lr"] == top["lr"] else text)
        cells.append(
            f"{top['lr']:g}" + (" (an end of the grid)" if top["at_an_end_of_the_grid"] else "") if top else "-"
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if facts["failed"]:
        lines += ["", "Failed:", "", *(f"- {run}: {error}" for run, error in facts["failed"].items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """See the module."""
    arguments = parser(__doc__ or "", HERE / "quality.yaml", "learning-rates")
    arguments.add_argument("--grid", default=GRID, help=f"learning rates of the PLM, default {GRID}")
    arguments.add_argument("--head-ratio", type=float, default=10.0, help="times as much for the rest, default 10")
    arguments.add_argument("--size", type=int, default=2, help="layers of the students, default 2")
    arguments.add_argument("--json", action="store_true", help="print one JSON object in place of the page")
    asked = arguments.parse_args()
    grid, ratio = rates(asked.grid), asked.head_ratio
    if ratio <= 0:
        raise InputError(f"--head-ratio {ratio:g}: must be greater than 0")
    config = configuration(asked, ["seeds=1"])
    tried = methods(config, asked.size)
    rows = [point(method, rate, ratio) for method in tried for rate in grid]
    found, outcome = trained(Study("learning-rates", "Learning rates", "table", rows, [], ""), config, asked.jobs)
    points = records(tried, grid, ratio, found)
    facts = {
        **describe_machine(),
        "command": shlex.join(["python", "benchmarks/learning_rates.py", *sys.argv[1:]]),
        "split": config.evaluate.split,
        "seeds": config.seeds,
        "size": asked.size,
        "grid": grid,
        "head_ratio": ratio,
        "points": points,
        "best": best(points, grid),
        "failed": {str(run): error for run, error in outcome.failed.items()},
    }
    write_json(asked.out / "learning-rates.json", facts)
    write_text(asked.out / "learning-rates.md", page(facts))
    print(json.dumps(facts) if asked.json else page(facts))
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    finish(main, Path(__file__).name)
