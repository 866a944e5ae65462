"""The loader's guarantees over random splits, rank and worker counts, batch sizes, streams, windows and resume points."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tnr_dist.data.batches.clicks import ClickLoader, LoaderOptions

FAST = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))

sizes = st.lists(st.lists(st.integers(1, 25), min_size=1, max_size=3), min_size=1, max_size=7)
options = st.builds(
    LoaderOptions,
    global_batch=st.integers(8, 40),
    history=st.sampled_from([1, 5, 12]),
    negatives=st.sampled_from([1, 4, 6]),
    few_negatives=st.sampled_from(["repeat", "mask"]),
    seed=st.integers(0, 3),
    streams=st.sampled_from([8, 16, 24]),
    window_shards=st.integers(1, 4),
    group=st.sampled_from(["none", "user"]),
)
ranks = st.sampled_from([1, 2, 4, 8])
workers = st.sampled_from([0, 1, 2])


def rank_batches(split, opts, world, threads, epoch=0, start=0, columns=False):
    """rank -> its batches."""
    return [
        list(
            ClickLoader(
                split.index,
                split.source,
                opts,
                rank=rank,
                world_size=world,
                workers=threads,
                teachers=split.teachers if columns else None,
            ).epoch(epoch, start)
        )
        for rank in range(world)
    ]


def global_batches(per_rank):
    """step -> the global batch without slots that carry no sample."""
    out = []
    for parts in zip(*per_rank, strict=True):
        assert len({float(part["count"]) for part in parts}) == 1
        batch = {
            name: np.concatenate([part[name][part["weights"] > 0] for part in parts])
            for name in parts[0]
            if name != "count"
        }
        assert len(batch["weights"]) == parts[0]["count"]
        out.append(batch)
    return out


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name], strict=True)


def check_world(splits, seed, shape, opts, world, threads, epoch):
    """Exactly once; equal steps; the content of every sample; the same global batches as on one rank without threads."""
    split = splits(seed, shape)
    if not split.samples():
        return
    per_rank = rank_batches(split, opts, world, threads, epoch, columns=True)
    steps = -(-len(split.samples()) // opts.global_batch)
    assert [len(batches) for batches in per_rank] == [steps] * world
    for batches in per_rank:
        assert all(len(batch["weights"]) for batch in batches), "a rank without a slot would hang the others"
        for batch in batches:
            empty = batch["weights"] == 0
            assert (batch["history"][empty] == -1).all() and (batch["candidates"][empty] == 0).all()
    batches = global_batches(per_rank)
    seen = [pair for batch in batches for pair in zip(batch["row"].tolist(), batch["click"].tolist(), strict=True)]
    assert len(seen) == len(set(seen)) and set(seen) == split.samples()
    assert all(len(batch["row"]) == opts.global_batch for batch in batches[:-1])
    check_content(split, opts, batches)
    assert_same(batches, global_batches(rank_batches(split, opts, 1, 0, epoch, columns=True)))


def check_content(split, opts, batches):
    impressions = split.impressions()
    for batch in batches:
        for i, row in enumerate(batch["row"].tolist()):
            impression = impressions[row]
            expected = np.full(opts.history, -1)
            last = impression["history"][-opts.history :]
            expected[: len(last)] = last
            assert batch["history"][i].tolist() == expected.tolist()
            news = impression["candidates"].tolist()
            clicked = {n for n, c in zip(news, impression["clicked"], strict=True) if c}
            first, *negatives = batch["candidates"][i].tolist()
            assert first == news[int(batch["click"][i]) - impression["flat"]] and first in clicked
            available = set(news) - clicked
            drawn = [n for n in negatives if n >= 0]
            assert set(drawn) <= available
            assert len(set(drawn)) == min(len(available), opts.negatives)
            if opts.few_negatives == "repeat":
                assert len(drawn) == opts.negatives
            else:
                assert len(drawn) == len(set(drawn))
            users, logits = batch["teacher_users"][i], batch["teacher_logits"][i]
            assert (users[:, 0] == impression["shard"]).all() and (users[:, 1] == impression["history_row"]).all()
            places = [impression["flat"] + news.index(n) if n >= 0 else None for n in (first, *negatives)]
            for place, values in zip(places, logits, strict=True):
                if place is not None:
                    assert values.tolist() == [impression["shard"] * 10_000 + place + m / 4 for m in range(2)]


def check_resume(splits, seed, shape, opts, before, after, threads, share):
    """A run that stops at any step and goes on at another rank count sees what an unbroken one does."""
    split = splits(seed, shape)
    if not split.samples():
        return
    whole = global_batches(rank_batches(split, opts, before, 0, 1))
    start = round(share * len(whole))
    assert_same(whole[start:], global_batches(rank_batches(split, opts, after, threads, 1, start)))


world_arguments = {
    "seed": st.integers(0, 3),
    "shape": sizes,
    "opts": options,
    "world": ranks,
    "threads": workers,
    "epoch": st.integers(0, 2),
}
resume_arguments = {
    "seed": st.integers(0, 3),
    "shape": sizes,
    "opts": options,
    "before": ranks,
    "after": ranks,
    "threads": workers,
    "share": st.floats(0, 1),
}


@FAST
@given(**world_arguments)
def test_every_rank_count_gives_the_same_batches_exactly_once(splits, seed, shape, opts, world, threads, epoch):
    check_world(splits, seed, shape, opts, world, threads, epoch)


@FAST
@given(**resume_arguments)
def test_resume_is_bit_identical(splits, seed, shape, opts, before, after, threads, share):
    check_resume(splits, seed, shape, opts, before, after, threads, share)


@pytest.mark.slow
@LONG
@given(**world_arguments)
def test_every_rank_count_gives_the_same_batches_exactly_once_long(splits, seed, shape, opts, world, threads, epoch):
    check_world(splits, seed, shape, opts, world, threads, epoch)


@pytest.mark.slow
@LONG
@given(**resume_arguments)
def test_resume_is_bit_identical_long(splits, seed, shape, opts, before, after, threads, share):
    check_resume(splits, seed, shape, opts, before, after, threads, share)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_do_not_matter(split, monkeypatch, chunk):
    """How many steps are gathered at once is not part of the order."""
    opts = LoaderOptions(9, streams=8, history=4)
    expected = global_batches(rank_batches(split, opts, 2, 0))
    monkeypatch.setattr("tnr_dist.data.batches.clicks._CHUNK_SAMPLES", chunk)
    assert_same(expected, global_batches(rank_batches(split, opts, 2, 1)))


def test_every_rank_and_worker_count(splits):
    """The whole grid on one split that no batch or stream divides."""
    split = splits(11, [[20, 5, 11], [3], [31, 17], [1, 1], [25], [40]])
    opts = LoaderOptions(13, history=6, streams=16)
    expected = global_batches(rank_batches(split, opts, 1, 0))
    for world in (1, 2, 4, 8):
        for threads in (0, 1, 2):
            assert_same(expected, global_batches(rank_batches(split, opts, world, threads)))


def test_epochs_and_seeds_differ(splits):
    split = splits(11, [[20, 5, 11], [3], [31, 17], [1, 1], [25], [40]])
    opts = LoaderOptions(10**6, history=6, negatives=2)

    def drawn(opts, epoch):
        (batch,) = global_batches(rank_batches(split, opts, 1, 0, epoch))
        order = list(zip(batch["row"].tolist(), batch["click"].tolist(), strict=True))
        return order, dict(zip(order, batch["candidates"][:, 1:].tolist(), strict=True))

    (order_a, negatives_a), (order_b, negatives_b) = drawn(opts, 0), drawn(opts, 1)
    assert order_a != order_b
    choices = [key for key in negatives_a if len(set(negatives_a[key])) == 2]
    redrawn = np.mean([sorted(negatives_a[key]) != sorted(negatives_b[key]) for key in choices])
    assert redrawn > 0.5
    assert drawn(replace(opts, seed=1), 0)[0] != order_a
