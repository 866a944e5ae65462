"""Click samples as global batches, the same for every number of ranks.

State machine. An epoch's order is a function of (seed, epoch) and the data alone:

1. All shards are permuted. Their samples, laid end to end, are one sequence of N samples.
2. The sequence is cut into S canonical streams. Stream s supplies `quota[s]` samples of every global batch and owns the
   samples from N*c(s)//B to N*c(s+1)//B, where c(s) = B*s//S. So all streams last equally long: every step but the last
   is full, no sample is repeated, none is left out. A shard on a boundary is read by both sides; each takes its part of
   that shard's own permutation.
3. Within a stream, `window_shards` shards at a time form a window, whose samples are permuted together; negatives are
   drawn for the whole window. With group='user' the window's histories are permuted, and the samples of each stand
   together, in an order of their own (so do they in the permutation of point 2): a batch then holds all samples of a
   few users instead of one sample of many, fewer distinct titles and fewer distinct histories.
4. Step t's global batch is, stream by stream, the next `quota[s]` samples. Rank r of R (R divides S) computes the
   streams r*S/R .. (r+1)*S/R - 1, a contiguous slice of the global batch.

Nothing carries over from one window to the next, so the position (epoch, step) is the whole state: resuming reads the
window it falls into and goes on, at any number of ranks.

Threads: `workers` of them read shards and build the next windows, one gathers the batches of many steps at a time, the
caller's cuts them into batches. With workers=0 all of it happens in the caller's thread.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tnr_dist.data.batches.epoch_order import LoaderOptions, Plan
from tnr_dist.data.batches.sample_windows import (
    Batch,
    ReadTeachers,
    Shard,
    Window,
    decode,
    last_clicked,
    make_window,
    placeholder,
    shuffled,
)
from tnr_dist.data.shards import ShardInfo, SplitIndex
from tnr_dist.data.source import ShardSource
from tnr_dist.data.teacher_cache import TeacherColumns
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import say
from tnr_dist.util.transfer import run_ahead

__all__ = ["Batch", "ClickLoader", "LoaderOptions", "ReadTeachers", "last_clicked"]

_CHUNK_SAMPLES = 8192  # gathered at once: one NumPy call a stream then serves many steps
_CHUNK_BYTES = 4 << 20  # ... or fewer, with teacher columns
_QUEUED_CHUNKS = 3
_LARGE_ROW = 256  # bytes


@dataclass(frozen=True)
class _Chunk:
    """The batches of several steps: each column [steps, b, ...]."""

    columns: Batch
    steps: int
    count: np.ndarray  # [] samples of one global batch


@dataclass(frozen=True)
class _Part:
    """Samples low..high of a window."""

    window: Window
    low: int
    high: int


class ClickLoader:
    """Iterates over this rank's slices of the global batches of a prepared, labelled split.

    Batches are dicts of NumPy arrays; b is this rank's share of the batch:

    - `history` [b, L] int32: news indices, oldest first, -1 behind the end;
    - `candidates` [b, 1 + K] int32: the clicked news first, then the negatives (-1: none, with few_negatives='mask');
    - `weights` [b] float32: 1, or 0 for a slot that carries no sample (a rank without a share of the last batch, or a
      damaged shard that is skipped);
    - `count` [] float32: samples of the global batch, over all ranks (skipped ones among them);
    - `row`, `click` [b] int64: the impression's line in the raw file (-1: skipped) and the click's place among the
      shard's candidates;
    - with `teachers`: `teacher_users` [b, M, D] and `teacher_logits` [b, 1 + K, M] in the dtype they are stored in, or
      [b] and [b, 1 + K] int64 rows of tables that hold them.

    `bad_shards` names the damaged shards met so far and what is wrong with them.

    Raises InputError for a split without labels or samples, for damaged shards (`on_bad_shard='stop'`), and when not
    one shard can be read.
    """

    text_columns = ("history", "candidates")  # those of a batch that name a text in each of their slots

    def __init__(
        self,
        index: SplitIndex,
        source: ShardSource,
        options: LoaderOptions,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 1,
        teachers: ReadTeachers | None = None,
    ) -> None:
        if not index.labelled:
            raise InputError(f"{source.folder}: the {index.split} split has no labels to train on")
        if not index.samples:
            raise InputError(f"{source.folder}: no sample to train on (a click beside at least one non-clicked news)")
        for name in ("global_batch", "history", "negatives", "streams", "window_shards"):
            if getattr(options, name) < 1:
                raise InputError(f"{name}={getattr(options, name)}: must be 1 or more")
        if workers < 0:
            raise InputError(f"data.workers={workers}: must be 0 or more")
        if options.streams % world_size:
            raise InputError(
                f"data.streams={options.streams} is not a multiple of the {world_size} ranks; set data.streams to one"
            )
        if options.global_batch < world_size:
            raise InputError(f"a global batch of {options.global_batch} cannot be shared by {world_size} ranks")
        self.index, self.source, self.options, self.teachers = index, source, options, teachers
        self.rank, self.world_size, self.workers = rank, world_size, workers
        per_rank = options.streams // world_size
        self.streams = range(rank * per_rank, (rank + 1) * per_rank)
        self.bad_shards: dict[str, str] = {}
        self._lock = threading.Lock()
        self._specimen: TeacherColumns | None = None

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on all ranks."""
        return -(-self.index.samples // self.options.global_batch)

    def fingerprint(self) -> str:
        """Identifies the sequence of global batches; a saved position fits only the same one.

        The setting on_bad_shard is left out, so that a run that a damaged shard stopped can be resumed with `skip`.
        """
        options = dataclasses.replace(self.options, on_bad_shard="stop")
        text = repr((options, [(s.name, s.sha256) for s in self.index.shards]))
        if options.before is not None:
            text += f" before {options.before}"
        if options.group != "none":
            text += f" group {options.group}"
        return hashlib.sha256(text.encode()).hexdigest()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch from step `start` on.

        Abandoning the iterator ends its threads; an error in them is raised here.
        """
        if self.workers == 0:
            chunks = _EpochReader(self, epoch, start, None).chunks()
        else:
            chunks = run_ahead(lambda: self._chunks(epoch, start), _QUEUED_CHUNKS, "loader")
        try:
            for chunk in chunks:
                yield from self._cut(chunk)
        finally:
            chunks.close()

    def _chunks(self, epoch: int, start: int) -> Iterator[_Chunk]:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader-worker")
        try:
            yield from _EpochReader(self, epoch, start, pool).chunks()
        finally:
            pool.shutdown(cancel_futures=True)

    def _cut(self, chunk: _Chunk) -> Iterator[Batch]:
        if not chunk.columns["weights"].shape[1]:
            # One slot of weight 0, so that a rank without a share of the last batch still takes part in the step.
            batch = {name: np.zeros((1, *values.shape[2:]), values.dtype) for name, values in chunk.columns.items()}
            batch["history"][:] = -1
            yield {**batch, "count": chunk.count}
            return
        items = list(chunk.columns.items())
        for i in range(chunk.steps):
            batch = {name: values[i] for name, values in items}
            batch["count"] = chunk.count
            yield batch

    def load(self, number: int) -> Shard:
        """Read and decode a shard; a placeholder for a damaged one that is to be skipped."""
        info = self.index.shards[number]
        try:
            return self._read(info)
        except InputError as error:
            if self.options.on_bad_shard == "stop":
                raise
            with self._lock:
                if info.name not in self.bad_shards:
                    self.bad_shards[info.name] = str(error)
                    say(f"skipping {info.samples:,} samples: {error}")
                if len(self.bad_shards) == sum(shard.samples > 0 for shard in self.index.shards):
                    raise InputError(f"{self.source.folder}: not one shard can be read; the last: {error}") from None
            return placeholder(info.samples, self.options.history, self.specimen())

    def _read(self, info: ShardInfo) -> Shard:
        blocks = self.source.read_blocks(info)
        where = self.source.name(info)
        if not all("candidate_clicked" in block for block in blocks.values()):
            raise InputError(f"{where}: has no labels, the index says it has; prepare it again")
        teachers = self.teachers(info) if self.teachers else None
        shard = decode(blocks, self.options.history, teachers, self.options.before)
        if len(shard.impression) != info.samples:
            raise InputError(f"{where}: {len(shard.impression)} samples, the index says {info.samples}")
        if teachers is not None and self._specimen is None:
            self._specimen = TeacherColumns(teachers.users[:0].copy(), teachers.logits[:0].copy())
        return shard

    def skipped(self, batch: Batch) -> int:
        """Samples of a batch that are of a damaged shard (on_bad_shard='skip')."""
        return int((batch["row"] < 0).sum())

    def specimen(self) -> TeacherColumns | None:
        """The teachers' columns without a row, for shapes and dtypes; reads shards until one tells. None: no teachers."""
        if self.teachers is None:
            return None
        for number, info in enumerate(self.index.shards):
            if self._specimen is not None:
                break
            if info.samples and info.name not in self.bad_shards:
                self.load(number)
        assert self._specimen is not None  # load() raises when all shards are damaged
        return self._specimen


class _EpochReader:
    """One pass over an epoch, from a step on: opens windows in turn and gathers chunks from them."""

    def __init__(self, loader: ClickLoader, epoch: int, start: int, pool: ThreadPoolExecutor | None) -> None:
        self.loader, self.options, self.epoch, self.start, self.pool = loader, loader.options, epoch, start, pool
        self.plan = Plan(loader.index, loader.options, epoch)
        self._lock = threading.Lock()
        # Boundary shards are wanted by two streams, small data sets by all: these are kept until the last has them.
        self._wanted: Counter[int] = Counter()
        for stream in loader.streams:
            first = self.plan.window_at(stream, start * int(self.plan.quota[stream]))
            self._wanted.update(shard for window in self.plan.windows[stream][first:] for shard, _, _ in window)
        self._shared: dict[int, Future[Shard]] = {}
        self._ahead: dict[tuple[int, int], Future[Window]] = {}
        self._open: dict[int, tuple[int, Window]] = {}

    def chunks(self) -> Generator[_Chunk, None, None]:
        """This rank's share of steps `start` to the end."""
        loader, plan = self.loader, self.plan
        batch = self.options.global_batch
        full = loader.index.samples // batch  # steps that are full
        local = sum(int(plan.quota[s]) for s in loader.streams)
        step = self.start
        most = _CHUNK_SAMPLES
        while step < plan.steps:
            steps = min(max(most // local, 1), full - step) if step < full else 1
            count = batch if step < full else loader.index.samples - full * batch
            parts: list[_Part] = []
            rows: list[int] = []
            for stream in loader.streams:
                quota = int(plan.quota[stream])
                low = step * quota
                high = min(low + steps * quota, plan.bounds[stream + 1] - plan.bounds[stream])
                parts.extend(self._take(stream, low, high))
                rows.append((high - low) // steps)
            columns = self._join(parts, rows, steps)
            yield _Chunk(columns, steps, np.array(count, np.float32))
            size = sum(values.nbytes for values in columns.values()) // (steps * local)
            most = min(_CHUNK_SAMPLES, _CHUNK_BYTES // max(size, 1))
            step += steps

    def _take(self, stream: int, low: int, high: int) -> Iterator[_Part]:
        """Samples low..high of a stream, from one window or several."""
        ends = self.plan.window_ends[stream]
        while low < high:
            number = self.plan.window_at(stream, low)
            if self._open.get(stream, (-1, None))[0] != number:
                self._open.pop(stream, None)
                self._open[stream] = (number, self._window(stream, number))
            window = self._open[stream][1]
            begin = int(ends[number - 1]) if number else 0
            stop = min(high, int(ends[number]))
            yield _Part(window, low - begin, stop - begin)
            # Half-way through a window is early enough to begin the next, and keeps fewer of them in memory.
            if self.pool is not None and 2 * stop >= begin + int(ends[number]):
                self._prepare(stream, number + 1)
            low = stop

    def _join(self, parts: list[_Part], rows: list[int], steps: int) -> Batch:
        """Interleave the streams' parts: step by step, and within a step stream by stream, `rows` samples of each."""
        if not parts:
            return self._empty()
        out = {
            name: np.empty((steps, sum(rows), *table.shape[1:]), table.dtype)
            for name, table, _ in parts[0].window.tables(0, 0)
        }
        queue_of_parts = iter(parts)
        column = 0
        for quota in rows:
            done = 0  # samples of this stream's steps * quota
            while done < steps * quota:
                part = next(queue_of_parts)
                for name, table, chosen in part.window.tables(part.low, part.high):
                    _place(out[name][:, column : column + quota], done, table, chosen)
                done += part.high - part.low
            column += quota
        return out

    def _empty(self) -> Batch:
        candidates = 1 + self.options.negatives
        batch: Batch = {
            "candidates": np.zeros((1, 0, candidates), np.int32),
            "weights": np.zeros((1, 0), np.float32),
            "row": np.zeros((1, 0), np.int64),
            "click": np.zeros((1, 0), np.int64),
            "history": np.zeros((1, 0, self.options.history), np.int32),
        }
        teachers = self.loader.specimen()
        if teachers is not None:
            users, logits = teachers.users, teachers.logits
            batch["teacher_users"] = np.zeros((1, 0, *users.shape[1:]), users.dtype)
            batch["teacher_logits"] = np.zeros((1, 0, candidates, *logits.shape[1:]), logits.dtype)
        return batch

    def _prepare(self, stream: int, number: int) -> None:
        if self.pool is not None and number < len(self.plan.windows[stream]) and (stream, number) not in self._ahead:
            self._ahead[stream, number] = self.pool.submit(self._build, stream, number)

    def _window(self, stream: int, number: int) -> Window:
        if self.pool is not None and not self._open and not self._ahead:
            for other in self.loader.streams:  # the start: all streams want their first window at once
                self._prepare(other, self.plan.window_at(other, self.start * int(self.plan.quota[other])))
        future = self._ahead.pop((stream, number), None)
        return self._build(stream, number) if future is None else future.result()

    def _build(self, stream: int, number: int) -> Window:
        options = self.options
        pieces: list[tuple[Shard, np.ndarray | None]] = []
        for shard, low, high in self.plan.windows[stream][number]:
            data = self._shard(shard)
            n = len(data.impression)
            # Shared with another stream: each takes its part of the same permutation.
            rng = np.random.default_rng([options.seed, self.epoch, 2, shard])
            whole = high - low == n
            pieces.append((data, None if whole else shuffled(data.sample_history, options.group, rng)[low:high]))
        rng = np.random.default_rng([options.seed, self.epoch, 3, stream, number])
        return make_window(pieces, options.negatives, options.few_negatives, rng, options.group)

    def _shard(self, number: int) -> Shard:
        with self._lock:
            self._wanted[number] -= 1
            future = self._shared.pop(number, None)
            mine = future is None
            if future is None:
                future = Future()
            if self._wanted[number] > 0:
                self._shared[number] = future
        if mine:
            try:
                future.set_result(self.loader.load(number))
            except BaseException as error:  # raised below, here and wherever else this shard is wanted
                future.set_exception(error)
        return future.result()


def _place(out: np.ndarray, done: int, table: np.ndarray, chosen: np.ndarray) -> None:
    """Write rows `chosen` of a table into `out` [steps, quota, ...] as if it were flat, from sample `done` on."""
    quota = out.shape[1]
    # mode='clip' copies rows without a second, buffered pass; no index is out of range. Small rows are gathered for all
    # steps at once and then moved; large ones (teacher vectors) at once to where they belong, for a call is cheaper
    # than a second copy.
    large = table.nbytes >= _LARGE_ROW * len(table)
    values = None if large else table.take(chosen, 0, mode="clip")
    at = 0
    while at < len(chosen):
        step, within = divmod(done + at, quota)
        whole = (len(chosen) - at) // quota
        if values is not None and within == 0 and whole:
            out[step : step + whole] = values[at : at + whole * quota].reshape(whole, quota, *values.shape[1:])
            at += whole * quota
            continue
        n = min(quota - within, len(chosen) - at)
        if values is None:
            table.take(chosen[at : at + n], 0, out[step, within : within + n], mode="clip")
        else:
            out[step, within : within + n] = values[at : at + n]
        at += n
