"""Which run `tnr evaluate`, `tnr predict` and `tnr export` are about when they are given a configuration."""

from __future__ import annotations

from pathlib import Path

from tnr_dist.config import Config
from tnr_dist.errors import InputError
from tnr_dist.stages import stage2
from tnr_dist.stages.common import DataSet
from tnr_dist.stages.targets import each_seed, row_folder, rows_of

_MOST_NAMED = 4


def chosen_run(config: Config, data: DataSet, argument: str = "evaluate.run=") -> Path:
    """`evaluate.run`, or the student of stage 2: in `output` itself, else the one that `tnr run` has made of it.

    Args:
        argument: what goes before a run's folder on the command line, for the message.

    Raises:
        InputError: `tnr run` has made several of it (`seeds`), or only other models.
    """
    if config.evaluate.run:
        return Path(config.evaluate.run)
    own = stage2.run_folder(config, data)
    if _is_finished(own.path):
        return own.path
    students = [stage2.run_folder(one, data).path for one in each_seed(config)]
    found = {path: f"seed {path.parent.name.removeprefix('seed-')}" for path in students if _is_finished(path)}
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise InputError(f"{config.output}: holds a student of each seed; add {_named(found, argument)}")
    for one in each_seed(config):
        for row in rows_of(config):
            path = row_folder(one, data, row).path
            if _is_finished(path):
                found.setdefault(path, row.name)
    if found:
        raise InputError(
            f"{own.path}: no student of {config.student.layers} layers (student.layers) is finished there or in seed-N/; "
            f"add {_named(found, argument)}"
        )
    return own.path


def _is_finished(path: Path) -> bool:
    return (path / "complete.json").is_file()


def _named(found: dict[Path, str], argument: str) -> str:
    texts = [f"{argument}{path} ({what})" for path, what in found.items()]
    more = f", … ({len(texts)} in all)" if len(texts) > _MOST_NAMED else ""
    return " or ".join(texts[:_MOST_NAMED]) + more
