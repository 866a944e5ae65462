"""The teachers' columns as tables: rows of them are the values that a batch would carry."""

import hashlib

import numpy as np
import pytest

from tnr_dist.bench.loader import make_split, make_teachers
from tnr_dist.data.batches.clicks import ClickLoader, LoaderOptions
from tnr_dist.data.shards import read_index
from tnr_dist.data.source import ShardSource
from tnr_dist.data.teacher_cache import TeacherTables
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json, write_json
from tnr_dist.util.transfer import from_stored


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    make_split(folder / "train", 2)
    index = read_index(folder, "train")
    return folder, index, make_teachers(folder / "train", index, folder / "cache")


def loader(folder, index, teachers, **options):
    return ClickLoader(index, ShardSource(folder / "train"), LoaderOptions(512, **options), teachers=teachers)


def test_rows_are_the_values(made):
    folder, index, cache = made
    tables = TeacherTables.read(cache, index)
    rows = loader(folder, index, tables.rows.columns).epoch(0)
    values = loader(folder, index, lambda info: cache.columns("train", info)).epoch(0)
    for number, (a, b) in enumerate(zip(rows, values, strict=True)):
        np.testing.assert_array_equal(a["candidates"], b["candidates"])
        users, logits = tables.users[a["teacher_users"]], tables.logits[a["teacher_logits"]]
        assert users.equal(from_stored(b["teacher_users"])) and logits.equal(from_stored(b["teacher_logits"]))
        if number == 5:
            break


def test_a_damaged_side_shard_counts_as_a_bad_shard(made):
    folder, index, cache = made
    path = folder / "cache" / "train" / index.shards[0].name
    sound = path.read_bytes()
    try:
        path.write_bytes(sound[:5000] + bytes([sound[5000] ^ 1]) + sound[5001:])
        tables = TeacherTables.read(cache, index)
        with pytest.raises(InputError, match="damaged"):
            list(loader(folder, index, tables.rows.columns).epoch(0))
        skipping = loader(folder, index, tables.rows.columns, on_bad_shard="skip")
        skipped = sum(int((batch["row"] < 0).sum()) for batch in skipping.epoch(0))
        assert skipped == index.shards[0].samples
        (folder / "cache" / "train" / index.shards[1].name).rename(folder / "away.tar")
        with pytest.raises(InputError, match="not one side shard"):
            TeacherTables.read(cache, index)
    finally:
        path.write_bytes(sound)
        if (folder / "away.tar").exists():
            (folder / "away.tar").rename(folder / "cache" / "train" / index.shards[1].name)


def test_a_side_shard_of_other_blocks_is_refused(made):
    folder, index, cache = made
    first, second = (folder / "cache" / "train" / info.name for info in index.shards)
    before, facts = first.read_bytes(), read_json(folder / "cache" / "cache.json")
    try:
        first.write_bytes(second.read_bytes())
        changed = read_json(folder / "cache" / "cache.json")
        changed["splits"]["train"][first.name] = hashlib.sha256(second.read_bytes()).hexdigest()
        write_json(folder / "cache" / "cache.json", changed)
        cache.facts = changed
        with pytest.raises(InputError, match="does not fit block"):
            cache.columns("train", index.shards[0])
    finally:
        first.write_bytes(before)
        write_json(folder / "cache" / "cache.json", facts)
        cache.facts = facts
