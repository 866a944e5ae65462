"""MIND's `prediction.zip`: one line `impression_id [rank,rank,...]` per impression; write and check it.

The ranks stand in candidate order and are a permutation of 1..n; 1 is the highest score. The leaderboard's scorer turns
them back into scores 1 / rank. Its own messages say little about a malformed file, so `check_prediction` is stricter
than it and names the line. Both directions work on chunks of megabytes, never on lines: the test split has 2,370,727.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tnr_dist.evaluation.metrics import Int64s, check_offsets, check_scores
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path

MEMBER = "prediction.txt"

# Candidates of one text chunk when writing: about 3 MiB of text each.
_CHUNK_CANDIDATES = 1 << 20
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


def write_prediction(
    path: Path | str, impression_ids: NDArray[Any], scores: NDArray[Any], offsets: NDArray[Any], *, threads: int = 2
) -> None:
    """Write `prediction.zip`, atomically and byte for byte the same for the same scores.

    Args:
        path: the zip file; it holds one member, `prediction.txt`.
        impression_ids: [I] integers, in the split's order.
        scores: [T] float, the candidates' scores in the split's order, impression after impression.
        offsets: [I + 1] integers, impression i holds candidates `offsets[i]` to `offsets[i + 1]`.
        threads: threads that rank and format while the caller's compresses.

    Raises:
        InputError: a score is not finite, an impression has no candidates, an id is negative or occurs twice, or lengths
            do not fit.
    """
    scores, impression_ids = np.asarray(scores), np.asarray(impression_ids)
    offsets = check_offsets(offsets, len(scores))
    check_scores(scores, offsets)
    if len(impression_ids) != len(offsets) - 1 or impression_ids.dtype.kind not in "iu":
        raise InputError(
            f"{len(impression_ids)} impression ids ({impression_ids.dtype}) for {len(offsets) - 1} impressions"
        )
    sizes = np.diff(offsets)
    for wrong, what in ((impression_ids < 0, "a negative id"), (sizes == 0, "no candidates")):
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(f"impression {impression_ids[at]} (index {at}) has {what}: the split is damaged")
    if (again := _first_repeated(impression_ids)) is not None:
        raise InputError(
            f"impression {impression_ids[again]} (index {again}) has the id of an earlier one: a prediction names "
            "impressions by their ids, make them differ in behaviors.tsv"
        )

    def text(first: int, last: int) -> memoryview:
        begin = offsets[first]
        chunk_offsets = offsets[first : last + 1] - begin
        return _format(impression_ids[first:last], _rank(scores[begin : offsets[last]], chunk_offsets), chunk_offsets)

    # A fixed date makes the bytes depend on the scores only.
    member = zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    # Ranks are close to random: higher levels take up to 14 times as long and save a tenth of the size. A ZipInfo has
    # no public way to say so before Python 3.13, and without it the archive's own level is not used.
    member._compresslevel = 1  # type: ignore[attr-defined]
    # The archive entry must say beforehand whether its sizes need 64 bits; 10 bytes hold any rank and its comma.
    large = 10 * len(scores) + 24 * len(impression_ids) >= zipfile.ZIP64_LIMIT
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        ThreadPoolExecutor(max(threads, 1)) as pool,
        archive.open(member, "w", force_zip64=large) as file,
    ):
        ahead: deque[Future[memoryview]] = deque()
        for first, last in _chunks(offsets):
            ahead.append(pool.submit(text, first, last))
            if len(ahead) > threads + 1:
                file.write(ahead.popleft().result())
        while ahead:
            file.write(ahead.popleft().result())


def check_prediction(
    path: Path | str, expected: Iterable[tuple[NDArray[Any], NDArray[Any]]] | None = None
) -> dict[str, int]:
    """Validate a `prediction.zip`; its first fault becomes an error that names the file, the line and what is wrong.

    Args:
        path: the zip file. What the leaderboard's scorer skips is accepted: other white space at the ends of lines and
            between id and ranks, blank lines at the end.
        expected: the split's impressions in order, as `(impression_ids [I'], candidate counts [I'])` a chunk;
            None checks the form alone.

    Returns:
        `impressions` (lines), `candidates` (ranks), `text_bytes`, `zip_bytes`.

    Raises:
        InputError: it is the text itself, not in a zip (its lines are looked at first), the zip is damaged, does not hold exactly `prediction.txt`, a line is not
            `id [rank,rank,...]`, its ranks are no permutation of 1..n, an id is repeated, or ids, their order or the
            counts differ from `expected`.
    """
    path = Path(path)
    impressions = candidates = text_bytes = 0
    for sizes, size in _stream(path, expected):
        impressions += len(sizes)
        candidates += int(sizes.sum())
        text_bytes += size
    if _is_text(path):
        raise InputError(
            f"{path}: its {impressions:,} lines are right, but it is plain text; zip it (zip prediction.zip {MEMBER}, with "
            f"{MEMBER} at the top of the zip)"
        )
    return {
        "impressions": impressions,
        "candidates": candidates,
        "text_bytes": text_bytes,
        "zip_bytes": path.stat().st_size,
    }


def _rank(scores: NDArray[Any], offsets: Int64s) -> NDArray[np.int32]:
    """Rank of each candidate in its impression, 1 = highest score; ties keep candidate order.

    Impressions of one size form a matrix that is sorted row by row.
    """
    sizes = np.diff(offsets)
    ranks = np.empty(len(scores), np.int32)
    by_size = np.argsort(sizes, kind="stable")
    distinct, firsts = np.unique(sizes[by_size], return_index=True)
    for size, rows in zip(distinct, np.split(by_size, firsts[1:]), strict=True):
        # [impressions of this size, size]
        index = offsets[rows][:, None] + np.arange(size)
        order = np.argsort(-scores[index], axis=1, kind="stable")
        matrix = np.empty(order.shape, np.int32)
        np.put_along_axis(matrix, order, np.arange(1, size + 1, dtype=np.int32)[None], axis=1)
        ranks[index] = matrix
    return ranks


def _format(impression_ids: NDArray[Any], ranks: NDArray[np.int32], offsets: Int64s) -> memoryview:
    """The text of some lines. Arrow keeps the strings of an array back to back: its buffer is the file's bytes."""
    words = pa.array(ranks).cast(pa.string())
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), words)
    lines = pc.binary_join_element_wise(
        pa.array(impression_ids).cast(pa.string()), " [", pc.binary_join(lists, ","), "]\n", ""
    )
    return memoryview(lines.buffers()[2])[: _text_bytes(lines)]


def _text_bytes(strings: pa.StringArray) -> int:
    return int(pc.sum(pc.binary_length(strings)).as_py() or 0)


def _chunks(offsets: Int64s) -> Iterator[tuple[int, int]]:
    """Cut impressions into ranges of about `_CHUNK_CANDIDATES` candidates, at least one impression each."""
    first, impressions = 0, len(offsets) - 1
    while first < impressions:
        last = int(np.searchsorted(offsets, offsets[first] + _CHUNK_CANDIDATES, side="right")) - 1
        last = min(max(last, first + 1), impressions)
        yield first, last
        first = last


def _stream(path: Path, expected: Iterable[tuple[NDArray[Any], NDArray[Any]]] | None) -> Iterator[tuple[Int64s, int]]:
    """Counts of ranks [I'] and bytes of text of each validated chunk of a prediction."""
    name = str(path) if _is_text(path) else f"{path}:{MEMBER}"
    want = None if expected is None else _join(expected)
    line = 1
    seen: list[Int64s] = []
    for text in _texts(path):
        chunk = _parse(text)
        if chunk is None:  # as the leaderboard's scorer splits a line
            text = b"".join(b" ".join(content.split()) + b"\n" for content in text.split(b"\n")[:-1])
            chunk = _parse(text)
        if chunk is None or not _as_expected(chunk, want, line - 1):
            raise InputError(_fault(name, text, line, want))
        seen.append(chunk[0])
        line += len(chunk[0])
        yield chunk[1], len(text)
    if line == 1:
        raise InputError(f"{name}: empty; it needs one line per impression")
    if want is not None and line - 1 != len(want[0]):
        raise InputError(
            f"{name}: ends after line {line - 1}, but the split has {len(want[0])} impressions; "
            f"impression {want[0][line - 1]} is the first that is missing"
        )
    ids = np.concatenate(seen)
    again = _first_repeated(ids)
    if again is not None:
        raise InputError(f"{name} line {again + 1}: impression {ids[again]} has a line already")


def _first_repeated(ids: NDArray[Any]) -> int | None:
    """The first place whose id stands already at an earlier one."""
    order = np.argsort(ids, kind="stable")
    again = order[1:][ids[order][1:] == ids[order][:-1]]
    return int(again.min()) if len(again) else None


def _join(expected: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[Int64s, Int64s]:
    pairs = [(np.asarray(ids, np.int64), np.asarray(counts, np.int64)) for ids, counts in expected]
    empty = np.zeros(0, np.int64)
    return np.concatenate([empty, *(p[0] for p in pairs)]), np.concatenate([empty, *(p[1] for p in pairs)])


def _texts(path: Path) -> Iterator[bytes]:
    """The text in chunks that end with a line's end; all that can be wrong with the zip itself is found here."""
    try:
        if _is_text(path):
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


def _is_text(path: Path) -> bool:
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


def _parse(text: bytes) -> tuple[Int64s, Int64s] | None:
    """Ids [I'] and counts of ranks [I'] of whole lines; None if any line is malformed or no permutation.

    Says yes to exactly the texts whose every line `_line_fault` accepts; that slow twin finds the words for a fault.
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


def _as_expected(chunk: tuple[Int64s, Int64s], want: tuple[Int64s, Int64s] | None, first: int) -> bool:
    if want is None:
        return True
    part = slice(first, first + len(chunk[0]))
    return np.array_equal(chunk[0], want[0][part]) and np.array_equal(chunk[1], want[1][part])


def _fault(name: str, text: bytes, line: int, want: tuple[Int64s, Int64s] | None) -> str:
    """The message for the first fault in `text`, whose first line has number `line`."""
    for number, content in enumerate(text.split(b"\n")[:-1], line):
        fault = _line_fault(content) or _split_fault(content, number, want)
        if fault is not None:
            return f"{name} line {number}: {fault}"
    raise AssertionError("the line checks disagree with the chunk checks")


def _line_fault(content: bytes) -> str | None:
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


def _split_fault(content: bytes, number: int, want: tuple[Int64s, Int64s] | None) -> str | None:
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
