"""What a pre-trained model is, as one digest."""

from __future__ import annotations

import hashlib

from tnr_dist.models.sources import config_file, find_folder, weight_files
from tnr_dist.models.tokenizer import TokenizerFiles
from tnr_dist.util.digests import digest


def plm_digest(name: str) -> str:
    """What a pre-trained model is, wherever it lies: the sha256 of its weights, configuration and tokenizer.

    Args:
        name: folder, hub id or `package:PACKAGE/FOLDER` (`models.sources.find_folder`).

    Raises:
        InputError: there is no such model, or it has no weights or no tokenizer.
    """
    folder = find_folder(name)
    config = config_file(folder)
    lines = [
        *(f"weights {digest(path)}" for path in weight_files(folder)),
        f"config {digest(config) if config is not None else ''}",
        f"tokenizer {TokenizerFiles.find(folder).hash()}",
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
