"""`Recommender`: known news, users, ranking."""

import json
import os
import shutil

import numpy as np
import pytest

from tnr_dist.export import Recommender
from tnr_dist.export.description import Description
from tnr_dist.export.runtimes import open_runtime
from tnr_dist.util.digests import write_sealed
from tnr_dist.util.errors import InputError

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


def test_add_news_replaces_known_ids_in_place(model):
    model.add_news(["f", "b"], np.full((2, 8), 7, np.float32))
    assert model.ids == list("abcdef") and model.vectors.shape == (6, 8)
    assert (model.vectors_of(["b"]) == 7).all() and model.vectors_of(["e"])[0, 4] == 1
    assert (model.vectors[[1, 5]] == 7).all() and not (model.vectors[[0, 2, 3, 4]] == 7).any()


def test_what_is_known_can_be_asked(model):
    assert "a" in model and "x" not in model and None not in model and ["a"] not in model
    model.add_news([7], np.ones((1, 8), np.float32))
    assert 7 in model and "7" in model and np.int64(7) in model and 8 not in model
    assert "a" in model.snapshot and len(model.snapshot) == 6


def test_unknown_news_of_a_history_are_skipped_and_reported(model, caplog):
    user = model.encode_user(["gone", "a", "b", "c", "expired\n", "d"])
    np.testing.assert_array_equal(user, model.encode_user(["a", "b", "c", "d"]))
    assert model._runtime.lengths == [3, 3]  # the last three that are known
    assert [record.getMessage() for record in caplog.records] == [
        "encode_user: skipped 2 of 6 news of a history: not known: 'gone', 'expired\\n'"
    ]
    vectors, skipped = model.history_vectors(["gone", "e", "expired", "a"])
    assert skipped == ["gone", "expired"]
    np.testing.assert_array_equal(vectors, np.eye(8)[[4, 0]])
    assert not model.encode_user(["gone"]).any()  # as without clicks


def test_a_snapshot_does_not_change(model):
    before = model.snapshot
    ids, vectors = before.ids, before.vectors.copy()
    for number in range(20):  # within spare rows, and beyond them
        model.add_news([f"n{number}"], np.full((1, 8), number, np.float32))
        model.add_news(["c"], np.full((1, 8), number, np.float32))
    assert before.ids == ids and len(before) == 5 and "n0" not in before
    np.testing.assert_array_equal(before.vectors, vectors)
    assert model.ids == [*ids, *(f"n{number}" for number in range(20))] and len(model.snapshot) == 25
    with pytest.raises(ValueError, match="read-only"):
        model.vectors[0, 0] = 1


def test_a_call_sees_one_snapshot(model):
    """News that are added while a call runs change neither its ids nor its scores."""

    class User:
        def __array__(self, *arguments, **options):
            model.add_news(["x", "a", "y"], np.full((3, 8), 9, np.float32))
            return np.array([1, 2, 3, 4, 5, 0, 0, 0], np.float32)

    assert model.recommend(User(), 9) == [("e", 5.0), ("d", 4.0), ("c", 3.0), ("b", 2.0), ("a", 1.0)]
    assert model.ids == [*"abcde", "x", "y"]
    assert model.rank(User(), ["a", "b"])[0][0] == "a"  # of the second snapshot


def test_a_writer_that_was_interrupted_is_made_good(model, monkeypatch):
    from tnr_dist.export import catalogue

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "Snapshot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.add_news(["lost", "x"], np.full((2, 8), 3, np.float32))
    monkeypatch.undo()
    assert "lost" not in model and model.ids == list("abcde")
    model.add_news(["y"], np.full((1, 8), 4, np.float32))
    assert "lost" not in model and model.ids == [*"abcde", "y"]
    model.add_news(["x"], np.full((1, 8), 5, np.float32))
    assert (model.vectors_of(["x"]) == 5).all() and (model.vectors_of(["y"]) == 4).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.rank(np.zeros(8), ["a", "nope"]), "'nope' is not known"),
        (lambda m: m.encode_user("abc"), "single text 'abc'"),
        (lambda m: m.recommend(np.zeros(8), exclude="abc"), "single text 'abc'"),
        (lambda m: m.encode_user(np.zeros((2, 5), np.float32)), r"\[2, 5\]"),
        (lambda m: m.add_news(["x"], np.zeros((2, 8), np.float32)), "1 ids"),
        (lambda m: m.add_news(["x", "x"], np.zeros((2, 8), np.float32)), "duplicate id"),
        (lambda m: m.add_news(["x"], np.full((1, 8), np.nan)), "add_news: 1 ids, and vectors with NaN"),
        (lambda m: m.add_news(["x"], np.full((1, 8), 1e300)), "with NaN or infinite"),
        (lambda m: m.add_news(["x"], np.full((1, 8), 1j)), "not an array of numbers"),
        (lambda m: m.recommend(np.zeros(8), 2.5), "k=2.5: a whole number"),
        (lambda m: m.recommend(np.zeros(8), "3"), "k='3': a whole number"),
        (lambda m: m.add_news("x", np.zeros((1, 8))), "single text 'x'"),
        (lambda m: m.add_news([None], np.zeros((1, 8))), "not NoneType"),
        (lambda m: m.encode_user([np.zeros(8)]), "not ndarray"),
        (lambda m: m.encode_user(np.zeros((2, 5), np.int64)), r"\[2, 5\]"),
        (lambda m: m.encode_user(np.full((2, 8), np.inf)), "vectors with NaN or infinite"),
        *(
            (lambda m, ask=ask, user=user: ask(m, user), said)
            for ask in (lambda m, user: m.rank(user, ["a"]), lambda m, user: m.recommend(user))
            for user, said in (
                (np.zeros(5), r"user vector of shape \[5\]; expected \[8\]"),
                (np.zeros((1, 8)), r"user vector of shape \[1, 8\]; expected \[8\]"),
                (np.array([*range(7), np.nan]), "user vector with NaN or infinite values"),
                (np.full(8, -np.inf), "user vector with NaN or infinite values"),
                (["a"] * 8, "user vector: not an array of numbers"),
                (["1"] * 8, "user vector: not an array of numbers"),
                (np.full(8, 1j), "user vector: not an array of numbers"),
                (None, r"user vector of shape \[\]"),
            )
        ),
        (lambda m: m.encode_news(TITLES), "no news encoder"),
        (lambda m: m.encode_news([None]), "a title that is not a text"),
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


def test_a_score_beyond_float32_is_an_error(model):
    model.add_news(["x"], np.full((1, 8), 1e30, np.float32))
    with pytest.raises(InputError, match="beyond float32"):
        model.recommend(np.full(8, 1e30), 5, exclude=["x"])


@pytest.mark.parametrize("damage", ["nan", "shape", "ids", "zip"])
def test_damaged_vectors_are_named(damage, exports, tmp_path):
    folder = shutil.copytree(exports("vectors"), tmp_path / "vectors")
    vectors = np.load(folder / "vectors.npy")
    if damage == "nan":
        vectors[3, 2] = np.nan
        np.save(folder / "vectors.npy", vectors)
    elif damage == "shape":
        np.save(folder / "vectors.npy", vectors[:-1])
    elif damage == "ids":
        np.save(folder / "news_ids.npy", np.full(len(vectors), "N1"))
    else:
        np.savez(folder / "vectors.npz", vectors)
        (folder / "vectors.npz").rename(folder / "vectors.npy")
    said = {"nan": "NaN", "shape": "of shape", "ids": "duplicate id", "zip": "no vectors"}[damage]
    Description.read(folder).write(folder)  # states the files as they are now
    with pytest.raises(InputError, match=rf"{folder}.*{said}.*; export the vectors again"):
        Recommender.from_pretrained(folder)


def test_vectors_of_another_model_are_refused(exports, tmp_path):
    folder = shutil.copytree(exports("vectors"), tmp_path / "vectors")
    path = folder / "recommender.json"
    write_sealed(path, json.loads(path.read_text()) | {"made_from": {"model_sha256": "other"}})
    with pytest.raises(InputError, match="another model"):
        Recommender.from_pretrained(exports("hf"), vectors=folder)
    with pytest.raises(InputError, match="not of news vectors"):
        Recommender.from_pretrained(exports("hf"), vectors=exports("hf"))


@pytest.mark.parametrize(("form", "option"), [("hf", "quantised"), ("torch.export", "bf16")])
def test_options_of_another_format_are_refused(form, option, tmp_path):
    with pytest.raises(InputError, match=option):
        open_runtime(tmp_path, source_of("bert").describe(form), **{option: True})


def test_a_program_is_not_opened_without_trust(tmp_path):
    source_of("bert").describe("torch.export").write(tmp_path)
    for name in ("news_encoder.pt2", "user_encoder.pt2"):
        os.mkfifo(tmp_path / name)  # opening it would wait for ever
    with pytest.raises(InputError, match=r"runs code that stands in it; give trust=True"):
        Recommender.from_pretrained(tmp_path)


def test_bf16_is_close(exports, expected):
    found = Recommender.from_pretrained(exports("hf"), bf16=True).encode_news(TITLES)
    assert 0 < np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize(
    "change",
    [
        {"model": {}},
        {"model": 3},
        {"model": {"news_dim": 0}},
        {"history": "3"},
        {"history": -1},
        {"history": True},
        {"title_tokens": None},
        {"pad_id": -1},
        {"made_from": {}},
        {"made_from": "x"},
        {"checks": None},
    ],
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
