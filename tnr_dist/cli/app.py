"""`tnr`: thin commands, one per stage.

Exit codes: 0 ok, 2 bad input or configuration, 75 preempted, 69 passing trouble such as a lost rank, 1 otherwise.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
import typer.core

from tnr_dist import __version__
from tnr_dist.bench.common import NAMES
from tnr_dist.cli.data import app as data_commands
from tnr_dist.reproduce import STUDY_NAMES
from tnr_dist.stages.method import Method
from tnr_dist.stages.methods import METHODS
from tnr_dist.util.ends import Output, end
from tnr_dist.util.errors import InputError, Preempted, Unavailable, mendable, one_line
from tnr_dist.util.progress import say, say_once
from tnr_dist.util.redaction import without_arguments_secrets


class _EarlyEnd(Exception):
    """An EOFError under a name that typer does not take for the user's Ctrl-D."""


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise _EarlyEnd(f"EOFError: {str(error) or 'a file or a stream ends too early'}") from error


app = typer.Typer(
    cls=_Commands,
    help="Train small, fast news recommenders distilled from large language models (Tiny-NewsRec).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_commands, name="data")

_DATA_READY = "TNR_DATA_READY"  # set for the ranks that `tnr run` starts itself, after it has prepared the data

ConfigArgument = Annotated[Path, typer.Argument(help="Configuration file (YAML), for example configs/demo.yaml.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, for example stage2.lr=1e-4.")
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print every setting, its value and meaning, and end.")
]


# Seconds: a rank that ended with a reason, such as bad input, is to be the first that its launcher sees.
_BEFORE_LOST = 5.0

# What stands below the options of every command that trains or scores.
_KEYS = (
    "Every key with its meaning and value: --print-config. Ranks: ranks=N starts N on this machine; the same "
    "command also runs under launch/local.sh, torchrun, srun or mpirun (docs/clusters.md)."
)
_CODES = (
    "Exit codes: 0 done or complete before; 1 failed; 2 bad input or configuration, one line says what to do; 69 a rank was "
    "lost or did not come, the same command goes on"
)
_STOPS = f"{_KEYS}\n\n{_CODES}; 75 told to stop, a checkpoint is written and the same command goes on."
_SCORES = f"{_KEYS}\n\n{_CODES}."


def _version(value: bool) -> None:
    if value:
        print(f"tnr_dist {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Before the command: show the traceback of an error.")
    ] = False,
) -> None:
    from tnr_dist.util.hardware import check_platform

    check_platform()
    if verbose:
        os.environ["TNR_TRACEBACK"] = "1"  # of the ranks that this process starts too


# Stages ---------------------------------------------------------------------------------------------------------------


def _configure(path: Path, overrides: list[str] | None, print_config: bool) -> Any:
    from tnr_dist.config.explain import explained_yaml
    from tnr_dist.runs.owned import is_run_config
    from tnr_dist.runs.wandb import chosen_mode
    from tnr_dist.stages.methods import Tree, load_config

    if is_run_config(path):  # what it names may have been moved with the run folder
        from tnr_dist.runs.places import run_config

        config = run_config(Tree, path.parent, overrides or [])
    else:
        config = load_config(path, overrides or [])
    if print_config:
        print(explained_yaml(config), end="")
        raise typer.Exit
    chosen_mode(config.wandb)  # a bad WANDB_MODE is an error before anything is read or written
    return config


def _ranks(config: Any) -> int | None:
    """Start the local ranks that `ranks` asks for and return their exit code; None in a process that is a rank."""
    from tnr_dist.launch.environment import detect
    from tnr_dist.launch.local import launch

    if config.ranks == 1 or detect().launcher != "none":
        return None
    return launch(config.ranks, [sys.executable, "-m", "tnr_dist.cli.app", *sys.argv[1:]])


@contextlib.contextmanager
def _engine(config: Any, command: str, *, stops: bool = True) -> Iterator[Any]:
    """The engine and the kernels of a configuration; `stops`: the work can end with exit code 75 when told to stop.

    `command`: what all ranks must be running.
    """
    from tnr_dist.engines import core, devices
    from tnr_dist.engines.broken import is_broken
    from tnr_dist.engines.make import make_engine
    from tnr_dist.kernels.dispatch import use_kernels
    from tnr_dist.stages.parts.terms import terms_of
    from tnr_dist.train.heartbeat import lost
    from tnr_dist.util import preemption

    if stops:
        preemption.listen()
    core.TIMEOUT_SECONDS = config.timeout
    terms = terms_of(config, command, preemption.asked)
    engine = make_engine(config.engine, config.device, config.threads, config.deepspeed, config.horovod, terms)
    if engine.environment.rank == 0:
        # For a process alone an error is to be the only line.
        if engine.environment.launcher != "none" or "SLURM_JOB_ID" in os.environ:
            say_once(devices.describe(engine.environment, engine.device, config.precision))
        for warning in devices.warnings(engine.environment, engine.device, config.ranks, os.environ):
            say_once(warning)
    try:
        with use_kernels(config.kernels):
            yield engine
    except RuntimeError as error:
        if engine.environment.world_size > 1 and is_broken(error):
            preemption.wait_for_request(_BEFORE_LOST)
            raise lost(engine.environment, error) from error
        raise
    finally:
        engine.close()


def _stage(
    command: str, path: Path, overrides: list[str] | None, print_config: bool, work: Any, *, stops: bool = True
) -> None:
    config = _configure(path, overrides, print_config)
    code = _ranks(config)
    if code is not None:
        raise typer.Exit(code)
    with _engine(config, command, stops=stops) as engine:
        work(config, engine)


def _train(
    command: str, path: Path, overrides: list[str] | None, print_config: bool, spoken: str | None = None
) -> None:
    """Make the runs of a stage or method; `spoken`: the command as it is typed, where that is more than its name."""

    def work(config: Any, engine: Any) -> None:
        from tnr_dist.stages.registry import run_command

        run_command(command, config, engine)

    _stage(spoken or command, path, overrides, print_config, work)


def _command(method: Method) -> Callable[..., None]:
    """`tnr METHOD CONFIG`."""

    def command(config: ConfigArgument, overrides: OverridesArgument = None, print_config: PrintConfig = False) -> None:
        _train(method.command, config, overrides, print_config)

    command.__doc__ = method.help
    return command


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


_WITH_OPTIONS = {"cache": _cache}
for _method in METHODS:
    _made = _WITH_OPTIONS.get(_method.command) or _command(_method)
    _made.__doc__ = _method.help
    app.command(_method.command, epilog=_STOPS)(_made)

if TYPE_CHECKING:
    Baseline: TypeAlias = enum.StrEnum
else:
    Baseline = enum.StrEnum("Baseline", {one.command: one.command for one in METHODS if one.baseline})


@app.command("baseline", epilog=_STOPS)
def baseline(
    method: Annotated[Baseline, typer.Argument(help="Which one; students have student.layers layers.")],
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
) -> None:
    """Train a method that Tiny-NewsRec is compared with; the same as tnr METHOD.

    Reads the sections plm, model, data, student and the method's own. After further-pretrain: tnr finetune CONFIG
    finetune.init=further-pretrain.
    """
    _train(method.value, config, overrides, print_config, f"baseline {method.value}")


@app.command("evaluate", epilog=_SCORES)
def evaluate(config: ConfigArgument, overrides: OverridesArgument = None, print_config: PrintConfig = False) -> None:
    """Score a split with a trained model (evaluate.run, evaluate.split) and write its results.json.

    The model is the stage-2 student of student.layers layers, in CONFIG's output or its seed-N/; another one:
    evaluate.run=RUN_FOLDER.
    Reads the sections evaluate, data, and what the student's run is known by: plm, model, student and the stages' own.
    """
    from tnr_dist.stages.evaluate import LABELS, scored
    from tnr_dist.stages.evaluate import evaluate as work

    def show(config: Any, engine: Any) -> None:
        results = work(config, engine)
        if engine.environment.rank == 0:
            print("  ".join(f"{name} {100 * results[key]:.2f}" for key, name in LABELS.items()))
            print(scored(results))

    _stage("evaluate", config, overrides, print_config, show, stops=False)


@app.command("predict", epilog=_SCORES)
def predict(
    config: Annotated[Path | None, typer.Argument(help="Configuration file (YAML).")] = None,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
    check: Annotated[
        Path | None, typer.Option(help="Only check this prediction.zip (against evaluate.split with CONFIG).")
    ] = None,
) -> None:
    """Rank a split's candidates and write MIND's prediction.zip; or check one with --check FILE.

    The model is the stage-2 student of student.layers layers, in CONFIG's output or its seed-N/; another one:
    evaluate.run=RUN_FOLDER.
    The split is evaluate.split.
    """
    if check is not None:
        from tnr_dist.evaluation.submission import check_prediction

        expected = None
        if config is not None:
            from tnr_dist.stages.evaluate import expected_of_split

            resolved = _configure(config, overrides, print_config)
            expected = expected_of_split(Path(resolved.data.dir), resolved.evaluate.split)
        facts = check_prediction(check, expected)
        print(f"{check}: valid, {facts['impressions']:,} impressions, {facts['candidates']:,} ranks")
        return
    if config is None:
        raise InputError("tnr predict: give a configuration file, or --check FILE")
    from tnr_dist.stages.evaluate import predict as work

    _stage("predict", config, overrides, print_config, work, stops=False)


@app.command("export")
def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Run folder of a finished stage, for example runs/demo/seed-0/stage2-2; or a configuration file, of "
            "which the stage-2 student of student.layers layers is taken."
        ),
    ],
    to: Annotated[
        list[str], typer.Option(help="hf, onnx, torch.export or vectors; several with commas, or --to again.")
    ],
    output: Annotated[Path | None, typer.Option(help="Gets one folder a format. Default: RUN/export.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data set whose news `vectors` encodes. Default: the run's own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    speed: Annotated[bool, typer.Option(help="Measure latency and throughput for the card, some seconds.")] = True,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the configuration file.")
    ] = None,
) -> None:
    """Write a trained model in forms that other tools load: Hugging Face, ONNX and INT8, torch.export, news vectors."""
    from tnr_dist.export.command import export as work

    if run.is_file():
        from tnr_dist.data.dataset import DataSet
        from tnr_dist.stages.chosen import chosen_run

        resolved = _configure(run, overrides, print_config=False)
        run = chosen_run(resolved, DataSet.open(resolved), argument="tnr export ")
    elif overrides:
        raise InputError(f"{overrides[0]}: a setting changes a configuration file; {run} is none")
    forms = [form for part in to for form in part.split(",")]
    for folder in work(run, forms, output, data=data, force=force, speed=speed):
        print(folder)


@app.command("run", epilog=_STOPS)
def run(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be made, replaced and skipped, with times.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Put new runs into the place of those of other settings; an old one goes once the new one is complete.",
        ),
    ] = False,
) -> None:
    """Run all stages in order, skip those that are complete, and end with a table of results.

    Runs of other settings stay: a new run then gets a folder beside them, its name with a mark of its settings.
    """
    from tnr_dist.launch.environment import detect
    from tnr_dist.stages import pipeline

    resolved = _configure(config, overrides, print_config)
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
        code = _ranks(resolved)
        if code:
            raise typer.Exit(code)
        if code == 0:
            pipeline.report(resolved)
            return
    elif not started_by_run:
        pipeline.ensure_data(resolved)
    with _engine(resolved, "run") as engine:
        pipeline.run_chain(resolved, engine, replace=replace)
    # `tnr run` prints the table for the ranks that it started itself; under a launcher rank 0 does.
    if detect().rank == 0 and not started_by_run:
        pipeline.report(resolved)


@app.command("reproduce", epilog=_STOPS)
def reproduce(
    study: Annotated[str, typer.Argument(help=f"One of {', '.join(STUDY_NAMES)}, or several with commas.")],
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
    jobs: Annotated[
        int, typer.Option(help="Runs side by side on this machine; 0: one a GPU, or one a core without GPUs.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the runs and what of them is complete.")
    ] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit the runs as Slurm arrays (slurm/reproduce.sh).")
    ] = False,
    task: Annotated[str, typer.Option(help="LEVEL.NUMBER: make only this run (what the Slurm jobs do).")] = "",
    report_only: Annotated[
        bool, typer.Option("--report", help="Only write tables and figures of what is complete.")
    ] = False,
) -> None:
    """Reproduce a table or figure of the paper over `seeds` seeds: train what is missing, then tables, figures and tests."""
    from tnr_dist.launch.environment import detect
    from tnr_dist.reproduce import command
    from tnr_dist.stages import pipeline
    from tnr_dist.util import preemption

    resolved = _configure(config, overrides, print_config)
    names = study.split(",")
    for name in names:
        if name not in STUDY_NAMES:
            raise InputError(f"{name!r}: no such table or figure; one of {', '.join(STUDY_NAMES)}")
    if jobs < 0:
        raise InputError(f"--jobs {jobs}: give 1 or more, or 0 for one a GPU or core")
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
            with _engine(resolved, f"reproduce {one.study.name} --task {task}") as engine:
                command.run_task(one, engine, *place)
            continue
        if not report_only and alone and resolved.ranks == 1:
            preemption.listen()
            outcome = command.run_here(one, jobs or command.default_jobs(resolved))
            failed += len(outcome.failed)
        elif not report_only:
            os.environ[_DATA_READY] = "1"
            code = _ranks(resolved)
            if code is not None:
                raise typer.Exit(code)
            with _engine(resolved, f"reproduce {one.study.name}") as engine:
                command.run_on_ranks(one, engine)
        with _engine(resolved, f"reproduce {one.study.name}") as engine:
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


plm_app = typer.Typer(help="Pre-trained language models.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(plm_app, name="plm")


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


@app.command("report")
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
    """Results, curves, teachers, speed, data and settings of runs as one HTML page, Markdown and PNG; no server needed."""
    from tnr_dist.report import command

    if print_config:
        files, overrides = command.split_arguments(paths)
        _configure(files[0], overrides, print_config)
    command.report(paths, output)


@app.command("dashboard")
def dashboard(
    project: Annotated[str, typer.Option(help="The wandb project.")] = "tnr_dist",
    entity: Annotated[str, typer.Option(help="User or team; empty: the login's own.")] = "",
    show: Annotated[bool, typer.Option("--print", help="Only print the sections and panels.")] = False,
) -> None:
    """Create the wandb dashboard in a project."""
    from tnr_dist.runs import dashboard as board

    print(board.describe() if show else board.create(project, entity))


@app.command("doctor")
def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Configuration of the run to come; without: this machine.")
    ] = None,
    overrides: OverridesArgument = None,
    limit: Annotated[float, typer.Option(help="Seconds that the ranks wait for each other.")] = 60.0,
    need_gib: Annotated[float, typer.Option(help="Disk space that must be free, in GiB.")] = 5.0,
) -> None:
    """Check versions, devices, ranks (a timed all-reduce), disk, data and cache; exit code 2 with what to mend."""
    from tnr_dist.launch.environment import detect

    resolved = _configure(config, overrides, False) if config is not None else None
    code = _ranks(resolved) if resolved is not None else None
    if code is not None:
        raise typer.Exit(code)
    from tnr_dist.cli.doctor import examine, show

    rank = detect().rank
    findings = examine(resolved, limit, need_gib)
    if rank == 0:
        show(findings)
    faults = [finding for finding in findings if finding.level == "error"]
    if faults and rank == 0:
        raise InputError(f"{len(faults)} fault{'s' if len(faults) > 1 else ''}, see above")
    if faults:
        raise InputError("; ".join(f"{fault.where}: {fault.message}" for fault in faults))


class _Bench(typer.core.TyperCommand):
    """Its help lists every benchmark's settings; only then the benchmarks are imported, and torch with them."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from tnr_dist.bench.common import described_settings

        with formatter.section("Settings and defaults"):
            formatter.write_dl([(name, described_settings(name)) for name in NAMES])


@app.command("bench", cls=_Bench)
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
    """Measure one part of the system beside its best alternative, in one run."""
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


def main() -> None:
    """Entry point: errors that a user can mend are one line."""
    # Two processes a machine and more: tokenizers' own threads would only fight the ranks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the locale's encoding cannot say is still shown
            stream.reconfigure(errors="backslashreplace")
    try:
        # Without standalone mode an Exit's code comes back as the value.
        with contextlib.redirect_stdout(Output(sys.stdout)) if sys.stdout else contextlib.nullcontext():
            code = app(standalone_mode=False)
            end(code if isinstance(code, int) else 0)
    except InputError as error:
        _fail(str(error), 2)
    except Preempted as error:
        _fail(str(error), 75)
    except Unavailable as error:
        _fail(str(error), 69)
    except typer.Abort:
        end(130)
    except _EarlyEnd as error:
        _fail(f"{error} (tnr -v … shows the traceback)", 1)
    except Exception as error:
        # Typer brings its own copy of click, so usage errors are known by what they offer, not by their class.
        if hasattr(error, "format_message"):
            if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
                print(error.format_message(), file=sys.stderr)
                end(2)
            _fail(f"{error.format_message()} (see tnr --help)", 2)
        if message := mendable(error):
            _fail(message, 2)
        _fail(f"{type(error).__name__}: {error} (tnr -v … shows the traceback)", 1)


def _fail(message: str, code: int) -> None:
    from tnr_dist.launch.local import first_to_say

    if os.environ.get("TNR_TRACEBACK"):
        with contextlib.suppress(OSError):
            traceback.print_exc()
    # A crash is said by every rank that it meets.
    if code != 2 or first_to_say(message):
        say(one_line(f"tnr: {without_arguments_secrets(message, sys.argv[1:])}"), dated=False)
    end(code)


if __name__ == "__main__":
    main()
