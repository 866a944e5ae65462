"""What the ranks of a command must have in common: the configuration, the command, the data and the version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tnr_dist import __version__
from tnr_dist.config.schema import Config, get, to_dict
from tnr_dist.data.manifest import manifest_hash
from tnr_dist.engines.base import Terms
from tnr_dist.util.errors import InputError

# Folders and files, which machines may have mounted at different places.
_FOLDERS = ("output", "evaluate.run", "deepspeed.config")
# What each machine may have of its own. The data is compared by its manifest, wherever it lies, and shards by their digests
# when they are read; the engine compares the device that it chose; only rank 0 speaks to wandb.
_OF_A_MACHINE = ("data.dir", "data.input", "data.corpus", "data.shards", "data.workers", "device", "threads", "ranks")


def terms_of(config: Config, command: str, stop_requested: Callable[[], bool] = lambda: False) -> Terms:
    """The terms on which the ranks of `command` meet; a rank without the data set differs from one that has it."""
    values: dict[str, object] = {"tnr_dist": __version__, "command": command, "data": _data(config)}
    values |= {
        key: value
        for key, value in _leaves(to_dict(config))
        if key not in (*_FOLDERS, *_OF_A_MACHINE) and not key.startswith("wandb.")
    }
    folders = {key: get(config, key) for key in _FOLDERS}
    return Terms(
        {key: _digest(value) for key, value in values.items()},
        {key: str(Path(str(value)).resolve()) if value else "" for key, value in folders.items()},
        stop_requested,
    )


def _data(config: Config) -> str:
    try:
        return manifest_hash(config.data.dir)
    except InputError:  # the stage says what is wrong with it
        return ""


def _leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every key of the configuration, dotted, with its value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
