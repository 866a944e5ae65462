"""`tnr data synth`: a MIND-format data set of any size whose true click probabilities are known.

    OUTPUT/{train,dev,test}/{news,behaviors}.tsv   as MIND's files, quirks included; test without labels
    OUTPUT/corpus.tsv                              id, category, subcategory, title, abstract, body (with bodies=True)
    OUTPUT/truth/{dev,test}.parquet                impression_id, probabilities in candidate order
    OUTPUT/truth/test_labels.parquet               impression_id, labels in candidate order
    OUTPUT/synth.json                              arguments, counts, oracle figures

The same arguments give the same bytes, whatever the number of threads. `readers` holds the click model, `grammar`
the texts.
"""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tnr_dist.data.manifest import SYNTH
from tnr_dist.synth import readers as model
from tnr_dist.synth.columns import bytes_of, concat, join
from tnr_dist.synth.files import Arguments, Stamp, write_news, write_texts
from tnr_dist.synth.grammar import Vocabulary, read_tables
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, read_json_object, write_json
from tnr_dist.util.json_types import checked
from tnr_dist.util.progress import Bar, say

VERSION = 1
_DEV_SHARE = 0.17  # MINDlarge: 376,471 dev of 2,232,748 train impressions
_LEAST_NEWS, _MOST_NEWS, _MOST_USERS = 200, 1 << 20, 4_000_000
_MOST_SIGNAL = 1.3  # beyond, logits would not fit the step they are kept in
_CHUNK = 1 << 15  # impressions or users at a time
_THREADS = 2
_SCORED = 50_000  # impressions behind the oracle figures
_START = datetime.date(2019, 10, 12)
_TRUTH = pa.schema([("impression_id", pa.int64()), ("probabilities", pa.list_(pa.float32()))])
_LABELS = pa.schema([("impression_id", pa.int64()), ("labels", pa.list_(pa.int8()))])

T = TypeVar("T")


@dataclass
class _Chunk:
    """Consecutive impressions of a split: R rows, X candidates."""

    users: NDArray[np.int64]  # [R]
    items: NDArray[np.int64]  # [X]
    counts: NDArray[np.int64]  # [R]
    labels: NDArray[np.int8]  # [X]
    probabilities: NDArray[np.float32]  # [X]
    lines: memoryview


@dataclass
class _World:
    """All that the impressions of every split share."""

    news: model.News
    users: model.Users
    histories: pa.Array  # one string a user
    history_items: NDArray[np.int64]
    history_counts: NDArray[np.int64]
    user_names: pa.Array
    candidates: pa.Array  # "N7", "N7-0", "N7-1" at 3 * news + (0, 1, 2)
    clock: pa.Array  # "8:55:22 AM", one a second of the day


def synthesize(
    output: Path,
    *,
    news: int,
    users: int,
    impressions: int,
    dev_impressions: int | None = None,
    test_impressions: int | None = None,
    bodies: bool = False,
    body_words: int = 150,
    signal: float = 1.0,
    seed: int = 0,
) -> Stamp:
    """Generate a data set under `output` and return what its `synth.json` says.

    Args:
        output: folder to make; a complete one of the same arguments is kept as it is.
        news: number of news in all splits together; at least 200.
        users: number of users.
        impressions: number of train impressions.
        dev_impressions: 17 % of `impressions` by default.
        test_impressions: as `dev_impressions` by default.
        bodies: write corpus.tsv with bodies too.
        body_words: about how many words a body has.
        signal: factor of what users want: below 1 clicks are harder to predict, above 1 easier.
        seed: of everything.

    Raises:
        InputError: a size is out of range, or `output` holds something else.
    """
    dev = max(1, round(_DEV_SHARE * impressions)) if dev_impressions is None else dev_impressions
    test = dev if test_impressions is None else test_impressions
    counts = {"train": impressions, "dev": dev, "test": test}
    arguments: Arguments = {"news": news, "users": users, "impressions": counts, "seed": seed}
    arguments["body_words"] = body_words if bodies else 0
    if signal != 1.0:
        arguments["signal"] = signal
    if not 0 < signal <= _MOST_SIGNAL:
        raise InputError(f"signal={signal}: give more than 0 and at most {_MOST_SIGNAL}")
    _check(news, users, counts, body_words, seed)
    output = Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        return _existing(output, arguments)
    with atomic_path(output) as folder:
        result = _generate(folder, arguments)
        write_json(folder / SYNTH, result)
    return result


def oracle_scores(output: Path, split: str) -> tuple[pa.Array, pa.ListArray]:
    """The true click probabilities of a split, "dev" or "test".

    Returns:
        (impression ids int64 [R], probabilities list<float32> [R] in candidate order).

    Raises:
        InputError: `output` has no truth for the split.
    """
    path = Path(output) / "truth" / f"{split}.parquet"
    if not path.is_file():
        raise InputError(f"{path}: no such file; true probabilities exist for the dev and test of `tnr data synth`")
    table = pq.read_table(path).combine_chunks()
    return table["impression_id"].chunk(0), table["probabilities"].chunk(0)


def _check(news: int, users: int, counts: dict[str, int], body_words: int, seed: int) -> None:
    if not _LEAST_NEWS <= news < _MOST_NEWS:
        raise InputError(f"news={news}: give between {_LEAST_NEWS} and {_MOST_NEWS - 1}")
    if not 1 <= users <= _MOST_USERS:
        raise InputError(f"users={users}: give between 1 and {_MOST_USERS}")
    for split, count in counts.items():
        if count < 1:
            raise InputError(f"{split} impressions={count}: give at least 1")
    if body_words < 1:
        raise InputError(f"body_words={body_words}: give at least 1")
    if seed < 0:
        raise InputError(f"seed={seed}: give 0 or more")


def _existing(output: Path, arguments: Arguments) -> Stamp:
    stamp = output / SYNTH
    if stamp.is_file():
        stored = checked(read_json_object(stamp), Stamp, f"{stamp}: ")
        if stored.get("version") == VERSION and stored.get("arguments") == arguments:
            say(f"{output}: already there, made by the same arguments")
            return stored
        raise InputError(f"{output}: holds a data set of other arguments; give another folder or remove it")
    raise InputError(f"{output}: exists and is not empty; give another folder or remove it")


def _generate(folder: Path, arguments: Arguments) -> Stamp:
    seed = arguments["seed"]
    vocabularies = read_tables()
    news = model.make_news(_rng(seed, 0), arguments["news"], len(vocabularies))
    names = _rng(seed, 1).permutation(arguments["news"]) + 1
    world = _make_world(seed, news, arguments["users"], names, vocabularies, arguments.get("signal", 1.0))
    texts = write_texts(
        folder, [_rng(seed, key) for key in (7, 8, 9)], news, names, vocabularies, arguments["body_words"]
    )
    clicks = np.zeros(arguments["news"], np.int64)
    splits, figures = {}, {}
    activity = np.cumsum(_rng(seed, 2).lognormal(0.0, 1.0, arguments["users"]))
    for place, (split, count) in enumerate(arguments["impressions"].items()):
        rng = _rng(seed, 3, place)
        who = _impression_users(rng, activity, count, everyone=split == "train")
        splits[split], mentioned, scored = _write_split(
            folder, split, world, who, partial(_rng, seed, 4, place), clicks
        )
        if split == "dev":
            figures = {f"dev_{name}": value for name, value in scored.items()}
        write_news(folder / split / "news.tsv", names, texts, mentioned)
    return {
        "version": VERSION,
        "arguments": arguments,
        "categories": len({v.category for v in vocabularies}),
        "subcategories": len(vocabularies),
        "splits": splits,
        "oracle": figures,
    }


def _rng(seed: int, *key: int) -> np.random.Generator:
    """A generator of its own for each part of the work, so that order and threads change nothing."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _in_order(work: Callable[[int], T], count: int) -> Iterator[T]:
    """`work(0)`, `work(1)`, ... computed by threads, a few ahead (NumPy and pyarrow release the GIL)."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[Future[T]] = deque()
        for number in range(count):
            waiting.append(pool.submit(work, number))
            if len(waiting) > _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _make_world(
    seed: int,
    news: model.News,
    count: int,
    names: NDArray[np.int64],
    vocabularies: tuple[Vocabulary, ...],
    signal: float,
) -> _World:
    kinds = sorted({v.category for v in vocabularies})
    categories = np.array([kinds.index(v.category) for v in vocabularies])
    ids = concat("N", pa.array(names))
    suffixed = [concat(ids, suffix) for suffix in ("", "-0", "-1")]
    candidates = pa.concat_arrays(suffixed).take(pa.array(np.arange(3 * len(names)).reshape(3, -1).T.ravel()))

    def work(number: int) -> tuple[model.Users, pa.Array, NDArray[np.int64], NDArray[np.int64]]:
        rng = _rng(seed, 5, number)
        size = min(_CHUNK, count - number * _CHUNK)
        phases = model.make_users(rng, size, categories, signal)
        items, counts = model.draw_histories(rng, phases, news, len(vocabularies))
        return phases[-1], join(ids.take(pa.array(items)), counts, " "), items.astype(np.int32), counts

    parts = []
    with Bar("users", count, "users") as bar:
        for part in _in_order(work, -(-count // _CHUNK)):
            parts.append(part)
            bar.advance(len(part[3]))
    numbers = pa.array(_rng(seed, 6).permutation(count) + 1)
    seconds = np.arange(86400)
    hour, rest = seconds // 3600, seconds % 3600
    clock = [
        f"{h % 12 or 12}:{r // 60:02d}:{r % 60:02d} {'AM' if h < 12 else 'PM'}"
        for h, r in zip(hour.tolist(), rest.tolist(), strict=True)
    ]
    return _World(
        news,
        model.Users(np.concatenate([p[0].interest for p in parts]), np.concatenate([p[0].taste for p in parts])),
        pa.concat_arrays([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
        np.concatenate([p[3] for p in parts]),
        concat("U", numbers),
        candidates,
        pa.array(clock, pa.large_string()),
    )


def _impression_users(
    rng: np.random.Generator, activity: NDArray[np.float64], count: int, everyone: bool
) -> NDArray[np.int64]:
    """Who sees each impression [count]; `everyone` gives each user one first, as far as they go."""
    users = len(activity)
    first = rng.permutation(users)[:count] if everyone else np.empty(0, np.int64)
    drawn = np.searchsorted(activity, rng.random(count - len(first)) * activity[-1], side="right")
    who = np.concatenate([first, np.minimum(drawn, users - 1)])
    rng.shuffle(who)
    return who


def _make_chunk(
    rng: np.random.Generator, world: _World, exposure: model.Exposure, users: NDArray[np.int64], first: int, test: bool
) -> _Chunk:
    """Impressions number `first`, `first` + 1, ... (1-based) of `users` [R]."""
    size = len(users)
    begin, end = exposure.first_hour, exposure.first_hour + len(exposure.low)
    hour_of_day = np.arange(begin, end) % 24
    # Fewest readers at 4 in the morning, most at 4 in the afternoon.
    busy = np.cumsum(1.1 - np.cos((hour_of_day - 4) * np.pi / 12))
    hours = begin + np.minimum(np.searchsorted(busy, rng.random(size) * busy[-1]), end - begin - 1)
    seconds = rng.integers(3600, size=size)
    items, counts = exposure.draw(rng, hours, model.sizes(rng, size, 25.0, 0.91, 2, 300))
    rows = np.repeat(users, counts)
    times = np.repeat(hours + seconds / 3600, counts)
    scores = model.logits(world.users, world.news, rows, items, times)
    labels = model.click(rng, scores, counts)
    kind = np.zeros(len(items), np.int64) if test else 1 + labels.astype(np.int64)
    shown = join(world.candidates.take(pa.array(3 * items + kind)), counts, " ")
    days = [_START + datetime.timedelta(day) for day in range(-(-end // 24))]
    dates = pa.array([f"{d.month}/{d.day}/{d.year}" for d in days], pa.large_string())
    ids = pa.array(np.arange(first, first + size))
    clock = world.clock.take(pa.array(hours % 24 * 3600 + seconds))
    when = concat(dates.take(pa.array(hours // 24)), " ", clock)
    who, histories = world.user_names.take(pa.array(users)), world.histories.take(pa.array(users))
    lines = concat(ids, "\t", who, "\t", when, "\t", histories, "\t", shown, "\n")
    return _Chunk(users, items, counts, labels, model.probabilities(scores, counts), bytes_of(lines))


def _write_split(
    folder: Path,
    split: str,
    world: _World,
    who: NDArray[np.int64],
    rng_of: Callable[[int], np.random.Generator],
    clicks: NDArray[np.int64],
) -> tuple[dict[str, float], NDArray[np.bool_], dict[str, float]]:
    """Write a split's behaviours and truth; count train clicks into `clicks` [N].

    Returns:
        (counts; which news are mentioned [N]; figures of the oracle and of the most popular news).
    """
    exposure = model.Exposure(world.news, split)
    mentioned = np.zeros(len(clicks), bool)
    (folder / split).mkdir(parents=True)
    (folder / "truth").mkdir(exist_ok=True)
    total = {"candidates": 0, "clicks": 0}
    scored: list[_Chunk] = []

    def work(number: int) -> _Chunk:
        low = number * _CHUNK
        users = who[low : low + _CHUNK]
        return _make_chunk(rng_of(number), world, exposure, users, low + 1, split == "test")

    truth = None if split == "train" else pq.ParquetWriter(folder / "truth" / f"{split}.parquet", _TRUTH)
    answers = pq.ParquetWriter(folder / "truth" / "test_labels.parquet", _LABELS) if split == "test" else None
    done = 0
    with (folder / split / "behaviors.tsv").open("wb") as file, Bar(split, len(who), "impressions") as bar:
        for chunk in _in_order(work, -(-len(who) // _CHUNK)):
            file.write(chunk.lines)
            mentioned[chunk.items] = True
            total["candidates"] += len(chunk.items)
            total["clicks"] += int(chunk.labels.sum())
            if truth:
                _append(truth, _TRUTH, done, chunk.probabilities, chunk.counts)
                if done < _SCORED:
                    scored.append(chunk)
            else:
                clicks += np.bincount(chunk.items[chunk.labels == 1], minlength=len(clicks))
            if answers:
                _append(answers, _LABELS, done, chunk.labels, chunk.counts)
            done += len(chunk.counts)
            bar.advance(len(chunk.counts))
    for writer in (truth, answers):
        if writer:
            writer.close()
    active = np.zeros(len(world.history_counts), bool)
    active[who] = True
    mentioned[world.history_items[np.repeat(active, world.history_counts)]] = True
    figures = {}
    if scored:
        figures = {
            "auc": _mean_auc(scored, [chunk.probabilities for chunk in scored]),
            "popularity_auc": _mean_auc(scored, [clicks[chunk.items].astype(np.float32) for chunk in scored]),
        }
    counts: dict[str, float] = {
        "impressions": len(who),
        "users": int(active.sum()),
        "news": int(mentioned.sum()),
        **total,
    }
    lengths = world.history_counts[who]
    counts["history_mean"] = round(float(lengths.mean()), 3)
    counts["history_median"] = float(np.median(lengths))
    return counts, mentioned, figures


def _append(
    writer: pq.ParquetWriter, schema: pa.Schema, done: int, values: np.ndarray, counts: NDArray[np.int64]
) -> None:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    ids = pa.array(np.arange(done + 1, done + 1 + len(counts)))
    writer.write_table(pa.table([ids, pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))], schema=schema))


def _mean_auc(chunks: list[_Chunk], scores: list[NDArray[np.float32]]) -> float:
    """Mean over impressions of the share of (click, non-click) pairs in the right order; ties count half."""
    total, number = 0.0, 0
    for chunk, score in zip(chunks, scores, strict=True):
        starts = np.cumsum(chunk.counts) - chunk.counts
        rows = np.repeat(np.arange(len(chunk.counts)), chunk.counts)
        clicked = np.flatnonzero(chunk.labels)
        width = chunk.counts[rows[clicked]]
        pair = np.repeat(np.arange(len(clicked)), width)
        other = np.arange(int(width.sum())) + np.repeat(starts[rows[clicked]] - (np.cumsum(width) - width), width)
        against = chunk.labels[other] == 0
        mine, other, pair = score[clicked][pair[against]], score[other[against]], pair[against]
        won = (mine > other) + 0.5 * (mine == other)
        row = rows[clicked][pair]
        pairs = np.bincount(row, minlength=len(chunk.counts))
        total += float((np.bincount(row, won, minlength=len(chunk.counts)) / pairs).sum())
        number += len(chunk.counts)
    return round(total / number, 4)
