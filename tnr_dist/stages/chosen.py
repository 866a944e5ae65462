"""Which run `tnr evaluate`, `tnr predict` and `tnr export` are about when they are given a configuration."""

from __future__ import annotations

from pathlib import Path

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.runs.folder import RunFolder, completed_id
from tnr_dist.stages import stage2
from tnr_dist.stages.targets import each_seed, row_folder, rows_of
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object

_MOST_NAMED = 4


def chosen_run(config: Config, data: DataSet, argument: str = "evaluate.run=") -> Path:
    """`evaluate.run`, or the student of stage 2: in `output` itself, else the one that `tnr run` has made of it.

    Args:
        argument: what goes before a run's folder on the command line, for the message.

    Raises:
        InputError: `tnr run` has made several of it (`seeds`), or only other models, or one of other settings.
    """
    if config.evaluate.run:
        return Path(config.evaluate.run)
    own = stage2.run_folder(config, data)
    if (path := _finished(own)) is not None:
        return path
    students = [stage2.run_folder(one, data) for one in each_seed(config)]
    found = {path: f"seed {run.config.seed}" for run in students if (path := _finished(run)) is not None}
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise InputError(f"{config.output}: holds a student of each seed; add {_named(found, argument)}")
    for one in each_seed(config):
        for row in rows_of(config):
            if (path := _finished(row_folder(one, data, row))) is not None:
                found.setdefault(path, row.name)
    if found:
        raise InputError(
            f"{own.path}: no student of {config.student.layers} layers (student.layers) is finished there or in seed-N/; "
            f"add {_named(found, argument)}"
        )
    for run in (own, *students):
        if (run.plain / "complete.json").is_file():
            completed_id(run.plain, run.stage)  # a damaged mark is said as such
            raise InputError(
                f"{run.plain}: its run has other settings ({_differences(run)}); restore that, or add {argument}{run.plain}"
            )
    return own.path


def _finished(run: RunFolder) -> Path | None:
    """Where this very run lies, of these settings and inputs; None where it is not finished."""
    path = run.found()
    return path if path is not None and (path / "complete.json").is_file() else None


def _differences(run: RunFolder) -> str:
    found = run.differences(read_json_object(run.plain / "complete.json"))
    return ", ".join(found[:_MOST_NAMED]) + (f", … ({len(found)} in all)" if len(found) > _MOST_NAMED else "")


def _named(found: dict[Path, str], argument: str) -> str:
    texts = [f"{argument}{path} ({what})" for path, what in found.items()]
    more = f", … ({len(texts)} in all)" if len(texts) > _MOST_NAMED else ""
    return " or ".join(texts[:_MOST_NAMED]) + more
