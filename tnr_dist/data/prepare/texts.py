"""News corpora for the matching task: (title, body) pairs streamed from TSV or Parquet into token tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tnr_dist.data.parquet import open_parquet, read_batches
from tnr_dist.data.prepare.news_ids import hash_strings
from tnr_dist.data.prepare.raw import check_no_empty_line, check_text, chunks_of, parse_tsv
from tnr_dist.data.prepare.raw_files import check_not_packed
from tnr_dist.data.tokens import TableWriter, batched, gather_rows, join_rows, read_table, token_dtype
from tnr_dist.models.sources import config_file
from tnr_dist.models.tokenizer import TokenizerFiles
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import Bar

_COLUMNS = ["id", "category", "subcategory", "title", "abstract", "body"]
_TOKENISE = 2_000  # texts at a time: the tokenizer's own objects take about ten times the memory of the ids


class TextEncoder(Protocol):
    """What the tables need of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""

    def encode_batch(self, texts: list[str], max_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Texts to (flat ids, offsets)."""


@dataclass
class CorpusCounts:
    """What was kept and dropped of a corpus."""

    articles: int = 0
    kept: int = 0
    without_title: int = 0
    without_body: int = 0
    title_tokens: int = 0
    body_tokens: int = 0


def read_corpus(path: Path, size: int = 1 << 24) -> Iterator[pa.Table]:
    """Tables with columns id, title, body from a TSV (id, category, subcategory, title, abstract, body) or Parquet.

    A TSV's first line may name its columns instead. Where no column is called body, the abstract is it. Raises InputError naming file and line of a bad row.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such corpus file")
    check_not_packed(path)
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
        return
    with path.open("rb") as file:
        head = file.readline(1 << 24).rstrip(b"\r\n").decode("utf-8-sig", "replace").split("\t")
    if head == [""]:
        raise InputError(f"{path}: the file is empty")
    if len(set(head)) < len(head) and "title" in head:
        raise InputError(f"{path}, line 1: a duplicate column among {', '.join(head)}")
    named = "title" in head and ("body" in head or "abstract" in head)
    if not named and len(head) != len(_COLUMNS):
        raise InputError(
            f"{path}, line 1: {len(head)} tab-separated columns; expected {', '.join(_COLUMNS)}, or a header naming title and body"
        )
    for chunk in chunks_of(path, size, str(path)):
        data = chunk.read()
        check_text(data, str(path), chunk.first_line)
        check_no_empty_line(data, str(path), chunk.first_line)
        lines = np.arange(chunk.lines) + chunk.first_line
        table = parse_tsv(data, head if named else _COLUMNS, str(path), lines)
        if named and chunk.first_line == 1:
            table = table.slice(1)
        yield _select(table, str(path))


def _read_parquet(path: Path) -> Iterator[pa.Table]:
    file = open_parquet(path)
    names = set(file.schema_arrow.names)
    if len(names) < len(file.schema_arrow.names):
        raise InputError(f"{path}: a duplicate column among {', '.join(file.schema_arrow.names)}")
    body = "body" if "body" in names else "abstract"
    if not {"title", body} <= names:
        raise InputError(f"{path}: columns {', '.join(sorted(names))}; expected at least title and body")
    for table in read_batches(file, [name for name in ("id", "title", body) if name in names], str(path)):
        try:
            yield _select(table, str(path))
        except pa.ArrowException as error:
            raise InputError(f"{path}: not a readable Parquet file ({error})") from None


def _select(table: pa.Table, where: str) -> pa.Table:
    columns = {}
    names = {"id": "id", "title": "title", "body": "body" if "body" in table.column_names else "abstract"}
    for name, source in names.items():
        if source in table.column_names:
            column = table[source]
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if name != "id" and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise InputError(f"{where}: column {source} holds {column.type}, not text")
            columns[name] = pc.fill_null(column.cast(pa.large_string()), "")
    return pa.table(columns)


def _estimate_articles(path: Path) -> int:
    """How many articles a corpus holds, roughly for a TSV: for the progress bar."""
    if path.suffix == ".parquet":
        return int(open_parquet(path).metadata.num_rows)
    with path.open("rb") as file:
        sample = file.read(1 << 22)
    return round(path.stat().st_size * sample.count(b"\n") / max(len(sample), 1))


def tokenise_corpus(
    path: Path, folder: Path, tokenizer: TextEncoder, title_tokens: int, body_tokens: int
) -> CorpusCounts:
    """Write `folder/corpus_title.*` and `folder/body.*` for the articles that have both; memory stays flat.

    Raises InputError for a repeated article id, or when nothing is left.
    """
    account = CorpusCounts()
    hashes: list[np.ndarray] = []
    with Bar("tokenise corpus", _estimate_articles(path), "articles") as bar:
        for table in _pairs_into(folder, read_corpus(path), tokenizer, title_tokens, body_tokens, account):
            if "id" in table.column_names:
                hashes.append(hash_strings(table["id"].combine_chunks()))
            bar.advance(len(table))
    if hashes:
        _check_distinct(path, np.concatenate(hashes))
    if not account.kept:
        raise InputError(f"{path}: no article has both a title and a body")
    return account


def _check_distinct(path: Path, hashes: np.ndarray) -> None:
    values, counts = np.unique(hashes, return_counts=True)
    if len(values) == len(hashes):
        return
    # Two ids may have one hash: read the file again and compare the ids themselves.
    suspects, seen, before = values[counts > 1], dict[str, int](), 1
    for table in read_corpus(path):
        ids = table["id"].combine_chunks()
        for at in np.flatnonzero(np.isin(hashes[before - 1 : before - 1 + len(ids)], suspects)).tolist():
            place = seen.setdefault(ids[at].as_py(), before + at)
            if place != before + at:
                more = len(hashes) - len(values) - 1
                raise InputError(
                    f"{path}: articles {place} and {before + at} have one id"
                    + (f", and {more:,} more such" if more else "")
                )
        before += len(ids)


def tokenise_pairs(news: pa.Table, folder: Path, tokenizer: TextEncoder, body_tokens: int) -> CorpusCounts:
    """The corpus of a data set that ships no bodies: title and abstract of its own news (columns title, abstract).

    The titles' tokens are taken from `folder/title.*`, which must be there.
    """
    account = CorpusCounts(articles=len(news))
    done = read_table(folder / "title")
    has_title, has_body = _filled(news["title"]), _filled(news["abstract"])
    account.without_title, account.without_body = int((~has_title).sum()), int((~has_body).sum())
    kept = np.flatnonzero(has_title & has_body)
    account.kept = len(kept)
    dtype = token_dtype(tokenizer.vocab_size)
    with (
        TableWriter(folder / "corpus_title", dtype) as titles,
        TableWriter(folder / "body", dtype) as bodies,
        Bar("tokenise abstracts", len(kept), "texts") as bar,
    ):
        for piece in batched(len(kept), _TOKENISE):
            values, offsets = gather_rows(done.values, done.offsets, kept[piece])
            titles.append(values, offsets)
            account.title_tokens += len(values)
            texts = news["abstract"].take(pa.array(kept[piece])).to_pylist()
            account.body_tokens += _append(bodies, tokenizer, texts, body_tokens)
            bar.advance(len(texts))
    return account


def _filled(column: pa.ChunkedArray) -> np.ndarray:
    filled: np.ndarray = pc.not_equal(pc.utf8_trim_whitespace(column), "").to_numpy()
    return filled


def _pairs_into(
    folder: Path,
    tables: Iterator[pa.Table],
    tokenizer: TextEncoder,
    title_tokens: int,
    body_tokens: int,
    account: CorpusCounts,
) -> Iterator[pa.Table]:
    dtype = token_dtype(tokenizer.vocab_size)
    with TableWriter(folder / "corpus_title", dtype) as titles, TableWriter(folder / "body", dtype) as bodies:
        for table in tables:
            has_title, has_body = _filled(table["title"]), _filled(table["body"])
            account.articles += len(table)
            account.without_title += int((~has_title).sum())
            account.without_body += int((~has_body).sum())
            kept = table.filter(pa.array(has_title & has_body))
            account.kept += len(kept)
            for start in range(0, len(kept), _TOKENISE):
                piece = kept.slice(start, _TOKENISE)
                account.title_tokens += _append(titles, tokenizer, piece["title"].to_pylist(), title_tokens)
                account.body_tokens += _append(bodies, tokenizer, piece["body"].to_pylist(), body_tokens)
            yield table


def _append(writer: TableWriter, tokenizer: TextEncoder, texts: list[str], max_length: int) -> int:
    values, offsets = tokenizer.encode_batch(texts, max_length)
    writer.append(values, offsets)
    return len(values)


def tokenise_titles(titles: pa.ChunkedArray, stem: Path, tokenizer: TextEncoder, max_length: int, name: str) -> int:
    """Write one ragged row a title; returns the number of tokens."""
    total = 0
    with TableWriter(stem, token_dtype(tokenizer.vocab_size)) as writer, Bar(name, len(titles), "texts") as bar:
        for start in range(0, len(titles), _TOKENISE * 5):
            texts = titles.slice(start, _TOKENISE * 5).to_pylist()
            total += _append(writer, tokenizer, texts, max_length)
            bar.advance(len(texts))
    return total


def tokenise_news(news: pa.Table, stem: Path, tokenizer: TextEncoder, lengths: dict[str, int]) -> int:
    """Write one ragged row a news that joins several of its texts: [CLS] title [SEP] category [SEP] ... [SEP].

    Args:
        news: has a text column for each input.
        lengths: inputs in their order, each with the tokens kept of it; its [SEP] counts, and the first's [CLS] too.

    Returns:
        The number of tokens. An empty text leaves its [SEP] alone, so that every text keeps its place.
    """
    total = 0
    with TableWriter(stem, token_dtype(tokenizer.vocab_size)) as writer, Bar("tokenise news", len(news), "news") as bar:
        for piece in batched(len(news), _TOKENISE):
            rows = news.slice(piece.start, piece.stop - piece.start)
            parts = []
            for number, (name, length) in enumerate(lengths.items()):
                values, offsets = tokenizer.encode_batch(rows[name].to_pylist(), length + (number > 0))
                parts.append(_without_first(values, offsets) if number else (values, offsets))
            values, offsets = join_rows(parts)
            writer.append(values, offsets)
            total += len(values)
            bar.advance(len(rows))
    return total


def _without_first(values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ragged rows, of at least one value each, without their first value."""
    return np.delete(values, offsets[:-1]), offsets - np.arange(len(offsets))


def check_fits(files: TokenizerFiles) -> None:
    """Raise InputError when the tokenizer has ids that the model beside it, where there is one, does not know."""
    from tnr_dist.models.plm import check_vocabulary, read_config  # only here: they bring torch

    if config_file(files.folder) is not None:
        check_vocabulary(files, read_config(files.folder))


def count_empty(column: pa.ChunkedArray) -> int:
    """Texts of a column that are empty or white space."""
    return int(pc.sum(pc.equal(pc.utf8_trim_whitespace(column), "")).as_py() or 0)
