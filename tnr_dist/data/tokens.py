"""Ragged token tables: flat values and offsets as memory-mapped `.npy` files, written in one pass of any length."""

from __future__ import annotations

import contextlib
import struct
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path

# What NumPy raises on bytes that are no `.npy` file: its header is a Python expression, parsed and not executed.
NPY_FAULTS = (
    ValueError,
    TypeError,
    OSError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    SyntaxError,
    tokenize.TokenError,
)


@dataclass(frozen=True)
class RaggedTable:
    """U rows of token ids: `values[offsets[i]:offsets[i + 1]]` is row i. Both may be memory-mapped."""

    values: np.ndarray  # [T] uint16 or int32
    offsets: np.ndarray  # [U + 1] int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [U]."""
        return np.diff(self.offsets)

    def resident(self) -> RaggedTable:
        """The same table read into memory."""
        return RaggedTable(np.array(self.values), np.array(self.offsets))


def read_table(stem: Path) -> RaggedTable:
    """Map `<stem>.values.npy` and `<stem>.offsets.npy`; InputError when one is missing or they do not fit."""
    try:
        values = np.load(f"{stem}.values.npy", mmap_mode="r", allow_pickle=False)
        offsets = np.load(f"{stem}.offsets.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such token table; run `tnr data prepare`") from None
    except NPY_FAULTS as error:
        raise InputError(f"{stem}.*.npy: not a token table ({error})") from None
    for name, array in (("values", values), ("offsets", offsets)):
        if array.dtype.kind not in "iu" or array.ndim != 1:
            shape = list(array.shape)
            raise InputError(f"{stem}.{name}.npy: holds {array.dtype} {shape}, not a list of whole numbers")
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(values):
        raise InputError(f"{stem}.offsets.npy: does not fit {stem}.values.npy; prepare the data again")
    falls = offsets[1:] < offsets[:-1]
    if falls.any():
        raise InputError(f"{stem}.offsets.npy: offsets fall after row {int(np.argmax(falls))}; prepare the data again")
    return RaggedTable(values, offsets)


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and int32 that holds every id below `vocab_size`."""
    return np.dtype(np.uint16) if vocab_size <= 1 << 16 else np.dtype(np.int32)


def check_ids(table: RaggedTable, vocab_size: int, where: Path | str) -> None:
    """Raise InputError when a table (in `where`) holds a token id that a word table of `vocab_size` rows has no row for."""
    if len(table.values) and (largest := int(table.values.max())) >= vocab_size:
        raise InputError(
            f"{where}: token id {largest}, but the model's word table has {vocab_size} rows; prepare the data for this PLM"
        )


class _NpyWriter:
    """A one-dimensional .npy file of a length known only at the end."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path, self.dtype, self.count = path, dtype, 0
        self._file = path.open("wb")
        self._file.write(self._header(0))

    def _header(self, count: int) -> bytes:
        # Version 1.0 header padded to 128 bytes, so that rewriting it with the final length moves nothing.
        text = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': ({count},), }}"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode("latin1") + b"\n"

    def append(self, values: np.ndarray) -> None:
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) <= np.iinfo(self.dtype).max:
            raise InputError(f"{self.path.parent}: a token id of {values.min()} to {values.max()} is no {self.dtype}")
        self._file.write(np.ascontiguousarray(values, self.dtype).data)
        self.count += len(values)

    def close(self) -> None:
        with self._file:
            self._file.seek(0)
            self._file.write(self._header(self.count))


class TableWriter:
    """Writes a ragged table piece by piece; it appears under its name only when the block ends without an error."""

    def __init__(self, stem: Path, dtype: np.dtype) -> None:
        self.stem, self.dtype = stem, dtype

    def __enter__(self) -> TableWriter:
        with contextlib.ExitStack() as files:
            # Renamed in the opposite order, offsets last: a table whose values alone were renamed is seen as missing.
            offsets = files.enter_context(atomic_path(f"{self.stem}.offsets.npy"))
            values = files.enter_context(atomic_path(f"{self.stem}.values.npy"))
            self._offsets = files.enter_context(contextlib.closing(_NpyWriter(offsets, np.dtype(np.int64))))
            self._values = files.enter_context(contextlib.closing(_NpyWriter(values, self.dtype)))
            self._offsets.append(np.zeros(1, np.int64))
            self._files = files.pop_all()
        return self

    def append(self, values: np.ndarray, offsets: np.ndarray) -> None:
        """Add rows: flat `values` and their own `offsets` [u + 1] that start at 0."""
        self._offsets.append(offsets[1:].astype(np.int64) + self._values.count)
        self._values.append(values)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)


def positions_of(offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of rows `index` of a ragged table lie: (positions [T] int64, offsets [n + 1] int64)."""
    index = np.asarray(index)
    starts = np.asarray(offsets[index]).astype(np.int64)
    lengths = np.asarray(offsets[index + 1]).astype(np.int64) - starts
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return np.arange(out[-1]) + np.repeat(starts - out[:-1], lengths), out


def gather_rows(values: np.ndarray, offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows `index` of a ragged table: (flat values, offsets [n + 1] int64). Vectorised."""
    positions, out = positions_of(offsets, index)
    return values[positions], out


def join_rows(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Ragged tables (flat values, offsets [n + 1]) of n rows each, row by row one after the other: (values, offsets)."""
    starts = np.cumsum([0] + [len(values) for values, _ in parts[:-1]])
    low = np.stack([offsets[:-1] + start for (_, offsets), start in zip(parts, starts, strict=True)], 1).ravel()
    lengths = np.stack([np.diff(offsets) for _, offsets in parts], 1).ravel()
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    positions = np.arange(ends[-1]) + np.repeat(low - ends[:-1], lengths)
    return np.concatenate([values for values, _ in parts])[positions], ends[:: len(parts)]


def batched(total: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(total)."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
