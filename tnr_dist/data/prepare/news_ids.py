"""Words of text columns as byte ranges, hashed and looked up without a Python object a word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from tnr_dist.data.tokens import gather_rows

_SPACE = 32
# Bytes that an 8-byte window keeps when the word has only n left.
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)


@dataclass(frozen=True)
class Words:
    """W words of n texts: word w is `data[starts[w]:ends[w]]`, text i has the words offsets[i]:offsets[i + 1]."""

    data: np.ndarray  # [bytes] uint8
    starts: np.ndarray  # [W] int64
    ends: np.ndarray  # [W] int64
    offsets: np.ndarray  # [n + 1] int64

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, word: int) -> str:
        """A word as text, for messages."""
        return self.data[self.starts[word] : self.ends[word]].tobytes().decode("utf-8", "replace")


def bytes_of(values: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """A text column's bytes (uint8) and offsets [n + 1] int64 into them."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    values = values.cast(pa.large_string())
    _, offset_buffer, data_buffer = values.buffers()
    if not len(values):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : values.offset + len(values) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    return data, offsets


def split_words(values: pa.Array | pa.ChunkedArray) -> Words:
    """Space-separated words of each text; repeated, leading and trailing spaces make no words."""
    data, bounds = bytes_of(values)
    base, end = int(bounds[0]), int(bounds[-1])
    spaces = np.flatnonzero(data[base:end] == _SPACE) + base
    rows = np.arange(len(bounds) - 1)
    # Text i is cut into one piece more than it has spaces; `before` counts the spaces before each bound.
    before = np.searchsorted(spaces, bounds)
    total = len(rows) + len(spaces)
    starts, ends = np.empty(total, np.int64), np.empty(total, np.int64)
    first = np.zeros(total, bool)
    first[before[:-1] + rows] = True
    starts[first], starts[~first] = bounds[:-1], spaces + 1
    last = np.zeros(total, bool)
    last[before[1:] + rows] = True
    ends[last], ends[~last] = bounds[1:], spaces
    offsets = np.append(before[:-1] + rows, total)
    solid = ends > starts
    if not solid.all():
        count = np.zeros(total + 1, np.int64)
        np.cumsum(solid, out=count[1:])
        starts, ends, offsets = starts[solid], ends[solid], count[offsets]
    return Words(data, starts, ends, offsets)


def keys_of(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A 64-bit key of each byte range, uint64 [n]; up to 8 bytes it is the bytes themselves (no NUL among them)."""
    longest = int(lengths.max(initial=0))
    windows = _windows(data)
    keys: np.ndarray = windows[starts] & _MASKS[np.minimum(lengths, 8)]
    for done in range(8, longest, 8):
        more = np.flatnonzero(lengths > done)
        piece = windows[starts[more] + done] & _MASKS[np.minimum(lengths[more] - done, 8)]
        keys[more] = mix(keys[more]) ^ piece
    return keys


def equal_ranges(
    data: np.ndarray, starts: np.ndarray, others: np.ndarray, other_starts: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Whether `lengths` bytes from `starts` of `data` on are those from `other_starts` of `others` on, bool [n]."""
    mine, theirs = _windows(data), _windows(others)
    same = np.ones(len(lengths), bool)
    for done in range(0, int(lengths.max(initial=0)), 8):
        more = np.flatnonzero(lengths > done)
        differing = mine[starts[more] + done] ^ theirs[other_starts[more] + done]
        same[more] &= differing & _MASKS[np.minimum(lengths[more] - done, 8)] == 0
    return same


def _windows(data: np.ndarray) -> np.ndarray:
    """Every position's next 8 bytes as one number, uint64 [bytes + 1]; zeros follow the last byte."""
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    return np.ndarray(len(data) + 1, "<u8", padded.data, strides=(1,))


def mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every bit of the result depends on every bit of `x`."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def hash_strings(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A hash of each text's UTF-8 bytes, uint64 [n]: the same on every machine, unlike Python's `hash`."""
    data, offsets = bytes_of(values)
    return mix(keys_of(data, offsets[:-1], np.diff(offsets)))


def gather_ascii(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> pa.Array:
    """Byte ranges as a text column; what is not ASCII becomes a question mark."""
    values, offsets = gather_rows(data, np.stack([starts, ends], 1).ravel(), np.arange(len(starts)) * 2)
    values = np.where(values < 128, values, ord("?")).astype(np.uint8)
    return pa.Array.from_buffers(pa.large_string(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(values)])


@dataclass(frozen=True)
class NewsLookup:
    """News ids to indices by an open-addressing table of their keys; ids of one key are told apart by their bytes."""

    ids: pa.Array

    @cached_property
    def _texts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bytes, where each id starts, its length."""
        data, offsets = bytes_of(self.ids)
        return data, offsets[:-1], np.diff(offsets)

    @cached_property
    def _keys(self) -> np.ndarray:
        return keys_of(*self._texts)

    @cached_property
    def _table(self) -> np.ndarray:
        bits = max(int(len(self._keys) * 4).bit_length(), 4)
        table = np.full(1 << bits, -1, np.int32)
        pending = np.arange(len(self._keys), dtype=np.int32)
        slots = _slots(self._keys, bits)
        while len(pending):
            free = table[slots] < 0
            table[slots[free]] = pending[free]
            left = table[slots] != pending
            pending, slots = pending[left], (slots[left] + 1) & (len(table) - 1)
        return table

    def find(self, words: Words, ending: int = 0) -> np.ndarray:
        """Index of each word without its last `ending` bytes; -1: no such news. int32 [W]."""
        lengths = np.maximum(words.ends - words.starts - ending, 0)
        keys = keys_of(words.data, words.starts, lengths)
        table, known = self._table, self._keys
        if not len(known):
            return np.full(len(words), -1, np.int32)
        slots = _slots(keys, len(table).bit_length() - 1)
        found: np.ndarray = table[slots]
        again = np.flatnonzero((found >= 0) & (known[found] != keys))
        again = np.union1d(again, self._others(words, lengths, found, np.arange(len(words))))
        slots = slots[again]
        while len(again):
            slots = (slots + 1) & (len(table) - 1)
            found[again] = table[slots]
            on = (found[again] >= 0) & (known[found[again]] != keys[again])
            on |= np.isin(again, self._others(words, lengths, found, again))
            again, slots = again[on], slots[on]
        return found

    def _others(self, words: Words, lengths: np.ndarray, found: np.ndarray, among: np.ndarray) -> np.ndarray:
        """Which words, `among` those of these numbers, are not the id found for them, though they may have its key.

        Up to 8 bytes the key is the id itself, so that only longer ones are looked at.
        """
        data, starts, known = self._texts
        if int(known.max(initial=0)) <= 8 and int(lengths.max(initial=0)) <= 8:
            return among[:0]
        suspects = among[found[among] >= 0]
        of = found[suspects]
        suspects = suspects[(lengths[suspects] > 8) | (known[of] > 8)]
        of = found[suspects]
        same = lengths[suspects] == known[of]
        same[same] = equal_ranges(
            words.data, words.starts[suspects[same]], data, starts[of[same]], lengths[suspects[same]]
        )
        others: np.ndarray = suspects[~same]
        return others


def _slots(keys: np.ndarray, bits: int) -> np.ndarray:
    return ((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)).astype(np.int64)
