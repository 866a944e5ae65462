"""Checkpoints: written whole, checked by digest, and read without executing anything.

    checkpoints/STEP/model.safetensors      what trains (and buffers); frozen weights are identified by their digest
    checkpoints/STEP/optimizer.safetensors  optimiser tensors, `<parameter name>/<state name>`
    checkpoints/STEP/best.safetensors       with a validation: what trains, as it was when it scored best
    checkpoints/STEP/state.json             epoch, step, loader fingerprint, optimiser numbers, digests of the above

Random numbers need no state: every step seeds its own from (seed, step, rank).

On a full disk older checkpoints make room for a newer one, and for the model in the end (`Room`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tnr_dist.engines.base import Engine, OptimizerState
from tnr_dist.runs.checkpoint_files import (
    DAMAGE,
    OptimizerDescription,
    Progress,
    Room,
    State,
    json_digest,
    removing,
    sorted_steps,
    sound_state,
)
from tnr_dist.util import lease
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, file_hash, write_json
from tnr_dist.util.progress import say
from tnr_dist.util.restarts import mark_progress

TensorFiles = dict[str, dict[str, Tensor]]  # a checkpoint's, by name


class Loaded(State):
    """The state of a checkpoint that was read, and its further tensors."""

    tensors: TensorFiles


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters that train, and persistent buffers, by name; tables in non-persistent ones are read again, not saved."""
    saved = module.state_dict(keep_vars=True)
    state = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    state.update({name: b.detach() for name, b in module.named_buffers() if name in saved})
    return state


def frozen_digest(module: nn.Module) -> str:
    """A digest of the parameters that do not train: resuming on other frozen weights would be a silent fault."""
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Checkpoints:
    """A run's checkpoints: saved beside the training, read by every rank.

    Args:
        folder: `checkpoints/` of the run.
        engine: set up; its module's frozen weights must be those it will have.
        keep: rolling checkpoints that stay.
        keep_every: checkpoints at multiples of so many steps stay for good; 0: none.
    """

    def __init__(self, folder: Path, engine: Engine, keep: int, keep_every: int = 0) -> None:
        self.folder, self.engine, self.keep, self.keep_every = folder, engine, keep, keep_every
        self._room = Room(folder, keep_every)
        self._frozen = frozen_digest(engine.module)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._step = 0
        if engine.environment.rank == 0:
            for left in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
                shutil.rmtree(left, ignore_errors=True)

    def save(self, step: int, state: Progress, extra: TensorFiles | None = None) -> None:
        """Copy what a checkpoint needs and write it beside the next steps; a collective.

        A save that is still being written is waited for, so that there is never more than one copy. One that fails (a
        full disk) is reported and skipped: training goes on, the one before it stays. `extra`: further files of tensors
        on the host, by name.
        """
        self.wait()
        optimizer = self.engine.state_dict()
        with self.engine.whole():
            if self.engine.environment.rank != 0:
                return
            model = {name: _copy(value) for name, value in trained_state(self.engine.module).items()}
        tensors, description = _describe(optimizer, _parameter_names(self.engine))
        fields = {**state, "step": step, "frozen": self._frozen, "optimizer": description}
        self._step = step
        files = {"model": model, "optimizer": tensors, **(extra or {})}
        self._writing = self._writer.submit(self._room.write, lambda: self._write(step, files, fields))

    def wait(self, *, must: bool = False) -> None:
        """Until the last save is on disk; `must`: raise what went wrong with it."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, SafetensorError) as error:
            if must:
                kept = sorted_steps(self.folder)
                on = f"continues from step {kept[-1]:,}" if kept else "starts again"
                raise InputError(
                    f"{self.folder / str(self._step)}: the checkpoint cannot be written ({error}); make room and run it "
                    f"again: it {on}"
                ) from None
            say(f"checkpoint at step {self._step:,} was not written ({error}); continuing without it")

    def close(self) -> None:
        """Finish what is being written."""
        self.wait()
        self._writer.shutdown()

    def _write(self, step: int, files: TensorFiles, fields: Mapping[str, object]) -> None:
        with atomic_path(self.folder / str(step)) as temporary:
            temporary.mkdir()
            digests = {}
            for name, values in files.items():
                file = temporary / f"{name}.safetensors"
                save_file(values, file)
                digests[name] = file_hash(file)
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            described = {**fields, "sha256": digests}
            write_json(temporary / "state.json", {**described, "self": json_digest(described)})
            lease.check(self.folder)  # another process that has the run by now may have a sound one of this step
            # A folder of this step can only be one that was found damaged when the run resumed.
            shutil.rmtree(self.folder / str(step), ignore_errors=True)
        mark_progress()
        with removing:
            steps = sorted_steps(self.folder)
            # So can those of later steps. Counted among the rolling ones they would push out this one.
            later = [other for other in steps if other > step]
            rolling = [old for old in steps if old <= step and not (self.keep_every and old % self.keep_every == 0)]
            for old in [*later, *rolling[: -self.keep]]:
                shutil.rmtree(self.folder / str(old))

    def load_newest(self, fingerprint: str) -> Loaded | None:
        """Restore module and optimiser from the newest sound checkpoint; returns its state, or None when there is none.

        The state's `tensors` holds what was saved as `extra`.

        A damaged one is skipped with a message. Raises InputError for a checkpoint of other data or other frozen
        weights, and when the ranks do not see the same one.
        """
        found = self._newest_sound()
        steps = np.concatenate(self.engine.gather(np.array([-1 if found is None else int(found[0]["step"])])))
        if len(set(steps.tolist())) > 1:
            raise InputError(
                f"{self.folder}: the ranks see different checkpoints (steps {', '.join(map(str, steps))}; -1: none); "
                "the run folder must be on a file system that all of them share"
            )
        if found is None:
            return None
        state, files = found
        model, tensors = files.pop("model"), files.pop("optimizer")
        path = self.folder / str(state["step"])
        if state["fingerprint"] != fingerprint:
            raise InputError(
                f"{path}: was saved on other data, seed or batch size; delete the run or restore its settings"
            )
        if state["frozen"] != self._frozen:
            raise InputError(
                f"{path}: was saved with other frozen weights (another PLM or earlier stage); delete the run"
            )
        expected = trained_state(self.engine.module)
        if set(model) != set(expected):
            raise InputError(f"{path}: holds other parameters than the model; delete the run or restore its settings")
        with torch.no_grad():
            for name, value in expected.items():
                value.copy_(model[name])
        self.engine.load_state_dict(_optimizer_state(self.engine, state["optimizer"], tensors))
        return {**state, "tensors": files}

    def _newest_sound(self) -> tuple[State, TensorFiles] | None:
        for step in reversed(sorted_steps(self.folder)):
            path = self.folder / str(step)
            try:
                state = sound_state(self.folder, step)
                names = dict.fromkeys(("model", "optimizer", *state["sha256"]))
                return state, {name: load_file(path / f"{name}.safetensors") for name in names}
            except (*DAMAGE, SafetensorError) as error:
                if self.engine.environment.rank == 0:
                    say(f"checkpoint {path} is not used: {error}; trying the one before")
        return None


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True).contiguous()


def _describe(optimizer: OptimizerState, names: dict[int, str]) -> tuple[dict[str, Tensor], OptimizerDescription]:
    """An optimiser's state as copied tensors `<parameter>/<state>` and JSON values."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    for position, values in optimizer["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{names[position]}/{key}"] = _copy(value)
            else:
                numbers.setdefault(names[position], {})[key] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer["param_groups"]]
    return tensors, {"groups": _plain(groups), "numbers": numbers}


def _plain(groups: list[dict[str, object]]) -> list[dict[str, object]]:
    return [
        {k: list(v) if isinstance(v, tuple) else v for k, v in g.items() if not isinstance(v, Tensor)} for g in groups
    ]


def _parameter_names(engine: Engine) -> dict[int, str]:
    """Optimiser position -> parameter name."""
    by_id = {id(p): name for name, p in engine.module.named_parameters()}
    ordered = [p for group in engine.optimizer.param_groups for p in group["params"]]
    return {position: by_id[id(p)] for position, p in enumerate(ordered)}


def _optimizer_state(engine: Engine, saved: OptimizerDescription, tensors: dict[str, Tensor]) -> OptimizerState:
    names = _parameter_names(engine)
    position = {name: number for number, name in names.items()}
    values: dict[int, dict[str, float | Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, what = key.rpartition("/")
        values.setdefault(position[name], {})[what] = tensor
    for name, numbers in saved["numbers"].items():
        values.setdefault(position[name], {}).update(numbers)
    current = engine.optimizer.state_dict()["param_groups"]
    groups = [{**now, **then} for now, then in zip(current, saved["groups"], strict=True)]
    return {"state": values, "param_groups": groups}
