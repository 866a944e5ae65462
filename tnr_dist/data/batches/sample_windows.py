"""Samples of a few shards, shuffled together: decoding of shards, negatives, and gathering of batch columns.

Everything that is small per sample (candidates, row, click) is laid out once for a whole window, in the order of the
shards, where memory is read in sequence; what is large (history, teacher user vectors) is kept once per history and
gathered when batches are cut. One NumPy call then serves thousands of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tnr_dist.data.batches.epoch_order import Group
from tnr_dist.data.shards import Block, ShardInfo
from tnr_dist.data.teacher_cache import TeacherColumns

Batch = dict[str, np.ndarray]
ReadTeachers = Callable[[ShardInfo], TeacherColumns]  # what the teachers say of a shard


@dataclass(frozen=True)
class Shard:
    """A decoded shard. Sample i is click `click[i]` (a flat candidate position) of impression `impression[i]`."""

    impression: np.ndarray  # [n]
    click: np.ndarray  # [n]
    candidates: np.ndarray  # flat news
    negatives: np.ndarray  # flat candidate positions that were not clicked
    negative_offsets: np.ndarray  # [I + 1]
    history: np.ndarray  # [H, L] news, the last L clicked, -1 behind the end
    impression_history: np.ndarray  # [I]
    row: np.ndarray  # [I]
    teachers: TeacherColumns | None
    bad: bool = False  # stands for a damaged shard: its samples have weight 0

    @property
    def sample_history(self) -> np.ndarray:
        """[n] the row of `history` of each sample."""
        rows: np.ndarray = self.impression_history[self.impression]
        return rows


def decode(
    blocks: dict[str, Block], history: int, teachers: TeacherColumns | None = None, before: int | None = None
) -> Shard:
    """Blocks of a labelled shard (one at least) as arrays that samples are cut from.

    `before`: impressions of this time (seconds since 1970) and later give no samples.
    """
    parts = list(blocks.values())
    impressions = sum(len(block["row"]) for block in parts)
    clicked = _join([block["candidate_clicked"] for block in parts]).view(bool)
    offsets = np.empty(impressions + 1, np.int64)
    impression_history = np.empty(impressions, np.int64)
    at = flat = histories = 0
    for block in parts:
        stop = at + len(block["row"])
        np.add(block["candidate_offsets"][:-1], flat, out=offsets[at:stop], casting="unsafe")
        np.add(block["impression_history"], histories, out=impression_history[at:stop], casting="unsafe")
        flat += len(block["candidate_news"])
        histories += len(block["history_offsets"]) - 1
        at = stop
    offsets[-1] = flat
    click = np.flatnonzero(clicked)
    impression = np.searchsorted(offsets, click, side="right") - 1
    negative_counts = np.diff(offsets) - np.bincount(impression, minlength=impressions)
    trainable = negative_counts[impression] > 0
    if before is not None:
        trainable &= _join([block["time"] for block in parts])[impression] < before
    if not trainable.all():
        impression, click = impression[trainable], click[trainable]
    negative_offsets = np.zeros(impressions + 1, np.int64)
    np.cumsum(negative_counts, out=negative_offsets[1:])
    return Shard(
        impression,
        click,
        _join([block["candidate_news"] for block in parts]),
        np.flatnonzero(~clicked),
        negative_offsets,
        _join([last_clicked(block["history_news"], block["history_offsets"], history) for block in parts]),
        impression_history,
        _join([block["row"] for block in parts]),
        teachers,
    )


def placeholder(samples: int, history: int, teachers: TeacherColumns | None) -> Shard:
    """Stands for a damaged shard: as many samples, all of weight 0, so that all ranks stay in step.

    `teachers`: columns without a row, which tell shapes and dtypes; None: batches carry no teachers.
    """
    zeros = np.zeros(samples, np.int64)
    one = np.zeros(1, np.int64)
    return Shard(
        zeros,
        zeros,
        np.zeros(1, np.int32),
        one,
        np.array([0, 1]),
        np.full((1, history), -1, np.int32),
        one,
        one - 1,
        None if teachers is None else TeacherColumns(_one_zero(teachers.users), _one_zero(teachers.logits)),
        bad=True,
    )


def _one_zero(rows: np.ndarray) -> np.ndarray:
    return np.zeros((1, *rows.shape[1:]), rows.dtype)


def last_clicked(news: np.ndarray, offsets: np.ndarray, length: int) -> np.ndarray:
    """The last `length` items of each ragged history, [H, length] int32, oldest first, -1 behind the end."""
    stops = offsets[1:].astype(np.int64)
    starts = np.maximum(offsets[:-1].astype(np.int64), stops - length)
    if not len(news):
        return np.full((len(stops), length), -1, np.int32)
    place = np.arange(length)
    out = news.take(starts[:, None] + place, mode="clip").astype(np.int32, copy=False)
    out[place >= (stops - starts)[:, None]] = -1
    return out


def draw_negatives(counts: np.ndarray, k: int, few: str, rng: np.random.Generator) -> np.ndarray:
    """For each sample k distinct numbers below counts[i] >= 1 (its non-clicked candidates), [n, k] int64.

    Every subset is equally likely (Floyd's algorithm, one step for all samples at a time; the order within a subset is
    not random). A sample with fewer than k takes each once and then repeats them ('repeat') or is filled with -1
    ('mask').
    """
    take = np.minimum(counts, k)
    rest = counts - take
    drawn = np.empty((k, len(counts)), np.int64)  # a row per step: comparisons then read memory in sequence
    for i in range(k):
        top = rest + i
        number = (rng.random(len(counts)) * (top + 1)).astype(np.int64)
        taken = np.zeros(len(counts), bool)
        for earlier in drawn[:i]:
            taken |= earlier == number
        drawn[i] = np.where(taken, top, number)
    short = np.flatnonzero(take < k)
    for i in range(k) if len(short) else ():
        over = short[take[short] <= i]
        drawn[i, over] = -1 if few == "mask" else drawn[i % take[over], over]
    return drawn.T


@dataclass(frozen=True)
class Window:
    """Samples of a few shards, and the order in which they leave.

    `per_sample` [n, ...] in the order of the shards; `per_history` [H, ...], row `history_row[i]` for sample i.
    """

    order: np.ndarray  # [n]
    history_row: np.ndarray  # [n]
    per_sample: Batch
    per_history: Batch

    def tables(self, low: int, high: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name, table and rows of every column of samples low..high in the window's order."""
        which = self.order[low:high]
        rows = self.history_row.take(which, mode="clip")
        yield from ((name, table, which) for name, table in self.per_sample.items())
        yield from ((name, table, rows) for name, table in self.per_history.items())


def shuffled(history: np.ndarray, group: Group, rng: np.random.Generator) -> np.ndarray:
    """A random order of samples, [n] their numbers.

    `history` [n]: a number for each sample's history. With `group='user'` the samples of one history stand together: the
    histories come in random order, and so do the samples of each.
    """
    order = rng.permutation(len(history))
    if group == "none":
        return order
    place = rng.permutation(int(history.max(initial=-1)) + 1)
    return order[np.argsort(place[history[order]], kind="stable")]


def make_window(
    pieces: Iterable[tuple[Shard, np.ndarray | None]],
    negatives: int,
    few: str,
    rng: np.random.Generator,
    group: Group = "none",
) -> Window:
    """Shuffle the samples of some shards together and draw their negatives.

    `pieces`: shards, each with the numbers of those of its samples that belong here (None: all). `group`: see `shuffled`.
    """
    samples: list[Batch] = []
    histories: list[Batch] = []
    history_rows: list[np.ndarray] = []
    base = 0
    for shard, chosen in pieces:
        impression = shard.impression if chosen is None else shard.impression[chosen]
        click = shard.click if chosen is None else shard.click[chosen]
        samples.append(_per_sample(shard, impression, click, negatives, few, rng))
        rows = shard.impression_history[impression]
        kept = {"history": shard.history}
        if shard.teachers is not None:
            kept["teacher_users"] = shard.teachers.users
        if chosen is not None:  # a part of a shard keeps its own histories only: small data has many parts
            used, rows = np.unique(rows, return_inverse=True)
            kept = {name: values[used] for name, values in kept.items()}
        histories.append(kept)
        history_rows.append(rows + base)
        base += len(kept["history"])
    history_row = _join(history_rows)
    return Window(
        shuffled(history_row, group, rng),
        history_row,
        {name: _join([part[name] for part in samples]) for name in samples[0]},
        {name: _join([part[name] for part in histories]) for name in histories[0]},
    )


def _per_sample(
    shard: Shard, impression: np.ndarray, click: np.ndarray, negatives: int, few: str, rng: np.random.Generator
) -> Batch:
    start = shard.negative_offsets[impression]
    numbers = draw_negatives(shard.negative_offsets[impression + 1] - start, negatives, few, rng)
    positions = np.empty((len(click), 1 + negatives), np.int64)
    positions[:, 0] = click
    # A masked slot (-1) points at the click for now; its news becomes -1 below.
    masked = numbers < 0 if few == "mask" else None
    drawn = shard.negatives.take(numbers + start[:, None], mode="clip")
    positions[:, 1:] = drawn if masked is None else np.where(masked, click[:, None], drawn)
    candidates = shard.candidates.take(positions, mode="clip")
    if masked is not None:
        candidates[:, 1:][masked] = -1
    if shard.bad:
        candidates[:] = 0
    out = {
        "candidates": candidates,
        "weights": np.full(len(click), 0.0 if shard.bad else 1.0, np.float32),
        "row": shard.row[impression],
        "click": click,
    }
    if shard.teachers is not None:
        out["teacher_logits"] = shard.teachers.logits.take(positions, 0, mode="clip")
    return out


def _join(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
