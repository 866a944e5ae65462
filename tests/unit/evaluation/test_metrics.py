"""Metrics against scikit-learn and against MIND's own formulas, one impression at a time."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from tnr_dist.evaluation import metrics
from tnr_dist.evaluation.metrics import NAMES, ImpressionMetrics, impression_metrics
from tnr_dist.util.errors import InputError


def mind_dcg(labels, order, k):
    gains = 2.0 ** labels[order[:k]] - 1
    return np.sum(gains / np.log2(np.arange(len(gains)) + 2))


def mind(scores, labels, order):
    """MIND's evaluate.py for one impression whose candidates are ranked in this order."""
    ideal = np.argsort(-labels.astype(float), kind="stable")
    hits = labels[order]
    return (
        np.sum(hits / (np.arange(len(hits)) + 1)) / hits.sum(),
        mind_dcg(labels, order, 5) / mind_dcg(labels, ideal, 5),
        mind_dcg(labels, order, 10) / mind_dcg(labels, ideal, 10),
    )


def reference(scores, labels):
    """scikit-learn's AUC and nDCG, and MRR with the mean of 1 / rank over the ranks that equal scores share."""
    if labels.min() == labels.max():
        return None
    scores = scores.astype(np.float64)
    reciprocal = []
    for score in scores[labels.astype(bool)]:
        higher, equal = (scores > score).sum(), (scores == score).sum()
        reciprocal.append(np.mean(1 / np.arange(higher + 1, higher + equal + 1)))
    # ndcg_score tells scores apart that differ by rounding only where they are far apart; ranks are as good.
    ranks = np.unique(scores, return_inverse=True)[1]
    return (
        roc_auc_score(labels, scores),
        np.mean(reciprocal),
        ndcg_score([labels], [ranks], k=5),
        ndcg_score([labels], [ranks], k=10),
    )


def check(impressions):
    """`impressions`: list of (scores, labels)."""
    sizes = [len(scores) for scores, _ in impressions]
    result = impression_metrics(
        np.concatenate([s for s, _ in impressions]),
        np.concatenate([y for _, y in impressions]),
        np.concatenate([[0], np.cumsum(sizes)]),
    )
    wanted = [reference(*impression) for impression in impressions]
    assert result.valid.tolist() == [want is not None for want in wanted]
    for number, want in enumerate(wanted):
        got = [getattr(result, name)[number] for name in NAMES]
        if want is None:
            assert np.isnan(got).all()
        else:
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    return result


def random_split(rng, sizes, distinct=None, dtype=np.float32, share=0.2):
    impressions = []
    for size in sizes:
        scores = rng.standard_normal(size) if distinct is None else rng.integers(0, distinct, size) / 7 - 1
        impressions.append((scores.astype(dtype), (rng.random(size) < share).astype(np.uint8)))
    return impressions


def flat(impressions):
    return (
        np.concatenate([s for s, _ in impressions]),
        np.concatenate([y for _, y in impressions]),
        np.concatenate([[0], np.cumsum([len(s) for s, _ in impressions])]),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distinct", [None, 1, 2, 10])
def test_equals_sklearn_at_every_size(distinct, dtype):
    rng = np.random.default_rng(0)
    result = check(random_split(rng, range(1, 301), distinct, dtype))
    assert 0 < result.valid.sum() < 300


@given(
    st.lists(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=6)
)
@settings(max_examples=150, deadline=None)
def test_equals_the_reference_on_any_small_split(split):
    check([(np.array([s for s, _ in rows], np.float32), np.array([y for _, y in rows], np.uint8)) for rows in split])


def test_equals_the_official_form_and_sklearn_without_ties():
    rng = np.random.default_rng(1)
    for size in (2, 7, 40, 300):
        scores, labels = rng.permutation(size) / 3.0, np.zeros(size, np.uint8)
        labels[rng.permutation(size)[: 1 + size // 5]] = 1
        result = impression_metrics(scores, labels, np.array([0, size]))
        order = np.argsort(scores)[::-1]
        assert result.mrr[0] == pytest.approx((labels[order] / (np.arange(size) + 1)).sum() / labels.sum(), abs=1e-14)
        for k, got in ((5, result.ndcg5[0]), (10, result.ndcg10[0])):
            assert got == pytest.approx(ndcg_score([labels], [scores], k=k), abs=1e-12)


def test_equal_scores_count_as_the_mean_over_their_orders():
    """Every order of the candidates, ranked by MIND's own formulas."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        size = int(rng.integers(2, 7))
        scores, labels = rng.integers(0, 3, size).astype(np.float32), rng.integers(0, 2, size).astype(np.uint8)
        if labels.min() == labels.max():
            continue
        result = impression_metrics(scores, labels, np.array([0, size]))
        means = []
        for order in itertools.permutations(range(size)):
            shuffled = np.array(order)
            means.append(mind(scores, labels, shuffled[np.argsort(-scores[shuffled], kind="stable")]))
        got = result.mrr[0], result.ndcg5[0], result.ndcg10[0]
        np.testing.assert_allclose(got, np.mean(means, axis=0), rtol=0, atol=1e-12)


def test_a_constant_scorer_is_as_good_as_chance_wherever_the_click_stands():
    for place in range(4):
        labels = np.zeros(4, np.uint8)
        labels[place] = 1
        result = impression_metrics(np.zeros(4, np.float32), labels, np.array([0, 4]))
        assert result.auc[0] == 0.5
        assert result.mrr[0] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=1e-15)
        # -0.0 and 0.0 are the same score.
        signed = impression_metrics(np.array([-0.0, 0.0, -0.0, 0.0]), labels, np.array([0, 4]))
        assert signed.mrr[0] == result.mrr[0] and signed.ndcg5[0] == result.ndcg5[0]


def test_without_ties_not_a_bit_differs_from_one_over_rank():
    rng = np.random.default_rng(5)
    for size in (2, 3, 50):
        scores, labels = rng.permutation(size).astype(np.float32), np.zeros(size, np.uint8)
        labels[int(np.argmin(scores))] = 1
        result = impression_metrics(scores, labels, np.array([0, size]))
        assert result.mrr[0] == 1 / size and result.tied_share == 0
        assert result.ndcg10[0] == (1 / np.log2(size + 1) if size <= 10 else 0)


def test_tied_impressions_are_those_whose_clicks_tie_with_others():
    scores = np.array([1, 1, 0, 2, 2, 1, 0, 0, 3, 3], np.float32)
    labels = np.array([1, 0, 0, 1, 1, 0, 0, 0, 1, 1], np.uint8)
    result = impression_metrics(scores, labels, np.array([0, 3, 6, 8, 10]))
    # The second's clicks tie with each other only, the third has no click, the fourth nothing else.
    assert result.tied.tolist() == [True, False, False, False]
    assert result.valid.tolist() == [True, True, False, False] and result.tied_share == 0.5


def test_skips_single_class_and_empty_impressions():
    scores, labels = np.arange(7.0), np.array([1, 1, 0, 0, 0, 1, 0], bool)
    result = impression_metrics(scores, labels, np.array([0, 2, 2, 5, 7]))
    assert result.valid.tolist() == [False, False, False, True]
    assert result.mean() == {
        "auc": 0.0, "mrr": 0.5, "ndcg5": 1 / np.log2(3), "ndcg10": 1 / np.log2(3), "impressions": 1, "skipped": 3,
    }  # fmt: skip
    with pytest.raises(InputError, match="none of 1 impressions"):
        impression_metrics(np.ones(2), np.ones(2, int), np.array([0, 2])).mean()
    assert len(impression_metrics(np.zeros(0), np.zeros(0, bool), np.array([0])).auc) == 0


def bits(result):
    return [getattr(result, name).tobytes() for name in (*NAMES, "valid", "tied")]


def test_threads_and_chunks_do_not_change_a_bit(monkeypatch):
    rng = np.random.default_rng(2)
    split = flat(random_split(rng, rng.integers(1, 60, 2000), 30))
    want = impression_metrics(*split, threads=1)
    for pairs, threads in ((1 << 19, 2), (1, 1), (97, 3), (5000, 2)):
        monkeypatch.setattr(metrics, "_PAIRS", pairs)
        assert bits(impression_metrics(*split, threads=threads)) == bits(want)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_shares_of_ranks_give_the_same_bits_in_any_order(ranks):
    rng = np.random.default_rng(3)
    impressions = random_split(rng, rng.integers(1, 60, 500), 30)
    whole = impression_metrics(*flat(impressions))
    parts = [impression_metrics(*flat(impressions[rank::ranks])) for rank in range(ranks)]
    gathered = ImpressionMetrics.concatenate(parts)
    assert gathered.mean() == whole.mean()
    back = np.argsort(np.concatenate([np.arange(500)[rank::ranks] for rank in range(ranks)]))
    for name in NAMES:
        assert getattr(gathered, name)[back].tobytes() == getattr(whole, name).tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_names_the_first_impression_with_a_score_that_is_not_finite(bad):
    scores = np.zeros(10, np.float32)
    scores[[6, 9]] = bad
    with pytest.raises(InputError, match=r"impression index 2, candidate 1 of 3"):
        impression_metrics(scores, np.zeros(10, np.uint8), np.array([0, 2, 5, 8, 10]))


@pytest.mark.parametrize(
    ("labels", "offsets", "message"),
    [
        ([0, 2, 1], [0, 1, 3], "label 2 at impression index 1"),
        ([0, 1], [0, 3], "2 labels for 3 scores"),
        ([0, 1, 0], [0, 2], "offsets run from 0 to 2"),
        ([0, 1, 0], [1, 3], "offsets run from 1 to 3"),
        ([0, 1, 0], [0, 2, 1, 3], "fall after impression index 1"),
        ([0, 1, 0], [0.0, 3.0], "must be integers"),
    ],
)
def test_refuses_input_that_does_not_fit(labels, offsets, message):
    with pytest.raises(InputError, match=message):
        impression_metrics(np.zeros(3), np.array(labels), np.array(offsets))


def test_does_not_need_sklearn():
    import subprocess
    import sys

    code = "import sys, tnr_dist.evaluation.metrics; assert not {'sklearn', 'scipy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
