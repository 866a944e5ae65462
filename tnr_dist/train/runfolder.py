"""A run's folder: resolved configuration, metrics, checkpoints, and the mark that it is complete.

RUN/config.yaml        resolved configuration
RUN/metrics.jsonl      one JSON object a logged step
RUN/checkpoints/STEP/  see train/checkpoint.py
RUN/model.safetensors  the trained model
RUN/results.json       after `tnr evaluate`
RUN/complete.json      written last: the stage's name, an id, the settings and inputs it was made from, size and sha256
                       of the files above (train/finished.py)
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tnr_dist.config import Config, get, to_dict, to_yaml
from tnr_dist.digests import check_seal, write_sealed
from tnr_dist.errors import InputError
from tnr_dist.files import read_json, read_json_object, sweep, write_json, write_text
from tnr_dist.lock import LOCK
from tnr_dist.train.finished import DONE, check_run, describe_run, read_done

State = str  # "complete", "stale" or "open"


@dataclass(frozen=True)
class RunFolder:
    """One result of the pipeline: where it lies, what it depends on and, through `inputs`, what must be made before.

    Attributes:
        name: of the folder; with `folders=hashed` a mark of everything that the result depends on follows it.
        stage: which stage makes it.
        settings: dotted keys of the configuration that the result depends on.
        inputs: what it is made from: other runs, or the id of what is no run (the data set).
        extra: further settings that are not keys of the tree, such as a teacher's number.
    """

    name: str
    stage: str
    config: Config
    settings: tuple[str, ...]
    inputs: dict[str, str | RunFolder]
    extra: dict[str, Any]

    @cached_property
    def path(self) -> Path:
        """The folder."""
        name = f"{self.name}-{self.key[:10]}" if hashed_folders(self.config) else self.name
        return Path(self.config.output) / name

    @cached_property
    def key(self) -> str:
        """Digest of all that the result depends on, known before anything is made."""
        inputs = {name: one.key if isinstance(one, RunFolder) else one for name, one in self.inputs.items()}
        text = json.dumps([self.stage, self._chosen(), self.extra, inputs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _chosen(self) -> dict[str, Any]:
        values = {key: get(self.config, key) for key in self.settings}
        return {key: to_dict(value) if is_dataclass(value) else value for key, value in values.items()}

    @property
    def needs(self) -> list[RunFolder]:
        """The runs that this one is made from."""
        return [one for one in self.inputs.values() if isinstance(one, RunFolder)]

    def identity(self) -> dict[str, Any]:
        """What a complete result must have been made from to be taken as it is.

        Inputs stand by the ids of their finished runs, so that a result is known to be stale when one was made again.
        Raises InputError when one is not finished.
        """
        inputs = {name: one.id if isinstance(one, RunFolder) else one for name, one in self.inputs.items()}
        return {"stage": self.stage, "settings": self._chosen(), "extra": self.extra, "inputs": inputs}

    @property
    def id(self) -> str:
        """The finished run's id. Raises InputError when it is not finished."""
        return completed_id(self.path, self.stage)

    def state(self) -> tuple[State, str]:
        """`complete`; `stale` (made from other settings or inputs; the second value says which); or `open`."""
        path = self.path / "complete.json"
        if not path.is_file():
            return "open", ""
        done = read_json_object(path)
        if not all(isinstance(done.get(part, {}), dict) for part in ("settings", "extra", "inputs")):
            raise InputError(f"{path}: not a completion mark; delete the folder and run {self.stage} again")
        check_seal(path, done)
        mine = json.loads(json.dumps(self.identity()))
        changed = [
            f"{part}.{key}".removeprefix("settings.")
            for part in ("settings", "extra", "inputs")
            for key in sorted({*mine[part], *done.get(part, {})})
            if mine[part].get(key) != done.get(part, {}).get(key)
        ]
        if done.get("stage") != self.stage:
            changed.insert(0, "stage")
        return ("stale", ", ".join(changed)) if changed else ("complete", "")

    def is_complete(self) -> bool:
        """Whether the result is there and undamaged, and so is all it was made from."""
        try:
            if self.state()[0] != "complete":
                return False
            self.check_files()
            return True
        except InputError:
            return False

    def check_files(self) -> None:
        """Raise InputError when a file of the finished run is not what it was when the run ended."""
        check_run(self.path)

    def check(self, *, redo: bool) -> bool:
        """Whether what is in the folder has to go before the run begins; touches nothing.

        A finished or begun run of other settings is only replaced with `redo`; otherwise InputError.
        """
        state, why = self.state()
        begun = self.path / "begun.json"
        identity = json.loads(json.dumps(self.identity()))
        if state == "stale" and not redo:
            raise InputError(
                f"{self.path}: holds a finished run made otherwise ({why}); choose another output or delete it"
            )
        if state == "open" and begun.is_file() and read_json(begun) != identity:
            if not redo and self._holds_work():
                raise InputError(
                    f"{self.path}: holds an unfinished run of other settings; choose another output or delete it"
                )
            state = "stale"
        elif state == "open" and not begun.is_file() and self._occupied():
            if not redo:
                raise InputError(f"{self.path}: exists and is not a run of {self.stage}; choose another output")
            state = "stale"
        return state == "stale"

    def begin(self, *, redo: bool) -> None:
        """Make the folder ready on rank 0: go on with an unfinished run of the same settings, or start anew.

        Raises InputError as `check`.
        """
        if self.check(redo=redo):
            for path in self.path.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, *(path for path in self.path.iterdir() if path.is_dir() and not path.is_symlink())):
            sweep(folder)  # what a killed process was just writing
        write_json(self.path / "begun.json", self.identity())
        write_text(self.path / "config.yaml", to_yaml(self.config))

    def _holds_work(self) -> bool:
        """Whether an unfinished run has got as far as a checkpoint, or a teacher cache as far as a side shard."""
        return any(any(self.path.glob(kept)) for kept in ("checkpoints/*", "*/shard-*.tar"))

    def _occupied(self) -> bool:
        # A hidden name is another process of the same stage that is writing begun.json right now.
        return self.path.is_dir() and any(not path.name.startswith(".") for path in self.path.iterdir())

    def finish(self, **facts: Any) -> None:
        """Mark the run complete; `facts` (seconds, steps, ...) are kept with it."""
        done = {"id": uuid.uuid4().hex, **self.identity(), **facts, "files": describe_run(self.path)}
        write_sealed(self.path / DONE, done)


def hashed_folders(config: Config) -> bool:
    """Whether run folders carry a mark of their settings; `auto`: where rows change settings, so that they may differ."""
    return config.folders == "hashed" or (config.folders == "auto" and any(row.set for row in config.rows))


def in_order(targets: Iterable[RunFolder]) -> list[RunFolder]:
    """The targets and everything that they are made from, each once, inputs first."""
    found: dict[Path, RunFolder] = {}

    def visit(runs: Iterable[RunFolder]) -> Iterator[RunFolder]:
        for run in runs:
            if run.path not in found:
                yield from visit(run.needs)
                found[run.path] = run
                yield run

    return list(visit(targets))


def completed_id(path: Path, what: str) -> str:
    """The id in `path/complete.json`. Raises InputError that says which stage to run when there is none."""
    found: str = read_done(path, what)["id"]
    return found
