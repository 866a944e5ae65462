"""`tnr bench loader`: samples a second and core that the loader makes ready for the device, beside stock WebDataset.

"Per core" is per second of process CPU time, all threads together: it is what a rank's data costs, whatever else runs
on the machine. Rates per second of wall time stand beside it in `rows`. Files are in the page cache on both sides.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tnr_dist.bench.shuffle import shuffle_quality
from tnr_dist.data.batches.clicks import ClickLoader, LoaderOptions, ReadTeachers
from tnr_dist.data.shards import Block, SplitIndex, index_to_dict, pack_tar, read_index, write_shard
from tnr_dist.data.source import ShardSource
from tnr_dist.data.teacher_cache import FORMAT_VERSION, TeacherCache, TeacherTables
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_json
from tnr_dist.util.memory import TreePeak
from tnr_dist.util.progress import say

_NEWS, _BLOCK, _BLOCKS = 101_527, 1024, 16  # MINDlarge's news; impressions of a block, blocks of a shard
_TEACHERS, _DIM = 4, 256
_STOCK_SAMPLES = 20_000
_REPEATS = 2
_SAMPLES_PER_IMPRESSION = 1.5


def run(samples: int = 1_000_000, batch: int = 128, folder: Path | None = None) -> dict[str, Any]:
    """Measure the loader on a generated MIND-shaped split of about `samples` samples, or on a prepared data set.

    `folder`: a prepared data set; its train split is read then, with made-up teacher columns. Raises InputError when
    webdataset, the stock side, is not installed.
    """
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise InputError("bench loader: the stock side needs webdataset (pip install webdataset)") from None
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tnr-bench-loader-") as temporary:
        data, cache = folder or Path(temporary) / "data", Path(temporary) / "cache"
        if folder is None:
            say(f"bench loader: writing about {samples:,} samples")
            make_split(data / "train", max(1, round(samples / (_SAMPLES_PER_IMPRESSION * _BLOCK * _BLOCKS))))
        index = read_index(data, "train")
        stored = make_teachers(data / "train", index, cache)
        forms: dict[str, ReadTeachers | None] = {
            "none": None,
            "rows": TeacherTables.read(
                stored, index
            ).rows.columns,  # of tables on the device (`stage2.teacher_tables_gib`)
            "values": lambda info: stored.columns("train", info),
        }

        def loader(size: int, extra: ReadTeachers | None = None) -> ClickLoader:
            source = ShardSource(data / "train")
            return ClickLoader(index, source, LoaderOptions(size), workers=1, teachers=extra)

        rows = []
        with TreePeak(every=0.05) as peak:
            for form, columns in forms.items():
                for size in sorted({64, batch, 1024}):
                    made = loader(size, columns)
                    cpu, wall = _rates(lambda epoch, made=made: _count(made.epoch(epoch)))  # type: ignore[misc]
                    rows.append(
                        {
                            "batch": size,
                            "teacher_columns": form,
                            "samples_per_s_per_core": cpu,
                            "samples_per_s": wall,
                        }
                    )
                    say(f"bench loader: {rows[-1]}")
        stock = _stock(loader(batch), Path(temporary) / "stock", batch)
        shuffle = shuffle_quality(loader(batch))
    here = {row["teacher_columns"]: row["samples_per_s_per_core"] for row in rows if row["batch"] == batch}
    best = max(form["samples_per_s_per_core"] for form in stock)
    return {
        "samples_per_s_per_core": here["rows"],
        "stock_samples_per_s_per_core": best,
        "ratio": here["rows"] / best,
        "without_teachers_samples_per_s_per_core": here["none"],
        "with_teacher_values_samples_per_s_per_core": here["values"],
        "rows": rows,
        "stock_rows": stock,
        "shuffle_rank_correlation": shuffle.rank_correlation,
        "shuffle_block_share_mean": shuffle.block_share_mean,
        "shuffle_block_share_max": shuffle.block_share_max,
        "samples": index.samples,
        "impressions": index.impressions,
        "shards": len(index.shards),
        "teachers": _TEACHERS,
        "batch": batch,
        "threads": 3,  # the caller's, the one that gathers, one that reads ahead
        "peak_gib": peak.gib,
        "seconds": time.monotonic() - began,
    }


# The data -----------------------------------------------------------------------------------------------------------


def make_split(folder: Path, shards: int, seed: int = 0) -> SplitIndex:
    """A labelled split with MINDlarge's lengths: candidates mean 37, median 25; history mean 33, median 19."""
    infos = []
    for number in range(shards):
        rng = np.random.default_rng([seed, number])
        first = number * _BLOCK * _BLOCKS
        blocks = [_block(rng, first + i * _BLOCK) for i in range(_BLOCKS)]
        infos.append(write_shard(folder / f"shard-{number:06d}.tar", blocks))
    index = SplitIndex("train", True, infos)
    write_json(folder / "index.json", index_to_dict(index))
    return index


def _block(rng: np.random.Generator, first_row: int) -> Block:
    n, users = _BLOCK, round(_BLOCK * 711_222 / 2_232_748)
    # Log-normal: the median sets the location, mean / median = exp(sigma^2 / 2) the spread.
    lengths = np.clip(rng.lognormal(np.log(19), 1.05, users), 1, 801).astype(np.int64)
    lengths[rng.random(users) < 0.022] = 0
    counts = np.clip(rng.lognormal(np.log(25), 0.885, n), 2, 300).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    clicks = np.minimum(1 + rng.poisson(_SAMPLES_PER_IMPRESSION - 1, n), counts - 1)
    first = offsets[:-1] + (rng.random(n) * (counts - clicks + 1)).astype(np.int64)  # the clicks stand side by side
    clicked = np.zeros(offsets[-1], np.uint8)
    clicked[np.repeat(first - np.cumsum(clicks) + clicks, clicks) + np.arange(clicks.sum())] = 1
    return {
        "row": np.arange(first_row, first_row + n),
        "impression_id": np.arange(first_row, first_row + n) + 1,
        "time": np.zeros(n, np.int64),
        "impression_history": rng.integers(0, users, n).astype(np.int32),
        "history_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "history_news": rng.integers(0, _NEWS, lengths.sum(), np.int32),
        "candidate_offsets": offsets.astype(np.int32),
        "candidate_news": rng.integers(0, _NEWS, offsets[-1], np.int32),
        "candidate_clicked": clicked,
    }


def make_teachers(folder: Path, index: SplitIndex, cache: Path) -> TeacherCache:
    """Write a cache of random teacher columns for a split, bf16 users as `tnr cache` stores them, and open it."""
    digests = {}
    rng = np.random.default_rng(0)
    source = ShardSource(folder)
    (cache / "train").mkdir(parents=True)
    for info in index.shards:
        members: list[tuple[str, np.ndarray]] = []
        for key, block in source.read_blocks(info).items():
            users = rng.integers(0, 0x3F80, (len(block["history_offsets"]) - 1, _TEACHERS, _DIM), np.uint16)
            logits = rng.random((len(block["candidate_news"]), _TEACHERS), np.float32)
            members += [(f"{key}.teacher_users", users), (f"{key}.teacher_logits", logits)]
        data = pack_tar(members)
        (cache / "train" / info.name).write_bytes(data)
        digests[info.name] = hashlib.sha256(data).hexdigest()
    facts = {"format_version": FORMAT_VERSION, "teachers": [{}] * _TEACHERS, "news": {}, "splits": {"train": digests}}
    write_json(cache / "cache.json", facts)
    stored = TeacherCache(cache, {})
    return stored


# The stock side -----------------------------------------------------------------------------------------------------


def _stock(loader: ClickLoader, folder: Path, batch: int) -> list[dict[str, Any]]:
    """Rates of WebDataset with one sample a member, in each of the forms a user would write it in."""
    import webdataset

    say(f"bench loader: stock WebDataset, {_STOCK_SAMPLES:,} samples")
    history, candidates = _first(loader.epoch(0), min(_STOCK_SAMPLES, loader.index.samples))
    folder.mkdir()
    forms: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[Any], Any]]] = {
        "npy": (
            lambda i: {"history.npy": history[i], "candidates.npy": candidates[i]},
            lambda data: data.decode().to_tuple("history.npy", "candidates.npy"),
        ),
        "msgpack": (
            lambda i: {"ids.mp": {"history": history[i].tobytes(), "candidates": candidates[i].tobytes()}},
            lambda data: data.decode().to_tuple("ids.mp").map(_from_msgpack),
        ),
        "raw": (
            lambda i: {"history.bin": history[i].tobytes(), "candidates.bin": candidates[i].tobytes()},
            lambda data: data.to_tuple("history.bin", "candidates.bin").map_tuple(_from_bytes, _from_bytes),
        ),
        "raw, one member": (
            lambda i: {"ids.bin": np.concatenate([history[i], candidates[i]]).tobytes()},
            lambda data: data.to_tuple("ids.bin").map(lambda ids: _split(_from_bytes(ids[0]), history.shape[1])),
        ),
    }
    rows = []
    for name, (member, read) in forms.items():
        path = str(folder / f"{name.replace(', ', '-').replace(' ', '-')}.tar")
        with webdataset.TarWriter(path) as writer:
            for i in range(len(history)):
                writer.write({"__key__": f"{i:09d}", **member(i)})
        for buffer in (0, 1000):
            data = webdataset.WebDataset(path, shardshuffle=False)
            pipeline = read(data.shuffle(buffer) if buffer else data).batched(batch)
            cpu, wall = _rates(lambda epoch, pipeline=pipeline: sum(len(x[0]) for x in pipeline))  # type: ignore[misc]
            rows.append({"form": name, "shuffle": buffer, "samples_per_s_per_core": cpu, "samples_per_s": wall})
            say(f"bench loader: {rows[-1]}")
    return rows


def _first(batches: Iterator[dict[str, np.ndarray]], samples: int) -> tuple[np.ndarray, np.ndarray]:
    history, candidates, count = [], [], 0
    for batch in batches:
        history.append(batch["history"])
        candidates.append(batch["candidates"])
        count += len(batch["history"])
        if count >= samples:
            break
    return np.concatenate(history)[:samples], np.concatenate(candidates)[:samples]


def _from_bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.int32)


def _from_msgpack(sample: tuple[dict[str, bytes]]) -> tuple[np.ndarray, np.ndarray]:
    return _from_bytes(sample[0]["history"]), _from_bytes(sample[0]["candidates"])


def _split(ids: np.ndarray, history: int) -> tuple[np.ndarray, np.ndarray]:
    return ids[:history], ids[history:]


# Measuring ----------------------------------------------------------------------------------------------------------


def _count(batches: Iterable[dict[str, np.ndarray]]) -> int:
    return sum(len(batch["weights"]) for batch in batches)


def _rates(work: Callable[[int], int]) -> tuple[float, float]:
    """Samples per second of CPU time and of wall time, best of `_REPEATS` (each by itself)."""
    cpu = wall = 0.0
    for repeat in range(_REPEATS):
        started, used = time.perf_counter(), time.process_time()
        samples = work(repeat)
        cpu = max(cpu, samples / (time.process_time() - used))
        wall = max(wall, samples / (time.perf_counter() - started))
    return cpu, wall
