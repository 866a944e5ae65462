"""The texts of a data set: its news table and its token tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tnr_dist.data.manifest import Counts
from tnr_dist.data.prepare.options import WORK, PrepareOptions
from tnr_dist.data.prepare.raw import RawSplit, read_news, union_news
from tnr_dist.data.prepare.texts import count_empty, tokenise_corpus, tokenise_news, tokenise_pairs, tokenise_titles
from tnr_dist.models.tokenizer import Tokenizer
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, read_json_object, write_json
from tnr_dist.util.json_types import checked
from tnr_dist.util.restarts import mark_progress


def make_texts(
    options: PrepareOptions,
    output: Path,
    tokenizer: Tokenizer,
    raw: dict[str, RawSplit],
    part: tuple[int, int] | None,
    merge: bool,
) -> Counts:
    """news.parquet and the token tables; returns their counts. Done once, then read back.

    Every part needs the news and writes the same bytes under a temporary name first, so parts that run at one time
    do not disturb each other. The token tables, which may take long, are made by part 1 alone.
    """
    done = output / WORK / "texts.json"
    if done.exists():
        return checked(read_json_object(done), Counts, f"{done}: ")
    if merge:
        raise InputError(f"{output}: part 1 has not made the token tables yet; run `--part 1/n` (again)")
    counts: Counts = {}
    news: pa.Table | None = None
    if raw:
        news, differing = union_news([read_news(split.news) for split in raw.values()])
        news = pa.table(
            {"index": pa.array(np.arange(len(news), dtype=np.int32)), **{c: news[c] for c in news.column_names}}
        )
        if not (output / "news.parquet").exists():
            with atomic_path(output / "news.parquet") as temporary:
                pq.write_table(news, temporary, compression="zstd")
        counts["news"] = len(news)
        counts["news_described_differently"] = differing
        counts["empty_titles"] = count_empty(news["title"])
        counts["empty_abstracts"] = count_empty(news["abstract"])
    if part is not None and part[0] != 0:
        return counts
    tokens = output / "tokens"
    tokens.mkdir(parents=True, exist_ok=True)
    if news is not None:
        counts["title_tokens"] = tokenise_titles(
            news["title"], tokens / "title", tokenizer, options.title_tokens, "tokenise titles"
        )
    if news is not None and options.news_inputs != ("title",):
        counts["news_tokens"] = tokenise_news(news, tokens / "news", tokenizer, options.news_lengths)
    if options.corpus:
        path = Path(options.corpus)
        corpus = tokenise_corpus(path, tokens, tokenizer, options.title_tokens, options.body_tokens)
        counts["corpus"] = asdict(corpus)
    elif news is not None:
        corpus = tokenise_pairs(news, tokens, tokenizer, options.body_tokens)
        counts["corpus"] = asdict(corpus)
    write_json(done, counts)
    mark_progress()
    return counts
