"""The teacher cache: what M frozen teachers say of a split, computed once and stored per news and per history.

    cache.json              teachers and their digests, data and tokenizer, dtype and its rounding error, shard digests
    news.safetensors        [M, news, D] news vectors
    SPLIT/shard-NNNNNN.tar  beside each data shard, per block: teacher_users [H, M, D], teacher_logits [candidates, M]

Logits are kept for all candidates, so negatives can be redrawn every epoch and the cache stays exact. A bf16 vector is
stored as its bit pattern (uint16), because NumPy has no bf16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tnr_dist.data.shards import ShardInfo, SplitIndex, unpack_tar
from tnr_dist.util.digests import digest, fault
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json, read_json_object
from tnr_dist.util.json_types import checked
from tnr_dist.util.transfer import from_stored

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TeacherColumns:
    """What the teachers say of a shard, in its blocks' order: values, or the rows of `TeacherTables` that hold them.

    Attributes:
        users: a row per history: [H, M, D] in the stored dtype, or [H] int64 rows of the table.
        logits: a row per candidate: [candidates, M] float32, or [candidates] int64 rows of the table.
    """

    users: np.ndarray
    logits: np.ndarray


_COLUMNS: dict[str, Literal["histories", "candidates"]] = {
    "teacher_users": "histories",
    "teacher_logits": "candidates",
}  # member of a side shard -> its rows in the index


class CacheFacts(TypedDict, total=False):
    """cache.json; `splits`: sha256 of every side shard."""

    format_version: int
    tokenizer: str
    data: str
    teachers: list[object]
    history: int
    history_padding: str
    dtype: str
    news: dict[str, object]
    users: dict[str, float]
    splits: dict[str, dict[str, str]]


class TeacherCache:
    """Read access to a finished cache.

    Raises InputError when the folder holds none, when it is damaged, or when it does not match `expected` (keys of
    cache.json and the values a stage needs, such as the data's digest and the teachers' ids).
    """

    def __init__(self, folder: Path, expected: Mapping[str, object]) -> None:
        if not (folder / "cache.json").is_file():
            raise InputError(f"{folder}: no teacher cache (no cache.json); run `tnr cache` first")
        self.folder, facts = folder, read_json(folder / "cache.json")
        if not isinstance(facts, dict) or facts.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{folder / 'cache.json'}: not a teacher cache of format {FORMAT_VERSION}; {self._remake_advice()}"
            )
        for key, kind in (("teachers", list), ("splits", dict), ("news", dict)):
            if not isinstance(facts.get(key), kind):
                raise InputError(f"{folder / 'cache.json'}: {key} is missing or damaged; {self._remake_advice()}")
        self.facts = checked(facts, CacheFacts, f"{folder / 'cache.json'}: ")
        for key, value in expected.items():
            if self.facts.get(key) != value:
                names = {
                    "teachers": "other teachers",
                    "data": "other data",
                    "tokenizer": "another tokenizer",
                    "history": "another history length",
                    "history_padding": "another padding of histories",
                }
                raise InputError(
                    f"{folder}: the cache was made from {names.get(key, 'another ' + key)} "
                    f"(it has {_shorten(self.facts.get(key))}, this stage needs {_shorten(value)}); {self._remake_advice()}"
                )
        done = folder / "complete.json"
        files = read_json_object(done).get("files") if done.is_file() else None
        if isinstance(files, dict) and (found := fault(folder, "cache.json", files)):
            raise InputError(f"{folder / 'cache.json'}: {found}; {self._remake_advice()}")

    @property
    def teachers(self) -> int:
        """M."""
        return len(self.facts["teachers"])

    def news_vectors(self) -> Tensor:
        """[M, news, D] in the stored dtype."""
        path = self.folder / "news.safetensors"
        try:
            if digest(path) != self.facts["news"]["sha256"]:
                raise InputError(f"{path}: damaged (digest differs); {self._remake_advice()}")
            return load_file(path)["news"]
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(f"{path}: cannot be read ({error}); {self._remake_advice()}") from None

    def columns(self, split: str, info: ShardInfo) -> TeacherColumns:
        """The teachers' values of a shard. Raises InputError for a side shard that is missing or damaged."""
        path = self.folder / split / info.name
        digest = self.facts["splits"].get(split, {}).get(info.name)
        if digest is None:
            raise InputError(
                f"{self.folder}: the cache has no side shard for {split}/{info.name}; name {split} in cache.splits, "
                f"{self._remake_advice()}"
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {self._shard_advice()}") from None
        # Every time, as with data shards: bits can flip after the first epoch too, and a run on them would look sound.
        if hashlib.sha256(data).hexdigest() != digest:
            raise InputError(f"{path}: damaged (digest differs); {self._shard_advice()}")
        found: dict[str, dict[str, np.ndarray]] = {}
        for key, field, array in unpack_tar(data, str(path)):
            found.setdefault(key, {})[field] = array
        out: dict[str, np.ndarray] = {}
        for field, per in _COLUMNS.items():
            parts = []
            for block in info.blocks:
                column = found.get(block["key"], {}).get(field)
                if column is None or len(column) != block[per]:
                    raise InputError(f"{path}: does not fit block {block['key']} of the data; {self._remake_advice()}")
                parts.append(column)
            out[field] = np.concatenate(parts)
        return TeacherColumns(out["teacher_users"], out["teacher_logits"])

    # `tnr cache` leaves a complete cache as it is and looks at no digest: what is to be made again must be taken away.

    def _remake_advice(self) -> str:
        return f"delete {self.folder} and run `tnr cache` again"

    def _shard_advice(self) -> str:
        return f"delete it, its .json and {self.folder / 'complete.json'}, then run `tnr cache` again"

    def gib(self, split: str) -> float:
        """Size of a split's side shards."""
        names = self.facts["splits"].get(split, {})
        size: float = (
            sum(path.stat().st_size for name in names if (path := self.folder / split / name).is_file()) / 2**30
        )
        return size


class TableRows:
    """Where each shard's histories and candidates lie in a split's `TeacherTables`.

    Args:
        starts: by shard, the first rows of its histories and candidates, or why its side shard cannot be read.
    """

    def __init__(self, starts: dict[str, tuple[int, int] | InputError]) -> None:
        self._starts = starts

    def columns(self, info: ShardInfo) -> TeacherColumns:
        """A shard's rows of the tables. Raises the InputError of its side shard."""
        starts = self._starts[info.name]
        if isinstance(starts, InputError):
            raise starts
        histories, candidates = (sum(block[per] for block in info.blocks) for per in _COLUMNS.values())
        return TeacherColumns(starts[0] + np.arange(histories), starts[1] + np.arange(candidates))


@dataclass(frozen=True)
class TeacherTables:
    """A split's user vectors and logits as two tables; batches then carry only rows of them.

    Attributes:
        users: [H, M, D] in the stored dtype, histories of all shards.
        logits: [candidates, M] float32, candidates of all shards.
        rows: for the loader; it does not keep the tables alive.
    """

    users: Tensor
    logits: Tensor
    rows: TableRows

    @classmethod
    def read(
        cls, cache: TeacherCache, index: SplitIndex, bar: Callable[[int], None] = lambda shards: None
    ) -> TeacherTables:
        """Read a split's side shards. A damaged one leaves its rows zero, and `rows` raises its InputError.

        Raises InputError when not one can be read. `bar` advances with each shard.
        """
        starts: dict[str, tuple[int, int] | InputError] = {}
        histories, candidates = (sum(b[per] for s in index.shards for b in s.blocks) for per in _COLUMNS.values())
        users = logits = np.zeros(0)
        history = candidate = 0
        for info in index.shards:
            try:
                found = cache.columns(index.split, info)
                if not len(users):
                    users = np.zeros((histories, *found.users.shape[1:]), found.users.dtype)
                    logits = np.zeros((candidates, *found.logits.shape[1:]), found.logits.dtype)
                users[history : history + len(found.users)] = found.users
                logits[candidate : candidate + len(found.logits)] = found.logits
                starts[info.name] = history, candidate
            except InputError as error:
                starts[info.name] = error
            history += sum(block["histories"] for block in info.blocks)
            candidate += sum(block["candidates"] for block in info.blocks)
            bar(1)
        if not len(users):
            first = next((str(fault) for fault in starts.values() if isinstance(fault, InputError)), cache.folder)
            raise InputError(f"{first} (not one side shard of {index.split} can be read)")
        return cls(from_stored(users), from_stored(logits), TableRows(starts))


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
