"""Damaged shards, threads, negatives, shuffling and the small state of the loader."""

import gc
import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import combinations, groupby

import numpy as np
import pytest

from tnr_dist.bench.shuffle import shuffle_quality
from tnr_dist.data.batches import clicks as loader_module
from tnr_dist.data.batches.clicks import ClickLoader, LoaderOptions
from tnr_dist.data.batches.sample_windows import decode, draw_negatives, last_clicked
from tnr_dist.data.shards import ShardInfo, SplitIndex
from tnr_dist.util.errors import InputError

OPTIONS = LoaderOptions(global_batch=8, history=5, streams=8, window_shards=2)


def make(split, options=OPTIONS, **kw):
    return ClickLoader(split.index, split.source, options, **kw)


def loader_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


# Negatives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "k"), [(5, 2), (6, 4), (4, 4), (9, 1)])
def test_negatives_are_uniform_over_subsets(count, k):
    rng = np.random.default_rng(0)
    n = 60_000
    drawn = draw_negatives(np.full(n, count), k, "repeat", rng)
    tally = Counter(tuple(sorted(row)) for row in drawn.tolist())
    subsets = list(combinations(range(count), k))
    assert set(tally) == set(subsets)
    expected = n / len(subsets)
    chi = sum((tally[s] - expected) ** 2 / expected for s in subsets)
    freedom = len(subsets) - 1
    assert chi <= freedom + 5 * np.sqrt(2 * max(freedom, 1))


def test_negatives_of_an_epoch_are_uniform(splits):
    """Chi-square over the loader's own batches: every non-clicked candidate of a sample is drawn equally often."""
    split = splits(3, [[12, 9], [15]])
    loader = make(split, replace(OPTIONS, negatives=2))
    tally: dict[tuple[int, int], Counter] = {}
    epochs = 150
    for epoch in range(epochs):
        for batch in loader.epoch(epoch):
            for row, click, news in zip(batch["row"], batch["click"], batch["candidates"], strict=True):
                if row >= 0 and len(set(news[1:].tolist())) == 2:
                    tally.setdefault((int(row), int(click)), Counter()).update(news[1:].tolist())
    impressions = split.impressions()
    chi = freedom = 0.0
    for (row, _), counts in tally.items():
        impression = impressions[row]
        negatives = impression["candidates"][~impression["clicked"]]
        if len(negatives) > 2:
            expected = epochs * 2 / len(negatives)
            chi += sum((counts[int(n)] - expected) ** 2 / expected for n in negatives)
            freedom += len(negatives) - 2  # drawing without replacement lowers the sum by (m - 2) / (m - 1)
    assert freedom > 50
    assert abs(chi - freedom) < 6 * np.sqrt(2 * freedom)


def test_fewer_negatives_than_asked():
    rng = np.random.default_rng(0)
    counts = np.array([1, 2, 3, 4, 9] * 20)
    repeated = draw_negatives(counts, 4, "repeat", rng)
    masked = draw_negatives(counts, 4, "mask", rng)
    for count, row, mask in zip(counts, repeated.tolist(), masked.tolist(), strict=True):
        kept = [x for x in mask if x >= 0]
        assert len(set(kept)) == len(kept) == min(count, 4) and mask[len(kept) :] == [-1] * (4 - len(kept))
        assert len(set(row)) == min(count, 4) and max(row) < count and min(row) >= 0
        assert max(Counter(row).values()) == -(-4 // min(count, 4))


def test_last_clicked_keeps_the_newest_in_order():
    news = np.array([1, 2, 3, 4, 5, 6], np.int32)
    assert last_clicked(news, np.array([0, 4, 4, 6]), 3).tolist() == [[2, 3, 4], [-1, -1, -1], [5, 6, -1]]
    assert last_clicked(news[:0], np.array([0, 0]), 2).tolist() == [[-1, -1]]


def test_decode_counts_what_the_index_counts(split):
    for info in split.index.shards:
        shard = decode(split.source.read_blocks(info), 5)
        assert len(shard.impression) == info.samples
        assert shard.history.dtype == shard.candidates.dtype == np.int32


# Damaged shards -----------------------------------------------------------------------------------------------------


def damage(split, number, how):
    path = split.folder / split.index.shards[number].name
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("how", "says"), [("missing", "missing"), ("truncated", "truncated"), ("flipped", "sha256 differs")]
)
def test_a_damaged_shard_stops_and_is_named(split, how, says, workers):
    path = damage(split, 2, how)
    with pytest.raises(InputError, match=f"{path}.*{says}"):
        list(make(split, workers=workers).epoch(0))
    assert not loader_threads()


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("world", [1, 4])
@pytest.mark.parametrize("bad", [[0], [2], [0, 1, 2, 4]])
def test_skipping_keeps_ranks_in_step_and_counts(split, bad, world, columns, capsys):
    for number in bad:
        damage(split, number, "flipped")
    options = replace(OPTIONS, on_bad_shard="skip")
    extra = {"teachers": split.teachers} if columns else {}
    loaders = [make(split, options, rank=r, world_size=world, workers=1, **extra) for r in range(world)]
    per_rank = [list(loader.epoch(0)) for loader in loaders]
    assert {len(batches) for batches in per_rank} == {loaders[0].steps}
    lost = sum(split.index.shards[number].samples for number in bad)
    names = {split.index.shards[number].name for number in bad}
    assert set().union(*(loader.bad_shards for loader in loaders)) == names
    batches = [batch for part in per_rank for batch in part]
    weights, rows = (np.concatenate([batch[name] for batch in batches]) for name in ("weights", "row"))
    assert weights.sum() == split.index.samples - lost and (rows < 0).sum() == lost
    for batch in batches:
        assert (batch["row"][batch["weights"] > 0] >= 0).all()
        skipped = batch["weights"] == 0
        assert (batch["history"][skipped] == -1).all() and (batch["candidates"][skipped] == 0).all()
        assert batch["candidates"].min() >= 0
        if columns:
            assert batch["teacher_users"].shape[1:] == (2, 3) and batch["teacher_logits"].shape[1:] == (5, 2)
    assert "skipping" in capsys.readouterr().err
    # A run that a damaged shard stopped may go on with `skip`.
    assert loaders[0].fingerprint() == make(split).fingerprint()


def test_skipping_everything_is_an_error(split):
    for number in range(len(split.index.shards)):
        damage(split, number, "missing")
    with pytest.raises(InputError, match="not one shard can be read"):
        list(make(split, replace(OPTIONS, on_bad_shard="skip"), teachers=split.teachers).epoch(0))


def test_an_index_that_promises_other_samples(split):
    first, *rest = split.index.shards
    wrong = ShardInfo(**{**vars(first), "samples": first.samples + 1})
    loader = ClickLoader(SplitIndex("train", True, [wrong, *rest]), split.source, OPTIONS)
    with pytest.raises(InputError, match=rf"{first.name}: {first.samples} samples, the index says {first.samples + 1}"):
        list(loader.epoch(0))


# Threads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "garbage", "break"])
def test_abandoning_ends_the_threads(split, monkeypatch, how):
    monkeypatch.setattr(loader_module, "_CHUNK_SAMPLES", 1)  # many chunks: the thread waits at a full queue
    batches = make(split, workers=2).epoch(0)
    next(batches)
    assert loader_threads()
    if how == "close":
        batches.close()
    elif how == "break":
        for _ in batches:
            break
    del batches
    gc.collect()
    assert not loader_threads()


def test_threads_end_with_the_epoch(split):
    list(make(split, workers=2).epoch(0))
    assert not loader_threads()


def test_errors_of_the_thread_arrive(split):
    def columns(info):
        raise RuntimeError("from the thread")

    with pytest.raises(RuntimeError, match="from the thread"):
        list(make(split, workers=1, teachers=columns).epoch(0))
    assert not loader_threads()


def test_a_slow_consumer_bounds_the_queue(split, monkeypatch):
    """Only a few chunks are gathered ahead, so memory does not grow with the epoch."""
    monkeypatch.setattr(loader_module, "_CHUNK_SAMPLES", 1)
    made = []
    original = loader_module._EpochReader._join
    monkeypatch.setattr(loader_module._EpochReader, "_join", lambda *a: (made.append(1), original(*a))[1])
    batches = make(split).epoch(0)
    next(batches)
    time.sleep(0.3)
    assert len(made) <= loader_module._QUEUED_CHUNKS + 2 < make(split).steps
    batches.close()


def test_two_epochs_at_a_time_do_not_disturb_each_other(split):
    loader = make(split)
    alone = [batch["row"].tolist() for batch in loader.epoch(0)]
    pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    assert [a["row"].tolist() for a, _ in pairs] == alone


def test_shards_are_read_once_and_let_go(split):
    """A shard that several streams share is read once; nothing is kept after its last use."""
    loader = make(split, workers=0)
    reads = Counter()
    load = loader.load
    loader.load = lambda number: (reads.update([number]), load(number))[1]
    reader = loader_module._EpochReader(loader, 0, 0, None)
    for _ in reader.chunks():
        pass
    assert set(reads.values()) == {1} and not reader._shared and not reader._ahead


# State and options --------------------------------------------------------------------------------------------------


def test_the_state_is_small(split):
    """What a checkpoint keeps of the loader: a position and a fingerprint."""
    loader = make(split)
    assert len(json.dumps({"epoch": 3, "step": 10**6, "fingerprint": loader.fingerprint()})) < 1000


def test_the_fingerprint_knows_what_changes_the_order(split):
    prints = {make(split, replace(OPTIONS, **{key: 2})).fingerprint() for key in ("seed", "negatives", "history")}
    prints |= {
        make(split, replace(OPTIONS, **change)).fingerprint()
        for change in ({"global_batch": 9}, {"streams": 16}, {"group": "user"})
    }
    prints.add(make(split).fingerprint())
    assert len(prints) == 7
    assert make(split, rank=1, world_size=2, workers=2).fingerprint() == make(split).fingerprint()


def test_the_fingerprint_of_an_earlier_version_is_kept_where_nothing_changed(split):
    """A run that was begun before there were groups goes on."""
    text = repr((OPTIONS, [(s.name, s.sha256) for s in split.index.shards]))
    assert "group" not in text and make(split).fingerprint() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        ({"streams": 8}, {"world_size": 3}, "streams=8 is not a multiple of the 3 ranks"),
        ({"global_batch": 2}, {"world_size": 4}, "global batch of 2 cannot be shared by 4"),
        ({"global_batch": 0}, {}, "global_batch=0"),
        ({"window_shards": 0}, {}, "window_shards=0"),
        ({}, {"workers": -1}, "workers=-1"),
    ],
)
def test_impossible_options(split, change, arguments, says):
    with pytest.raises(InputError, match=says):
        make(split, replace(OPTIONS, **change), **arguments)


def test_a_split_without_labels_or_samples(split):
    with pytest.raises(InputError, match="no labels"):
        ClickLoader(SplitIndex("test", False, split.index.shards), split.source, OPTIONS)
    with pytest.raises(InputError, match="no sample"):
        ClickLoader(SplitIndex("train", True, []), split.source, OPTIONS)


def test_arrays_are_ready_for_the_device(split):
    for batch in make(split, teachers=split.teachers).epoch(0):
        for name, values in batch.items():
            assert values.flags.c_contiguous and values.flags.writeable, name
        kinds = {name: batch[name].dtype.str for name in ("history", "candidates", "weights", "count", "row")}
        assert kinds == {"history": "<i4", "candidates": "<i4", "weights": "<f4", "count": "<f4", "row": "<i8"}


# Groups -------------------------------------------------------------------------------------------------------------


def histories(batches):
    """The (shard, history) of each sample; two histories may be alike."""
    return [tuple(map(int, user[0, :2])) for batch in batches for user in batch["teacher_users"]]


def runs(sequence):
    return [key for key, _ in groupby(sequence)]


def grouped(split, epoch=0, **options):
    options = replace(OPTIONS, group="user", **options)
    return list(make(split, options, teachers=split.teachers).epoch(epoch))


def test_samples_of_a_user_stand_together(splits):
    """Over a whole epoch of one stream, whose windows hold whole shards, each history is one run, in random order."""
    split = splits(5, [[40, 40, 40] for _ in range(5)])
    epochs = [histories(grouped(split, epoch, streams=1)) for epoch in range(2)]
    for found in epochs:
        assert len(found) == split.index.samples > 2 * len(set(found))
        assert len(runs(found)) == len(set(found))
    assert set(epochs[0]) == set(epochs[1]) and runs(epochs[0]) != runs(epochs[1])
    together = histories(make(split, replace(OPTIONS, streams=1), teachers=split.teachers).epoch(0))
    assert len(runs(together)) > 0.9 * len(together)


def test_streams_that_share_a_shard_part_few_users(splits):
    """A shard that is cut between streams is cut between users but for one at each cut."""
    split = splits(5, [[200]])
    streams = 8
    batches = grouped(split, streams=streams, global_batch=streams)
    per_stream = list(zip(*(histories([batch]) for batch in batches[:-1]), strict=True))
    assert len(per_stream) == streams
    found = [key for stream in per_stream for key in set(stream)]
    assert sum(map(len, map(runs, per_stream))) == len(found) <= len(set(found)) + streams - 1


def test_a_group_s_samples_are_shuffled_too(splits):
    split = splits(5, [[200]])
    orders = set()
    for epoch in range(20):
        batches = grouped(split, epoch, streams=1)
        keys, clicks = histories(batches), [c for batch in batches for c in batch["click"].tolist()]
        ((most, _),) = Counter(keys).most_common(1)
        orders.add(tuple(click for key, click in zip(keys, clicks, strict=True) if key == most))
    assert len(orders) > 15 and len(set(map(frozenset, orders))) == 1


def test_grouping_changes_the_order_and_nothing_else(splits):
    split = splits(5, [[40, 40, 40] for _ in range(5)])

    def samples(group):
        found = {}
        for batch in make(split, replace(OPTIONS, streams=1, group=group), teachers=split.teachers).epoch(3):
            columns = [batch[name] for name in ("candidates", "history", "teacher_users", "teacher_logits")]
            for row, click, *values in zip(batch["row"].tolist(), batch["click"].tolist(), *columns, strict=True):
                found[row, click] = [value.tolist() for value in values]
        return found

    plain, together = samples("none"), samples("user")
    assert plain == together and list(plain) != list(together)


# Shuffling ----------------------------------------------------------------------------------------------------------


def test_shuffle_quality(splits):
    split = splits(5, [[40, 40, 40] for _ in range(16)])
    quality = shuffle_quality(make(split, LoaderOptions(64, streams=16)))
    assert abs(quality.rank_correlation) < 0.2
    assert 1 / 48 <= quality.block_share_mean <= quality.block_share_max < 0.3
    # The same epoch twice is no shuffle, and one stream with windows of one shard mixes three blocks only.
    assert shuffle_quality(make(split, LoaderOptions(64)), 0, 0).rank_correlation == pytest.approx(1)
    poor = shuffle_quality(make(split, LoaderOptions(64, streams=1, window_shards=1)))
    assert poor.block_share_mean > 0.3
