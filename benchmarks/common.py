"""What the scripts share that train a study and write a page about it: arguments, runs, exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.reproduce.command import Prepared, default_jobs, run_here
from tnr_dist.reproduce.plan import plan
from tnr_dist.reproduce.results import RowResult, collect
from tnr_dist.reproduce.studies import Study
from tnr_dist.reproduce.workers import Outcome
from tnr_dist.stages import pipeline
from tnr_dist.stages.evaluate import labelled_index
from tnr_dist.stages.methods import load_config
from tnr_dist.util.errors import InputError, Preempted

HERE = Path(__file__).parent


def parser(doc: str, config: Path, name: str) -> argparse.ArgumentParser:
    """The arguments of a script whose docstring is `doc` and whose files are NAME.md and NAME.json."""
    out = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    out.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as for tnr")
    out.add_argument("--config", type=Path, default=config)
    out.add_argument("--jobs", type=int, default=0, help="runs side by side; 0: one a GPU, or one a core")
    out.add_argument("--out", type=Path, default=HERE / "results", help=f"folder of {name}.md and {name}.json")
    return out


def configuration(arguments: argparse.Namespace, before: Sequence[str] = ()) -> Config:
    """The configuration that the arguments ask for, `before` being settings that they may change; its data is prepared."""
    config = load_config(arguments.config, [*before, *arguments.overrides])
    pipeline.ensure_data(config)
    return config


def trained(study: Study, config: Config, jobs: int) -> tuple[dict[str, RowResult], Outcome]:
    """Make the runs of a study that are missing: the rows that are complete, and what failed."""
    data = DataSet.open(config)
    labelled_index(data, config.evaluate.split)
    prepared = Prepared(study, config, data, plan(config, data, study))
    outcome = run_here(prepared, jobs or default_jobs(config))
    return collect(config, data, study), outcome


def finish(main: Callable[[], int], script: str) -> None:
    """Run a script and end with its exit code; a user's error is one line."""
    try:
        sys.exit(main())
    except InputError as error:
        print(f"{script}: {error}", file=sys.stderr)
        sys.exit(2)
    except Preempted as error:
        print(f"{script}: {error}", file=sys.stderr)
        sys.exit(75)
