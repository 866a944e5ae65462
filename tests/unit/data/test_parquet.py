"""Parquet files are read with bounds: texts repeated without end, pages that unpack to gigabytes, a billion rows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tnr_dist.data import parquet
from tnr_dist.data.parquet import open_parquet, read_batches, read_table
from tnr_dist.data.prepare.texts import read_corpus
from tnr_dist.util.errors import InputError


def write(path, table, **options):
    pq.write_table(table, path, **options)
    return path


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_are_read_as_they_are(tmp_path, dictionary, kind):
    titles = [None if i % 7 == 0 else f"title {i % 50}" for i in range(5001)]
    bodies = [f"body {i} ü" for i in range(5001)]
    table = pa.table({"title": pa.array(titles).cast(kind), "body": pa.array(bodies), "n": np.arange(5001)})
    path = write(tmp_path / "c.parquet", table, use_dictionary=dictionary, row_group_size=1700)
    tables = list(read_batches(open_parquet(path), ["title", "body", "n"], "x"))
    read = pa.concat_tables(tables)
    assert max(map(len, tables)) <= 2000 and read.schema.field("title").type == pa.large_string()
    assert read.to_pydict() == {"title": titles, "body": bodies, "n": list(range(5001))}
    articles = pa.concat_tables(read_corpus(path)).to_pydict()
    assert articles == {"title": [title or "" for title in titles], "body": bodies}


def test_a_text_that_is_repeated_a_million_times_is_never_laid_out(tmp_path):
    body = pa.DictionaryArray.from_arrays(np.zeros(300_000, np.int32), pa.array(["x" * (8 << 20)]))
    path = write(tmp_path / "c.parquet", pa.table({"title": ["t"] * 300_000, "body": body}))
    assert path.stat().st_size < 1 << 21  # it stands for 2.3 TiB
    before = pa.total_allocated_bytes()
    with pytest.raises(
        InputError, match=r"c\.parquet, row 0: the column body of 2,000 rows has more than 1,073,741,824 bytes"
    ):
        list(read_corpus(path))
    assert pa.total_allocated_bytes() - before < 100 << 20


def test_a_text_without_end_is_refused(tmp_path):
    bodies = [*["b"] * 2500, "x" * (17 << 20), "b"]
    path = write(tmp_path / "c.parquet", pa.table({"title": ["t"] * 2502, "body": bodies}))
    with pytest.raises(
        InputError, match=r"c\.parquet, row 2500: body of 17,825,792 bytes; at most 16,777,216 are read"
    ):
        list(read_corpus(path))


def test_groups_that_unpack_without_bound_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_SMALL", 1 << 20)
    table = pa.table({"title": ["t"] * 50, "body": ["x" * 100_000] * 50})
    path = write(tmp_path / "c.parquet", table, use_dictionary=False, compression="zstd")
    with pytest.raises(InputError, match=r"c\.parquet: its row group 0 unpacks from .* more than 200 times as many"):
        list(read_corpus(path))


def test_a_billion_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_ROWS", 1000)
    path = write(tmp_path / "c.parquet", pa.table({"title": ["t"] * 1001, "body": ["b"] * 1001}))
    with pytest.raises(InputError, match="1,001 rows; at most 1,000 are read"):
        list(read_corpus(path))


def test_a_whole_table(tmp_path, monkeypatch):
    table = pa.table({"id": [f"N{i}" for i in range(5000)], "n": np.arange(5000)})
    path = write(tmp_path / "t.parquet", table)
    assert read_table(path, ["id", "n"]).to_pydict() == table.to_pydict()
    assert read_table(write(tmp_path / "e.parquet", table.slice(0, 0)), ["id"]).num_rows == 0
    with pytest.raises(InputError, match=r"t\.parquet: no column title"):
        read_table(path, ["title"])
    monkeypatch.setattr(parquet, "MOST_TABLE", 20_000)
    with pytest.raises(InputError, match="stands for more than 20,000 bytes"):
        read_table(path, ["id"])
