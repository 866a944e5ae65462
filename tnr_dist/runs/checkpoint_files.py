"""The checkpoints in a run's folder: which steps have one, which of them are sound, and what gives way on a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict, TypeVar

from tnr_dist.util import lease
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import file_hash, json_text, read_json, read_text
from tnr_dist.util.json_types import checked
from tnr_dist.util.progress import say

T = TypeVar("T")
#: What reading a damaged checkpoint may raise.
DAMAGE = (InputError, OSError, KeyError, TypeError, ValueError, AttributeError)
#: Held while checkpoints are removed: the loop's records and the thread that writes checkpoints may both find the disk full.
removing = threading.Lock()
_FULL = (errno.ENOSPC, errno.EDQUOT)


class OptimizerDescription(TypedDict):
    """What of an optimiser's state is no tensor: settings of its groups, numbers by parameter."""

    groups: list[dict[str, object]]
    numbers: dict[str, dict[str, float]]


class BestState(TypedDict):
    """Score and step of the best model so far; its tensors are a file of their own."""

    score: float
    step: int


class Progress(TypedDict, total=False):
    """How far a training has come."""

    fingerprint: str
    samples: float
    skipped_samples: float
    seconds: float
    wandb_id: str
    best: BestState


class State(Progress, total=False):
    """state.json of a checkpoint; `sha256`: of its files of tensors, by name."""

    step: int
    frozen: str
    optimizer: OptimizerDescription
    sha256: dict[str, str]


def sorted_steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, oldest first."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


class Room:
    """What a run's rolling checkpoints hold of a disk that is full.

    Args:
        folder: `checkpoints/` of the run.
        keep_every: checkpoints at multiples of so many steps stay for good; 0: none.
    """

    def __init__(self, folder: Path, keep_every: int) -> None:
        self.folder, self.keep_every = folder, keep_every

    def write(self, work: Callable[[], T]) -> T:
        """`work()`, which writes; where it finds the disk full the oldest checkpoint goes and it is done again.

        The newest sound one stays whatever comes: the run goes on from it if there is no room without it. Raises what
        `work` raises.
        """
        while True:
            try:
                return work()
            except OSError as error:
                if error.errno not in _FULL or not self._free():
                    raise

    def _free(self) -> bool:
        lease.check(self.folder)  # what another process has made there by now is not this one's to remove
        with removing:
            steps = sorted_steps(self.folder)
            newest = next((step for step in reversed(steps) if is_sound(self.folder, step)), None)
            rolling = [one for one in steps if one != newest and not (self.keep_every and one % self.keep_every == 0)]
            if not rolling:
                return False
            say(f"{self.folder / str(rolling[0])}: removed, the disk is full")
            shutil.rmtree(self.folder / str(rolling[0]))
            return True


def sound_state(folder: Path, step: int) -> State:
    """The `state.json` of a checkpoint whose files are what they were when it was written; else one of `DAMAGE`."""
    path = folder / str(step)
    found = read_json(path / "state.json")
    # The text itself, too: another last digit of a long number may be the same number.
    as_written = read_text(path / "state.json") == json_text(found)
    if not isinstance(found, dict) or not as_written or found.pop("self", "") != json_digest(found):
        raise InputError(f"{path / 'state.json'}: damaged (digest differs)")
    state = checked(found, State, f"{path / 'state.json'}: ")
    for name, digest in state["sha256"].items():
        if file_hash(path / f"{name}.safetensors") != digest:
            raise InputError(f"{path / name}.safetensors: damaged (digest differs)")
    if state["step"] != step:
        raise InputError(f"{path / 'state.json'}: is of step {state['step']}")
    return state


def is_sound(folder: Path, step: int) -> bool:
    """Whether a checkpoint's files are what they were when it was written."""
    try:
        return bool(sound_state(folder, step))
    except DAMAGE:
        return False


def json_digest(state: Mapping[str, object]) -> str:
    """The sha256 of a state, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
