"""Several inputs of a news in one token row: exactly [CLS] title [SEP] category [SEP] ... [SEP], each cut on its own."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.unit.data.prepare.raw import random_split, write_vocabulary
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare, print_counts
from tnr_dist.data.prepare.verify import verify_prepared
from tnr_dist.data.tokens import join_rows, read_table
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.stages.methods import load_config
from tnr_dist.util.errors import InputError

LENGTHS = {"title": 5, "category": 3, "subcategory": 4, "abstract": 3}


@pytest.fixture(scope="module")
def plm(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("plm"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    random_split(3).write(folder / "train")
    return folder


def options(plm, raw, *inputs, **more):
    lengths = {f"{name}_tokens": length for name, length in LENGTHS.items()}
    return PrepareOptions(
        input=str(raw), plm=plm, max_unknown=1.0, block_size=8, news_inputs=inputs, **(lengths | more)
    )


def by_hand(tokenizer, news, inputs):
    """Each row from its texts one by one, with the tokenizer's ids of words only."""
    cls, sep = tokenizer.token_id("[CLS]"), tokenizer.token_id("[SEP]")
    rows = []
    for texts in news.select(list(inputs)).to_pylist():
        row = [cls]
        for number, name in enumerate(inputs):
            words = tokenizer.encode_batch([texts[name]], 1000)[0].tolist()[1:-1]
            kept = LENGTHS[name] - 1 - (number == 0)  # a place for [SEP], of the first also for [CLS]
            row += [*words[:kept], sep]
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    "inputs", [("title", "category", "subcategory", "abstract"), ("title", "abstract"), ("category", "abstract")]
)
def test_rows_join_the_inputs(tmp_path, plm, raw, inputs, capsys):
    manifest = prepare(options(plm, raw, *inputs), tmp_path / "out", processes=1)
    news = pq.read_table(tmp_path / "out" / "news.parquet")
    assert "" in news["abstract"].to_pylist()  # an empty text leaves its [SEP]
    table = read_table(tmp_path / "out" / "tokens" / "news")
    expected = by_hand(load_tokenizer(plm), news, inputs)
    got = [row.tolist() for row in np.split(table.values, table.offsets[1:-1])]
    assert got == expected
    total = sum(LENGTHS[name] for name in inputs)
    assert max(map(len, got)) <= total == manifest["max_lengths"]["news"]
    assert manifest["news_inputs"] == {name: LENGTHS[name] for name in inputs}
    assert manifest["counts"]["news_tokens"] == len(table.values)
    print_counts(manifest)
    assert "tokens of all news inputs" in capsys.readouterr().out
    # Matching keeps its title and body.
    assert len(read_table(tmp_path / "out" / "tokens" / "title")) == len(news)
    assert {finding.level for finding in verify_prepared(tmp_path / "out")} == {"ok"}


def test_titles_alone_need_no_further_table(tmp_path, plm, raw):
    out = tmp_path / "out"
    manifest = prepare(options(plm, raw, "title"), out, processes=1)
    assert "news_inputs" not in manifest and "news_inputs" not in manifest["request"]
    assert not list((out / "tokens").glob("news.*"))
    assert prepare(options(plm, raw, "title", abstract_tokens=9), out, processes=1) == manifest  # it is not read
    with pytest.raises(InputError, match=r"prepared with other settings \(news_inputs\)"):
        prepare(options(plm, raw, "title", "abstract"), out, processes=1)


def test_a_preparation_with_inputs_is_found_again(tmp_path, plm, raw):
    out = tmp_path / "out"
    manifest = prepare(options(plm, raw, "title", "abstract"), out, processes=1)
    assert prepare(options(plm, raw, "title", "abstract"), out, processes=1) == manifest
    for other in (options(plm, raw, "title"), options(plm, raw, "title", "abstract", abstract_tokens=4)):
        with pytest.raises(InputError, match=r"prepared with other settings \(news_inputs\)"):
            prepare(other, out, processes=1)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (("abstract", "title"), "news inputs 'abstract,title': expected title,category,subcategory,abstract"),
        (("title", "body"), "news inputs 'title,body'"),
        ((), "news inputs ''"),
    ],
)
def test_wrong_inputs(tmp_path, plm, raw, inputs, message):
    with pytest.raises(InputError, match=message):
        prepare(options(plm, raw, *inputs), tmp_path / "out", processes=1)
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("title\tbody\nsun\tmoon\n")
    with pytest.raises(InputError, match="give --input"):
        prepare(PrepareOptions(corpus=str(corpus), plm=plm, news_inputs=("title", "abstract")), tmp_path / "out")


def test_verify_misses_a_table(tmp_path, plm, raw):
    out = tmp_path / "out"
    prepare(options(plm, raw, "title", "abstract"), out, processes=1)
    (out / "tokens" / "news.offsets.npy").unlink()
    assert [f.where for f in verify_prepared(out) if f.level == "error"] == [str(out / "tokens" / "news.offsets.npy")]


def test_stages_take_what_was_prepared_or_say_so(tmp_path, plm, raw):
    prepare(options(plm, raw, "title", "abstract"), tmp_path / "both", processes=1)
    prepare(options(plm, raw, "title"), tmp_path / "titles", processes=1)

    def opened(folder, *overrides):
        config = load_config(None, [f"data.dir={tmp_path / folder}", "data.title_tokens=5", *overrides])
        return DataSet.open(config).news_tokens(config.data), config.data.news_tokens

    both = ["data.news_inputs=[title, abstract]", "data.abstract_tokens=3"]
    table, longest = opened("both", *both)
    assert longest == 8 and len(table.values) == len(read_table(tmp_path / "both" / "tokens" / "news").values)
    table, longest = opened("both")  # the titles are there too
    assert longest == 5 and table.lengths.max() <= 5
    with pytest.raises(
        InputError, match=r"prepared with the news inputs title \(5 tokens\), but .*prepare the data again"
    ):
        opened("titles", *both)
    with pytest.raises(InputError, match=r"abstract \(3 tokens\), but .* abstract \(4 tokens\)"):
        opened("both", *both, "data.abstract_tokens=4")


@pytest.mark.parametrize("value", ["[abstract, title]", "[title, title]", "[title, body]", "[]"])
def test_a_configuration_names_inputs_in_order(value):
    with pytest.raises(
        InputError, match=r"data\.news_inputs=.*: one or more of title, category, subcategory, abstract"
    ):
        load_config(None, [f"data.news_inputs={value}"])


def test_join_rows():
    left = (np.array([1, 2, 3]), np.array([0, 2, 2, 3]))
    right = (np.array([7, 8]), np.array([0, 0, 1, 2]))
    values, offsets = join_rows([left, right])
    assert values.tolist() == [1, 2, 7, 3, 8] and offsets.tolist() == [0, 2, 3, 5]


def test_the_manifest_is_json(tmp_path, plm, raw):
    prepare(options(plm, raw, "title", "category"), tmp_path / "out", processes=1)
    value = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert list(value["news_inputs"]) == ["title", "category"]
