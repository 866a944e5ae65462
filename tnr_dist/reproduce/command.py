"""`tnr reproduce STUDY CONFIG`: make a study's runs, here or as one task of a Slurm array, and write its tables."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import tnr_dist
from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.results import read_baselines
from tnr_dist.launch.scripts import find_script
from tnr_dist.reproduce.figures import draw, marks
from tnr_dist.reproduce.plan import Work, levels, plan
from tnr_dist.reproduce.results import Difference, RowResult, collect, differences, with_speeds
from tnr_dist.reproduce.studies import Study, study_of
from tnr_dist.reproduce.tables import latex, markdown, runs_csv, summary_csv
from tnr_dist.reproduce.workers import Outcome, run_works, visible_gpus
from tnr_dist.stages.evaluate import labelled_index
from tnr_dist.util import markup
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_json, write_text
from tnr_dist.util.hardware import cores
from tnr_dist.util.progress import Bar, say


@dataclass(frozen=True)
class Prepared:
    """A study over prepared data: its configuration, data set and runs."""

    study: Study
    config: Config
    data: DataSet
    works: list[Work]

    @classmethod
    def open(cls, name: str, config: Config) -> Prepared:
        """Raises InputError when the data is not prepared or not labelled, or for a study or rows that cannot be."""
        study, data = study_of(name, config), DataSet.open(config)
        labelled_index(data, config.evaluate.split)
        return cls(study, config, data, plan(config, data, study))

    @property
    def folder(self) -> Path:
        """Where tables and figures go."""
        return Path(self.config.output) / "reproduce" / self.study.name


def default_jobs(config: Config) -> int:
    """Runs side by side on this machine: one a GPU, or one a core where there is none."""
    if config.device == "cpu" or not visible_gpus():
        return cores()
    return len(visible_gpus())


def run_here(prepared: Prepared, jobs: int) -> Outcome:
    """Make all runs in worker processes; what is complete is left as it is."""
    if not 1 <= jobs <= 1024:
        raise InputError(f"--jobs {jobs}: 1 to 1024, or 0 for one per GPU or core")
    logs = Path(prepared.config.output) / "reproduce" / "logs"
    write_plan(prepared)
    return run_works(prepared.works, prepared.config, jobs, logs, prepared.study.name)


def run_on_ranks(prepared: Prepared, engine: Engine) -> None:
    """Make all runs one after another on all ranks."""
    write_plan(prepared)
    with Bar(prepared.study.name, len(prepared.works), "runs", enabled=engine.environment.rank == 0) as bar:
        for work in prepared.works:
            work.run(engine)
            bar.advance(1, work.place.name)


def run_task(prepared: Prepared, engine: Engine, level: int, task: int) -> None:
    """Make one run: number `task` of level `level`. Raises InputError where there is no such level or task."""
    steps = levels(prepared.works)
    if not 0 <= level < len(steps) or not 0 <= task < len(steps[level]):
        sizes = ", ".join(f"{number}: {len(step)}" for number, step in enumerate(steps))
        raise InputError(f"{prepared.study.name}: no task {task} of level {level}; tasks a level: {sizes}")
    steps[level][task].run(engine)


def write_plan(prepared: Prepared) -> Path:
    """PLAN.json: every run with its level, seed and inputs, for people and scripts."""
    path = prepared.folder / "plan.json"
    place = {work.key: number for number, step in enumerate(levels(prepared.works)) for work in step}
    write_json(
        path,
        [
            {
                "run": str(work.key),
                "stage": work.place.stage,
                "level": place[work.key],
                "seed": work.seed,
                "needs": [str(need) for need in work.needs],
                "in_the_table": work.scored,
            }
            for work in prepared.works
        ],
    )
    return path


def show_plan(prepared: Prepared) -> str:
    """The plan in words: how many runs there are, what is complete, and how many rows share each."""
    lines = []
    for number, step in enumerate(levels(prepared.works)):
        done = sum(work.is_complete() for work in step)
        names = sorted({work.place.name for work in step})
        lines.append(f"level {number}: {len(step)} runs ({done} complete): {', '.join(names)}")
    total = len(prepared.works)
    seeds = prepared.config.seeds
    rows = len(prepared.study.rows)
    return "\n".join([f"{prepared.study.name}: {rows} rows, {seeds} seed{'s' * (seeds > 1)}, {total} runs", *lines])


def submit(names: Sequence[str], config: Path, overrides: Sequence[str]) -> int:
    """Hand the studies to slurm/reproduce.sh; returns its exit code. Raises InputError where there is none."""
    script = find_script("reproduce.sh")
    for name in names:
        code = subprocess.run(["bash", str(script), name, str(config), *overrides], check=False).returncode
        if code:
            return code
    return 0


def write_report(prepared: Prepared, engine: Engine, outcome: Outcome | None = None) -> Path:
    """Tables, figures and the facts they rest on, from what is complete; returns the Markdown file.

    Raises InputError when no row is complete.
    """
    study, config, folder = prepared.study, prepared.config, prepared.folder
    rows = collect(config, prepared.data, study)
    if rows:
        rows = with_speeds(rows, config, prepared.data, engine)
    else:
        raise InputError(f"{study.name}: no run of its rows is complete; see {folder.parent / 'logs'}")
    found = differences(study, rows)
    paper = config.reproduce.paper
    write_text(folder / "table.tex", latex(study, rows, paper))
    write_text(folder / "table.csv", summary_csv(study, rows, paper))
    write_text(folder / "runs.csv", runs_csv(rows))
    write_json(folder / "facts.json", _facts(prepared, rows, found, outcome))
    draw(study, rows, folder)
    page = folder / "report.md"
    write_text(page, _page(prepared, rows, found, outcome))
    say(f"tables and figures: {folder}")
    return page


def _page(prepared: Prepared, rows: dict[str, RowResult], found: list[Difference], outcome: Outcome | None) -> str:
    study, config = prepared.study, prepared.config
    counts = prepared.data.manifest["counts"]
    first = next(iter(rows.values()))
    impressions = int(np.isfinite(first.impressions["auc"]).sum())
    source = config.data.input or "generated by `tnr data synth`"
    lines = [
        f"# {study.title}",
        "",
        f"Data: {markup.markdown(source)}, {counts['news']:,} news; {impressions:,} impressions of {config.evaluate.split}. PLM: "
        f"{markup.markdown(config.plm.name)}, {study.teacher_layers} layers. Seeds {config.seed} to {config.seed + config.seeds - 1}; mean ± "
        "standard deviation over seeds, percent. News/s: titles encoded a second by one process, measured for this table.",
        "",
        markdown(study, rows, found, config.reproduce.paper),
    ]
    yardsticks = Path(config.output) / "baselines.json"
    if yardsticks.is_file():
        aucs = {name: row["auc"] for name, row in read_baselines(yardsticks).items()}
        lines += [
            "AUC without any model: " + ", ".join(f"{markup.markdown(n)} {100 * a:.2f}" for n, a in aucs.items()) + ".",
            "",
        ]
    if study.kind == "table":
        lines += [
            f"The paper's columns are its Table 2 on {'MIND' if config.reproduce.paper == 'mind' else 'Feeds'} (UniLMv2, 12 "
            "layers, 5 runs): other data and another PLM unless yours are the same.",
            "",
        ]
    lines += [
        f"The paper finds: {study.finding}",
        "",
        f"![{study.title}]({study.name}.png)",
        "",
        *_explained(study, rows),
    ]
    missing = [row.name for row in study.rows if row.name not in rows or len(rows[row.name].seeds) < config.seeds]
    if missing:
        lines += [f"**Not complete:** {', '.join(map(markup.markdown, missing))}.", ""]
    if outcome is not None and outcome.failed:
        failed = (markup.markdown(f"{path}: {error}") for path, error in outcome.failed.items())
        lines += ["Failed:", "", *(f"- {one}" for one in failed), ""]
    return "\n".join(lines)


def _explained(study: Study, rows: dict[str, RowResult]) -> list[str]:
    note = marks(study, rows)
    return [note, ""] if note else []


def _facts(
    prepared: Prepared, rows: dict[str, RowResult], found: list[Difference], outcome: Outcome | None
) -> dict[str, object]:
    return {
        "study": prepared.study.name,
        "date": datetime.date.today().isoformat(),
        "version": tnr_dist.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "data": prepared.data.id,
        "seeds": prepared.config.seeds,
        "runs": len(prepared.works),
        "complete": sum(work.is_complete() for work in prepared.works),
        "failed": {str(path): error for path, error in outcome.failed.items()} if outcome else {},
        "rows": {
            name: {"seeds": row.seeds, **row.values, "news_per_s": row.news_per_s, "model": row.model}
            for name, row in rows.items()
        },
        "differences": [
            {
                "a": one.a,
                "b": one.b,
                "metric": one.metric,
                "difference": one.over_impressions.difference,
                "low": one.over_impressions.low,
                "high": one.over_impressions.high,
                "p_impressions": one.p_impressions,
                "p_seeds": one.p_seeds,
            }
            for one in found
        ],
    }
