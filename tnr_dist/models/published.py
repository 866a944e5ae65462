"""Whether a pre-trained model's files are still those that were published, where somebody says what those were.

The Hugging Face cache names a file by its content, and a Python package lists its files with their sha256. Of a folder
of one's own nobody says anything.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

from tnr_dist.util.digests import digest
from tnr_dist.util.errors import InputError


def check_published(source: str, folder: Path, paths: Iterable[Path]) -> None:
    """Raise InputError when one of the files of model `source` in `folder` is known to be another than was published."""
    stated = _of_package(source)
    for path in paths:
        expected = stated.get(path.relative_to(folder).as_posix()) if path.is_relative_to(folder) else None
        if expected is not None:
            sound, again = digest(path) == expected, "install the package again (pip install --force-reinstall)"
        else:
            sound, again = _is_its_blob(path), f"delete {path.resolve()}, and the model is downloaded again"
        if not sound:
            raise InputError(f"{path}: damaged, its digest is not the published one; {again}")


def _is_its_blob(path: Path) -> bool:
    """Whether a file is the blob that the Hugging Face cache names it by; True for any other file."""
    blob = path.resolve()
    if blob.parent.name != "blobs":
        return True
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return digest(blob) == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):  # a small file: the id that Git gives it
        data = blob.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == blob.name
    return True


def _of_package(source: str) -> dict[str, str]:
    """sha256 of the files of `package:PACKAGE/FOLDER` by their path in FOLDER, as the package lists them."""
    if not source.startswith("package:"):
        return {}
    place = source.removeprefix("package:").strip("/") + "/"
    try:
        listed = importlib.metadata.files(place.partition("/")[0]) or []
    except importlib.metadata.PackageNotFoundError:  # its project has another name
        return {}
    return {
        file.as_posix().removeprefix(place): base64.urlsafe_b64decode(file.hash.value + "==").hex()
        for file in listed
        if file.as_posix().startswith(place) and file.hash is not None and file.hash.mode == "sha256"
    }
