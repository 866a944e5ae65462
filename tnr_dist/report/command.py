"""`tnr report PATH…`: from run folders to OUTPUT/report.html, report.md and the figures as PNG."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from tnr_dist import __version__
from tnr_dist.figures.picture import write_picture
from tnr_dist.report import curves, data, progress, results, settings
from tnr_dist.report.group_by_seed import Group, group_runs
from tnr_dist.report.html import to_html
from tnr_dist.report.markdown import to_markdown
from tnr_dist.report.page import Document
from tnr_dist.report.read_runs import Run, find_runs
from tnr_dist.report.results import Model, models_of
from tnr_dist.stages.methods import load_config
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_text
from tnr_dist.util.progress import say

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def report(arguments: Sequence[str], output: Path | None = None) -> Path:
    """What `tnr report` does: print the results and write the report of run folders, output folders, configurations.

    Of a configuration whose `tnr run` is complete the table and pictures of `tnr run` are made again, too. Returns the
    page. Raises InputError as `write_report`, and for a bad configuration.
    """
    from rich.console import Console

    from tnr_dist.figures.tables import results_table
    from tnr_dist.stages import pipeline

    paths, overrides = split_arguments(arguments)
    if overrides and all(path.is_dir() for path in paths):
        raise InputError(f"{overrides[0]}: a setting changes a configuration; folders are shown as they are")
    folders, shown = [], False
    for path in paths:
        if path.is_dir():
            folders.append(path)
            continue
        if not path.is_file():
            raise InputError(f"{path}: no such folder or configuration file")
        config = load_config(path, overrides)
        if not Path(config.output).is_dir():
            empty = "" if path.read_text(encoding="utf-8").strip() else "an empty file, so all settings are defaults; "
            raise InputError(
                f"{path}: {empty}its `output`, {config.output}, is not there yet; run `tnr run {path}` first"
            )
        folders.append(Path(config.output))
        if pipeline.is_complete(config):
            pipeline.report(config)
            shown = True
    page, models = write_report(folders, output)
    if models and not shown:
        console = Console()
        # In a log file there is no width to fit: names must not be cut.
        console = console if console.is_terminal else Console(width=120)
        console.print(results_table(results.plain_rows(models), f"{_counted(len(models), 'model')}, {models[0].split}"))
    say(f"report: {page}")
    return page


def split_arguments(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """What the command line names, and overrides `key.sub=value` for the configuration files among it."""
    overrides = [one for one in arguments if _OVERRIDE.match(one) and not Path(one).exists()]
    return [Path(one) for one in arguments if one not in overrides], overrides


def write_report(
    paths: Sequence[Path], output: Path | None = None, *, now: float | None = None
) -> tuple[Path, list[Model]]:
    """Write the report of all runs at and under `paths`; returns the page and the models of its table.

    Args:
        output: folder of the report; None: `report` in the first path.
        now: seconds since 1970, what `since` of an unfinished run counts to. Nothing else depends on the clock: the same
            finished runs give the same bytes.

    Raises:
        InputError: a path is no folder, no run is found, or a file of a run is damaged.
    """
    runs = find_runs(paths)
    groups = group_runs(runs)
    models = models_of(groups)
    document = make_document(paths, runs, groups, models, time.time() if now is None else now)
    folder = output if output is not None else paths[0] / "report"
    for figure in document.figures:
        write_picture(folder / figure.file, figure.caption, figure.panels, figure.legend)
    write_text(folder / "report.md", to_markdown(document))
    page = folder / "report.html"
    write_text(page, to_html(document))
    return page, models


def make_document(
    paths: Sequence[Path], runs: Sequence[Run], groups: Sequence[Group], models: Sequence[Model], now: float
) -> Document:
    """What the report says, in the order in which it is asked for."""
    bases = list(dict.fromkeys(run.base for run in runs))
    sections = [
        results.results_section(models, bases),
        progress.unfinished_section(groups, now),
        data.impressions_section(models),
        curves.curves_section(groups),
        curves.teachers_section(groups),
        curves.speed_section(groups),
        data.data_section(runs),
        settings.settings_section(groups),
        progress.time_section(groups),
    ]
    seeds = len({run.seed for run in runs} - {None})
    days = sorted(day for run in runs for day in run.dates)
    parts = [
        _counted(len(models), "model") if models else "no model evaluated yet",
        _counted(len(runs), "run"),
        *([_counted(seeds, "seed")] if seeds else []),
        days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}",
        f"tnr_dist {__version__}",
    ]
    names = [os.path.relpath(path) if not path.is_absolute() else str(path) for path in paths]
    return Document(
        f"Report of {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        " · ".join(parts),
        [*results.tiles(models, bases), *progress.tiles(runs)],
        [section for section in sections if section is not None],
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"
