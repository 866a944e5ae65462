"""Batches of MIND's shape, grouped by user or not."""

import numpy as np

from tnr_dist.bench.shapes import click_batch, grouped_users, user_samples
from tnr_dist.stages.parts.click_task import distinct_rows


def distinct(samples, group):
    batch = click_batch(samples, 20_000, (50, 5), (1, 2), np.random.default_rng(0), group)
    ids = np.concatenate([batch["history"].ravel(), batch["candidates"].ravel()])
    return len(np.unique(ids[ids >= 0])), len(distinct_rows(batch["history"])[0])


def test_distinct_titles_are_those_of_mind():
    for samples, counted in {128: 2490, 512: 5914, 2048: 11264}.items():
        assert abs(distinct(samples, "none")[0] / counted - 1) < 0.09


def test_grouped_batches_have_fewer_titles_and_users():
    (titles, users), (fewer_titles, fewer_users) = (distinct(1024, group) for group in ("none", "user"))
    assert 1.6 < titles / fewer_titles < 2 and 3.8 < users / fewer_users < 5


def test_each_user_of_a_grouped_batch_is_one_run():
    users = grouped_users(1024, 16, np.random.default_rng(1))
    assert len(users) == 1024 and 1 + np.count_nonzero(np.diff(users)) == len(np.unique(users))
    assert abs(user_samples(50_000, np.random.default_rng(2)).mean() - 3_383_656 / 711_222) < 0.1
