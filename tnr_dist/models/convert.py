"""Published weights of any supported form into one folder of safetensors, configuration and tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from tnr_dist.models.plm import load_plm, to_published
from tnr_dist.models.sources import MODEL_FILE, find_folder
from tnr_dist.models.tokenizer import Tokenizer, load_tokenizer
from tnr_dist.models.transformer import Encoder
from tnr_dist.models.weights import DIGEST, save_tensors, tensors_digest
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, write_json


def convert_plm(source: str, out: Path | str) -> bool:
    """Write model `source` as model.safetensors, config.json and its tokenizer's files.

    `load_plm(out)` gives the same encoder bit for bit, and the tokenizer the same ids. Task heads are left out, weights
    in half precision are written as float32, which is exact. Pickled files are read without executing anything.

    Args:
        source: folder, hub id or package, as `load_plm` takes it; for example the folder with unilm2-base-uncased.bin.
        out: folder to make; appears whole or not at all.

    Returns:
        Whether it was written; False where `out` already holds this very conversion.

    Raises:
        InputError: what `load_plm` raises; or `out` is something else.
    """
    out, folder = Path(out), find_folder(source)
    if out.resolve() == folder.resolve():
        raise InputError(f"{out}: the output is the source itself; give another folder")
    encoder, files = load_plm(str(folder))
    tokenizer = load_tokenizer(files)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        if not _holds(out, encoder, tokenizer):
            raise InputError(f"{out}: exists and is not this conversion of {source}; move it away")
        return False
    with atomic_path(out) as temporary:
        temporary.mkdir()
        weights, values = to_published(encoder)
        save_tensors(weights, temporary / MODEL_FILE, {"format": "pt", DIGEST: tensors_digest(weights)})
        write_json(temporary / "config.json", values)
        tokenizer.save(temporary)
        if not _holds(temporary, encoder, tokenizer):
            raise RuntimeError(f"{out}: what was written does not read back as {source}")
    return True


def _holds(folder: Path, encoder: Encoder, tokenizer: Tokenizer) -> bool:
    """Whether `folder` is a conversion that gives this encoder, bit for bit, and this tokenizer."""
    if not (folder / MODEL_FILE).is_file() or not (folder / "config.json").is_file():
        return False
    try:
        other, files = load_plm(str(folder))
        same_tokens = files.hash() == tokenizer.hash
    except InputError:
        return False
    ours, theirs = encoder.state_dict(), other.state_dict()
    same = same_tokens and other.config == encoder.config and ours.keys() == theirs.keys()
    return same and all(torch.equal(value, theirs[key]) for key, value in ours.items())
