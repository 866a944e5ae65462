"""What a prepared data set says of its files, and inputs that change while they are read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from tnr_dist.config.schema import DataConfig
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.manifest import manifest_hash, open_table, read_manifest
from tnr_dist.data.prepare import text_tables as module
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.data.shards import index_from_dict, read_index
from tnr_dist.data.tokens import RaggedTable, TableWriter, check_ids, read_table, token_dtype
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.stages.methods import Tree
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import file_hash, read_json

NEWS = "".join(f"N{i}\tnews\tx\tstorm a b {i}\tmore a\tu\t[]\t[]\n" for i in range(6))
ROWS = "".join(f"{i}\tU{i % 3}\t11/15/2019 8:55:22 AM\tN1 N2\tN{i % 6}-1 N{(i + 1) % 6}-0\n" for i in range(1, 30))


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "news.tsv").write_text(NEWS)
    (folder / "behaviors.tsv").write_text(ROWS)
    return folder


def write_tokenizer(folder: Path, storm: int) -> str:
    """A tokenizer.json in which "storm" has an id of one's own choice."""
    ids = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "storm": storm}
    folder.mkdir(exist_ok=True)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    specials = [(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=specials
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.fixture
def plm(tmp_path) -> str:
    return write_tokenizer(tmp_path / "plm", 5)


def made(raw: Path, plm: str, output: Path, **more) -> dict:
    return prepare(PrepareOptions(input=str(raw), plm=plm, block_size=4), output, processes=1, **more)


def test_every_file_but_the_shards_is_stated(raw, plm, tmp_path):
    manifest = made(raw, plm, tmp_path / "out")
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".tar"]
    names = {str(path.relative_to(tmp_path / "out")) for path in found}
    assert set(manifest["files"]) == names - {"manifest.json"}
    for name, line in manifest["files"].items():
        path = tmp_path / "out" / name
        assert line == {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def test_the_id_is_that_of_earlier_versions(raw, plm, tmp_path):
    """Digests are no part of it: runs made from data of the same request go on with it."""
    made(raw, plm, tmp_path / "out")
    before, path = manifest_hash(tmp_path / "out"), tmp_path / "out" / "manifest.json"
    value = read_json(path)
    path.write_text(json.dumps({k: v for k, v in value.items() if k not in ("files", "digest", "plm_digest")}))
    assert manifest_hash(tmp_path / "out") == before


def test_a_damaged_table_is_refused_when_it_is_opened(raw, plm, tmp_path):
    made(raw, plm, tmp_path / "out")
    path = tmp_path / "out" / "tokens" / "title.values.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-2] + b"\x04\x00")  # another token of the vocabulary
    read_table(tmp_path / "out" / "tokens" / "title")
    with pytest.raises(InputError, match=r"title\.values\.npy: damaged.*prepare the data again"):
        open_table(tmp_path / "out", "title")


# Inputs that change ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["news", "behaviours", "tokenizer", "same size and times", "gone"])
def test_an_input_that_changes_while_it_is_prepared(raw, plm, tmp_path, monkeypatch, change):
    tokenise = module.tokenise_titles

    def meanwhile(*arguments):
        path = raw / ("news.tsv" if change == "news" else "behaviors.tsv")
        if change == "tokenizer":
            write_tokenizer(tmp_path / "plm", 9)
        elif change == "gone":
            path.rename(tmp_path / "elsewhere")
            shutil.copyfile(tmp_path / "elsewhere", path)
            path.write_text(ROWS.replace("U1", "U2"))
        elif change == "same size and times":
            times = path.stat()
            path.write_text(ROWS.replace("U1", "U2"))
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        else:
            with path.open("a") as file:
                file.write(
                    NEWS.replace("N", "M") if change == "news" else "77\tU9\t11/15/2019 8:55:22 AM\t\tN1-1 N2-0\n"
                )
        return tokenise(*arguments)

    monkeypatch.setattr(module, "tokenise_titles", meanwhile)
    with pytest.raises(InputError, match="changed while it was read; prepare the data again"):
        made(raw, plm, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    manifest = made(raw, plm, tmp_path / "out")
    assert {one["path"]: one["sha256"] for one in manifest["sources"]} == {
        name: file_hash(raw / name) for name in ("behaviors.tsv", "news.tsv")
    }


def test_parts_of_an_input_that_changed_are_not_gone_on_with(raw, plm, tmp_path, monkeypatch):
    tokenise = module.tokenise_titles

    def meanwhile(*arguments):
        (raw / "behaviors.tsv").write_text(ROWS.replace("U1", "U2"))
        return tokenise(*arguments)

    monkeypatch.setattr(module, "tokenise_titles", meanwhile)
    with pytest.raises(InputError, match="changed while it was read"):
        made(raw, plm, tmp_path / "out", part=(0, 2))
    monkeypatch.undo()
    for content in (ROWS, ROWS.replace("U1", "U2")):
        (raw / "behaviors.tsv").write_text(content)
        for more in ({"part": (1, 2)}, {"merge": True}, {}):
            with pytest.raises(InputError, match="an input changed while it was prepared; delete it"):
                made(raw, plm, tmp_path / "out", **more)


# Token ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("largest", "dtype"), [(65_535, np.uint16), (65_536, np.int32), (16_777_214, np.int32)])
def test_large_ids_of_small_vocabularies_do_not_wrap(raw, tmp_path, largest, dtype):
    plm = write_tokenizer(tmp_path / "plm", largest)
    assert load_tokenizer(plm).vocab_size == largest + 1 and token_dtype(largest + 1) == dtype
    manifest = made(raw, plm, tmp_path / "out")
    table = open_table(tmp_path / "out", "title")
    assert table.values.dtype == dtype and manifest["tokenizer"]["vocab_size"] == largest + 1
    assert table.values[table.offsets[:-1] + 1].tolist() == [largest] * 6


def test_a_writer_refuses_what_its_table_cannot_hold(tmp_path):
    for values in ([65_536], [-1]):
        with pytest.raises(InputError, match="is no uint16"), TableWriter(tmp_path / "t", np.dtype(np.uint16)) as table:
            table.append(np.array([1, *values]), np.array([0, 2]))
    assert not list(tmp_path.iterdir())


def test_ids_without_a_row_of_the_word_table_are_named():
    table = RaggedTable(np.array([3, 49], np.uint16), np.array([0, 2]))
    check_ids(table, 50, "titles")
    with pytest.raises(InputError, match="titles: token id 49, but the model's word table has 49 rows"):
        check_ids(table, 49, "titles")


def test_more_tokens_than_were_prepared_are_refused(raw, plm, tmp_path):
    made(raw, plm, tmp_path / "out")
    config = Tree(data=DataConfig(dir=str(tmp_path / "out"), title_tokens=30))
    data = DataSet.open(config)
    assert len(data.news_tokens(config.data)) == 6
    config.data.title_tokens = 12  # cut as the tokenizer cuts
    data.news_tokens(config.data)
    config.data.title_tokens = 31
    with pytest.raises(
        InputError, match=r"prepared with 30 tokens a title, but data\.title_tokens=31; set data\.title_t"
    ):
        data.news_tokens(config.data)


# The index ------------------------------------------------------------------------------------------------------------


def test_a_shard_that_stands_twice_in_an_index_is_refused(raw, plm, tmp_path):
    made(raw, plm, tmp_path / "out")
    assert (
        read_index(tmp_path / "out", "train").samples
        == read_manifest(tmp_path / "out")["counts"]["splits"]["train"]["samples"]
    )
    value = read_json(tmp_path / "out" / "train" / "index.json")
    value["shards"].append(value["shards"][0])
    with pytest.raises(InputError, match=value["shards"][0]["name"] + " is listed twice"):
        index_from_dict(value, "index.json")
