"""`tnr bench prepare`: raw files to shards, and a corpus to tokens, on data of MINDlarge's shape."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.synth.generate import synthesize
from tnr_dist.util.memory import TreePeak

# MINDlarge; a smaller scale has fewer users and impressions, but all of the news: their number does not grow with use.
_NEWS, _USERS = 130_379, 711_222
_TRAIN, _DEV, _TEST = 2_232_748, 376_471, 2_370_727  # impressions
_BODY_WORDS = 360  # about 512 tokens


def run(
    scale: float = 1 / 16, input: str | None = None, corpus_articles: int = 6_000, splits: str = "train,dev,test"
) -> dict[str, Any]:
    """Prepare MINDlarge-shaped data of `scale` (or the folder `input`), then a corpus of `corpus_articles` articles.

    `seconds` is the whole of `tnr data prepare` (hashing the sources, both passes, titles and abstracts to tokens);
    `impressions` are those of all splits. `peak_gib` is of the process tree. `corpus_*` are the same for articles with
    bodies of about 512 tokens; 0 articles leave them out. `splits` chooses which generated splits are prepared.
    """
    with tempfile.TemporaryDirectory(prefix="tnr-bench-") as name:
        folder = Path(name)
        if input is None:
            users, train, dev, test = (max(round(n * scale), 1) for n in (_USERS, _TRAIN, _DEV, _TEST))
            _generate(
                folder / "raw", news=_NEWS, users=users, impressions=train, dev_impressions=dev, test_impressions=test
            )
            for split in {"train", "dev", "test"} - set(splits.split(",")):
                shutil.rmtree(folder / "raw" / split)
        options = PrepareOptions(input=input or str(folder / "raw"))
        with TreePeak(every=0.05) as memory:
            start = time.perf_counter()
            manifest = prepare(options, folder / "prepared")
            seconds = time.perf_counter() - start
        counts = manifest["counts"]["splits"].values()
        impressions = sum(split["impressions"] for split in counts)
        result = {
            "impressions": impressions,
            "seconds": seconds,
            "impressions_per_s": impressions / seconds,
            "peak_gib": memory.gib,
            "news": manifest["counts"]["news"],
            "news_per_s": manifest["counts"]["news"] / seconds,
            "candidates": sum(split["candidates"] for split in counts),
            "splits": ",".join(manifest["counts"]["splits"]),
            "scale": scale if input is None else None,
            "processes": os.cpu_count(),
        }
        if corpus_articles:
            result |= _corpus(folder, corpus_articles)
        return result


def _generate(folder: Path, **settings: Any) -> None:
    """`synthesize` in a process of its own, whose memory would otherwise count as `prepare`'s."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(synthesize, folder, **settings).result()


def _corpus(folder: Path, articles: int) -> dict[str, Any]:
    _generate(
        folder / "articles", news=articles, users=10, impressions=10, dev_impressions=10, test_impressions=10,
        bodies=True, body_words=_BODY_WORDS,
    )  # fmt: skip
    options = PrepareOptions(corpus=str(folder / "articles" / "corpus.tsv"))
    with TreePeak(every=0.05) as memory:
        start = time.perf_counter()
        counts = prepare(options, folder / "corpus")["counts"]["corpus"]
        seconds = time.perf_counter() - start
    return {
        "corpus_articles": counts["articles"],
        "corpus_seconds": seconds,
        "corpus_articles_per_s": counts["articles"] / seconds,
        "corpus_tokens_per_s": (counts["title_tokens"] + counts["body_tokens"]) / seconds,
        "corpus_tokens_per_article": counts["body_tokens"] / counts["kept"],
        "corpus_peak_gib": memory.gib,
    }
