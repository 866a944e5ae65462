"""`Recommender`: known news, users, ranking."""

import json

import numpy as np
import pytest

from tnr_dist.errors import InputError
from tnr_dist.export import Recommender
from tnr_dist.export.description import Description
from tnr_dist.export.runtimes import open_runtime

from .cases import TITLES, source_of


class Runtime:
    """A user vector is the mean of the clicked news."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def news(self, tokens, offsets):
        raise AssertionError("not called here")

    def users(self, history, mask):
        self.lengths.append(int(mask.sum()))
        return (history * mask[..., None]).sum(1) / np.maximum(mask.sum(1, keepdims=True), 1)


@pytest.fixture
def model() -> Recommender:
    description = Description("onnx", source_of("bert").spec.to_dict(), 24, 3, 0, {"model_sha256": "x"})
    found = Recommender(description, Runtime(), None)
    found.add_news(list("abcde"), np.eye(8, dtype=np.float32)[:5])
    return found


def test_rank_is_by_score_and_stable(model):
    user = np.array([0.5, 2, 0.5, -1, 0, 0, 0, 0], np.float32)
    assert model.rank(user, ["d", "c", "b", "a"]) == [("b", 2.0), ("c", 0.5), ("a", 0.5), ("d", -1.0)]


def test_recommend_leaves_out_and_ends_with_what_is_known(model):
    user = np.array([1, 2, 3, 4, 5, 0, 0, 0], np.float32)
    assert model.recommend(user, 2) == [("e", 5.0), ("d", 4.0)]
    assert [name for name, _ in model.recommend(user, 2, exclude=["e", "unknown", "e"])] == ["d", "c"]
    assert [name for name, _ in model.recommend(user, 99, exclude=["c", "c"])] == ["e", "d", "b", "a"]
    assert model.recommend(user, 5, exclude=list("abcde")) == []


def test_ids_that_are_numbers_are_known_and_left_out_alike(model):
    model.add_news([1, 2], np.full((2, 8), [[9], [8]], np.float32))
    user = model.encode_user([1])
    assert {name for name, _ in model.recommend(user, 2)} == {"1", "2"}
    assert model.recommend(user, 1, exclude=[1]) == model.rank(user, [2])


def test_only_the_last_clicks_count(model):
    user = model.encode_user(["a", "b", "c", "d"])
    np.testing.assert_allclose(user, [0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0], rtol=1e-6)
    assert model._runtime.lengths == [3]


def test_a_user_without_clicks_gets_zeros(model):
    assert not model.encode_user([]).any()
    assert model._runtime.lengths == [0]


def test_add_news_replaces_known_ids(model):
    model.add_news(["f", "b"], np.full((2, 8), 7, np.float32))
    assert sorted(model.ids) == list("abcdef") and model.vectors.shape == (6, 8)
    assert (model.vectors_of(["b"]) == 7).all() and model.vectors_of(["e"])[0, 4] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.rank(np.zeros(8), ["a", "nope"]), "'nope' is not known"),
        (lambda m: m.encode_user("abc"), "single text 'abc'"),
        (lambda m: m.recommend(np.zeros(8), exclude="abc"), "single text 'abc'"),
        (lambda m: m.encode_user(np.zeros((2, 5), np.float32)), r"\[2, 5\]"),
        (lambda m: m.add_news(["x"], np.zeros((2, 8), np.float32)), "1 ids"),
        (lambda m: m.add_news(["x", "x"], np.zeros((2, 8), np.float32)), "twice"),
        (lambda m: m.encode_news(TITLES), "no news encoder"),
    ],
)
def test_mistakes_are_named(model, call, message):
    before = list(model.ids)
    with pytest.raises(InputError, match=message):
        call(model)
    assert model.ids == before


def test_vectors_export_recommends_alone_and_beside_its_model(exports):
    folder = exports("vectors")
    alone = Recommender.from_pretrained(folder)
    both = Recommender.from_pretrained(exports("hf"), vectors=folder)
    history = alone.ids[3:8]
    user = alone.encode_user(history)
    np.testing.assert_allclose(both.encode_user(history), user, atol=1e-6)
    assert [n for n, _ in alone.recommend(user, 7)] == [n for n, _ in both.recommend(user, 7)]
    assert not {name for name, _ in alone.recommend(user, 50, exclude=history)} & set(history)
    with pytest.raises(InputError, match="no news encoder"):
        alone.encode_news(["A title"])


def test_vectors_of_another_model_are_refused(exports, tmp_path):
    import shutil

    folder = shutil.copytree(exports("vectors"), tmp_path / "vectors")
    path = folder / "recommender.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"made_from": {"model_sha256": "other"}}))
    with pytest.raises(InputError, match="another model"):
        Recommender.from_pretrained(exports("hf"), vectors=folder)
    with pytest.raises(InputError, match="not of news vectors"):
        Recommender.from_pretrained(exports("hf"), vectors=exports("hf"))


@pytest.mark.parametrize(("form", "option"), [("hf", "quantised"), ("torch.export", "bf16")])
def test_options_of_another_format_are_refused(form, option, tmp_path):
    with pytest.raises(InputError, match=option):
        open_runtime(tmp_path, source_of("bert").describe(form), **{option: True})


def test_bf16_is_close(exports, expected):
    found = Recommender.from_pretrained(exports("hf"), bf16=True).encode_news(TITLES)
    assert 0 < np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize(
    "change",
    [{"model": {}}, {"model": 3}, {"history": "3"}, {"title_tokens": None}, {"made_from": {}}, {"made_from": "x"}],
)
def test_a_damaged_description_is_named(change, tmp_path):
    good = {"format": "onnx", "model": {"news_dim": 4}, "title_tokens": 24, "history": 3, "pad_id": 0, "checks": {}}
    good |= {"made_from": {"model_sha256": "x"}, "format_version": 1}
    (tmp_path / "recommender.json").write_text(json.dumps(good))
    assert Description.read(tmp_path).news_dim == 4
    (tmp_path / "recommender.json").write_text(json.dumps(good | change))
    with pytest.raises(InputError, match=rf"recommender.json: {next(iter(change))} is not what an export says"):
        Recommender.from_pretrained(tmp_path)


def test_a_folder_that_is_no_export(tmp_path):
    with pytest.raises(InputError, match="not an export"):
        Recommender.from_pretrained(tmp_path)
    (tmp_path / "recommender.json").write_text('{"format_version": 99}')
    with pytest.raises(InputError, match="version"):
        Recommender.from_pretrained(tmp_path)
