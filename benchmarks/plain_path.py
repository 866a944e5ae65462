"""Does the fast path make the models that the plain path makes? Both on the same data, over the same seeds.

    python benchmarks/plain_path.py [key=value ...]     # train what is missing, then benchmarks/results/plain-path.{md,json}

Fast: the configuration as it is (bf16 where the hardware has it, fused kernels where they win, cached frozen layers, bounded
activations). Plain: `PLAIN` on top. Both encode each distinct title once: the training code has no other form, and
tests/unit/losses hold it against the paper's per-slot form.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from common import configuration, finish, parser, trained

from tnr_dist.bench.common import describe_machine
from tnr_dist.config.read import with_overrides
from tnr_dist.config.schema import Config, RowConfig
from tnr_dist.evaluation.metrics import NAMES
from tnr_dist.evaluation.statistics import mean_and_deviation, paired_t_test
from tnr_dist.reproduce.results import RowResult
from tnr_dist.reproduce.studies import Study
from tnr_dist.reproduce.tables import METRIC_NAMES
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_json, write_text

PLAIN = [
    "precision=fp32",
    "kernels=torch",
    *(
        f"{stage}.{setting}"
        for stage in ("finetune", "stage2")
        for setting in ("frozen_cache=none", "dedupe=local", "token_budget=-1")
    ),
]
STUDY = Study(
    name="plain-path",
    title="The fast path against the plain path",
    kind="table",
    rows=[
        RowConfig("teacher", "teacher"),
        *(RowConfig(f"Tiny-NewsRec-{n}", "tiny-newsrec", n) for n in (2, 1)),
    ],
    pairs=[],
    finding="",
)


def complete(config: Config, jobs: int) -> dict[str, RowResult]:
    """The rows of one path; raises InputError when a run failed."""
    rows, outcome = trained(STUDY, config, jobs)
    if outcome.failed:
        path, error = next(iter(outcome.failed.items()))
        raise InputError(f"{path}: {error}")
    return rows


def compared(fast: dict[str, RowResult], plain: dict[str, RowResult]) -> list[dict[str, Any]]:
    """One record for each row and metric. Within noise: the paths differ by less than the plain path's seeds do."""
    out = []
    for name, row in fast.items():
        for metric in NAMES:
            ours, theirs = row.values[metric], plain[name].values[metric]
            noise = mean_and_deviation(theirs)[1] or 0.0
            difference = float(np.mean(np.subtract(ours, theirs)))
            test = paired_t_test(np.array(ours), np.array(theirs)) if len(ours) > 1 else None
            out.append(
                {
                    "model": name,
                    "metric": metric,
                    "fast": ours,
                    "plain": theirs,
                    "difference": difference,
                    "deviation_over_seeds": noise,
                    "p": None if test is None else test.p_value,
                    "within_noise": abs(difference) <= noise,
                }
            )
    return out


def page(records: list[dict[str, Any]], facts: dict[str, Any], arguments: list[str]) -> str:
    """The comparison as Markdown, percent. `arguments`: those of this script, so that the page says how it was made."""
    lines = [
        f"# {STUDY.title}",
        "",
        f"{facts['date']}, commit {facts['commit']}, {facts['cpu']}; `{shlex.join(['python', 'benchmarks/plain_path.py', *arguments])}`. "
        "Percent; means over the seeds, which both paths share. Plain: "
        + " ".join(f"`{one}`" for one in PLAIN)
        + ". *Noise*: the standard "
        "deviation over the plain path's seeds.",
        "",
        "| Model | Metric | Fast | Plain | Difference | Noise | p (seeds) | Within noise |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in records:
        p = "-" if one["p"] is None else f"{one['p']:.2f}"
        lines.append(
            f"| {one['model']} | {METRIC_NAMES[one['metric']]} | {100 * np.mean(one['fast']):.2f} | {100 * np.mean(one['plain']):.2f} | "
            f"{100 * one['difference']:+.2f} | {100 * one['deviation_over_seeds']:.2f} | {p} | "
            f"{'yes' if one['within_noise'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """See the module."""
    asked = parser(__doc__ or "", Path("configs/demo_table2.yaml"), "plain-path").parse_args()
    config = configuration(asked)
    fast = complete(config, asked.jobs)
    plain = complete(with_overrides(config, [f"output={config.output}-plain", *PLAIN]), asked.jobs)
    records, facts = compared(fast, plain), describe_machine()
    write_json(asked.out / "plain-path.json", {**facts, "rows": records})
    text = page(records, facts, ["--config", str(asked.config), *asked.overrides])
    write_text(asked.out / "plain-path.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    finish(main, Path(__file__).name)
