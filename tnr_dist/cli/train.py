"""The commands that train: one a stage, `tnr baseline`, and `tnr run` and `tnr reproduce`, which run them in order."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from tnr_dist.cli.engine import open_engine, run_with_engine, start_ranks
from tnr_dist.cli.options import ConfigArgument, OverridesArgument, PrintConfig, configure
from tnr_dist.reproduce import STUDY_NAMES
from tnr_dist.stages.method import Method
from tnr_dist.stages.methods import METHODS
from tnr_dist.util.errors import InputError
from tnr_dist.util.memory import TreePeak
from tnr_dist.util.progress import say

if TYPE_CHECKING:
    from tnr_dist.config.schema import Config
    from tnr_dist.engines.base import Engine

_DATA_READY = "TNR_DATA_READY"  # set for the ranks that `tnr run` starts itself, after it has prepared the data


def command_of(method: Method) -> Callable[..., None]:
    """The function of `tnr METHOD`."""

    def command(config: ConfigArgument, overrides: OverridesArgument = None, print_config: PrintConfig = False) -> None:
        _train(method.command, config, overrides, print_config)

    function = _cache if method.command == "cache" else command
    function.__doc__ = method.help
    return function


def _train(
    command: str, path: Path, overrides: list[str] | None, print_config: bool, spoken: str | None = None
) -> None:
    """Make the runs of a stage or method; `spoken`: the command as it is typed, where that is more than its name."""

    def work(config: Config, engine: Engine) -> None:
        from tnr_dist.stages.registry import run_command

        run_command(command, config, engine)

    run_with_engine(spoken or command, path, overrides, print_config, work)


def _cache(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
    shard_range: Annotated[
        str, typer.Option(help="A:B: only the shards A to B - 1 (the same as cache.shard_range=A:B).")
    ] = "",
) -> None:
    extra = [f"cache.shard_range={shard_range}"] if shard_range else []
    _train("cache", config, [*(overrides or []), *extra], print_config)


if TYPE_CHECKING:
    Baseline: TypeAlias = enum.StrEnum
else:
    Baseline = enum.StrEnum("Baseline", {one.command: one.command for one in METHODS if one.baseline})


def baseline(
    method: Annotated[Baseline, typer.Argument(help="The method; students have student.layers layers.")],
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
) -> None:
    """Train a baseline; the same as tnr METHOD.

    Reads the sections plm, model, data, student and the method's own. After further-pretrain: tnr finetune CONFIG
    finetune.init=further-pretrain.
    """
    _train(method.value, config, overrides, print_config, f"baseline {method.value}")


def run(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show which runs would be made, resumed, replaced and skipped, with times; change nothing.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace runs that have other settings; an old run is deleted when the new one is complete.",
        ),
    ] = False,
) -> None:
    """Run all stages in order, skip those that are complete, and end with a table of results.

    A run with other settings is kept: the new run gets a folder of its own, whose name ends in a digest of its settings.
    """
    from tnr_dist.launch.environment import detect
    from tnr_dist.stages import pipeline

    resolved = configure(config, overrides, print_config)
    if dry_run:
        from tnr_dist.stages.outlook import describe

        if detect().rank == 0:
            print(describe(resolved, replace=replace))
        return
    started_by_run = _DATA_READY in os.environ
    if detect().launcher == "none":
        pipeline.ensure_data(resolved)
        if pipeline.is_complete(resolved):
            say(f"{resolved.output}: every stage is complete, nothing to do")
            pipeline.report(resolved)
            return
        os.environ[_DATA_READY] = "1"
        with TreePeak() as peak:
            code = start_ranks(resolved)
            if code is None:
                with open_engine(resolved, "run") as engine:
                    pipeline.run_chain(resolved, engine, replace=replace)
        if code:
            raise typer.Exit(code)
        pipeline.report(resolved)
        say(f"memory: at most {peak.gib:.1f} GiB at a time, all processes of this run together")
        return
    elif not started_by_run:
        pipeline.ensure_data(resolved)
    with open_engine(resolved, "run") as engine:
        pipeline.run_chain(resolved, engine, replace=replace)
    # `tnr run` prints the table for the ranks that it started itself; under a launcher rank 0 does.
    if detect().rank == 0 and not started_by_run:
        pipeline.report(resolved)


def reproduce(
    study: Annotated[str, typer.Argument(help=f"One of {', '.join(STUDY_NAMES)}, or several with commas.")],
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
    jobs: Annotated[
        int, typer.Option(help="Runs at the same time on this machine; 0: one per GPU, or one per core without GPUs.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs and which are complete; train nothing.")
    ] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit the runs as Slurm arrays (slurm/reproduce.sh).")
    ] = False,
    task: Annotated[str, typer.Option(help="LEVEL.NUMBER: make only this run, as the Slurm jobs do.")] = "",
    report_only: Annotated[
        bool, typer.Option("--report", help="Write tables and figures of the complete runs; train nothing.")
    ] = False,
) -> None:
    """Reproduce a table or figure of the paper over `seeds` seeds: train what is missing, then write tables, figures and tests."""
    from tnr_dist.launch.environment import detect
    from tnr_dist.reproduce import command
    from tnr_dist.stages import pipeline
    from tnr_dist.util import preemption

    resolved = configure(config, overrides, print_config)
    names = study.split(",")
    for name in names:
        if name not in STUDY_NAMES:
            raise InputError(f"{name!r}: no such table or figure; one of {', '.join(STUDY_NAMES)}")
    if jobs < 0:
        raise InputError(f"--jobs {jobs}: give 1 or more, or 0 for one per GPU or core")
    place = _level_and_number(task) if task else None
    if slurm:
        raise typer.Exit(command.submit(names, config, overrides or []))
    alone = detect().launcher == "none"
    if alone or _DATA_READY not in os.environ:
        pipeline.ensure_data(resolved)
    studies = [command.Prepared.open(name, resolved) for name in names]
    if dry_run:
        for one in studies:
            print(command.show_plan(one))
        return
    failed = 0
    for one in studies:
        outcome = None
        if place is not None:
            with open_engine(resolved, f"reproduce {one.study.name} --task {task}") as engine:
                command.run_task(one, engine, *place)
            continue
        if not report_only and alone and resolved.ranks == 1:
            preemption.listen()
            outcome = command.run_here(one, jobs or command.default_jobs(resolved))
            failed += len(outcome.failed)
        elif not report_only:
            os.environ[_DATA_READY] = "1"
            code = start_ranks(resolved)
            if code is not None:
                raise typer.Exit(code)
            with open_engine(resolved, f"reproduce {one.study.name}") as engine:
                command.run_on_ranks(one, engine)
        with open_engine(resolved, f"reproduce {one.study.name}") as engine:
            pipeline.baselines(resolved, one.data, engine)
            page = command.write_report(one, engine, outcome) if engine.environment.rank == 0 else None
        if page:
            print(page.read_text(encoding="utf-8"), end="")
    if failed:
        raise RuntimeError(
            f"{failed} runs failed (see above); the others are complete, and the same command tries again"
        )


def _level_and_number(text: str) -> tuple[int, int]:
    level, dot, number = text.partition(".")
    if not (dot and level.isdecimal() and number.isdecimal()):
        raise InputError(f"--task {text!r}: expected LEVEL.NUMBER, such as 2.0")
    return int(level), int(number)
