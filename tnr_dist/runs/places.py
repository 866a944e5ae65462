"""Where a run's data set and PLM lie, so that a run folder can be read from any directory and moved with them.

RUN/config.yaml names folders by absolute paths. complete.json (and begun.json before it) also names the two that are read
again by their way from the run folder, `places`: a tree that was moved as a whole is found by it.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from tnr_dist.config.read import read_config, with_overrides
from tnr_dist.config.schema import Config, get
from tnr_dist.data.manifest import manifest_hash
from tnr_dist.util.digests import read_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import JsonObject

C = TypeVar("C", bound=Config)
DATA, PLM = "data.dir", "plm.name"
_FOLDERS = ("output", DATA, "data.input", "data.corpus", "deepspeed.config", "evaluate.run")


def absolute(config: Config) -> Config:
    """A copy in which every path of the local file system is absolute."""
    one = copy.deepcopy(config)
    for key in _FOLDERS:
        if (folder := get(one, key)) and isinstance(folder, str):
            _set(one, key, _absolute(folder))
    if one.data.shards and not re.search(r"://|pipe:|file:", one.data.shards):  # also inside a list of braces
        one.data.shards = _absolute(one.data.shards)
    one.plm.name = _absolute_plm(one.plm.name)
    for row in one.rows:
        pairs = [setting.partition("=") for setting in row.set]
        row.set = [f"{key}={_absolute_plm(value) if key == PLM else value}" for key, _, value in pairs]
    return one


def _absolute(path: Path | str) -> str:
    return os.path.normpath(Path(path).absolute())


def _absolute_plm(name: str) -> str:
    """A local folder's absolute path; a hub id or `package:` name as it is."""
    folder = Path(name).expanduser()
    return _absolute(folder) if not name.startswith("package:") and folder.is_dir() else name


def _set(config: Config, key: str, value: object) -> None:
    section, _, name = key.rpartition(".")
    setattr(get(config, section) if section else config, name, value)


def places(config: Config, run: Path) -> dict[str, str]:
    """The way from a run folder to its data set, and to its PLM where that is a local folder."""
    found = {DATA: _absolute(config.data.dir), PLM: _absolute_plm(config.plm.name)}
    return {key: os.path.relpath(path, run) for key, path in found.items() if Path(path).is_absolute()}


def run_config(kind: type[C], run: Path, overrides: Sequence[str] = ()) -> C:
    """RUN/config.yaml with `data.dir` and `plm.name` where they lie now; as they were written where they are gone.

    `kind` is the tree, `stages.methods.Tree`; `output` is the folder that the run lies in. Raises InputError as `read_config`.
    """
    config = read_config(kind, run / "config.yaml")
    config.output = str(run.parent)
    config.data.dir = str(data_folder(run, config.data.dir) or config.data.dir)
    config.plm.name = next((str(one) for one in candidates(run, PLM, config.plm.name) if one.is_dir()), config.plm.name)
    return with_overrides(config, overrides) if overrides else config


def data_folder(run: Path, written: str) -> Path | None:
    """Where the data set that a run was made from lies now; None where it is gone.

    Args:
        written: `data.dir` of its config.yaml.

    Of several the one that the run's inputs name counts, else the first.
    """
    found = [one for one in candidates(run, DATA, written) if (one / "manifest.json").is_file()]
    inputs = _record(run).get("inputs")
    wanted = inputs.get("data") if isinstance(inputs, dict) else None
    return next((one for one in found if _identity(one) == wanted), found[0] if found else None)


def candidates(run: Path, key: str, written: str) -> list[Path]:
    """Where what `key` names may lie: beside the run folder as it was then, and where config.yaml says."""
    ways = _record(run).get("places")
    way = ways.get(key) if isinstance(ways, dict) else None
    found = [Path(_absolute(run / way))] if isinstance(way, str) else []
    return list(dict.fromkeys([*found, Path(written)]))


def candidates_text(run: Path, key: str, written: str) -> str:
    """`candidates` for a message."""
    return " or ".join(map(str, candidates(run, key, written)))


def _record(run: Path) -> JsonObject:
    """complete.json, or begun.json before it; empty where neither can be read."""
    for name in ("complete.json", "begun.json"):
        if (run / name).is_file():
            try:
                return read_sealed(run / name)
            except InputError:
                return {}
    return {}


def _identity(data: Path) -> str:
    try:
        return manifest_hash(data)
    except InputError:
        return ""
