"""The teacher cache: what M frozen teachers say of a split, computed once and stored per news and per history.

    cache.json              teachers and their digests, data and tokenizer, dtype and its rounding error, shard digests
    news.safetensors        [M, news, D] news vectors
    SPLIT/shard-NNNNNN.tar  beside each data shard, per block: teacher_users [H, M, D], teacher_logits [candidates, M]

Logits are kept for all candidates, so negatives can be redrawn every epoch and the cache stays exact. A bf16 vector is
stored as its bit pattern (uint16), because NumPy has no bf16.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tnr_dist.data.shards import Block, ShardInfo, unpack_tar
from tnr_dist.errors import InputError
from tnr_dist.files import file_hash, read_json

FORMAT_VERSION = 1


def to_stored(values: Tensor, dtype: str) -> np.ndarray:
    """Float32 values as they are stored: uint16 bit patterns of bf16 (rounded to nearest), or float32."""
    values = values.detach().float().cpu()
    if dtype == "bf16":
        return values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return values.numpy()


def from_stored(values: np.ndarray) -> Tensor:
    """The inverse of `to_stored`; bf16 stays bf16."""
    if values.dtype == np.uint16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


class TeacherCache:
    """Read access to a finished cache.

    Raises InputError when the folder holds none, when it is damaged, or when it does not match `expected` (keys of
    cache.json and the values a stage needs, such as the data's digest and the teachers' ids).
    """

    def __init__(self, folder: Path, expected: dict[str, Any]) -> None:
        if not (folder / "cache.json").is_file():
            raise InputError(f"{folder}: no teacher cache (no cache.json); run `tnr cache` first")
        self.folder, self.facts = folder, read_json(folder / "cache.json")
        self._checked: set[str] = set()
        if not isinstance(self.facts, dict) or self.facts.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{folder / 'cache.json'}: not a teacher cache of format {FORMAT_VERSION}; run `tnr cache` again"
            )
        for key, value in expected.items():
            if self.facts.get(key) != value:
                names = {
                    "teachers": "other teachers",
                    "data": "other data",
                    "tokenizer": "another tokenizer",
                    "history": "another history length",
                }
                raise InputError(
                    f"{folder}: the cache was made from {names.get(key, 'another ' + key)} "
                    f"(it has {_short(self.facts.get(key))}, this stage needs {_short(value)}); run `tnr cache` again"
                )

    @property
    def teachers(self) -> int:
        """M."""
        return len(self.facts["teachers"])

    def news_vectors(self) -> Tensor:
        """[M, news, D] in the stored dtype."""
        path = self.folder / "news.safetensors"
        try:
            if file_hash(path) != self.facts["news"]["sha256"]:
                raise InputError(f"{path}: damaged (digest differs); run `tnr cache` again")
            return load_file(path)["news"]
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(f"{path}: cannot be read ({error}); run `tnr cache` again") from None

    def columns(self, split: str, info: ShardInfo, blocks: dict[str, Block]) -> dict[str, np.ndarray]:
        """A shard's teacher columns in its blocks' order: teacher_users [H, M, D], teacher_logits [candidates, M]."""
        path = self.folder / split / info.name
        digest = self.facts["splits"].get(split, {}).get(info.name)
        if digest is None:
            raise InputError(
                f"{self.folder}: the cache has no side shard for {split}/{info.name}; run `tnr cache` again"
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); run `tnr cache` again") from None
        # A side shard is checked when this process first reads it: hashing 2 GB again every epoch would cost more than
        # reading them.
        if info.name not in self._checked and hashlib.sha256(data).hexdigest() != digest:
            raise InputError(f"{path}: damaged (digest differs); run `tnr cache` again")
        self._checked.add(info.name)
        found: dict[str, dict[str, np.ndarray]] = {}
        for key, field, array in unpack_tar(data, str(path)):
            found.setdefault(key, {})[field] = array
        out: dict[str, np.ndarray] = {}
        for field, per in (("teacher_users", "history_offsets"), ("teacher_logits", "candidate_news")):
            parts = []
            for key, block in blocks.items():
                column = found.get(key, {}).get(field)
                rows = len(block[per]) - (per == "history_offsets")
                if column is None or len(column) != rows:
                    raise InputError(f"{path}: does not fit block {key} of the data; run `tnr cache` again")
                parts.append(column)
            out[field] = np.concatenate(parts)
        return out


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
