"""How far the runs are, how long they took, and what they ran on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tnr_dist.figures.charts import bar_chart
from tnr_dist.report.group_by_seed import STAGES, Group, value_text
from tnr_dist.report.page import Block, Cell, Figure, Fold, Section, Table, Tile
from tnr_dist.report.read_runs import Run, number

_OF_ONE_RUN = ("started", "command")  # of environment.json: they differ between any two runs


def tiles(runs: Sequence[Run]) -> list[Tile]:
    """How many runs are complete and what they took together."""
    done = sum(run.complete is not None for run in runs)
    seconds = sum(_seconds(run) or 0.0 for run in runs)
    out = [Tile(f"{done} of {len(runs)}", "runs complete")]
    return [*out, Tile(duration(seconds, coarse=True), "of training and caching, all runs")] if seconds else out


def unfinished_section(groups: Sequence[Group], now: float) -> Section | None:
    """Runs that are not complete: how far, and when they last gave a sign. None where all are."""
    rows: list[list[Cell | str]] = []
    for group in groups:
        for run in group.runs:
            if run.complete is None:
                rows.append([group.label, "-" if run.seed is None else str(run.seed), run.stage, *_state(run, now)])
    if not rows:
        return None
    columns = ["Run", "Seed", "Stage", "Progress", "Last logged step", "Loss", "Last written", "Since"]
    caption = "Unfinished runs are still running, or were stopped; the same command resumes them."
    return Section("unfinished", "Unfinished runs", [Table(caption, columns, rows, words=3)])


def time_section(groups: Sequence[Group]) -> Section | None:
    """Seconds of each stage, the sum over all, and software and hardware."""
    runs = [run for group in groups for run in group.runs]
    blocks: list[Block] = []
    timed = [run for run in runs if _seconds(run) is not None]
    if timed:
        stages = [stage for stage in STAGES if any(run.stage == stage for run in timed)]
        stages += sorted({run.stage for run in timed} - set(stages))
        rows: list[list[Cell | str]] = []
        bars = []
        for stage in stages:
            seconds = [_seconds(run) or 0.0 for run in timed if run.stage == stage]
            rows.append([stage, str(len(seconds)), duration(sum(seconds) / len(seconds)), duration(sum(seconds))])
            bars.append((stage, sum(seconds), duration(sum(seconds))))
        evaluated = [s for run in runs if run.results and (s := number(run.results.get("seconds"))) is not None]
        if evaluated:
            rows.append(
                ["evaluate", str(len(evaluated)), duration(sum(evaluated) / len(evaluated)), duration(sum(evaluated))]
            )
            bars.append(("evaluate", sum(evaluated), duration(sum(evaluated))))
        total = sum(value for _, value, _ in bars)
        rows.append(
            [Cell("together", strong=True), str(len(timed) + len(evaluated)), "", Cell(duration(total), strong=True)]
        )
        blocks.append(
            Table(
                "Time of the stages, one run after another; the data's preparation is not in it.",
                ["Stage", "Times", "Mean", "All"],
                rows,
            )
        )
        chart = bar_chart("Time by stage", bars)
        if chart is not None:
            blocks.append(Figure("time", "Where the time went, all seeds together.", [chart]))
    blocks.append(_environment(groups))
    blocks.append(_list_of_runs(groups))
    return Section("environment", "Environment and time", blocks)


def duration(seconds: float, *, coarse: bool = False) -> str:
    """12.3 s, 4 min 05 s, 3 h 20 min; `coarse`: without seconds from 10 minutes on."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min" if coarse and minutes >= 10 else f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _seconds(run: Run) -> float | None:
    return number((run.complete or {}).get("seconds"))


def _state(run: Run, now: float) -> list[Cell | str]:
    last = run.records[-1] if run.records else {}
    step, total = int(number(last.get("step")) or 0), run.total_steps
    share = min(1.0, step / total) if total else None
    progress = (
        Cell("nothing logged yet", quiet=True)
        if not step
        else Cell(f"{step:,} steps" if share is None else f"{100 * share:.0f} % of {total:,} steps", share=share)
    )
    loss = run.last("train/loss")
    sign = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(run.written))
    return [
        progress,
        f"{step:,}" if step else "-",
        "-" if loss is None else f"{loss:.4f}",
        sign,
        _ago(now - run.written),
    ]


def _ago(seconds: float) -> str:
    """Whole minutes: a report made again at once reads the same."""
    minutes = max(0, int(seconds // 60))
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"


def _environment(groups: Sequence[Group]) -> Table:
    """What the runs were made with, a column where they differ."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for group in groups:
        for run in group.runs:
            config = run.config
            facts = {
                "engine": config.get("engine"),
                "device": config.get("device"),
                "precision": config.get("precision"),
                "kernels": config.get("kernels"),
                "ranks": run.complete.get("ranks") if run.complete else None,
                "threads": config.get("threads") or None,
                "plm": plm.get("name") if isinstance(plm := config.get("plm"), dict) else None,
                **{key: value for key, value in run.environment.items() if key not in _OF_ONE_RUN},
            }
            # A cache has no ranks of its own to tell: it must not make a column of its own for that.
            said_facts = tuple((key, value_text(value)) for key, value in facts.items() if value is not None)
            found.setdefault(said_facts, []).append(group.label)
    kinds = _merged(found)
    keys = list(dict.fromkeys(key for facts, _ in kinds for key in facts))
    names = ["All runs"] if len(kinds) == 1 else [_some(labels) for _, labels in kinds]
    rows: list[list[Cell | str]] = [[key, *(facts.get(key, "-") for facts, _ in kinds)] for key in keys]
    return Table("What the runs were made with.", ["", *names], rows, words=1 + len(kinds))


def _merged(found: dict[tuple[tuple[str, str], ...], list[str]]) -> list[tuple[dict[str, str], list[str]]]:
    """Environments that contradict each other nowhere are one."""
    kinds: list[tuple[dict[str, str], list[str]]] = []
    for facts, labels in sorted(found.items(), key=lambda one: -len(one[0])):
        for known, users in kinds:
            if all(known.get(key, value) == value for key, value in facts):
                known.update(facts)
                users.extend(labels)
                break
        else:
            kinds.append((dict(facts), list(labels)))
    return kinds


def _some(labels: Sequence[str]) -> str:
    names = list(dict.fromkeys(labels))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _list_of_runs(groups: Sequence[Group]) -> Fold:
    """Every folder, for those who want to look themselves."""
    lines = []
    for group in groups:
        for run in group.runs:
            state = "unfinished" if run.complete is None else "complete" + (", evaluated" if run.results else "")
            lines.append(f"{_shown(run.path)}  {run.stage}  {group.label}  {state}  {duration(_seconds(run) or 0.0)}")
    return Fold(f"All {len(lines)} run folders", "\n".join(lines))


def _shown(path: Path) -> str:
    return path.as_posix()
