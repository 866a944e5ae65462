"""The shard format: what is written is read; what is damaged is named."""

import io
import json
import tarfile

import numpy as np
import pytest

from tnr_dist.data.shards import (
    FIELDS,
    SplitIndex,
    check_bytes,
    count_samples,
    index_from_dict,
    index_to_dict,
    pack_tar,
    parse_shard,
    read_index,
    read_shard,
    segment_sums,
    write_shard,
)
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_json


def block(seed, labelled=True):
    rng = np.random.default_rng(seed)
    counts, lengths = rng.integers(1, 6, 7), rng.integers(0, 4, 3)
    out = {
        "row": np.arange(7), "impression_id": np.arange(7) + 100, "time": np.arange(7) * 60,
        "impression_history": rng.integers(0, 3, 7), "history_offsets": np.append(0, np.cumsum(lengths)),
        "history_news": rng.integers(0, 50, lengths.sum()), "candidate_offsets": np.append(0, np.cumsum(counts)),
        "candidate_news": rng.integers(0, 50, counts.sum()),
    }  # fmt: skip
    if labelled:
        out["candidate_clicked"] = rng.integers(0, 2, counts.sum())
    return out


@pytest.mark.parametrize("labelled", [True, False])
def test_round_trip(tmp_path, labelled):
    blocks = [block(seed, labelled) for seed in range(3)]
    info = write_shard(tmp_path / "shard-000007.tar", blocks)
    got = read_shard(tmp_path / "shard-000007.tar", info)
    assert list(got) == ["000007-000", "000007-001", "000007-002"] == [line["key"] for line in info.blocks]
    for want, one in zip(blocks, got.values(), strict=True):
        assert list(one) == [name for name in FIELDS if name in want]
        for name, array in one.items():
            assert array.dtype == FIELDS[name] and array.tolist() == want[name].tolist()
    assert info.impressions == 21 and info.samples == sum(count_samples(one) for one in blocks)
    again = write_shard(tmp_path / "again" / "shard-000007.tar", blocks)
    assert again.sha256 == info.sha256
    index = SplitIndex("train", labelled, [info])
    write_json(tmp_path / "train" / "index.json", index_to_dict(index))
    assert read_index(tmp_path, "train") == index
    with pytest.raises(InputError, match=r"no prepared dev split \(there is train\)"):
        read_index(tmp_path, "dev")


def test_samples_need_a_negative():
    one = {"candidate_offsets": np.array([0, 2, 3, 6]), "candidate_clicked": np.array([1, 0, 1, 1, 1, 0], np.uint8)}
    assert count_samples(one) == 3
    assert segment_sums(np.array([1, 2, 3]), np.array([0, 0, 2, 3, 3])).tolist() == [0, 3, 3, 0]


def tar_of(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_damaged_shards(tmp_path):
    path = tmp_path / "shard-000000.tar"
    info = write_shard(path, [block(0)])
    data = path.read_bytes()
    for bad, message in ((data[:-600], "truncated"), (data[:700] + b"\x01" + data[701:], "damaged")):
        with pytest.raises(InputError, match=message):
            check_bytes(bad, info, "s")
    for bad, message in (
        (data[:700], "not a readable shard|lacks"),
        (b"x" * 2000, "not a readable shard"),
        (tar_of("a.txt", b"x"), "unexpected member 'a.txt'"),
        (tar_of("a.row.npy", npy(np.array([{}], object))), "not a readable shard"),
        (tar_of("a.row.npy", npy(np.arange(5))[:-8]), "not a readable shard"),
        (tar_of("a.row.npy", b""), "not a readable shard"),
        (pack_tar([("a.row", np.arange(3))]), "block a lacks impression_id"),
    ):
        with pytest.raises(InputError, match=message):
            parse_shard(bad, "s")
    with pytest.raises(InputError, match="cannot be read"):
        read_shard(tmp_path / "none.tar")


def test_damaged_index(tmp_path):
    info = write_shard(tmp_path / "shard-000000.tar", [block(0)])
    good = json.loads(json.dumps(index_to_dict(SplitIndex("train", True, [info]))))
    assert index_from_dict(good, "i").shards == [info]
    for bad in ({}, [], {**good, "shards": [{}]}, None):
        with pytest.raises(InputError, match="not a shard index"):
            index_from_dict(bad, "i")
    good["shards"][0]["name"] = "../secret.tar"
    with pytest.raises(InputError, match="leaves its folder"):
        index_from_dict(good, "i")
