"""The text of a prediction: read in chunks of whole lines, parsed at once, and the fault of the first bad line."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tnr_dist.evaluation.metrics import Int64s
from tnr_dist.util.errors import InputError

#: The one file in a prediction's zip.
MEMBER = "prediction.txt"

# Bytes of one text chunk when reading; also the longest line that is accepted.
_CHUNK_BYTES = 1 << 22
# The test split's text is 0.28 GiB; this only stops a zip bomb.
_MAX_TEXT_BYTES = 8 << 30

_LARGEST_ID = np.iinfo(np.int64).max
_LINE = re.compile(rb"(0|[1-9]\d{0,18}) \[([1-9]\d{0,8}(?:,[1-9]\d{0,8})*)\]")
_DIGIT, _SPACE, _OPEN, _COMMA, _CLOSE, _NEWLINE = 1, 2, 3, 4, 5, 6
_KIND = np.zeros(256, np.uint8)
_KIND[ord("0") : ord("9") + 1] = _DIGIT
for _character, _kind in zip(" [,]\n", (_SPACE, _OPEN, _COMMA, _CLOSE, _NEWLINE), strict=True):
    _KIND[ord(_character)] = _kind


def read_texts(path: Path) -> Iterator[bytes]:
    """The text in chunks that end with a line's end; all that can be wrong with the zip itself is found here."""
    try:
        if is_text(path):
            if path.stat().st_size > _MAX_TEXT_BYTES:
                raise InputError(f"{path}: {path.stat().st_size} bytes, more than any prediction has; refused")
            with path.open("rb") as text:
                yield from _without_last_blanks(str(path), _whole_lines(str(path), text))
            return
        with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive)) as file:
            name = f"{path}:{MEMBER}"
            yield from _without_last_blanks(name, _whole_lines(name, file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `tnr predict` writes it") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, not a zip file; zip its {MEMBER}") from None
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: not a readable zip file ({error}); write it again") from None


def is_text(path: Path) -> bool:
    """Whether this is the text of a prediction, not yet in a zip."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return re.match(rb"\s*\d+\s+\[", file.read(64)) is not None


def _without_last_blanks(name: str, texts: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines without the blank ones at the end, which the leaderboard's scorer does not read."""
    blank = b""
    for text in texts:
        text = blank + text
        last = len(text.rstrip())
        end = text.find(b"\n", last) + 1 if last else 0
        if end:
            yield text[:end]
        blank = text[end:]
        if len(blank) > 8 * _CHUNK_BYTES:
            raise InputError(
                f"{name}: more than {8 * _CHUNK_BYTES} bytes of blank lines; it needs one line per impression"
            )


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = archive.infolist()
    names = [member.filename for member in members]
    if names != [MEMBER]:
        shown = ", ".join(repr(name) for name in names[:4]) + (", ..." if len(names) > 4 else "")
        raise InputError(
            f"{path}: holds {shown or 'nothing'}; it must hold exactly one file, {MEMBER}, at its top (no folder)"
        )
    member = members[0]
    if member.flag_bits & 1:
        raise InputError(f"{path}: {MEMBER} is encrypted; zip it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: {MEMBER} is packed by an unusual method; use a plain zip (deflate)")
    if member.file_size > _MAX_TEXT_BYTES:
        raise InputError(f"{path}: {MEMBER} claims {member.file_size} bytes, more than any prediction has; refused")
    return member


def _whole_lines(name: str, file: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    # zipfile stops at the size that the archive's directory claims and checks the CRC there.
    while block := file.read(_CHUNK_BYTES):
        text = rest + block
        end = text.rfind(b"\n") + 1
        if end == 0 and len(text) > _CHUNK_BYTES:
            raise InputError(f"{name}: a line of more than {_CHUNK_BYTES} bytes; it needs one line per impression")
        rest = text[end:]
        if end:
            yield text[:end]
    if rest:
        yield rest + b"\n"


def parse(text: bytes) -> tuple[Int64s, Int64s] | None:
    """Ids [I'] and counts of ranks [I'] of whole lines; None if any line is malformed or no permutation.

    Says yes to exactly the texts whose every line `line_fault` accepts; that slow twin finds the words for a fault.
    """
    data = np.frombuffer(text, np.uint8)
    kind = _KIND[data]
    marks = np.flatnonzero(kind != _DIGIT)
    kinds = kind[marks]
    # A line's marks are: space, open, comma ..., close, newline. Its tokens of digits end at space, comma and close.
    newlines = np.flatnonzero(kinds == _NEWLINE)
    spaces = np.concatenate([[0], newlines[:-1] + 1])
    counts = newlines - spaces - 2
    if (counts < 1).any():
        return None
    skeleton = np.full(len(kinds), _COMMA, np.uint8)
    skeleton[spaces], skeleton[spaces + 1], skeleton[newlines - 1], skeleton[newlines] = (
        _SPACE,
        _OPEN,
        _CLOSE,
        _NEWLINE,
    )
    if not np.array_equal(kinds, skeleton):
        return None
    # Digits before each mark: some before space, comma and close; none before open and newline.
    lengths = np.diff(marks, prepend=-1) - 1
    bare = (kinds == _OPEN) | (kinds == _NEWLINE)
    if lengths[bare].any():
        return None
    is_rank = ~bare
    is_rank[spaces] = False
    ids = _numbers(data, marks[spaces], lengths[spaces], 19, zero=True)
    ranks = _numbers(data, marks[is_rank], lengths[is_rank], 9, zero=False)
    if ids is None or ranks is None:
        return None
    starts = np.cumsum(counts) - counts
    if (ranks > np.repeat(counts, counts)).any():
        return None
    seen = np.zeros(len(ranks), np.bool_)
    seen[np.repeat(starts, counts) + ranks - 1] = True
    return (ids, counts) if seen.all() else None


def _numbers(data: NDArray[np.uint8], ends: Int64s, lengths: Int64s, digits: int, zero: bool) -> Int64s | None:
    """The decimal numbers of `lengths` digits before `ends`; None for an empty, too long, too large or zero-led one."""
    if (lengths < 1).any() or (longest := int(lengths.max())) > digits:
        return None
    leading_zero = data[ends - lengths] == ord("0")
    if (leading_zero & (lengths > 1) if zero else leading_zero).any():
        return None
    values = data[ends - 1].astype(np.uint64) - ord("0")  # 19 digits fit
    for place in range(1, longest):
        at = np.flatnonzero(lengths > place)
        values[at] += (data[ends[at] - 1 - place].astype(np.uint64) - ord("0")) * np.uint64(10**place)
    return values.astype(np.int64) if (values <= _LARGEST_ID).all() else None


def is_expected(chunk: tuple[Int64s, Int64s], want: tuple[Int64s, Int64s] | None, first: int) -> bool:
    """Whether a chunk's ids and counts are those of the split from its impression `first` on; True without a split."""
    if want is None:
        return True
    part = slice(first, first + len(chunk[0]))
    return np.array_equal(chunk[0], want[0][part]) and np.array_equal(chunk[1], want[1][part])


def describe_fault(name: str, text: bytes, line: int, want: tuple[Int64s, Int64s] | None) -> str:
    """The message for the first fault in `text`, whose first line has number `line`."""
    for number, content in enumerate(text.split(b"\n")[:-1], line):
        fault = line_fault(content) or split_fault(content, number, want)
        if fault is not None:
            return f"{name} line {number}: {fault}"
    raise AssertionError("the line checks disagree with the chunk checks")


def line_fault(content: bytes) -> str | None:
    """What is wrong with one line by itself."""
    match = _LINE.fullmatch(content)
    if match is None:
        shown = content[:60].decode("ascii", "backslashreplace") + ("..." if len(content) > 60 else "")
        return f"{shown!r} is not of the form `impression_id [rank,rank,...]` (one space, whole numbers, no others)"
    if int(match[1]) > _LARGEST_ID:
        return f"impression id {int(match[1])}, but ids end at {_LARGEST_ID}"
    ranks = [int(rank) for rank in match[2].split(b",")]
    seen: set[int] = set()
    for place, rank in enumerate(ranks, 1):
        if rank > len(ranks):
            return f"rank {rank} of candidate {place}, but there are {len(ranks)} candidates; ranks run from 1 to that"
        if rank in seen:
            return f"rank {rank} of candidate {place} occurs twice; ranks must be a permutation of 1 to {len(ranks)}"
        seen.add(rank)
    return None


def split_fault(content: bytes, number: int, want: tuple[Int64s, Int64s] | None) -> str | None:
    """What differs between a well-formed line and the split."""
    if want is None:
        return None
    if number > len(want[0]):
        return f"one line too many; the split has {len(want[0])} impressions"
    impression, ranks = int(content.split(b" ")[0]), content.count(b",") + 1
    if impression != want[0][number - 1]:
        return f"impression {impression}, but the split has {want[0][number - 1]} there; keep the split's order"
    if ranks != want[1][number - 1]:
        return f"impression {impression} has {ranks} ranks, but {want[1][number - 1]} candidates in the split"
    return None
