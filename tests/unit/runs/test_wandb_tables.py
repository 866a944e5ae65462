"""The tables of worst impressions and nearest news."""

import numpy as np
import torch

from tnr_dist.data.shards import read_index
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.evaluation.scoring import evaluate_split
from tnr_dist.runs.wandb_tables import nearest_news, news_titles, worst_impressions


def scorer(block):
    """Deterministic nonsense: a hash of news and user."""
    owner = np.repeat(block["impression_history"], np.diff(block["candidate_offsets"])).astype(np.int64)
    return ((block["candidate_news"].astype(np.int64) * 7919 + owner * 104729) % 1009).astype(np.float32)


def test_worst_impressions(prepared):
    index = read_index(prepared, "dev")
    rows, metrics = evaluate_split(prepared, index, scorer, DDPEngine("cpu", 1), "")
    titles = news_titles(prepared)
    table = worst_impressions(prepared, index, rows, metrics, scorer, titles, count=7)
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [one["auc"] for one in found] == np.sort(metrics.auc[metrics.valid])[:7].tolist()
    assert len({one["impression"] for one in found}) == 7
    for one in found:
        first = one["ranked_first"].split("\n")
        assert one["best_rank_of_a_click"] > 1  # AUC is below 1
        assert one["candidates"] >= 2 and len(first) == min(one["candidates"], 10)
        assert {*one["clicked"].split("\n"), *first} <= set(titles)
        if one["best_rank_of_a_click"] <= 10:
            assert first[one["best_rank_of_a_click"] - 1] in one["clicked"].split("\n")


def test_of_equal_auc_the_one_ranked_lowest_comes_first(prepared):
    index = read_index(prepared, "dev")
    rows, metrics = evaluate_split(prepared, index, scorer, DDPEngine("cpu", 1), "")
    table = worst_impressions(prepared, index, rows, metrics, scorer, news_titles(prepared), count=5)
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    mrr = [1 / one["best_rank_of_a_click"] for one in found if one["auc"] == 0 and one["clicked"].count("\n") == 0]
    assert mrr == sorted(mrr)


def test_nearest_news():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.1], [0.1, 2.0], [-1.0, 0.0]])
    table = nearest_news(vectors, list("abcde"), count=5, neighbours=2)
    assert table.columns == ["news", "nearest_1", "cosine_1", "nearest_2", "cosine_2"]
    near = {row[0]: row[1] for row in table.rows}
    assert near["a"] == "c" and near["b"] == "d" and near["c"] == "a" and near["d"] == "b"
    assert all(row[2] >= row[4] for row in table.rows)
    assert [row[0] for row in nearest_news(vectors, list("abcde"), count=3, neighbours=9).rows] == ["a", "c", "e"]
