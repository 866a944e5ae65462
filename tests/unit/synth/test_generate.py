import hashlib
import json
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tnr_dist.synth import generate, readers
from tnr_dist.synth.frames import FORMS, TONES
from tnr_dist.synth.generate import oracle_scores, synthesize
from tnr_dist.synth.grammar import Writer, read_tables
from tnr_dist.util.errors import InputError

SIZES = {"news": 1500, "users": 400, "impressions": 3000, "dev_impressions": 800, "test_impressions": 300}


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_bytes().decode().removesuffix("\n").split("\n")]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "data"
    return folder, synthesize(folder, **SIZES, bodies=True, seed=3)


def test_news_files_have_minds_form(made):
    folder, result = made
    for split in ("train", "dev", "test"):
        news = rows(folder / split / "news.tsv")
        assert {len(row) for row in news} == {8}
        assert len({row[0] for row in news}) == len(news) == result["splits"][split]["news"]
        mentioned = {
            item.split("-")[0]
            for row in rows(folder / split / "behaviors.tsv")
            for item in (row[3] + " " + row[4]).split()
        }
        assert mentioned == {row[0] for row in news}
        for row in news:
            for text, entities in ((row[3], row[6]), (row[4], row[7])):
                for entity in json.loads(entities):
                    start = entity["OccurrenceOffsets"][0]
                    assert text[start:].startswith(entity["SurfaceForms"][0])
    empty = np.mean([row[4] == "" for row in news])
    assert 0.02 < empty < 0.09


def test_behaviours_have_minds_form_and_order_in_time(made):
    folder, _ = made
    histories: dict[str, str] = {}
    spans = {"train": (9, 14), "dev": (15, 15), "test": (16, 22)}
    for split, (first, last) in spans.items():
        shown: set[str] = set()
        read: set[str] = set()
        behaviours = rows(folder / split / "behaviors.tsv")
        assert [row[0] for row in behaviours] == [str(n + 1) for n in range(SIZES[_size(split)])]
        for _, user, time, history, impression in behaviours:
            moment = datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p")
            assert time == f"{moment.month}/{moment.day}/{moment.year} {moment:%I:%M:%S %p}".replace(" 0", " ")
            assert (moment.year, moment.month) == (2019, 11) and first <= moment.day <= last
            assert histories.setdefault(user, history) == history
            items = impression.split(" ")
            names = [item.split("-")[0] for item in items]
            assert 2 <= len(items) <= 300 and len(set(names)) == len(names)
            if split == "test":
                assert "-" not in impression
            else:
                labels = Counter(item.split("-")[1] for item in items)
                assert labels["1"] >= 1 and labels["0"] >= 1 and set(labels) == {"0", "1"}
            shown.update(names)
            read.update(history.split())
        assert split != "dev" or not read & shown  # with so few news yesterday's are not shown again
    assert "" in histories.values()


def _size(split: str) -> str:
    return "impressions" if split == "train" else f"{split}_impressions"


def test_oracle_scores_align_with_candidates_and_predict_clicks(made):
    folder, result = made
    ids, scores = oracle_scores(folder, "dev")
    behaviours = rows(folder / "dev" / "behaviors.tsv")
    assert ids.to_pylist() == [int(row[0]) for row in behaviours]
    aucs = []
    for row, probability in zip(behaviours, scores.to_pylist(), strict=True):
        labels = [int(item[-1]) for item in row[4].split()]
        assert len(labels) == len(probability)
        assert abs(sum(probability) - 1) < 1e-4
        aucs.append(roc_auc_score(labels, probability))
    assert result["oracle"]["dev_auc"] == pytest.approx(np.mean(aucs), abs=1e-4)
    assert 0.76 < np.mean(aucs) < 0.86
    assert 0.48 < result["oracle"]["dev_popularity_auc"] < 0.60


def test_test_labels_can_score_a_prediction(made):
    folder, result = made
    labels = pq.read_table(folder / "truth" / "test_labels.parquet")
    shown = [len(row[4].split()) for row in rows(folder / "test" / "behaviors.tsv")]
    assert [len(row) for row in labels["labels"].to_pylist()] == shown
    assert sum(map(sum, labels["labels"].to_pylist())) == result["splits"]["test"]["clicks"]
    _, scores = oracle_scores(folder, "test")
    pairs = zip(labels["labels"].to_pylist(), scores.to_pylist(), strict=True)
    assert np.mean([roc_auc_score(label, score) for label, score in pairs]) > 0.74


def test_history_tells_the_taste(made):
    """A user's history names the subcategories of the later clicks: that is what a model is to learn."""
    folder, _ = made
    kind = {row[0]: row[2] for row in rows(folder / "dev" / "news.tsv")}
    aucs = []
    for row in rows(folder / "dev" / "behaviors.tsv"):
        read = Counter(kind[item] for item in row[3].split())
        items = [item.split("-") for item in row[4].split()]
        aucs.append(roc_auc_score([int(label) for _, label in items], [read[kind[name]] for name, _ in items]))
    assert np.mean(aucs) > 0.6


def test_corpus_holds_all_news_with_bodies_on_their_subject(made):
    folder, _ = made
    corpus = rows(folder / "corpus.tsv")
    assert {len(row) for row in corpus} == {6} and len(corpus) == SIZES["news"]
    words = {v.subcategory: " ".join((*v.names, *v.things)).lower() for v in read_tables()}
    for row in corpus[:100]:
        assert 120 <= len(row[5].split()) <= 200
        assert sum(word in row[5].lower() for word in words[row[2]].split()) >= 5


def test_same_arguments_same_bytes_whatever_the_threads(tmp_path, made, monkeypatch):
    folder, _ = made
    monkeypatch.setattr(generate, "_THREADS", 1)
    synthesize(tmp_path / "again", **SIZES, bodies=True, seed=3)
    assert hashes(tmp_path / "again") == hashes(folder)
    synthesize(tmp_path / "other", **SIZES, seed=4)
    assert hashes(tmp_path / "other")["dev/behaviors.tsv"] != hashes(folder)["dev/behaviors.tsv"]


def test_bodies_change_no_title(tmp_path, made):
    folder, _ = made
    synthesize(tmp_path / "plain", **SIZES, seed=3)
    assert not (tmp_path / "plain" / "corpus.tsv").exists()
    assert hashes(tmp_path / "plain")["dev/news.tsv"] == hashes(folder)["dev/news.tsv"]


def test_complete_output_is_kept_and_any_other_refused(tmp_path, made):
    folder, result = made
    before = hashes(folder)
    assert synthesize(folder, **SIZES, bodies=True, seed=3) == result
    assert hashes(folder) == before
    with pytest.raises(InputError, match="other arguments"):
        synthesize(folder, **SIZES, bodies=True, seed=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        synthesize(tmp_path / "mine", **SIZES)


@pytest.mark.parametrize(
    "wrong", [{"news": 199}, {"users": 0}, {"impressions": 0}, {"dev_impressions": -1}, {"test_impressions": 0}]
)
def test_bad_sizes_are_refused_and_leave_nothing(tmp_path, wrong):
    with pytest.raises(InputError, match="give"):
        synthesize(tmp_path / "data", **{**SIZES, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_least_sizes_work(tmp_path):
    result = synthesize(tmp_path / "data", news=200, users=1, impressions=1)
    assert result["splits"]["train"]["impressions"] == 1
    with pytest.raises(InputError, match="no such file"):
        oracle_scores(tmp_path / "data", "train")


def test_titles_are_distinct_and_of_minds_length():
    vocabularies = read_tables()
    assert len({v.category for v in vocabularies}) >= 15 and len(vocabularies) >= 100
    rng = np.random.default_rng(0)
    writer = Writer(rng, np.random.default_rng(1))
    texts = [
        writer.write(vocabularies[n % len(vocabularies)], FORMS[n % len(FORMS)], TONES[n // 4 % len(TONES)])
        for n in range(20_000)
    ]
    lengths = [len(text.title.split()) for text in texts]
    assert len({text.title for text in texts}) == len(texts)
    assert min(lengths) >= 5 and max(lengths) <= 20 and 10.5 < np.mean(lengths) < 12.5
    assert any('"' in text.title for text in texts)
    assert not any(mark in f"{text.title} {text.abstract}" for text in texts for mark in ("{", "}", "\t", "\n", " !"))


def test_sizes_of_lists_follow_mind():
    rng = np.random.default_rng(0)
    candidates = readers.sizes(rng, 100_000, 25.0, 0.91, 2, 300)
    assert abs(candidates.mean() - 37.4) < 1.5 and np.median(candidates) == 25
    counts = np.full(20_000, 40)
    labels = readers.click(rng, np.zeros(counts.sum(), np.float32), counts)
    clicks = np.add.reduceat(labels, np.cumsum(counts) - counts)
    assert clicks.min() == 1 and abs(clicks.mean() - 1.515) < 0.03


def test_clicks_follow_the_probabilities():
    rng = np.random.default_rng(0)
    logits = np.array([0.0, 1.0, 2.0], np.float32)
    counts = np.full(30_000, 3)
    scores = np.tile(logits, len(counts))
    labels = readers.click(rng, scores.copy(), counts).reshape(-1, 3)
    single = labels[labels.sum(1) == 1].mean(0)
    expected = readers.probabilities(logits, np.array([3]))
    assert expected == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-6)
    assert single == pytest.approx(expected, abs=0.015)


def test_distinct_keeps_no_duplicate_and_favours_no_place():
    rng = np.random.default_rng(0)
    row = np.repeat(np.arange(2_000), 30)
    item = rng.integers(10, size=len(row))
    kept, counts = readers.distinct(rng, row, item, np.full(2_000, 4))
    assert (counts == 4).all()
    assert all(len(set(four)) == 4 for four in kept.reshape(-1, 4).tolist())
    assert kept.reshape(-1, 4).mean(0) == pytest.approx([4.5] * 4, abs=0.3)


def test_less_signal_is_harder(tmp_path):
    plain = synthesize(tmp_path / "plain", **SIZES, seed=3)
    weak = synthesize(tmp_path / "weak", **SIZES, signal=0.5, seed=3)
    assert weak["arguments"]["signal"] == 0.5 and "signal" not in plain["arguments"]
    assert weak["oracle"]["dev_auc"] < plain["oracle"]["dev_auc"] - 0.03
    with pytest.raises(InputError, match=r"signal=2\.0"):
        synthesize(tmp_path / "strong", **SIZES, signal=2.0)
