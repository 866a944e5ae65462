"""Raw text files and configurations: any bytes are read or refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.damage import anything, damaged, fuzzed, sound_or_refused
from tests.unit.data.prepare.raw import random_split
from tnr_dist.data.prepare.impressions import build_blocks, is_labelled
from tnr_dist.data.prepare.news_ids import NewsLookup
from tnr_dist.data.prepare.raw import Source, chunks_of, parse_behaviours, read_news, scan_chunk
from tnr_dist.data.prepare.texts import read_corpus
from tnr_dist.data.shards import block_fault
from tnr_dist.stages.methods import load_config
from tnr_dist.util.files import read_json

pytestmark = pytest.mark.fuzz

SPLIT = random_split(5, rows=12, users=4, news=14, unknown=2)
NEWS = SPLIT.news_text().encode()
BEHAVIORS = SPLIT.behaviours_text().encode()
CORPUS = b"".join(b"N%d\tnews\tx\tA title %d\tAn abstract\tA body\n" % (i, i) for i in range(6))
NAMED = b"title\tbody\nA title\tA body\nAnother\t\n"
CONFIG = b"""output: runs/x
data: {dir: d, history: 10, news_inputs: [title, category]}
model: &m {news_dim: 16}
stage2: {lr: 1e-4, betas: [0.9, 0.999]}
rows:
  - {name: a, method: finetune, layers: 1, set: [stage2.beta2=0.5]}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


@fuzzed
@given(anything(NEWS))
def test_news(path, data):
    path.write_bytes(data)
    table = sound_or_refused(lambda: read_news(Source(path)))
    if table is not None:
        assert len(set(table["id"].to_pylist())) == len(table) == len(data.rstrip(b"\r\n").split(b"\n"))


def read_behaviors(path):
    """Both passes over a behaviours file, without the files between them."""
    lookup = NewsLookup(pa.array(SPLIT.news))
    parts = []
    for chunk in chunks_of(path, 256, "behaviors.tsv"):
        scan_chunk(chunk, "behaviors.tsv").user_keys()
        rows = np.arange(chunk.lines) + chunk.first_line - 1
        table = parse_behaviours(chunk.read(), rows, "behaviors.tsv")
        parts += build_blocks(table, lookup, is_labelled(path), 4, "behaviors.tsv")[0]
    return parts


@fuzzed
@given(anything(BEHAVIORS))
@example(
    b"1000000000000000000\tU\t11/15/2019 8:55:22 AM\t\tN1-0\n9223372036854775808\tU\t11/15/2019 8:55:22 AM\t\tN1-0\n"
)
@example(b" 1\tU\t11/15/2019 8:55:22 AM\t\tN1-0\n")
@example(b"+1\tU\t11/15/2019 8:55:22 AM\t\tN1-0\n")
@example(b"1\tU\t11/15/99999 8:55:22 AM\t\tN1-0\n")
def test_behaviors(path, data):
    path.write_bytes(data)
    for block in sound_or_refused(lambda: read_behaviors(path)) or []:
        assert block_fault(block) is None


@fuzzed
@given(st.one_of(anything(CORPUS), anything(NAMED)))
def test_corpus(path, data):
    path.write_bytes(data)
    for table in sound_or_refused(lambda: list(read_corpus(path, 128))) or []:
        assert {"title", "body"} <= set(table.column_names)


@fuzzed
@given(anything(CONFIG))
@example(b"output: 2019-02-31\n")
@example(b"? {a: b}\n: c\n")
@example(b"seed: 0x_\n")
@example(b"seed: 1:60:99\n")
@example(b"seed: !!int x\n")
@example(b"seed: !!float '.'\n")
@example(b"a: !!binary x\n")
@example(b"!!set {a, b}\n")
@example(b"seed: !!timestamp x\n")
@example(b"seed: " + b"1" * 5000)
@example(b"<<: [1]\n")
@example(b"stage2: {<<: *m}\n")
def test_config(path, data):
    path.write_bytes(data)
    config = sound_or_refused(lambda: load_config(path))
    if config is not None:
        assert config.data.history > 0


@fuzzed
@given(damaged(b"stage2.betas=[0.9, 0.99]"))
@example(b"stage2.lr=1_000")
@example(b"rows=[{name: a, set: [rows=3]}]")
@example(b"rows=[[1]]")
@example(b"data={dir: 3}")
def test_override(data):
    sound_or_refused(lambda: load_config(None, [data.decode("utf-8", "replace")]))


@fuzzed
@given(anything(b'{"a": [1, 2.5, null, true], "b": {"c": "x"}}'))
@example(b"1" * 5000)
@example(b"[" * 100_000)
def test_json(path, data):
    path.write_bytes(data)
    sound_or_refused(lambda: read_json(path))
