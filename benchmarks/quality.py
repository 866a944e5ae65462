"""Does the paper's order hold on data that nothing was tuned on? All methods, all sizes, 5 seeds.

    python benchmarks/quality.py [key=value ...]     # train what is missing, then benchmarks/results/quality.{md,json}
    python benchmarks/quality.py --report            # only the page, from what is complete

It is `tnr reproduce table2 benchmarks/quality.yaml` with a verdict for each expectation of the paper: the sign of the mean
difference, whether it holds in every seed, and the paired tests. What the page shows and does not show: docs/quality.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import HERE, configuration, finish, parser

from tnr_dist.bench.common import describe_machine
from tnr_dist.engines.make import make_engine
from tnr_dist.engines.precision import choose_precision
from tnr_dist.reproduce.command import Prepared, default_jobs, run_here, write_report
from tnr_dist.reproduce.results import COMPARED, Difference, collect, differences
from tnr_dist.reproduce.tables import METRIC_NAMES, p_text
from tnr_dist.stages import pipeline
from tnr_dist.util.files import write_json, write_text


def verdicts(prepared: Prepared) -> list[dict[str, Any]]:
    """One record for each comparison of the study and metric."""
    rows = collect(prepared.config, prepared.data, prepared.study)
    out = []
    for one in differences(prepared.study, rows):
        a, b = rows[one.a].values[one.metric], rows[one.b].values[one.metric]
        wins = sum(x > y for x, y in zip(a, b, strict=True))
        out.append(
            {
                "better": one.a,
                "worse": one.b,
                "metric": one.metric,
                "difference": one.over_impressions.difference,
                "seeds_that_agree": wins,
                "seeds": len(a),
                "p_impressions": one.p_impressions,
                "p_seeds": one.p_seeds,
                "verdict": verdict(one),
            }
        )
    return out


def verdict(one: Difference) -> str:
    """`holds` and `reversed` need p < 0.05 over the seeds after Holm's correction; anything else is open."""
    if one.p_seeds is None or one.p_seeds >= 0.05:
        return "open"
    return "holds" if one.over_impressions.difference > 0 else "reversed"


def page(prepared: Prepared, report: str, found: list[dict[str, Any]], facts: dict[str, Any], command: str) -> str:
    """The report of the study with the verdicts after it; `command`: as it was typed."""
    lines = [
        report.replace("# Table 2: comparison of methods", "# Quality on generated data"),
        "## The paper's expectations",
        "",
        f"{facts['date']}, commit {facts['commit']}, {facts['cpu']}, {facts['precision']}; `{command}`. *Holds* or *reversed*: "
        "p < 0.05 over the seeds after Holm's correction; *open*: the seeds do not tell.",
        "",
        "| Expected | Metric | Difference | Seeds that agree | p (impressions) | p (seeds) | Verdict |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for metric in COMPARED:
        for one in found:
            if one["metric"] == metric:
                p = "-" if one["p_seeds"] is None else p_text(one["p_seeds"])
                lines.append(
                    f"| {one['better']} > {one['worse']} | {METRIC_NAMES[metric]} | {100 * one['difference']:+.2f} | "
                    f"{one['seeds_that_agree']} of {one['seeds']} | {p_text(one['p_impressions'])} | {p} | {one['verdict']} |"
                )
    return "\n".join(lines) + "\n"


def main() -> int:
    """See the module."""
    arguments = parser(__doc__ or "", HERE / "quality.yaml", "quality")
    arguments.add_argument("--report", action="store_true", help="only write the page")
    asked = arguments.parse_args()
    config = configuration(asked)
    prepared = Prepared.open("table2", config)
    outcome = None if asked.report else run_here(prepared, asked.jobs or default_jobs(config))
    engine = make_engine("ddp", config.device, config.threads)
    pipeline.baselines(config, prepared.data, engine)
    report = write_report(prepared, engine, outcome)
    facts = {**describe_machine(), "precision": choose_precision(config.precision, engine.device)}
    found = verdicts(prepared)
    write_json(asked.out / "quality.json", {**facts, "differences": found})
    text = report.read_text(encoding="utf-8").replace("](table2.png)", "](quality.png)")
    command = " ".join(["python benchmarks/quality.py", *asked.overrides])
    write_text(asked.out / "quality.md", page(prepared, text, found, facts, command))
    (asked.out / "quality.png").write_bytes((prepared.folder / "table2.png").read_bytes())
    return 1 if outcome is not None and outcome.failed else 0


if __name__ == "__main__":
    finish(main, Path(__file__).name)
