"""Parquet files of texts, a batch at a time and with bounds on what they unpack to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tnr_dist.util.errors import InputError

#: Rows of a file; bytes of a text; bytes that the texts of a batch stand for.
MOST_ROWS = 100_000_000
MOST_TEXT = 16 << 20
MOST_BATCH = 1 << 30
#: Bytes of the columns of a table that is read whole.
MOST_TABLE = 16 << 30
#: A larger group of rows is not expected to unpack to more than this many times its packed size.
MOST_EXPANSION = 200
_SMALL = 1 << 30  # bytes, whatever their expansion
_BATCH = 2_000  # rows


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file; its texts are read as dictionaries, so that one that is repeated a million times is held once.

    Raises InputError for what is no Parquet file, and for one that unpacks to more than it should.
    """
    try:
        schema = pq.read_schema(path)
        texts = [field.name for field in schema if _is_text(field.type)]
        file = pq.ParquetFile(path, read_dictionary=texts)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from None
    found = file.metadata
    if found.num_rows > MOST_ROWS:
        raise InputError(f"{path}: {found.num_rows:,} rows; at most {MOST_ROWS:,} are read")
    for number in range(found.num_row_groups):
        columns = [found.row_group(number).column(one) for one in range(found.num_columns)]
        packed = sum(one.total_compressed_size for one in columns)
        size = sum(one.total_uncompressed_size for one in columns)
        if size > max(_SMALL, MOST_EXPANSION * packed):
            raise InputError(
                f"{path}: its row group {number} unpacks from {packed:,} bytes to {size:,}, more than {MOST_EXPANSION} "
                "times as many"
            )
    return file


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Some columns of a whole file. Raises InputError as `open_parquet` and `read_batches`, and for a missing column."""
    file = open_parquet(path)
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        raise InputError(f"{path}: no column {missing[0]}")
    tables, size = [], 0
    for table in read_batches(file, columns, str(path)):
        tables.append(table)
        size += table.nbytes
        if size > MOST_TABLE:
            raise InputError(f"{path}: stands for more than {MOST_TABLE:,} bytes")
    return pa.concat_tables(tables) if tables else file.read(columns)


def read_batches(file: pq.ParquetFile, columns: list[str], where: str) -> Iterator[pa.Table]:
    """Some columns of a file, texts as large_string. Raises InputError for texts without bound."""
    row = 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            table = pa.Table.from_batches([batch])
            yield pa.table({name: _plain(table[name], name, f"{where}, row", row) for name in columns})
            row += len(table)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{where}: not a readable Parquet file ({error})") from None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain(column: pa.ChunkedArray, name: str, where: str, first: int) -> pa.ChunkedArray:
    """A column without dictionaries, once it is known how long it gets."""
    if not (pa.types.is_dictionary(column.type) and _is_text(column.type.value_type)):
        return column
    for chunk in column.chunks:
        lengths = pc.fill_null(pc.binary_length(chunk.dictionary), 0).take(chunk.indices)
        longest = pc.max(lengths).as_py() or 0
        if longest > MOST_TEXT:
            at = first + pc.index(lengths, longest).as_py()
            raise InputError(f"{where} {at}: {name} of {longest:,} bytes; at most {MOST_TEXT:,} are read")
        if (pc.sum(lengths.cast(pa.int64())).as_py() or 0) > MOST_BATCH:
            raise InputError(
                f"{where} {first}: the column {name} of {_BATCH:,} rows has more than {MOST_BATCH:,} bytes"
            )
        first += len(chunk)
    return column.cast(pa.large_string())
