"""Fixtures of the whole suite: one small prepared data set, ranks as forked processes, a tiny PLM."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.signals import STOPS
from tests.tiny_plm import write_tiny_plm

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["WANDB_MODE"] = "disabled"  # tests of the logging set their own


# A suite that a shell starts in the background ignores Ctrl-C, and so would the commands that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
HANDLERS = {number: signal.getsignal(number) for number in STOPS}


@pytest.fixture(autouse=True)
def signals_still_end_the_suite() -> Iterator[None]:
    """A handler that a test or one of its fixtures leaves behind would make the suite ignore TERM: an error of that test."""
    yield
    left = [number.name for number in STOPS if signal.getsignal(number) != HANDLERS[number]]
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)
    assert not left, f"left with another handler: {', '.join(left)}"


@pytest.fixture(scope="session", autouse=True)
def digest_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Digests are remembered apart from the user's own."""
    os.environ["TNR_DIGEST_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_plm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT-shaped PLM of 3 layers and random weights with a real vocabulary, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("plm")
    write_tiny_plm(folder)
    return folder


@pytest.fixture(scope="session")
def raw_mind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated MIND-format files: 300 news, 200 users, 600 train impressions, with bodies."""
    from tnr_dist.synth.generate import synthesize

    folder = tmp_path_factory.mktemp("raw") / "mind"
    synthesize(
        folder, news=300, users=200, impressions=600, dev_impressions=150, test_impressions=50, bodies=True, seed=3
    )
    return folder


@pytest.fixture(scope="session")
def prepared(raw_mind: Path, tiny_plm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`raw_mind` prepared with `tiny_plm`'s tokenizer, in blocks of 64 impressions."""
    from tnr_dist.data.prepare.prepare import PrepareOptions, prepare

    folder = tmp_path_factory.mktemp("prepared") / "data"
    options = PrepareOptions(
        input=str(raw_mind),
        corpus=str(raw_mind / "corpus.tsv"),
        plm=str(tiny_plm),
        title_tokens=24,
        body_tokens=40,
        block_size=64,
    )
    prepare(options, folder, processes=1)
    return folder
