"""Ragged token tables on disk."""

import numpy as np
import pytest

from tnr_dist.data.tokens import TableWriter, batched, gather_rows, read_table, token_dtype
from tnr_dist.util.errors import InputError


def write(stem, rows, dtype=np.uint16, piece=3):
    with TableWriter(stem, np.dtype(dtype)) as table:
        for part in batched(len(rows), piece):
            lengths = [len(row) for row in rows[part]]
            values = np.array([x for row in rows[part] for x in row], np.int64)
            table.append(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize("piece", [1, 3, 100])
def test_round_trip(tmp_path, dtype, piece):
    rows = [[1, 2, 3], [], [65_535], [4, 5], [], [6]]
    write(tmp_path / "title", rows, dtype, piece)
    table = read_table(tmp_path / "title")
    assert len(table) == 6 and table.values.dtype == dtype and table.lengths.tolist() == [3, 0, 1, 2, 0, 1]
    assert [table.values[a:b].tolist() for a, b in zip(table.offsets[:-1], table.offsets[1:], strict=True)] == rows
    resident = table.resident()
    assert not isinstance(resident.values, np.memmap) and resident.values.tolist() == table.values.tolist()
    # The hand-written header is one that NumPy reads without a map as well.
    assert np.load(tmp_path / "title.values.npy").tolist() == table.values.tolist()


def test_a_truncated_table_is_not_one(tmp_path):
    write(tmp_path / "title", [[1, 2], [3]])
    path = tmp_path / "title.values.npy"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="not a token table"):
        read_table(tmp_path / "title")


def test_an_empty_table(tmp_path):
    write(tmp_path / "none", [])
    assert len(read_table(tmp_path / "none")) == 0


def test_nothing_appears_when_writing_fails(tmp_path):
    with pytest.raises(RuntimeError), TableWriter(tmp_path / "title", np.dtype(np.uint16)) as table:
        table.append(np.arange(3), np.array([0, 3]))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_missing_and_unfitting_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"title\.values\.npy: no such token table"):
        read_table(tmp_path / "title")
    write(tmp_path / "title", [[1, 2], [3]])
    np.save(tmp_path / "title.offsets.npy", np.array([0, 2, 4]))
    with pytest.raises(InputError, match=r"title\.offsets\.npy: does not fit"):
        read_table(tmp_path / "title")


def test_gather_rows():
    values, offsets = np.array([1, 2, 3, 4, 5, 6], np.uint16), np.array([0, 3, 3, 4, 6])
    flat, out = gather_rows(values, offsets, np.array([3, 1, 0, 0]))
    assert flat.tolist() == [5, 6, 1, 2, 3, 1, 2, 3] and out.tolist() == [0, 2, 2, 5, 8] and flat.dtype == np.uint16
    flat, out = gather_rows(values, offsets, np.array([], np.int64))
    assert flat.tolist() == [] and out.tolist() == [0]


@pytest.mark.parametrize(("size", "dtype"), [(30_522, np.uint16), (65_536, np.uint16), (65_537, np.int32)])
def test_token_dtype_holds_the_vocabulary(size, dtype):
    assert token_dtype(size) == dtype and size - 1 <= np.iinfo(dtype).max


def test_batched_covers_the_range():
    assert [list(range(10))[part] for part in batched(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(batched(0, 4)) == []
