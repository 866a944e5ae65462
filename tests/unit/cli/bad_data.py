"""Damaged prepared data sets: manifest, index, shards, token tables."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.cli.bad_table import Place, case, edit_json, first_shard, replace_shard
from tnr_dist.data.shards import pack_tar, unpack_tar


class Executed:
    """What unpickles into a call: a file of this name must never appear."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def _finetune(place: Place, data: Path) -> list[Any]:
    return ["finetune", place.config(), "finetune.init=plm", "finetune.layers=1", f"data.dir={data}"]


# The manifest ---------------------------------------------------------------------------------------------------------


@case("manifest.json", "not a JSON file")
def manifest_not_json(place: Place) -> list[Any]:
    data = place.data()
    (data / "manifest.json").write_text("{")
    return ["data", "stats", data]


@case("manifest.json", "not a JSON file")
def manifest_in_utf16(place: Place) -> list[Any]:
    data = place.data()
    (data / "manifest.json").write_text("{}", encoding="utf-16")
    return _finetune(place, data)


@case("manifest.json", "not a JSON file")
def manifest_nested_without_end(place: Place) -> list[Any]:
    data = place.data()
    (data / "manifest.json").write_text("[" * 200_000)
    return ["data", "stats", data]


@case("manifest.json", "format 1")
def manifest_of_another_version(place: Place) -> list[Any]:
    data = place.data()
    edit_json(data / "manifest.json", lambda manifest: manifest.update(format_version=99))
    return ["evaluate", place.config(), f"data.dir={data}"]


@case("manifest.json", "counts")
def manifest_without_counts(place: Place) -> list[Any]:
    data = place.data()
    edit_json(data / "manifest.json", lambda manifest: manifest.pop("counts"))
    return ["data", "stats", data]


@case("manifest.json", "counts.news=-3")
def manifest_with_negative_counts(place: Place) -> list[Any]:
    data = place.data()
    edit_json(data / "manifest.json", lambda manifest: manifest["counts"].update(news=-3))
    return ["data", "stats", data]


@case("manifest.json", "tokenizer")
def manifest_without_tokenizer(place: Place) -> list[Any]:
    data = place.data()
    edit_json(data / "manifest.json", lambda manifest: manifest.update(tokenizer="bert"))
    return _finetune(place, data)


@case("not a prepared data set")
def manifest_missing(place: Place) -> list[Any]:
    data = place.data()
    (data / "manifest.json").unlink()
    return ["post-train", place.config(), f"data.dir={data}"]


# The index ------------------------------------------------------------------------------------------------------------


@case("train/index.json", "not a JSON file")
def index_not_json(place: Place) -> list[Any]:
    data = place.data()
    (data / "train" / "index.json").write_text("{'split':")
    return _finetune(place, data)


@case("train/index.json", "not a shard index")
def index_is_a_list(place: Place) -> list[Any]:
    data = place.data()
    (data / "train" / "index.json").write_text("[]")
    return _finetune(place, data)


@case("train/index.json", "samples=-4")
def index_with_negative_counts(place: Place) -> list[Any]:
    data = place.data()
    edit_json(data / "train" / "index.json", lambda index: index["shards"][0].update(samples=-4))
    return _finetune(place, data)


@case("train/index.json", "bytes='many'")
def index_with_counts_of_text(place: Place) -> list[Any]:
    data = place.data()
    edit_json(data / "train" / "index.json", lambda index: index["shards"][0].update(bytes="many"))
    return _finetune(place, data)


@case("train/index.json", "leaves its folder")
def index_with_an_escaping_shard(place: Place) -> list[Any]:
    data = place.data()
    edit_json(data / "train" / "index.json", lambda index: index["shards"][0].update(name="../../secret.tar"))
    return _finetune(place, data)


@case("train/index.json", "a block of shard-000000.tar lacks", "candidates")
def index_of_blocks_without_counts(place: Place) -> list[Any]:
    data = place.data()
    edit_json(data / "train" / "index.json", lambda index: index["shards"][0]["blocks"][0].pop("candidates"))
    return _finetune(place, data)


@case("no prepared dev split")
def index_missing(place: Place) -> list[Any]:
    data = place.data()
    (data / "dev" / "index.json").unlink()
    return ["evaluate", place.config(), f"data.dir={data}"]


# Shards ---------------------------------------------------------------------------------------------------------------


@case("shard-000000.tar", "damaged", begun=True, working=True)
def shard_with_a_flipped_bit(place: Place) -> list[Any]:
    data = place.data()
    shard = first_shard(data)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return _finetune(place, data)


@case("shard-000000.tar", "truncated", begun=True, working=True)
def shard_truncated(place: Place) -> list[Any]:
    data = place.data()
    shard = first_shard(data)
    shard.write_bytes(shard.read_bytes()[:5000])
    return _finetune(place, data)


@case("shard-000000.tar", "missing", begun=True, working=True)
def shard_missing(place: Place) -> list[Any]:
    data = place.data()
    first_shard(data).unlink()
    return _finetune(place, data)


@case("shard-000000.tar", "cannot be read", begun=True, working=True)
def shard_is_a_folder(place: Place) -> list[Any]:
    data = place.data()
    shard = first_shard(data)
    shard.unlink()
    shard.mkdir()
    return _finetune(place, data)


@case("shard-000000.tar", "not a readable shard", begun=True, working=True)
def shard_of_noise(place: Place) -> list[Any]:
    data = place.data()
    replace_shard(data, bytes(np.random.default_rng(0).integers(0, 256, 20_480, np.uint8)))
    return _finetune(place, data)


@case("shard-000000.tar", "empty file", begun=True, working=True)
def shard_of_nothing(place: Place) -> list[Any]:
    data = place.data()
    replace_shard(data, b"")
    return _finetune(place, data)


@case("shard-000000.tar", "truncated", begun=True, working=True)
def shard_cut_and_signed(place: Place) -> list[Any]:
    data = place.data()
    replace_shard(data, first_shard(data).read_bytes()[:5000])
    return _finetune(place, data)


def _tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@case("shard-000000.tar", "'../../escaped.npy'", begun=True, working=True)
def shard_with_an_escaping_member(place: Place) -> list[Any]:
    data = place.data()
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    replace_shard(data, _tar([(tarfile.TarInfo("../../escaped.npy"), array.getvalue())]))
    return _finetune(place, data)


@case("shard-000000.tar", "unexpected member '000000-000.row.npy'", begun=True, working=True)
def shard_with_a_link(place: Place) -> list[Any]:
    data = place.data()
    link = tarfile.TarInfo("000000-000.row.npy")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    replace_shard(data, _tar([(link, b"")]))
    return _finetune(place, data)


@case("shard-000000.tar", "unexpected member 'payload.pkl'", begun=True, working=True)
def shard_with_a_pickle(place: Place) -> list[Any]:
    data = place.data()
    replace_shard(data, _tar([(tarfile.TarInfo("payload.pkl"), pickle.dumps(Executed(place.path / "executed")))]))
    return _finetune(place, data)


@case("shard-000000.tar", "only plain C-ordered arrays", begun=True, working=True)
def shard_with_an_object_array(place: Place) -> list[Any]:
    data = place.data()
    array = io.BytesIO()
    np.save(array, np.array([Executed(place.path / "executed")], object), allow_pickle=True)
    replace_shard(data, _tar([(tarfile.TarInfo("000000-000.row.npy"), array.getvalue())]))
    return _finetune(place, data)


def _members(data: Path, **change: Any) -> bytes:
    """The first shard with some arrays of its first block replaced."""
    members = unpack_tar(first_shard(data).read_bytes(), "shard")
    key = members[0][0]
    return pack_tar(
        [
            (f"{block}.{field}", change[field](array) if block == key and field in change else array)
            for block, field, array in members
        ]
    )


@case("shard-000000.tar", "candidate_offsets", begun=True, working=True)
def shard_with_offsets_beyond_its_end(place: Place) -> list[Any]:
    data = place.data()
    replace_shard(data, _members(data, candidate_offsets=lambda offsets: offsets + 10_000))
    return _finetune(place, data)


@case("shard-000000.tar", "impression_history", begun=True, working=True)
def shard_with_negative_indices(place: Place) -> list[Any]:
    data = place.data()
    replace_shard(data, _members(data, impression_history=lambda rows: rows - 5))
    return _finetune(place, data)


@case("shard-000000.tar", "candidate_clicked", begun=True, working=True)
def shard_with_labels_of_nan(place: Place) -> list[Any]:
    data = place.data()
    replace_shard(data, _members(data, candidate_clicked=lambda clicks: np.full(len(clicks), np.nan, np.float32)))
    return _finetune(place, data)


@case("fault", working=True)
def verify_of_a_damaged_shard(place: Place) -> list[Any]:
    data = place.data()
    first_shard(data, "dev").write_bytes(b"")
    return ["data", "verify", data]


# Token tables and news ------------------------------------------------------------------------------------------------


@case("tokens/title", "token table")
def tokens_missing(place: Place) -> list[Any]:
    data = place.data()
    (data / "tokens" / "title.values.npy").unlink()
    return _finetune(place, data)


@case("tokens/title", "token table")
def tokens_truncated(place: Place) -> list[Any]:
    data = place.data()
    path = data / "tokens" / "title.values.npy"
    path.write_bytes(path.read_bytes()[:-7])
    return _finetune(place, data)


@case("tokens/title", "token table")
def tokens_of_objects(place: Place) -> list[Any]:
    data = place.data()
    values = np.array([Executed(place.path / "executed")], object)
    np.save(data / "tokens" / "title.values.npy", values, allow_pickle=True)
    return _finetune(place, data)


@case("tokens/title", "float64")
def tokens_of_floats(place: Place) -> list[Any]:
    data = place.data()
    path = data / "tokens" / "title.values.npy"
    np.save(path, np.full(len(np.load(path)), np.nan))
    return _finetune(place, data)


@case("tokens/title.offsets.npy", "does not fit")
def tokens_with_other_offsets(place: Place) -> list[Any]:
    data = place.data()
    path = data / "tokens" / "title.offsets.npy"
    np.save(path, np.load(path)[:-1])
    return _finetune(place, data)


@case("tokens/title.offsets.npy", "offsets fall after row 5")
def tokens_with_falling_offsets(place: Place) -> list[Any]:
    data = place.data()
    path = data / "tokens" / "title.offsets.npy"
    offsets = np.load(path)
    offsets[5] = offsets[-1] + 7
    np.save(path, offsets)
    return _finetune(place, data)


@case("1 fault", working=True)
def news_table_damaged(place: Place) -> list[Any]:
    data = place.data()
    (data / "news.parquet").write_bytes(b"PAR1")
    return ["data", "verify", data]


@case("work", "request")
def preparation_with_other_options(place: Place) -> list[Any]:
    shutil.copytree(place.prepared, place.path / "out")
    (place.path / "out" / "manifest.json").unlink()
    (place.path / "out" / ".work").mkdir()
    (place.path / "out" / ".work" / "request.json").write_text(json.dumps({"body_tokens": 7})[:-4])
    return place.prepare(input=place.raw())
