"""The commands around training: `tnr report`, `dashboard`, `doctor`, `bench` and `plm convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from tnr_dist.bench.common import NAMES
from tnr_dist.cli.engine import start_ranks
from tnr_dist.cli.options import OverridesArgument, PrintConfig, configure
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import say

plm_app = typer.Typer(help="Pre-trained language models.", no_args_is_help=True, rich_markup_mode=None)


@plm_app.callback()
def _plm() -> None:
    pass


@plm_app.command("convert")
def plm_convert(
    source: Annotated[str, typer.Argument(help="The PLM as published: folder, hub id or package:NAME/FOLDER.")],
    output: Annotated[Path, typer.Option(help="Folder for safetensors, configuration and tokenizer.")],
) -> None:
    """Convert a PLM's published weights to safetensors."""
    from tnr_dist.models.convert import convert_plm

    written = convert_plm(source, output)
    say(f"{output}: written; use it as plm.name={output}" if written else f"{output}: holds this conversion already")


def report(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Run folders, output folders of `tnr run` or `tnr reproduce`, configuration files (with KEY=VALUE).",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder of the report; default: report/ in the first of them.")
    ] = None,
    print_config: PrintConfig = False,
) -> None:
    """Write results, curves, teachers, speed, data and settings of runs as one HTML page, Markdown and PNG."""
    from tnr_dist.report import command

    if print_config:
        files, overrides = command.split_arguments(paths)
        configure(files[0], overrides, print_config)
    command.report(paths, output)


def dashboard(
    project: Annotated[str, typer.Option(help="The wandb project.")] = "tnr_dist",
    entity: Annotated[str, typer.Option(help="User or team; empty: the login's own.")] = "",
    show: Annotated[bool, typer.Option("--print", help="Print the sections and panels; create nothing.")] = False,
) -> None:
    """Create the wandb dashboard in a project."""
    from tnr_dist.runs import dashboard as board

    print(board.describe() if show else board.create(project, entity))


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Configuration of the planned run; without it only this machine is checked.")
    ] = None,
    overrides: OverridesArgument = None,
    limit: Annotated[float, typer.Option(help="Seconds that the ranks wait for each other.")] = 60.0,
    need_gib: Annotated[float, typer.Option(help="Disk space that must be free, in GiB.")] = 5.0,
) -> None:
    """Check versions, devices, ranks (a timed all-reduce), disk, data and cache; exit code 2 with what to fix."""
    from tnr_dist.launch.environment import detect

    resolved = configure(config, overrides, False) if config is not None else None
    code = start_ranks(resolved) if resolved is not None else None
    if code is not None:
        raise typer.Exit(code)
    from tnr_dist.cli.doctor.examine import examine, show

    rank = detect().rank
    findings = examine(resolved, limit, need_gib)
    if rank == 0:
        show(findings)
    faults = [finding for finding in findings if finding.level == "error"]
    if faults and rank == 0:
        raise InputError(f"{len(faults)} fault{'s' if len(faults) > 1 else ''}, see above")
    if faults:
        raise InputError("; ".join(f"{fault.where}: {fault.message}" for fault in faults))


class BenchCommand(typer.core.TyperCommand):
    """Its help lists every benchmark's settings; only then the benchmarks are imported, and torch with them."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Each benchmark's settings and their defaults."""
        from tnr_dist.bench.common import described_settings

        with formatter.section("Settings and defaults"):
            formatter.write_dl([(name, described_settings(name)) for name in NAMES])


def bench(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="The benchmark's own settings; --help lists them."),
    ] = None,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Also write the object to this file.")] = None,
) -> None:
    """Measure one part of the system and its best alternative in one run."""
    import json

    from tnr_dist.bench.common import read_settings, run_benchmark
    from tnr_dist.util.files import check_writable, write_json

    values = read_settings(name, settings or [])
    if save is not None:
        check_writable(save)
    figures = run_benchmark(name, values)
    if json_only:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            if isinstance(value, list):
                for row in value:
                    print(f"{key}: {row}")
            else:
                print(f"{key}: {value:,.4g}" if isinstance(value, float) else f"{key}: {value}")
    if save is not None:
        write_json(save, figures)
