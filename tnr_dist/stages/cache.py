"""The teachers' pass: news vectors, user vectors and logits of M frozen teachers, computed once (data/teacher_cache.py)."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.shards import Block, ShardInfo, pack_tar, read_index, read_shard
from tnr_dist.data.teacher_cache import FORMAT_VERSION
from tnr_dist.engines.base import Engine
from tnr_dist.engines.precision import choose_precision
from tnr_dist.evaluation.scoring import BlockRows, UserVectors, block_scores, encode_table
from tnr_dist.models.recommender import Recommender
from tnr_dist.runs.environment import write_environment
from tnr_dist.runs.finished import DONE, check_file
from tnr_dist.runs.folder import RunFolder
from tnr_dist.runs.tracker import log_work
from tnr_dist.stages.cache_settings import CacheConfig
from tnr_dist.stages.finetune import teacher_folder
from tnr_dist.stages.finetune_settings import FinetuneConfig
from tnr_dist.stages.parts.recipes import NEWS_SETTINGS
from tnr_dist.stages.parts.start_models import trained_model
from tnr_dist.stages.run import begin, must_run
from tnr_dist.util import preemption
from tnr_dist.util.digests import digest, read_sealed, write_sealed
from tnr_dist.util.ends import result
from tnr_dist.util.errors import InputError, Preempted
from tnr_dist.util.files import atomic_path, write_json
from tnr_dist.util.json_types import checked
from tnr_dist.util.progress import Bar, say
from tnr_dist.util.restarts import mark_progress
from tnr_dist.util.transfer import from_stored, to_stored


class NewsFacts(TypedDict, total=False):
    """news.json: of the teachers' news vectors."""

    sha256: str
    shape: list[int]
    max_rounding_error: float
    relative_rounding_error: float
    precision: str


class Rounding(TypedDict):
    """What storing has done to the user vectors of a shard."""

    max_error: float
    squared_error: float
    squared: float


class SideMark(TypedDict, total=False):
    """What lies beside a finished side shard: its digest and size, `news`: of the news vectors it was made with."""

    sha256: str
    bytes: int
    news: str
    users: Rounding


def _mark(file: Path) -> SideMark:
    return checked(read_sealed(file), SideMark, f"{file}: ")


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the cache lies and what it depends on: the teachers, the data, how both are read."""
    inputs: dict[str, str | RunFolder] = {"data": data.id}
    for teacher in range(FinetuneConfig.of(config).teachers):
        inputs[f"teacher-{teacher}"] = teacher_folder(config, data, teacher)
    how = ("cache.dtype", "cache.history_padding", "cache.splits")
    settings = (*NEWS_SETTINGS, "finetune.teachers", *how, "data.history", "precision")
    return RunFolder("cache", "cache", config, settings, inputs, {})


def expected(config: Config, data: DataSet) -> dict[str, object]:
    """What a cache must say of itself to fit this configuration (checked by `TeacherCache`).

    Raises InputError when a teacher is not finished or is damaged: no cache could be trusted then.
    """
    teachers = []
    for number in range(FinetuneConfig.of(config).teachers):
        run = teacher_folder(config, data, number)
        run_id = run.id
        check_file(run.path, "model.safetensors")
        teachers.append({"id": run_id, "sha256": digest(run.path / "model.safetensors")})
    return {
        "tokenizer": data.manifest["tokenizer"]["hash"],
        "data": data.id,
        "teachers": teachers,
        "history": config.data.history,
        "history_padding": CacheConfig.of(config).history_padding,
    }


def make(place: RunFolder, engine: Engine, *, redo: bool = False) -> None:
    """Make one result of this stage, or the shards of `cache.shard_range` only.

    Finished shards are not made again, so a pass that was killed goes on, and several processes (a job array over shard
    ranges, or the same range twice) can work in one folder: whoever finds all shards done completes the cache.
    """
    config, how = place.config, CacheConfig.of(place.config)
    data = DataSet.open(config)
    rank, world = engine.environment.rank, engine.environment.world_size
    shard_slice(how.shard_range, 0)
    if not must_run(place, engine, redo):
        return
    began = time.monotonic()
    # A damaged teacher is found here, before an earlier cache is given up.
    models = [_teacher(config, data, number, engine) for number in range(FinetuneConfig.of(config).teachers)]
    begin(place, engine, redo)
    if rank == 0 and not (place.path / DONE).is_file():  # else another job of the array has just completed it
        write_environment(place.path, engine)
    engine.use_precision(config.precision)  # nothing is trained here, and an earlier stage may have had another
    news, facts = _news_vectors(config, data, models, engine, place.path)
    padding = how.history_padding
    teachers = [UserVectors(model, vectors, padding) for model, vectors in zip(models, news, strict=True)]
    for split in how.splits:
        index = read_index(data.folder, split)
        chosen = index.shards[shard_slice(how.shard_range, len(index.shards))]
        impressions = sum(info.impressions for info in chosen)
        mine = chosen[rank::world]
        jobs = [(data.folder / split / info.name, info, place.path / split / info.name) for info in mine]
        done = 0
        with Bar(f"cache {split}", impressions, "impressions", enabled=rank == 0) as bar:
            for info, made in zip(mine, write_side_shards(teachers, facts["sha256"], config, jobs), strict=False):
                done += 1
                count = min(info.impressions * world, impressions - bar.done)
                if made:
                    bar.advance(count)
                else:
                    bar.skip(count)
        left = done < len(mine)
        # Together: a rank that has made all of its shards would else find the others gone, which is no 75.
        if engine.all_reduce(torch.tensor([float(left)], device=engine.device)).item():
            raise Preempted("cache: stopped; run it again to continue with the next shard")
    if rank == 0:
        _complete(config, data, place, facts, time.monotonic() - began)
    engine.barrier()


def shard_slice(text: str, shards: int) -> slice:
    """`A:B` (from 0, B not included) as a slice; '' is all. Raises InputError for anything else."""
    if not text:
        return slice(0, shards)
    first, colon, last = text.partition(":")
    if not colon or not first.isdecimal() or not last.isdecimal() or not int(first) < int(last):
        raise InputError(
            f"cache.shard_range={text!r}: expected A:B, the shards from A up to but not including B, such as 0:16"
        )
    return slice(int(first), int(last))


def _complete(config: Config, data: DataSet, place: RunFolder, facts: NewsFacts, seconds: float) -> None:
    """Write cache.json once every side shard is there; say how many are not."""
    how = CacheConfig.of(config)
    splits: dict[str, dict[str, str]] = {}
    users: list[Rounding] = []
    missing = 0
    for split in how.splits:
        splits[split] = {}
        for info in read_index(data.folder, split).shards:
            done = place.path / split / info.name.replace(".tar", ".json")
            mark = _mark(done) if done.exists() else SideMark()
            if "users" not in mark:
                missing += 1
                continue
            if mark["news"] != facts["sha256"]:
                raise InputError(f"{done}: made with other news vectors; delete {place.path} and run `tnr cache` again")
            splits[split][info.name] = mark["sha256"]
            users.append(mark["users"])
    if missing:
        say(f"{place.path}: {missing:,} side shards are still to be made (by other shard ranges)")
        result(
            f"{place.path}: this share is made, {missing:,} side shards are still to be made (by other shard ranges)"
        )
        return
    write_json(
        place.path / "cache.json",
        {
            "format_version": FORMAT_VERSION,
            **expected(config, data),
            "dtype": how.dtype,
            "news": facts,
            "users": {
                "max_rounding_error": max((one["max_error"] for one in users), default=0.0),
                "relative_rounding_error": (
                    sum(one["squared_error"] for one in users) / max(sum(one["squared"] for one in users), 1e-30)
                )
                ** 0.5,
            },
            "splits": splits,
        },
    )
    place.finish(seconds=round(seconds, 2))  # of the process that came last; others may have worked beside it
    log_work(place)
    made = sum(len(shards) for shards in splits.values())
    result(f"{place.path}: {FinetuneConfig.of(config).teachers} teachers, {made:,} side shards in {seconds:,.0f} s")


def _teacher(config: Config, data: DataSet, number: int, engine: Engine) -> Recommender:
    model, _ = trained_model(teacher_folder(config, data, number).path, "finetune")
    return model.eval().requires_grad_(False).to(engine.device)


def _news_vectors(
    config: Config, data: DataSet, models: list[Recommender], engine: Engine, place: Path
) -> tuple[Tensor, NewsFacts]:
    """[M, news, D] float32 as they will be read back, on the device; written by rank 0 with their rounding error."""
    facts_file, tensor_file = place / "news.json", place / "news.safetensors"
    # Another job of the array may write it just now: all ranks of this one must come to the same conclusion.
    missing = torch.tensor([float(not facts_file.exists())], device=engine.device)
    if engine.all_reduce(missing).item():
        news = data.news_tokens(config.data)
        exact = torch.stack(
            [
                encode_table(
                    model.news_encoder, news, config.data.news_tokens, engine, f"encode news, teacher {number}"
                )
                for number, model in enumerate(models)
            ]
        )
        _check_finite(exact, 0, "news vectors")
        if engine.environment.rank == 0:
            stored = from_stored(to_stored(exact, CacheConfig.of(config).dtype))
            error = (stored.float() - exact.cpu()).abs()
            with atomic_path(tensor_file) as temporary:
                save_file({"news": stored.contiguous()}, temporary)
            made: NewsFacts = {
                "sha256": digest(tensor_file, again=True),
                "shape": list(stored.shape),
                "max_rounding_error": float(error.max()),
                "relative_rounding_error": float(error.norm() / exact.cpu().norm()),
                "precision": choose_precision(config.precision, engine.device),
            }
            write_sealed(facts_file, made)
        engine.barrier()
    facts = checked(read_sealed(facts_file), NewsFacts, f"{facts_file}: ")
    again = f"delete {tensor_file} and {facts_file}, then run `tnr cache` again"
    try:
        if digest(tensor_file) != facts["sha256"]:
            raise InputError(f"{tensor_file}: damaged (digest differs); {again}")
        return load_file(tensor_file)["news"].float().to(engine.device), facts
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{tensor_file}: cannot be read ({error}); {again}") from None


def write_side_shards(
    teachers: list[UserVectors], news_sha256: str, config: Config, jobs: Sequence[tuple[Path, ShardInfo, Path]]
) -> Iterator[bool]:
    """`write_side_shard` of each (source, info, out), in order; no other is begun once this process was asked to stop.

    As many are made at a time as torch may use threads: much of the work is numpy's and the digests', which use one.
    """
    threads = torch.get_num_threads()

    def write(job: tuple[Path, ShardInfo, Path]) -> bool:
        return write_side_shard(teachers, news_sha256, config, *job)

    wanted = itertools.takewhile(lambda job: not preemption.stop_requested(), jobs)
    if threads == 1:
        yield from map(write, wanted)
        return
    pool = ThreadPoolExecutor(threads, "side-shard", torch.set_num_threads, (1,))
    try:
        pending: deque[Future[bool]] = deque()
        for job in wanted:
            pending.append(pool.submit(write, job))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the pool's threads have set it for those that come after them


def write_side_shard(
    teachers: list[UserVectors], news_sha256: str, config: Config, source: Path, info: ShardInfo, out: Path
) -> bool:
    """Write one side shard and, after it, its mark; a shard whose mark is there is left as it is, and False returned.

    Both are renamed into place whole, so two processes on one shard only do the work twice.
    """
    done = out.with_suffix(".json")
    if done.exists() and out.exists():
        mark = _mark(done)
        # Earlier versions did not measure what rounding does to user vectors.
        if out.stat().st_size == mark["bytes"] and "users" in mark:
            return False
    members: list[tuple[str, np.ndarray]] = []
    rounding: Rounding = {"max_error": 0.0, "squared_error": 0.0, "squared": 0.0}
    for key, block in read_shard(source, info).items():
        users, logits = teacher_columns(teachers, block, config.data.history)
        stored = to_stored(users, CacheConfig.of(config).dtype)
        _check_finite(users, 1, f"user vectors for {source.name}")
        _check_finite(logits, 1, f"scores of candidates of {source.name}")
        exact = users.cpu()
        error = from_stored(stored).float() - exact  # float32 holds it exactly
        rounding["max_error"] = max(rounding["max_error"], float(error.abs().max()) if error.numel() else 0.0)
        rounding["squared_error"] += _squares(error)
        rounding["squared"] += _squares(exact)
        members.append((f"{key}.teacher_users", stored))
        members.append((f"{key}.teacher_logits", logits.cpu().numpy()))
    packed = pack_tar(members)
    with atomic_path(out) as temporary:
        temporary.write_bytes(packed)
    made: SideMark = {
        "sha256": hashlib.sha256(packed).hexdigest(),
        "bytes": len(packed),
        "news": news_sha256,
        "users": rounding,
    }
    write_sealed(done, made)
    mark_progress()
    return True


def _squares(values: Tensor) -> float:
    """Their sum, in float64."""
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def _check_finite(values: Tensor, dim: int, what: str) -> None:
    """Raise InputError for NaN or infinity in what the teachers, along dimension `dim`, say: nothing is learned from it."""
    finite = torch.isfinite(values)
    if not finite.all():
        raise InputError(
            f"teacher-{int(torch.nonzero(~finite)[0, dim])}: its {what} are not finite (NaN or infinity), it has diverged; "
            "delete that run and make the teacher again, with a smaller finetune.lr"
        )


@torch.no_grad()
def teacher_columns(users: list[UserVectors], block: Block, history: int) -> tuple[Tensor, Tensor]:
    """User vectors [H, M, D] and logits of all candidates [candidates, M] of a block, float32.

    From the news vectors as stored, so that the logits are those of the vectors that stage 2 sees.
    """
    rows = BlockRows.of(block, history, users[0].news.device)
    vectors = [teacher.of(rows) for teacher in users]
    logits = [block_scores(vector, teacher.news, rows) for vector, teacher in zip(vectors, users, strict=True)]
    return torch.stack(vectors, 1), torch.stack(logits, 1)


class TeacherPass:
    """The stage of this module; see `stages.stage.Stage`."""

    name = "cache"

    def make(self, run: RunFolder, engine: Engine, *, redo: bool = False) -> None:
        """Run the teachers over what no side shard says yet."""
        make(run, engine, redo=redo)


STAGES = (TeacherPass(),)
