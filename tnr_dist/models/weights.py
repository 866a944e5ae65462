"""Tensors in files: read published weights without executing anything, and save and load our own models."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tnr_dist.models.sources import MODEL_FILE, weight_files
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path
from tnr_dist.util.json_types import JsonObject

# What torch.load raises on content that is no checkpoint, or a cut one, besides UnpicklingError.
_NOT_A_CHECKPOINT = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
)

_NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

#: In a safetensors file's metadata: `tensors_digest` of what it holds.
DIGEST = "tensors_sha256"


def read_weights(folder: Path) -> tuple[dict[str, Tensor], Path]:
    """All tensors of a published model, on the CPU, and the file to name in messages.

    Looks for model.safetensors, a sharded model.safetensors.index.json, pytorch_model.bin, then a single *.bin.

    Raises:
        InputError: no such file, a corrupt one, or one that holds anything but tensors.
    """
    paths = weight_files(folder)
    if len(paths) > 1:
        weights = {key: value for path in paths[1:] for key, value in read_safetensors(path)[0].items()}
    elif paths[0].name == MODEL_FILE:
        weights, metadata = read_safetensors(paths[0])
        if metadata.get(DIGEST, "") not in ("", tensors_digest(weights)):
            raise InputError(f"{paths[0]}: damaged, its weights are not what was written; convert them again")
    else:
        weights = _read_bin(paths[0])
    return weights, paths[0]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the names, kinds, shapes and values of tensors on the host."""
    found = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        found.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        found.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of one safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:  # said of a file that may not be read, too
        why = "permission denied; change its permissions" if path.is_file() else "no such file"
        raise InputError(f"{path}: {why}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None


def _read_bin(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about pickle protocols; what it cannot read is an error below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: refused: it holds pickled objects that are not tensors (or is damaged); "
            "convert it to safetensors where you trust it"
        ) from None
    except _NOT_A_CHECKPOINT as error:
        raise InputError(f"{path}: not a readable PyTorch file ({_line(error)}); fetch it again") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: key {key!r} holds a {type(value).__name__}, not a tensor")
    return dict(content)


def save_model(module: nn.Module, path: Path | str, architecture: Mapping[str, object]) -> Path:
    """Write a module's state dict with a description of its architecture, atomically.

    Args:
        module: any module; its tensors are written as they are.
        path: a `.safetensors` file, or a folder, which gets `model.safetensors`.
        architecture: JSON values from which the module can be built again, kept in the file's metadata.

    Returns:
        The file written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        path = path / MODEL_FILE
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    with atomic_path(path) as temporary:
        save_tensors(state, temporary, {"format": "pt", "architecture": json.dumps(architecture)})
    return path


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; the same values are the same bytes."""
    save_file(dict(tensors), path, metadata=dict(metadata))
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Put a safetensors file's metadata into one order: the library's own differs from call to call."""
    with path.open("r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size  # the same keys and values, as compact as before
        file.seek(8)
        file.write(text.ljust(size))


def load_state(path: Path | str) -> tuple[dict[str, Tensor], JsonObject]:
    """State dict and architecture of a file (or folder) written by `save_model`."""
    path = model_file(path)
    state, metadata = read_safetensors(path)
    try:
        architecture = json.loads(metadata["architecture"])
    except (KeyError, ValueError, RecursionError):
        raise InputError(f"{path}: has no architecture in its metadata; it was not written by tnr_dist") from None
    if not isinstance(architecture, dict):
        raise InputError(f"{path}: its architecture is no object; it was not written by tnr_dist")
    return state, architecture


def model_file(path: Path | str) -> Path:
    """The file of a saved model given as a file or as its folder."""
    path = Path(path)
    return path / MODEL_FILE if path.is_dir() else path


def check_number(value: Tensor, what: str) -> None:
    """Raise InputError for a tensor of whole, complex or 8-bit numbers, as quantised weights are: casting loses the scale."""
    if value.dtype not in _NUMBERS:
        name = str(value.dtype).removeprefix("torch.")
        raise InputError(f"{what} holds {name} numbers, not floating point of 16 bits or more; use unquantised weights")


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy `state` into `module`; every key must match in name and shape.

    Raises:
        InputError: names `source` and the first missing, unexpected or wrongly shaped key, or one that holds NaN or no
            floating point numbers.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing:
        raise InputError(f"{source}: key {missing[0]} is missing ({len(missing)} in all); another architecture?")
    if unexpected:
        raise InputError(f"{source}: unexpected key {unexpected[0]} ({len(unexpected)} in all); another architecture?")
    for key, value in own.items():
        if value.is_floating_point():
            check_number(state[key], f"{source}: key {key}")
        if value.shape != state[key].shape:
            raise InputError(f"{source}: key {key} has shape {list(state[key].shape)}, expected {list(value.shape)}")
        if not torch.isfinite(state[key]).all():
            raise InputError(f"{source}: key {key} is not finite (NaN or infinity); fetch or train the model again")
    module.load_state_dict(dict(state))


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
