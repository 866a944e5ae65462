"""Digests that identify what a result depends on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tnr_dist.files import file_hash

_hashed: dict[tuple[str, int, int, int, int], str] = {}  # a file's path, size, times and inode -> its sha256


def plm_digest(name: str) -> str:
    """What a pre-trained model is, wherever it lies: the sha256 of its weights, configuration and tokenizer.

    Args:
        name: folder, hub id or `package:PACKAGE/FOLDER` (`models.sources.find_folder`).

    Raises:
        InputError: there is no such model, or it has no weights or no tokenizer.
    """
    # Only here: what else asks for digests should not have to import torch.
    from tnr_dist.models.plm import config_file
    from tnr_dist.models.sources import find_folder
    from tnr_dist.models.tokenizer import TokenizerFiles
    from tnr_dist.models.weights import weight_files

    folder = find_folder(name)
    config = config_file(folder)
    lines = [
        *(f"weights {_digest(path)}" for path in weight_files(folder)),
        f"config {'' if config is None else _digest(config)}",
        f"tokenizer {TokenizerFiles.find(folder).hash()}",
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(path: Path) -> str:
    found = path.stat()
    key = (str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    if key not in _hashed:
        _hashed[key] = file_hash(path)
    return _hashed[key]
