"""Shards, their index, manifests and token tables: any bytes are read or refused."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import example, given

from tests.fuzz.damage import anything, fuzzed, sound_or_refused
from tnr_dist.data.prepare.prepare import read_manifest
from tnr_dist.data.shards import block_fault, index_to_dict, pack_tar, parse_shard, read_index, read_shard, unpack_tar
from tnr_dist.data.teacher_cache import TeacherCache
from tnr_dist.data.tokens import read_table

pytestmark = pytest.mark.fuzz


def small_shard() -> bytes:
    """Two blocks of one impression each."""
    block = {
        "row": np.array([3]),
        "impression_id": np.array([7]),
        "time": np.array([1_573_808_122]),
        "impression_history": np.zeros(1, np.int32),
        "history_offsets": np.array([0, 2], np.int32),
        "history_news": np.array([1, 2], np.int32),
        "candidate_offsets": np.array([0, 3], np.int32),
        "candidate_news": np.array([0, 1, 2], np.int32),
        "candidate_clicked": np.array([1, 0, 0], np.uint8),
    }
    return pack_tar([(f"{key}.{name}", array) for key in ("0-0", "0-1") for name, array in block.items()])


SHARD = small_shard()


def as_tar(data: bytes, name: str = "0-0.row.npy") -> bytes:
    """`data` as the one member of a tar whose headers are sound."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


NPY = as_npy(np.arange(5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def test_the_seed_is_sound():
    assert list(parse_shard(SHARD, "shard")) == ["0-0", "0-1"]


@fuzzed
@given(anything(SHARD))
def test_shard(data):
    for block in (sound_or_refused(lambda: parse_shard(data, "shard")) or {}).values():
        assert block_fault(block) is None


@fuzzed
@given(anything(NPY))
@example(NPY.replace(b"(5,)", b"(-5,)"))
@example(NPY.replace(b"(5,), ", b"(5e1,)"))
@example(NPY.replace(b"'<i8'", b"'|O8'"))
@example(NPY.replace(b"'<i8'", b"'<V8'"))
@example(NPY.replace(b"'<i8'", b"'<i0'"))
@example(NPY.replace(b"(5,)", b"(9999999999999999999,)"))
@example(NPY.replace(b"(5,)", b"(2147483648, 8589934592,)"))
@example(NPY.replace(b"{'descr'", b"[" * 9))
@example(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)
def test_member(data):
    for _, _, array in sound_or_refused(lambda: unpack_tar(as_tar(data), "shard")) or []:
        assert not array.dtype.hasobject and array.nbytes <= len(data)


@fuzzed
@given(anything(NPY))
@example(NPY.replace(b"(5,)", b"(-5,)"))
@example(NPY.replace(b"'<i8'", b"'|O8'"))
@example(NPY.replace(b"(5,)", b"(9999999999999999999,)"))
@example(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)
@example(b"")
def test_token_table(folder, data):
    (folder / "t.values.npy").write_bytes(data)
    (folder / "t.offsets.npy").write_bytes(as_npy(np.array([0, 2, 5])))
    sound_or_refused(lambda: read_table(folder / "t").resident())
    (folder / "t.values.npy").write_bytes(as_npy(np.arange(4, dtype=np.uint16)))
    (folder / "t.offsets.npy").write_bytes(data)
    table = sound_or_refused(lambda: read_table(folder / "t"))
    if table is not None:
        assert (table.lengths >= 0).all() and table.lengths.sum() == len(table.values)


@fuzzed
@given(anything(b""))
def test_index(folder, prepared, data):
    check_index(folder, data)


def check_index(folder, data):
    (folder / "train").mkdir(exist_ok=True)
    (folder / "train" / "index.json").write_bytes(data)
    index = sound_or_refused(lambda: read_index(folder, "train"))
    if index is not None:
        assert index.impressions >= 0 and index.samples >= 0
        sound_or_refused(lambda: [read_shard(folder / "train" / one.name, one) for one in index.shards])


def test_damaged_index(folder, prepared):
    sound = json.dumps(index_to_dict(read_index(prepared, "train"))).encode()[:3000]

    @fuzzed
    @given(anything(sound))
    def check(data):
        check_index(folder, data)

    check()


def test_damaged_manifest(folder, prepared):
    @fuzzed
    @given(anything((prepared / "manifest.json").read_bytes()))
    def check(data):
        (folder / "manifest.json").write_bytes(data)
        sound_or_refused(lambda: read_manifest(folder))

    check()


CACHE = {
    "format_version": 1,
    "teachers": [{}],
    "splits": {"train": {"s.tar": "0"}},
    "news": {"sha256": "0"},
    "data": "x",
}


@fuzzed
@given(anything(json.dumps(CACHE).encode()))
def test_teacher_cache(folder, data):
    (folder / "cache.json").write_bytes(data)
    (folder / "news.safetensors").write_bytes(data)

    def read():
        cache = TeacherCache(folder, {"data": "x"})
        return cache.teachers, cache.gib("train"), cache.news_vectors()

    sound_or_refused(read)
