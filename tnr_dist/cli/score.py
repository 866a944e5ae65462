"""The commands that use a trained model: `tnr evaluate`, `tnr predict` and `tnr export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tnr_dist.cli.engine import run_with_engine
from tnr_dist.cli.options import ConfigArgument, OverridesArgument, PrintConfig, configure
from tnr_dist.util.errors import InputError

if TYPE_CHECKING:
    from tnr_dist.config.schema import Config
    from tnr_dist.engines.base import Engine


def evaluate(config: ConfigArgument, overrides: OverridesArgument = None, print_config: PrintConfig = False) -> None:
    """Score a split with a trained model (evaluate.run, evaluate.split) and write its results.json.

    The model is the stage-2 student of student.layers layers, in CONFIG's output or its seed-N/; another one:
    evaluate.run=RUN_FOLDER.
    Reads the sections evaluate, data, and those that identify the student's run: plm, model, student and the stages' own.
    """
    from tnr_dist.stages.evaluate import LABELS, scored
    from tnr_dist.stages.evaluate import evaluate as work

    def show(config: Config, engine: Engine) -> None:
        results = work(config, engine)
        if engine.environment.rank == 0:
            print("  ".join(f"{name} {100 * results[key]:.2f}" for key, name in LABELS.items()))
            print(scored(results))

    run_with_engine("evaluate", config, overrides, print_config, show, stops=False)


def predict(
    config: Annotated[Path | None, typer.Argument(help="Configuration file (YAML).")] = None,
    overrides: OverridesArgument = None,
    print_config: PrintConfig = False,
    check: Annotated[
        Path | None, typer.Option(help="Check this prediction.zip only; with CONFIG also against evaluate.split.")
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

            resolved = configure(config, overrides, print_config)
            expected = expected_of_split(Path(resolved.data.dir), resolved.evaluate.split)
        facts = check_prediction(check, expected)
        print(f"{check}: valid, {facts['impressions']:,} impressions, {facts['candidates']:,} ranks")
        return
    if config is None:
        raise InputError("tnr predict: give a configuration file, or --check FILE")
    from tnr_dist.stages.evaluate import predict as work

    run_with_engine("predict", config, overrides, print_config, work, stops=False)


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
    output: Annotated[
        Path | None, typer.Option(help="Folder that gets one folder per format. Default: RUN/export.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data set whose news `vectors` encodes. Default: the run's own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    speed: Annotated[
        bool, typer.Option(help="Measure latency and throughput for the card; takes some seconds.")
    ] = True,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the configuration file.")
    ] = None,
) -> None:
    """Write a trained model in formats that other tools load: Hugging Face, ONNX and INT8, torch.export, news vectors."""
    from tnr_dist.export.command import export as work

    if run.is_file():
        from tnr_dist.data.dataset import DataSet
        from tnr_dist.stages.chosen import chosen_run

        resolved = configure(run, overrides, print_config=False)
        run = chosen_run(resolved, DataSet.open(resolved), argument="tnr export ")
    elif overrides:
        raise InputError(f"{overrides[0]}: a setting changes a configuration file; {run} is none")
    forms = [form for part in to for form in part.split(",")]
    for folder in work(run, forms, output, data=data, force=force, speed=speed):
        print(folder)
