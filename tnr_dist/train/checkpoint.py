"""Checkpoints: written whole, checked by digest, and read without executing anything.

    checkpoints/STEP/model.safetensors      what trains (and buffers); frozen weights are identified by their digest
    checkpoints/STEP/optimizer.safetensors  optimiser tensors, `<parameter name>/<state name>`
    checkpoints/STEP/state.json             epoch, step, loader fingerprint, optimiser numbers, digests of the above

Random numbers need no state: every step seeds its own from (seed, step, rank).
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tnr_dist.engines.base import Engine
from tnr_dist.errors import InputError
from tnr_dist.files import atomic_path, file_hash, read_json, write_json
from tnr_dist.progress import say


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters that train, and buffers, by name."""
    state = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    state.update({name: b.detach() for name, b in module.named_buffers()})
    return state


def frozen_digest(module: nn.Module) -> str:
    """A digest of the parameters that do not train: resuming on other frozen weights would be a silent fault."""
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(folder: Path, engine: Engine, step: int, state: dict[str, Any], keep: int) -> None:
    """Write `folder/STEP` atomically on rank 0 and remove all but the newest `keep`."""
    optimizer = engine.state_dict()
    if engine.environment.rank != 0:
        return
    names = _parameter_names(engine)
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    for position, values in optimizer["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{names[position]}/{key}"] = value.detach().contiguous()
            else:
                numbers.setdefault(names[position], {})[key] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer["param_groups"]]
    # A folder of this step can only be one that was found damaged when the run resumed.
    shutil.rmtree(folder / str(step), ignore_errors=True)
    with atomic_path(folder / str(step)) as temporary:
        temporary.mkdir()
        save_file({k: v.contiguous() for k, v in trained_state(engine.module).items()}, temporary / "model.safetensors")
        save_file(tensors, temporary / "optimizer.safetensors")
        write_json(
            temporary / "state.json",
            {
                **state,
                "step": step,
                "frozen": frozen_digest(engine.module),
                "optimizer": {"groups": _plain(groups), "numbers": numbers},
                "sha256": {name: file_hash(temporary / f"{name}.safetensors") for name in ("model", "optimizer")},
            },
        )
    for old in sorted_steps(folder)[:-keep]:
        shutil.rmtree(folder / str(old))


def _plain(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: list(v) if isinstance(v, tuple) else v for k, v in g.items() if not isinstance(v, Tensor)} for g in groups
    ]


def _parameter_names(engine: Engine) -> dict[int, str]:
    """Optimiser position -> parameter name."""
    by_id = {id(p): name for name, p in engine.module.named_parameters()}
    ordered = [p for group in engine.optimizer.param_groups for p in group["params"]]
    return {position: by_id[id(p)] for position, p in enumerate(ordered)}


def sorted_steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, oldest first."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def load_newest(folder: Path, engine: Engine, fingerprint: str) -> dict[str, Any] | None:
    """Restore module and optimiser from the newest sound checkpoint; returns its state, or None when there is none.

    A damaged one is skipped with a message. Raises InputError for a checkpoint of other data or other frozen weights.
    """
    for step in reversed(sorted_steps(folder)):
        path = folder / str(step)
        try:
            state = read_json(path / "state.json")
            for name, digest in state["sha256"].items():
                if file_hash(path / f"{name}.safetensors") != digest:
                    raise InputError(f"{path / name}.safetensors: damaged (digest differs)")
            model = load_file(path / "model.safetensors")
            tensors = load_file(path / "optimizer.safetensors")
        except (InputError, OSError, SafetensorError, KeyError, TypeError) as error:
            if engine.environment.rank == 0:
                say(f"checkpoint {path} is not used: {error}; trying the one before")
            continue
        if state["fingerprint"] != fingerprint:
            raise InputError(
                f"{path}: was saved on other data, seed or batch size; delete the run or restore its settings"
            )
        if state["frozen"] != frozen_digest(engine.module):
            raise InputError(
                f"{path}: was saved with other frozen weights (another PLM or earlier stage); delete the run"
            )
        expected = trained_state(engine.module)
        if set(model) != set(expected):
            raise InputError(f"{path}: holds other parameters than the model; delete the run or restore its settings")
        with torch.no_grad():
            for name, value in expected.items():
                value.copy_(model[name])
        engine.load_state_dict(_optimizer_state(engine, state["optimizer"], tensors))
        return state
    return None


def _optimizer_state(engine: Engine, saved: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    names = _parameter_names(engine)
    position = {name: number for number, name in names.items()}
    values: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        name, _, what = key.rpartition("/")
        values.setdefault(position[name], {})[what] = tensor
    for name, numbers in saved["numbers"].items():
        values.setdefault(position[name], {}).update(numbers)
    current = engine.optimizer.state_dict()["param_groups"]
    groups = [{**now, **then} for now, then in zip(current, saved["groups"], strict=True)]
    return {"state": values, "param_groups": groups}
