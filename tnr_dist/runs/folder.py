"""A run's folder: resolved configuration, metrics, checkpoints, and the mark that it is complete.

RUN/config.yaml        resolved configuration
RUN/metrics.jsonl      one JSON object a logged step
RUN/checkpoints/STEP/  see train/checkpoint.py
RUN/model.safetensors  the trained model
RUN/results.json       after `tnr evaluate`
RUN/begun.json         written first: the stage's name, the settings and inputs it is made from, and their digest, the key
RUN/complete.json      written last: the same, an id, the facts of the result, size and sha256 of the files above (runs/finished.py)

A run is found by its key, under its plain name (`stage2-4`) or with a mark of the key behind it (`stage2-4-0123456789`):
what is the same is shared, whatever the configurations look like that ask for it, and other settings are another run
beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from tnr_dist.config.schema import Config, get, to_dict, to_yaml
from tnr_dist.data.manifest import read_manifest
from tnr_dist.models.digest import plm_digest
from tnr_dist.runs import owned
from tnr_dist.runs.finished import DONE, check_run, describe_run, read_done
from tnr_dist.runs.places import absolute, places
from tnr_dist.util.digests import Stated, check_seal, read_sealed, write_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object, write_text
from tnr_dist.util.json_types import JsonObject
from tnr_dist.util.lock import is_held
from tnr_dist.util.restarts import mark_progress

State = str  # "complete", "stale" or "open"

# What a stage makes: the id of a finished run follows from these files and from its key.
_RESULTS = ("model.safetensors", "models/*.safetensors", "cache.json")
_PARTS = ("settings", "extra", "inputs")
_MARK = re.compile(r"-[0-9a-f]{10}(\.\d+)?$")


def plain_name(folder: str) -> str:
    """A run folder's name without the mark of its key."""
    return _MARK.sub("", folder)


@dataclass(frozen=True)
class RunFolder:
    """One result of the pipeline: where it lies, what it depends on and, through `inputs`, what must be made before.

    Attributes:
        name: of the folder; where another run has it, or with `folders=hashed`, a mark of the key follows it.
        stage: which stage makes it.
        settings: dotted keys of the configuration that the result depends on.
        inputs: what it is made from: other runs, or the id of what is no run (the data set).
        extra: further settings that are not keys of the tree, such as a teacher's number.
        at: the folder that `in_order` gave it; None: where it is found, else where it would go.
    """

    name: str
    stage: str
    config: Config
    settings: tuple[str, ...]
    inputs: dict[str, str | RunFolder]
    extra: Mapping[str, int]
    at: Path | None = None

    @property
    def plain(self) -> Path:
        """The folder of the plain name."""
        return Path(self.config.output) / self.name

    @property
    def marked(self) -> Path:
        """The folder of the name with a mark of the key."""
        return self.plain.with_name(f"{self.name}-{self.key[:10]}")

    @property
    def path(self) -> Path:
        """The folder."""
        if self.at is not None:
            return self.at
        return self.found() or (self.marked if self.config.folders == "hashed" else self.plain)

    def found(self) -> Path | None:
        """The folder that holds this very run, finished or begun; None where there is none.

        Raises InputError when a folder of its name has a mark that is no JSON.
        """
        return next((one for one in (self.plain, self.marked) if owned.recorded(one, "key") == self.key), None)

    @cached_property
    def key(self) -> str:
        """Digest of all that the result depends on, known before anything is made."""
        return self.key_given({})

    def key_given(self, plms: Mapping[str, str]) -> str:
        """The key, with the digests of PLMs that need not be there any more, by name."""
        inputs: dict[str, str] = {}
        for name, one in self.inputs.items():
            inputs[name] = one if isinstance(one, str) else one.key_given(plms) if plms else one.key
        text = json.dumps([self.stage, self._chosen(plms), self.extra, inputs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _chosen(self, plms: Mapping[str, str]) -> dict[str, object]:
        """Settings and values. Of the PLM it is the content that counts, not what it is called."""
        found: dict[str, object] = {}
        for key in self.settings:
            value = get(self.config, key)
            found[key] = to_dict(value) if is_dataclass(value) and not isinstance(value, type) else value
        if "plm" in found:
            name = self.config.plm.name
            plm = {key: value for key, value in to_dict(self.config.plm).items() if key != "name"}
            found["plm"] = plm | {"digest": plms[name] if name in plms else plm_digest(name)}
        return found

    @property
    def needs(self) -> list[RunFolder]:
        """The runs that this one is made from."""
        return [one for one in self.inputs.values() if isinstance(one, RunFolder)]

    def identity(self) -> dict[str, object]:
        """What a complete result must have been made from to be taken as it is.

        Inputs stand by the ids of their finished runs, so that a result is known to be stale when one was made again and
        came out otherwise. Raises InputError when one is not finished.
        """
        inputs = {name: one.id if isinstance(one, RunFolder) else one for name, one in self.inputs.items()}
        return {"stage": self.stage, "settings": self._chosen({}), "extra": self.extra, "inputs": inputs}

    @property
    def id(self) -> str:
        """The finished run's id. Raises InputError when it is not finished."""
        return completed_id(self.path, self.stage)

    def _known_id(self) -> str | None:
        path = self.found()
        return completed_id(path, self.stage) if path is not None and (path / "complete.json").is_file() else None

    def state(self) -> tuple[State, str]:
        """`complete`; `stale` (made from other settings or inputs; the second value says which); or `open`."""
        path = self.path / "complete.json"
        if not path.is_file():
            return "open", ""
        done = read_json_object(path)
        if not all(isinstance(done.get(part, {}), dict) for part in _PARTS):
            raise InputError(f"{path}: not a completion mark; delete the folder and run {self.stage} again")
        check_seal(path, done)
        changed = self.differences(done)
        return ("stale", ", ".join(changed)) if changed else ("complete", "")

    def differences(self, made_from: Mapping[str, object]) -> list[str]:
        """In what a run that a mark describes is not this one. Raises InputError when an input of this one is missing."""
        same = made_from.get("key") == self.key
        inputs = {
            name: one if isinstance(one, str) else one.id if same else one._known_id()
            for name, one in self.inputs.items()
        }
        parts = {"settings": self._chosen({}), "extra": self.extra, "inputs": inputs}
        mine: dict[str, JsonObject] = json.loads(json.dumps(parts))
        theirs = {part: found for part in _PARTS if isinstance(found := made_from.get(part, {}), dict)}
        changed = [
            f"{part}.{key}".removeprefix("settings.")
            for part, found in theirs.items()
            for key in sorted({*mine[part], *found})
            if mine[part].get(key) != found.get(key)
        ]
        if made_from.get("stage") != self.stage:
            changed.insert(0, "stage")
        return changed or ([] if same else ["an earlier version's"])

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

        A finished or begun run of other settings is only replaced with `redo`, and what is not a run of ours never;
        otherwise InputError.
        """
        state, why = self.state()
        begun = self.path / "begun.json"
        if state == "stale" and not redo:
            if owned.recorded(self.path, "key") == self.key:
                raise InputError(
                    f"{self.path}: made from {why.replace('inputs.', '')} as it was before it was made again; `tnr run "
                    "--replace` makes this run again, too"
                )
            raise InputError(
                f"{self.path}: holds a finished run with other settings ({why}); choose another output, or let `tnr run` make "
                "the new one beside it (--replace: in its place)"
            )
        if state == "open" and begun.is_file():
            if not self._is_mine(read_sealed(begun)):
                if not redo and not owned.is_abandoned(self.path):
                    raise InputError(
                        f"{self.path}: holds an unfinished run of other settings; choose another output, or let `tnr run` "
                        "make the new one beside it (--replace: in its place)"
                    )
                state = "stale"
        elif state == "open" and not owned.is_vacant(self.path):
            raise InputError(f"{self.path}: exists and is not a run of {self.stage}; choose another output")
        if state == "stale":
            owned.check_no_link(self.path)
        return state == "stale"

    def _is_mine(self, begun: JsonObject) -> bool:
        mine: JsonObject = json.loads(json.dumps(self.identity()))
        return all(begun.get(part) == value for part, value in mine.items())

    def begin(self, *, redo: bool) -> bool:
        """Make the folder ready on rank 0: resume an unfinished run of the same settings, or start a new one.

        A run that this one replaces stays beside it until this one is complete. Returns whether there was one, so that
        the folder is a new one. Raises InputError as `check`. A run that another job of an array has completed meanwhile
        is left as it is: its files are stated.
        """
        replaces: object = None
        aside = False
        if self.check(redo=redo):
            if owned.is_abandoned(self.path):
                owned.clear(self.path)
            else:
                replaces, aside = owned.set_aside(self.path, self.name).name, True
        elif redo and (self.path / "begun.json").is_file():
            replaces = owned.recorded(self.path, "replaces")
        if (self.path / DONE).is_file():
            return aside
        self.path.mkdir(parents=True, exist_ok=True)
        owned.sweep(self.path)
        write_sealed(self.path / "begun.json", self._mark() | ({"replaces": replaces} if replaces else {}))
        write_text(self.path / "config.yaml", to_yaml(absolute(self.config)))
        return aside

    def _mark(self) -> dict[str, object]:
        tokenizer = read_manifest(self.config.data.dir)["tokenizer"]["hash"]
        return {**self.identity(), "key": self.key, "tokenizer": tokenizer, "places": places(self.config, self.path)}

    def finish(self, **facts: object) -> None:
        """Mark the run complete; `facts` (seconds, steps, ...) are kept with it. The run that it replaces is then deleted."""
        mark = read_sealed(self.path / "begun.json")
        replaces = mark.pop("replaces", None)
        files = describe_run(self.path)
        write_sealed(self.path / DONE, {"id": _id_of(self.key, files), **mark, **facts, "files": files})
        mark_progress()
        if isinstance(replaces, str) and Path(replaces).name == replaces:
            owned.discard(self.path.with_name(replaces))


def _id_of(key: str, files: Stated) -> str:
    """What a finished run is called: the same for a run made again that came out the same, byte for byte."""
    made = sorted(name for name in files if any(fnmatch(name, pattern) for pattern in _RESULTS))
    lines = [key, *(f"{name} {files[name]['sha256']}" for name in made)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def in_order(targets: Iterable[RunFolder], *, instead: bool = False) -> list[RunFolder]:
    """The targets and everything that they are made from, each once, inputs first, each with the folder that it gets.

    A run that is there keeps its folder. A new one gets that of its plain name where nothing is in the way, or where
    (`instead`) another run is that is none of these; else one with a mark of its key. With `folders=hashed` all new ones
    are marked, with `folders=plain` none: then what is in the way is an error when the run begins.

    Raises InputError when two of them would have to share a folder.
    """
    runs: dict[str, RunFolder] = {}

    def visit(wanted: Iterable[RunFolder]) -> None:
        for run in wanted:
            if run.key not in runs:
                visit(run.needs)
                runs[run.key] = run

    visit(targets)
    folders = {key: path for key, run in runs.items() if (path := run.found()) is not None}
    taken = set(folders.values())
    for key, run in runs.items():
        if key not in folders:
            folders[key] = _new_place(run, taken, set(runs), instead)
            taken.add(folders[key])
    return _placed(runs, folders)


def with_folder_names(runs: Sequence[RunFolder], names: Sequence[str]) -> list[RunFolder]:
    """Runs of `in_order` with folders of other names, one a run: those that another process has found."""
    folders = {run.key: run.plain.with_name(name) for run, name in zip(runs, names, strict=True)}
    return _placed({run.key: run for run in runs}, folders)


def _placed(runs: Mapping[str, RunFolder], folders: Mapping[str, Path]) -> list[RunFolder]:
    placed: dict[str, RunFolder] = {}
    for key, run in runs.items():
        inputs = {name: one if isinstance(one, str) else placed[one.key] for name, one in run.inputs.items()}
        placed[key] = replace(run, at=folders[key], inputs=inputs)
    return list(placed.values())


def _new_place(run: RunFolder, taken: set[Path], keys: set[str], instead: bool) -> Path:
    if run.config.folders == "plain":
        if run.plain in taken:
            raise InputError(
                f"{run.plain}: two rows' runs would lie there; with folders=auto each gets a folder of its own"
            )
        return run.plain
    if run.config.folders == "hashed" or run.plain in taken:
        return run.marked
    if (run.plain / "complete.json").is_file():
        completed_id(run.plain, run.stage)  # a damaged mark is said, not passed by
    if owned.is_vacant(run.plain) and not is_held(run.plain):
        return run.plain
    replaced = instead and owned.is_run(run.plain) and owned.recorded(run.plain, "key") not in keys
    return run.plain if replaced else run.marked


def completed_id(path: Path, what: str) -> str:
    """The id in `path/complete.json`. Raises InputError that says which stage to run when there is none."""
    return read_done(path, what)["id"]
