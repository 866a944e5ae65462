"""Click samples as global batches, the same for every number of ranks.

State machine. An epoch's order is a function of (seed, epoch) and the data alone:

1. All shards are permuted. Their samples, laid end to end, are one sequence of N samples.
2. The sequence is cut into S canonical streams. Stream s supplies `quota[s]` samples of every global batch and owns the
   samples from N*c(s)//B to N*c(s+1)//B, where c(s) = B*s//S. So all streams last equally long: every step but the last
   is full, no sample is repeated, none is left out. A shard on a boundary is read by both sides; each takes its part of
   that shard's own permutation.
3. Within a stream, `window_shards` shards at a time form a window, whose samples are permuted together; negatives are
   drawn for the whole window.
4. Step t's global batch is, stream by stream, the next `quota[s]` samples. Rank r of R (R divides S) computes the
   streams r*S/R .. (r+1)*S/R - 1, a contiguous slice of the global batch.

Nothing carries over from one window to the next, so the position (epoch, step) is the whole state: resuming reads the
window it falls into and goes on, at any number of ranks.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tnr_dist.data.shards import Block, ShardInfo, SplitIndex, parse_shard, segment_sums
from tnr_dist.data.source import ShardSource
from tnr_dist.errors import InputError
from tnr_dist.progress import say

Batch = dict[str, np.ndarray]
# Extra columns for a shard, in its blocks' order: per history ("teacher_users" [H, M, D]) and per candidate
# ("teacher_logits" [candidates, M]).
Columns = Callable[[ShardInfo, dict[str, Block]], dict[str, np.ndarray]]
_AHEAD = 8192  # samples gathered at once: one NumPy call a stream then serves many steps


@dataclass(frozen=True)
class LoaderOptions:
    """What the batches depend on."""

    global_batch: int
    history: int = 50
    negatives: int = 4
    few_negatives: Literal["repeat", "mask"] = "repeat"
    seed: int = 0
    streams: int = 16
    window_shards: int = 2
    on_bad_shard: Literal["stop", "skip"] = "stop"


@dataclass
class _Shard:
    """A decoded shard. Sample i is click `click[i]` (a flat candidate position) of impression `impression[i]`."""

    impression: np.ndarray  # [n]
    click: np.ndarray  # [n]
    candidates: np.ndarray  # flat news
    negatives: np.ndarray  # flat candidate positions that were not clicked
    negative_offsets: np.ndarray  # [I + 1]
    history: np.ndarray  # [H, L] news, the last L clicked, -1 behind the end
    impression_history: np.ndarray  # [I]
    row: np.ndarray  # [I]
    columns: dict[str, np.ndarray]
    bad: bool = False


def decode(blocks: dict[str, Block], history: int, columns: dict[str, np.ndarray] | None = None) -> _Shard:
    """Blocks of a labelled shard as arrays that samples are cut from."""
    parts = list(blocks.values())
    counts = [len(block["row"]) for block in parts]
    flat = [len(block["candidate_news"]) for block in parts]
    histories = [len(block["history_offsets"]) - 1 for block in parts]
    clicked = np.concatenate([block["candidate_clicked"] for block in parts]).astype(bool)
    base = np.cumsum([0, *flat[:-1]])
    offsets = np.concatenate(
        [block["candidate_offsets"][:-1] + start for block, start in zip(parts, base, strict=True)] + [[sum(flat)]]
    ).astype(np.int64)
    clicks = segment_sums(clicked, offsets)
    negative_counts = np.diff(offsets) - clicks
    positions = np.flatnonzero(clicked)
    impression = np.repeat(np.arange(sum(counts)), clicks)
    trainable = negative_counts[impression] > 0
    negative_offsets = np.zeros(sum(counts) + 1, np.int64)
    np.cumsum(negative_counts, out=negative_offsets[1:])
    base = np.cumsum([0, *histories[:-1]])
    return _Shard(
        impression[trainable],
        positions[trainable],
        np.concatenate([block["candidate_news"] for block in parts]),
        np.flatnonzero(~clicked),
        negative_offsets,
        np.concatenate([last_clicked(b["history_news"], b["history_offsets"], history) for b in parts]),
        np.concatenate([b["impression_history"] + start for b, start in zip(parts, base, strict=True)]),
        np.concatenate([block["row"] for block in parts]),
        columns or {},
    )


def last_clicked(news: np.ndarray, offsets: np.ndarray, length: int) -> np.ndarray:
    """The last `length` items of each ragged history, [H, length] int32, oldest first, -1 behind the end."""
    stops = offsets[1:].astype(np.int64)
    starts = np.maximum(offsets[:-1].astype(np.int64), stops - length)
    positions = starts[:, None] + np.arange(length)
    inside = positions < stops[:, None]
    if not len(news):
        return np.full(inside.shape, -1, np.int32)
    return np.where(inside, news[np.minimum(positions, len(news) - 1)], -1).astype(np.int32)


def draw_negatives(counts: np.ndarray, k: int, few: str, rng: np.random.Generator) -> np.ndarray:
    """For each sample k distinct numbers below counts[i] (its non-clicked candidates), uniform over subsets, [n, k].

    Floyd's algorithm, one step for all samples at a time. A sample with fewer than k takes each once and then repeats
    them ('repeat') or is filled with -1 ('mask').
    """
    take = np.minimum(counts, k)
    out = np.full((len(counts), k), -1, np.int64)
    for i in range(k):
        top = counts - take + i
        drawn = (rng.random(len(counts)) * (top + 1)).astype(np.int64)
        taken = (out[:, :i] == drawn[:, None]).any(1)
        out[:, i] = np.where(i < take, np.where(taken, top, drawn), -1)
    if few == "repeat":
        short = np.flatnonzero(take < k)
        if len(short):
            out[short] = out[short[:, None], np.arange(k)[None] % take[short, None]]
    return out


@dataclass
class _Window:
    """Shuffled samples of a few shards: for each the shard it comes from, its number there and its negatives."""

    shards: list[_Shard]
    shard: np.ndarray  # [n]
    sample: np.ndarray  # [n]
    negatives: np.ndarray  # [n, K] numbers among the impression's negatives


class _Plan:
    """An epoch's cut into streams and windows; holds numbers only, no data."""

    def __init__(self, index: SplitIndex, options: LoaderOptions, epoch: int) -> None:
        counts = np.array([shard.samples for shard in index.shards], np.int64)
        self.order = np.random.default_rng([options.seed, epoch, 1]).permutation(len(counts))
        ends = np.concatenate([[0], np.cumsum(counts[self.order])])
        total, batch, streams = int(ends[-1]), options.global_batch, options.streams
        cuts = [batch * s // streams for s in range(streams + 1)]
        self.quota = np.diff(cuts)
        self.bounds = [total * cut // batch for cut in cuts]
        self.steps = -(-total // batch)
        self.windows: list[list[list[tuple[int, int, int]]]] = []  # stream -> window -> (shard, from, to)
        self.window_ends: list[np.ndarray] = []  # stream -> samples up to the end of each window
        for s in range(streams):
            low, high = self.bounds[s], self.bounds[s + 1]
            first = int(np.searchsorted(ends, low, side="right")) - 1
            pieces = []
            for k in range(first, len(counts)):
                start, stop = max(low, int(ends[k])), min(high, int(ends[k + 1]))
                if start >= high:
                    break
                if stop > start:
                    pieces.append((int(self.order[k]), start - int(ends[k]), stop - int(ends[k])))
            size = options.window_shards
            windows = [pieces[i : i + size] for i in range(0, len(pieces), size)]
            self.windows.append(windows)
            self.window_ends.append(np.cumsum([sum(b - a for _, a, b in w) for w in windows]).astype(np.int64))


class ClickLoader:
    """Iterates over this rank's slices of the global batches of a prepared, labelled split.

    Batches are dicts of NumPy arrays; b is this rank's share of the batch:

    - `history` [b, L] int32: news indices, oldest first, -1 behind the end;
    - `candidates` [b, 1 + K] int32: the clicked news first, then the negatives (-1: none, with few_negatives='mask');
    - `weights` [b] float32: 1, or 0 for a slot that carries no sample (a rank without a share of the last batch, or a
      damaged shard that is skipped);
    - `count` []: samples of the global batch, over all ranks;
    - `row`, `click` [b]: the impression's line in the raw file and the click's place among the shard's candidates;
    - with `columns`: `teacher_users` [b, M, D], `teacher_logits` [b, 1 + K, M].

    Raises InputError for a split without labels or samples, and for damaged shards (`on_bad_shard='stop'`).
    """

    def __init__(
        self,
        index: SplitIndex,
        source: ShardSource,
        options: LoaderOptions,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 1,
        columns: Columns | None = None,
    ) -> None:
        if not index.labelled:
            raise InputError(f"{source.folder}: the {index.split} split has no labels to train on")
        if not index.samples:
            raise InputError(f"{source.folder}: no sample to train on (a click beside at least one non-clicked news)")
        if options.streams % world_size:
            raise InputError(
                f"data.streams={options.streams} is not a multiple of the {world_size} ranks; set data.streams to one"
            )
        if options.global_batch < world_size:
            raise InputError(f"a global batch of {options.global_batch} cannot be shared by {world_size} ranks")
        self.index, self.source, self.options, self.columns = index, source, options, columns
        self.rank, self.world_size, self.workers = rank, world_size, workers
        per_rank = options.streams // world_size
        self.streams = range(rank * per_rank, (rank + 1) * per_rank)
        self.bad_shards: dict[str, str] = {}
        self._lock = threading.Lock()
        # Boundary shards are wanted by two streams; small data sets by all of them.
        self._decoded: OrderedDict[int, Future[_Shard]] = OrderedDict()

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on all ranks."""
        return -(-self.index.samples // self.options.global_batch)

    def fingerprint(self) -> str:
        """Identifies the sequence of global batches; a saved position fits only the same one."""
        text = repr((self.options, [(s.name, s.sha256) for s in self.index.shards]))
        return hashlib.sha256(text.encode()).hexdigest()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch from step `start` on."""
        if self.workers == 0:
            yield from self._generate(epoch, start, None)
            return
        yield from _in_thread(lambda pool: self._generate(epoch, start, pool), self.workers)

    # Reading --------------------------------------------------------------------------------------------------------

    def _load(self, number: int) -> _Shard:
        info = self.index.shards[number]
        try:
            blocks = parse_shard(self.source.read(info), self.source.name(info))
            extra = self.columns(info, blocks) if self.columns else {}
            shard = decode(blocks, self.options.history, extra)
            if len(shard.impression) != info.samples:
                raise InputError(
                    f"{self.source.name(info)}: {len(shard.impression)} samples, the index says {info.samples}"
                )
            return shard
        except InputError as error:
            if self.options.on_bad_shard == "stop":
                raise
            with self._lock:
                if info.name not in self.bad_shards:
                    self.bad_shards[info.name] = str(error)
                    say(f"skipping {info.samples:,} samples: {error}")
            return self._placeholder(info)

    def _placeholder(self, info: ShardInfo) -> _Shard:
        """Stands for a damaged shard: as many samples, all of weight 0, so that all ranks stay in step."""
        n, none = info.samples, np.zeros(info.samples, np.int64)
        return _Shard(
            none, none, np.full(1, -1, np.int32), none[:1], np.array([0, 1]),
            np.full((1, self.options.history), -1, np.int32), none[:1].astype(np.int32), none[:1] - 1, {}, bad=True,
        ) if n else decode({}, self.options.history)  # fmt: skip

    def _shard(self, number: int, pool: ThreadPoolExecutor | None) -> Future[_Shard]:
        with self._lock:
            future = self._decoded.get(number)
            if future is None:
                if pool is not None:
                    future = pool.submit(self._load, number)
                else:
                    future = Future()
                self._decoded[number] = future
                new = pool is None
            else:
                new = False
                self._decoded.move_to_end(number)
            while len(self._decoded) > 2 * self.options.window_shards * len(self.streams) + 2:
                self._decoded.popitem(last=False)
        if new:
            try:
                future.set_result(self._load(number))
            except InputError as error:
                future.set_exception(error)
        return future

    def _window(self, plan: _Plan, epoch: int, stream: int, number: int, pool: ThreadPoolExecutor | None) -> _Window:
        pieces = plan.windows[stream][number]
        if pool is not None and number + 1 < len(plan.windows[stream]):
            for shard, _, _ in plan.windows[stream][number + 1]:
                self._shard(shard, pool)
        shards = [self._shard(shard, pool) for shard, _, _ in pieces]
        loaded = [future.result() for future in shards]
        samples = []
        for (shard, low, high), data in zip(pieces, loaded, strict=True):
            n = len(data.impression)
            if high - low == n:
                samples.append(np.arange(n))
            else:  # shared with another stream: each takes its part of the same permutation
                samples.append(np.random.default_rng([self.options.seed, epoch, 2, shard]).permutation(n)[low:high])
        which = np.repeat(np.arange(len(pieces)), [len(s) for s in samples])
        rng = np.random.default_rng([self.options.seed, epoch, 3, stream, number])
        order = rng.permutation(len(which))
        which, sample = which[order], np.concatenate(samples)[order]
        counts = np.empty(len(which), np.int64)
        for i, data in enumerate(loaded):
            mine = np.flatnonzero(which == i)
            impression = data.impression[sample[mine]]
            counts[mine] = data.negative_offsets[impression + 1] - data.negative_offsets[impression]
        return _Window(
            loaded, which, sample, draw_negatives(counts, self.options.negatives, self.options.few_negatives, rng)
        )

    # Batches --------------------------------------------------------------------------------------------------------

    def _generate(self, epoch: int, start: int, pool: ThreadPoolExecutor | None) -> Iterator[Batch]:
        plan = _Plan(self.index, self.options, epoch)
        full = self.index.samples // self.options.global_batch  # steps that are full
        local = int(sum(plan.quota[s] for s in self.streams))
        open_windows: dict[int, tuple[int, _Window]] = {}
        step = start
        while step < plan.steps:
            if step < full:
                steps = min(max(_AHEAD // max(local, 1), 1), full - step)
                count = self.options.global_batch
            else:
                steps, count = 1, self.index.samples - full * self.options.global_batch
            parts: dict[str, list[np.ndarray]] = {}
            for stream in self.streams:
                quota = int(plan.quota[stream])
                low = step * quota
                high = low + steps * quota
                length = plan.bounds[stream + 1] - plan.bounds[stream]
                taken = self._take(plan, epoch, stream, low, min(high, length), open_windows, pool)
                for name, values in taken.items():
                    rows = quota if step < full else len(values)
                    parts.setdefault(name, []).append(values.reshape(steps, rows, *values.shape[1:]))
            joined = {name: np.concatenate(values, 1) for name, values in parts.items()}
            for i in range(steps):
                batch = {name: values[i] for name, values in joined.items()}
                if not len(batch["weights"]):
                    batch = self._dummy(batch)
                batch["count"] = np.array(count, np.float32)
                yield batch
            step += steps

    def _dummy(self, empty: Batch) -> Batch:
        """One slot of weight 0, so that a rank without a share of the last batch still takes part in the step."""
        out = {name: np.zeros((1, *values.shape[1:]), values.dtype) for name, values in empty.items()}
        out["history"][:] = -1
        return out

    def _take(
        self,
        plan: _Plan,
        epoch: int,
        stream: int,
        low: int,
        high: int,
        open_windows: dict[int, tuple[int, _Window]],
        pool: ThreadPoolExecutor | None,
    ) -> Batch:
        """Samples low..high of a stream, gathered from one window or several."""
        ends = plan.window_ends[stream]
        out: list[Batch] = []
        position = low
        while position < high:
            number = int(np.searchsorted(ends, position, side="right"))
            opened = open_windows.get(stream)
            if opened is None or opened[0] != number:
                open_windows.pop(stream, None)
                opened = open_windows[stream] = (number, self._window(plan, epoch, stream, number, pool))
            begin = int(ends[number - 1]) if number else 0
            stop = min(high, int(ends[number]))
            out.append(self._gather(opened[1], slice(position - begin, stop - begin)))
            position = stop
        if len(out) == 1:
            return out[0]
        if not out:
            return self._empty()
        return {name: np.concatenate([part[name] for part in out]) for name in out[0]}

    def _empty(self) -> Batch:
        k, length = self.options.negatives, self.options.history
        batch = {
            "history": np.zeros((0, length), np.int32),
            "candidates": np.zeros((0, 1 + k), np.int32),
            "weights": np.zeros(0, np.float32),
            "row": np.zeros(0, np.int64),
            "click": np.zeros(0, np.int64),
        }
        if self.columns is not None:
            shapes = self._column_shapes()
            batch.update({name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in shapes.items()})
        return batch

    def _column_shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        first = self._shard(int(np.argmax([s.samples > 0 for s in self.index.shards])), None).result()
        out = {}
        for name, values in first.columns.items():
            shape = values.shape[1:] if name == "teacher_users" else (1 + self.options.negatives, *values.shape[1:])
            out[name] = (shape, values.dtype)
        return out

    def _gather(self, window: _Window, part: slice) -> Batch:
        """Rows of a window as a batch."""
        which, sample, numbers = window.shard[part], window.sample[part], window.negatives[part]
        if len(window.shards) == 1:
            return self._gather_shard(window.shards[0], sample, numbers)
        out: Batch = {}
        for i, shard in enumerate(window.shards):
            mine = np.flatnonzero(which == i)
            if not len(mine):
                continue
            for name, values in self._gather_shard(shard, sample[mine], numbers[mine]).items():
                if name not in out:
                    out[name] = np.zeros((len(which), *values.shape[1:]), values.dtype)
                out[name][mine] = values
        return out

    def _gather_shard(self, shard: _Shard, sample: np.ndarray, numbers: np.ndarray) -> Batch:
        impression, click = shard.impression[sample], shard.click[sample]
        positions = np.empty((len(sample), 1 + numbers.shape[1]), np.int64)
        positions[:, 0] = click
        # A masked slot (-1) points at the click for now; its news becomes -1 below.
        flat = shard.negative_offsets[impression][:, None] + numbers
        masked = numbers < 0
        positions[:, 1:] = np.where(masked, click[:, None], shard.negatives[np.where(masked, 0, flat)])
        candidates = shard.candidates[positions]
        candidates[:, 1:][masked] = -1
        history = shard.impression_history[impression]
        batch = {
            "history": shard.history[history],
            "candidates": candidates,
            "weights": np.full(len(sample), 0.0 if shard.bad else 1.0, np.float32),
            "row": shard.row[impression],
            "click": click,
        }
        if shard.bad:
            batch["candidates"] = np.zeros_like(candidates)
            if self.columns is not None:
                for name, (shape, dtype) in self._column_shapes().items():
                    batch[name] = np.zeros((len(sample), *shape), dtype)
        for name, values in shard.columns.items():
            batch[name] = values[history if name == "teacher_users" else positions]
        return batch


def _in_thread(generate: Callable[[ThreadPoolExecutor], Iterator[Batch]], workers: int) -> Iterator[Batch]:
    """Run a generator in a thread, a bounded number of batches ahead; errors arrive where the batch would have."""
    batches: queue.Queue[Any] = queue.Queue(maxsize=64)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                batches.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            with ThreadPoolExecutor(workers) as pool:
                for batch in generate(pool):
                    if not put(batch):
                        return
            put(None)
        except BaseException as error:  # handed to the consumer, whatever it is
            put(error)

    thread = threading.Thread(target=run, name="loader", daemon=True)
    thread.start()
    try:
        while (item := batches.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
