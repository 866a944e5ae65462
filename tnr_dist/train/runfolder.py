"""A run's folder: resolved configuration, metrics, checkpoints, and the mark that it is complete.

RUN/config.yaml        resolved configuration
RUN/metrics.jsonl      one JSON object a logged step
RUN/checkpoints/STEP/  see train/checkpoint.py
RUN/model.safetensors  the trained model
RUN/results.json       after `tnr evaluate`
RUN/complete.json      written last: the stage's name, an id, the settings and inputs it was made from
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from tnr_dist.config import Config, get, to_dict, to_yaml
from tnr_dist.errors import InputError
from tnr_dist.files import read_json, write_json, write_text

State = str  # "complete", "stale" or "open"


@dataclass(frozen=True)
class RunFolder:
    """`settings`: the dotted keys of the configuration that the result depends on; `inputs`: name -> id of a
    finished input (another run, the data set), so that a result is known to be stale when an input was made again."""

    path: Path
    stage: str
    config: Config
    settings: tuple[str, ...]
    inputs: dict[str, str]
    extra: dict[str, Any]  # further settings that are not keys of the tree, such as a teacher's number

    def identity(self) -> dict[str, Any]:
        """What a complete result must have been made from to be taken as it is."""
        values = {key: get(self.config, key) for key in self.settings}
        chosen = {key: to_dict(value) if is_dataclass(value) else value for key, value in values.items()}
        return {"stage": self.stage, "settings": chosen, "extra": self.extra, "inputs": self.inputs}

    @property
    def id(self) -> str:
        """The finished run's id. Raises InputError when it is not finished."""
        return completed_id(self.path, self.stage)

    def state(self) -> tuple[State, str]:
        """`complete`; `stale` (made from other settings or inputs; the second value says which); or `open`."""
        path = self.path / "complete.json"
        if not path.is_file():
            return "open", ""
        done = read_json(path)
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

    def begin(self, *, redo: bool) -> None:
        """Make the folder ready on rank 0: go on with an unfinished run of the same settings, or start anew.

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
            if not redo and any((self.path / "checkpoints").glob("*")):
                raise InputError(
                    f"{self.path}: holds an unfinished run of other settings; choose another output or delete it"
                )
            state = "stale"
        elif state == "open" and not begun.is_file() and self._occupied():
            if not redo:
                raise InputError(f"{self.path}: exists and is not a run of {self.stage}; choose another output")
            state = "stale"
        if state == "stale":
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(begun, identity)
        write_text(self.path / "config.yaml", to_yaml(self.config))

    def _occupied(self) -> bool:
        # A hidden name is another process of the same stage that is writing begun.json right now.
        return self.path.is_dir() and any(not path.name.startswith(".") for path in self.path.iterdir())

    def finish(self, **facts: Any) -> None:
        """Mark the run complete; `facts` (seconds, steps, ...) are kept with it."""
        write_json(self.path / "complete.json", {"id": uuid.uuid4().hex, **self.identity(), **facts})


def completed_id(path: Path, what: str) -> str:
    """The id in `path/complete.json`. Raises InputError that says which stage to run when there is none."""
    file = path / "complete.json"
    if not file.is_file():
        raise InputError(f"{path}: {what} is not finished there; run that stage first")
    value = read_json(file)
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise InputError(f"{file}: not a completion mark; delete the folder and run {what} again")
    return value["id"]
