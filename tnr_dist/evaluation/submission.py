"""MIND's `prediction.zip`: one line `impression_id [rank,rank,...]` per impression; write and check it.

The ranks stand in candidate order and are a permutation of 1..n; 1 is the highest score. The leaderboard's scorer turns
them back into scores 1 / rank. Its own messages say little about a malformed file, so `check_prediction` is stricter
than it and names the line. Both directions work on chunks of megabytes, never on lines: the test split has 2,370,727.
"""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tnr_dist.evaluation.metrics import Int64s, check_offsets, check_scores
from tnr_dist.evaluation.prediction_text import MEMBER, describe_fault, is_expected, is_text, parse, read_texts
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path

# Candidates of one text chunk when writing: about 3 MiB of text each.
_CHUNK_CANDIDATES = 1 << 20


def write_prediction(
    path: Path | str, impression_ids: np.ndarray, scores: np.ndarray, offsets: np.ndarray, *, threads: int = 2
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
    path: Path | str, expected: Iterable[tuple[np.ndarray, np.ndarray]] | None = None
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
    if is_text(path):
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


def _rank(scores: np.ndarray, offsets: Int64s) -> NDArray[np.int32]:
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


def _format(impression_ids: np.ndarray, ranks: NDArray[np.int32], offsets: Int64s) -> memoryview:
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


def _stream(path: Path, expected: Iterable[tuple[np.ndarray, np.ndarray]] | None) -> Iterator[tuple[Int64s, int]]:
    """Counts of ranks [I'] and bytes of text of each validated chunk of a prediction."""
    name = str(path) if is_text(path) else f"{path}:{MEMBER}"
    want = None if expected is None else _join(expected)
    line = 1
    seen: list[Int64s] = []
    for text in read_texts(path):
        chunk = parse(text)
        if chunk is None:  # as the leaderboard's scorer splits a line
            text = b"".join(b" ".join(content.split()) + b"\n" for content in text.split(b"\n")[:-1])
            chunk = parse(text)
        if chunk is None or not is_expected(chunk, want, line - 1):
            raise InputError(describe_fault(name, text, line, want))
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


def _first_repeated(ids: np.ndarray) -> int | None:
    """The first place whose id stands already at an earlier one."""
    order = np.argsort(ids, kind="stable")
    again = order[1:][ids[order][1:] == ids[order][:-1]]
    return int(again.min()) if len(again) else None


def _join(expected: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[Int64s, Int64s]:
    pairs = [(np.asarray(ids, np.int64), np.asarray(counts, np.int64)) for ids, counts in expected]
    empty = np.zeros(0, np.int64)
    return np.concatenate([empty, *(p[0] for p in pairs)]), np.concatenate([empty, *(p[1] for p in pairs)])
