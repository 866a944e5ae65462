"""Corpora in TSV and Parquet give the same token tables; what is dropped is counted; what is wrong is named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.prepare.raw import write_vocabulary
from tnr_dist.data.prepare import texts
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.data.prepare.texts import read_corpus, tokenise_corpus
from tnr_dist.data.tokens import read_table
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.util.errors import InputError

ROWS = [
    ("A1", "sun wins", "the moon"),
    ("A2", "", "a body without title"),
    ("A3", "no body", ""),
    ("A4", '"rain" again', "house " * 50),
    ("A5", "   ", "  "),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_vocabulary(tmp_path_factory.mktemp("plm")))


def tables(folder, path, tokenizer):
    account = tokenise_corpus(path, folder, tokenizer, 30, 20)
    return account, [(folder / f"{name}.{part}.npy").read_bytes() for name in ("corpus_title", "body") for part in ("values", "offsets")]  # fmt: skip


def test_every_form_gives_the_same(tmp_path, tokenizer, monkeypatch):
    plain = "".join(f"{i}\tc\ts\t{t}\tabstract\t{b}\n" for i, t, b in ROWS)
    forms = {
        "plain.tsv": plain,
        "crlf.tsv": plain.replace("\n", "\r\n"),
        "header.tsv": "body\tid\ttitle\n" + "".join(f"{b}\t{i}\t{t}\n" for i, t, b in ROWS),
        "bom.tsv": "\ufefftitle\tbody\n" + "".join(f"{t}\t{b}\n" for _, t, b in ROWS),
        "abstracts.tsv": "id\ttitle\tabstract\n" + "".join(f"{i}\t{t}\t{b}\n" for i, t, b in ROWS),
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text, newline="")
    columns = {"id": [r[0] for r in ROWS], "title": [r[1] for r in ROWS], "body": [r[2] or None for r in ROWS]}
    pq.write_table(pa.table(columns), tmp_path / "plain.parquet")
    encoded = pa.table({"title": pa.array(columns["title"]).dictionary_encode(), "body": columns["body"]})
    pq.write_table(encoded, tmp_path / "dictionary.parquet")
    want = tables(tmp_path / "want", tmp_path / "plain.tsv", tokenizer)
    assert vars(want[0]) | {"title_tokens": 0, "body_tokens": 0} == {
        "articles": 5, "kept": 2, "without_title": 2, "without_body": 2, "title_tokens": 0, "body_tokens": 0,
    }  # fmt: skip
    bodies = read_table(tmp_path / "want" / "body")
    assert bodies.lengths.tolist()[1] == 20 and len(bodies) == 2
    assert bodies.values[:4].tolist() == tokenizer.encode_batch(["the moon"], 20)[0].tolist()
    for name in [*forms, "plain.parquet", "dictionary.parquet"]:
        assert tables(tmp_path / name.replace(".", "-"), tmp_path / name, tokenizer) == want, name
    # Neither chunks nor batches change a byte.
    monkeypatch.setattr(texts, "_TOKENISE", 1)
    monkeypatch.setattr(texts.read_corpus, "__defaults__", (64,))
    assert len(list(read_corpus(tmp_path / "plain.tsv"))) > 2
    assert tables(tmp_path / "small", tmp_path / "plain.tsv", tokenizer) == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("a\tb\tc\n", r"line 1: 3 tab-separated columns; expected id, category"),
        ("1\tc\ts\tt\ta\tb\n2\tc\n", r"line 2: 2 tab-separated columns, expected 6"),
        ("1\tc\ts\tt\ta\tb\n\n2\tc\ts\tt\ta\tb\n", r"line 2: an empty line"),
        ("1\tc\ts\tt\ta\tb\n2\tc\ts\tt\ta\tb\0\n", r"line 2: a NUL byte"),
        ("1\tc\ts\tt\ta\tb\n2\tc\ts\tt\ta\tb\udcff\n", r"line 2: not UTF-8"),
        ("1\tc\ts\tt\ta\tb\n2\tc\ts\tt\ta\tb\n1\tc\ts\tt\ta\tb\n", r"articles 1 and 3 have one id$"),
        ("1\tc\ts\tt\ta\tb\n" * 4, r"articles 1 and 2 have one id, and 2 more such"),
        ("1\tc\ts\t\ta\tb\n", r"no article has both a title and a body"),
    ],
)
def test_malformed(tmp_path, tokenizer, text, message):
    path = tmp_path / "corpus.tsv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    options = PrepareOptions(corpus=str(path), plm=str(tokenizer.files.folder))
    with pytest.raises(InputError, match=message) as error:
        prepare(options, tmp_path / "out")
    assert "corpus.tsv" in str(error.value) and not (tmp_path / "out").exists()


def test_two_ids_of_one_hash_are_two_articles(tmp_path, tokenizer, monkeypatch):
    path = tmp_path / "corpus.tsv"
    monkeypatch.setattr(texts, "hash_strings", lambda ids: np.array([len(one.as_py()) for one in ids], np.uint64))
    lines = [f"{name}\tc\ts\tthe moon\ta\tb\n" for name in ("a", "b", "cc", "d", "ee")]
    path.write_text("".join(lines))
    assert prepare(PrepareOptions(corpus=str(path), plm=str(tokenizer.files.folder)), tmp_path / "out")
    path.write_text("".join([*lines, lines[2]]))
    with pytest.raises(InputError, match="articles 3 and 6 have one id"):
        prepare(PrepareOptions(corpus=str(path), plm=str(tokenizer.files.folder)), tmp_path / "other")


def test_malformed_parquet(tmp_path, tokenizer):
    path = tmp_path / "corpus.parquet"
    for content, message in (
        (b"PAR1 no", "not a readable Parquet file"),
        ({"title": ["a"]}, "columns title; expected at least title and body"),
        ({"title": ["a"], "body": [1]}, "column body holds int64, not text"),
        ({"id": [1, 1], "title": ["a", "b"], "body": ["c", "d"]}, "articles 1 and 2 have one id"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(pa.table(content), path)
        with pytest.raises(InputError, match=message):
            tokenise_corpus(path, tmp_path / "out", tokenizer, 30, 20)
    with pytest.raises(InputError, match="no such corpus file"):
        prepare(PrepareOptions(corpus=str(tmp_path / "none.tsv"), plm=str(tokenizer.files.folder)), tmp_path / "p")


def test_a_corpus_alone_is_prepared(tmp_path, tokenizer):
    path = tmp_path / "corpus.tsv"
    path.write_text("".join(f"{i}\tc\ts\t{t}\tabstract\t{b}\n" for i, t, b in ROWS))
    options = PrepareOptions(corpus=str(path), plm=str(tokenizer.files.folder))
    manifest = prepare(options, tmp_path / "out")
    assert manifest["counts"]["corpus"]["kept"] == 2 and "splits" not in manifest["counts"]
    assert prepare(options, tmp_path / "out") == manifest
    with pytest.raises(InputError, match="a corpus alone is made in one go"):
        prepare(options, tmp_path / "other", part=(0, 2))
