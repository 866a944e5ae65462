"""Split rules, blocks of whole users, and the account's sums."""

import itertools

import numpy as np
import pytest

from tnr_dist.data.prepare.counts import SplitCounts
from tnr_dist.data.prepare.impressions import SplitRule, _block_starts, is_labelled


@pytest.mark.parametrize("size", [3, 10, 100])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_end_between_users(size, seed):
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(80), rng.integers(1, 9, 80))
    starts = _block_starts(users, size)
    assert starts[0] == 0 and starts[-1] == len(users)
    for start, stop in itertools.pairwise(starts):
        assert start < stop and (stop == len(users) or users[stop - 1] != users[stop])
        # A rest of half a block and more stands alone.
        assert stop - start >= (size if stop < len(users) else size // 2) and stop - start < 1.5 * size + 9


def test_a_user_larger_than_a_block():
    assert _block_starts(np.array([1] * 50 + [2, 3]), 4) == [0, 50, 52]
    assert _block_starts(np.array([1] * 50 + [2]), 4) == [0, 51]


def test_random_rule_depends_on_the_row_alone():
    rule = SplitRule(dev_share=0.1, test_share=0.2, seed=3)
    rows = np.arange(100_000)
    whole = rule.split_of(np.zeros(len(rows), np.int64), rows)
    parts = [rule.split_of(np.zeros(len(part), np.int64), part) for part in np.array_split(rows, 7)]
    assert np.array_equal(whole, np.concatenate(parts))
    # Test rows are taken first, dev from all: 20 %, 10 % of the other 80 %.
    shares = np.bincount(whole) / len(rows)
    assert np.allclose(shares, [0.72, 0.08, 0.2], atol=0.005)
    assert not np.array_equal(whole, SplitRule(dev_share=0.1, test_share=0.2, seed=4).split_of(rows * 0, rows))


def test_day_rule():
    days = np.array([1, 2, 3, 4, 3, 9])
    rule = SplitRule(dev_from_day=3, test_from_day=4)
    assert rule.split_of(days, np.arange(6)).tolist() == [0, 0, 1, 2, 1, 2]
    assert SplitRule().trivial and not rule.trivial and rule.by_day


def test_accounts_add_up():
    a = SplitCounts(impressions=2, max_history=5, first_time=10, last_time=20)
    a.add(SplitCounts(impressions=3, max_history=4, first_time=9, last_time=12, unknown_candidates=1, candidates=4))
    assert (a.impressions, a.max_history, a.first_time, a.last_time, a.unknown_share) == (5, 5, 9, 20, 0.25)


def test_labels_are_told_by_most_candidates(tmp_path):
    path = tmp_path / "behaviors.tsv"
    head = "1\tU\t11/15/2019 8:55:22 AM\t\t"
    for text, want in (
        (f"{head} \n" * 3 + f"{head}N1-0 N2 N3-1\n", True),
        (f"{head}N1 N2\n" + f"{head}N1-0 N2-1 N3-0\n", True),
        (f"{head}N1 N2-1\n", False),
        (f"{head}\n", False),
    ):
        path.write_text(text)
        assert is_labelled(path) is want
