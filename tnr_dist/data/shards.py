"""The shard format: tar files of blocks, every array a `.npy` member, no pickle; and each split's index.json.

A block holds about 1,024 impressions of a set of users, so it carries each history once. A stock `webdataset` pipeline
sees one sample a block, with the keys of `FIELDS`.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from tnr_dist.data.manifest import check_file
from tnr_dist.data.tokens import NPY_FAULTS
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, read_json

# Field -> dtype. I impressions, H histories, flat over ragged lists where said.
FIELDS: dict[str, np.dtype] = {
    "row": np.dtype(np.int64),  # [I] 0-based line of the impression in the raw file
    "impression_id": np.dtype(np.int64),  # [I]
    "time": np.dtype(np.int64),  # [I] seconds since 1970
    "impression_history": np.dtype(np.int32),  # [I] index into the block's histories
    "history_offsets": np.dtype(np.int32),  # [H + 1]
    "history_news": np.dtype(np.int32),  # flat, oldest first
    "candidate_offsets": np.dtype(np.int32),  # [I + 1]
    "candidate_news": np.dtype(np.int32),  # flat; -1 (unlabelled splits only): an unknown news that still needs a rank
    "candidate_clicked": np.dtype(np.uint8),  # flat; absent in an unlabelled split
}

Block = dict[str, np.ndarray]
_BLOCK_COUNTS = ("impressions", "samples", "candidates", "histories")


class BlockInfo(TypedDict):
    """A block's line of index.json."""

    key: str
    impressions: int
    samples: int
    candidates: int
    histories: int


@dataclass(frozen=True)
class ShardInfo:
    """One shard's line of index.json. `samples` counts (impression, click) pairs that have at least one negative."""

    name: str
    bytes: int
    sha256: str
    impressions: int
    samples: int
    blocks: list[BlockInfo]


@dataclass(frozen=True)
class SplitIndex:
    """A split's index.json."""

    split: str
    labelled: bool
    shards: list[ShardInfo]

    @property
    def samples(self) -> int:
        """Training samples of an epoch."""
        return sum(shard.samples for shard in self.shards)

    @property
    def impressions(self) -> int:
        """Impressions of the split."""
        return sum(shard.impressions for shard in self.shards)


def count_samples(block: Block) -> int:
    """The number of training samples: clicks of impressions that also have a non-clicked candidate."""
    if "candidate_clicked" not in block:
        return 0
    offsets = block["candidate_offsets"]
    clicks = segment_sums(block["candidate_clicked"], offsets)
    return int(clicks[clicks < np.diff(offsets)].sum())


def segment_sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sums of a flat array's segments, int64 [len(offsets) - 1]; empty segments give 0."""
    total = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, dtype=np.int64, out=total[1:])
    sums: np.ndarray = total[offsets[1:]] - total[offsets[:-1]]
    return sums


def describe(block: Block, key: str) -> BlockInfo:
    """A block's line of the index."""
    return {
        "key": key,
        "impressions": len(block["row"]),
        "samples": count_samples(block),
        "candidates": len(block["candidate_news"]),
        "histories": len(block["history_offsets"]) - 1,
    }


def pack_tar(members: list[tuple[str, np.ndarray]]) -> bytes:
    """Arrays as a tar of `.npy` members; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, array in members:
            npy = io.BytesIO()
            np.lib.format.write_array(npy, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            info = tarfile.TarInfo(f"{name}.npy")
            info.size = npy.tell()
            npy.seek(0)
            tar.addfile(info, npy)
    return buffer.getvalue()


Member = tuple[str, str, np.ndarray]  # block key, field, array


def unpack_tar(data: bytes, where: str) -> list[Member]:
    """The members of a tar of `.npy` files. Raises InputError for anything that is not such a tar."""
    try:
        own = _own_members(data)
    except (ValueError, TypeError):  # a number or dtype that is none
        own = None
    if own:
        return own
    # What is laid out in any other way than our own writer's is left to the general reader and its messages.
    try:
        return _any_members(data, where)
    except (tarfile.TarError, *NPY_FAULTS) as error:
        raise InputError(f"{where}: not a readable shard ({error})") from None


# The header that NumPy writes for an array, version 1.0.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|][biuf]\d)', 'fortran_order': False, 'shape': \(([\d, ]+)\), \} *\n", re.S
)


def _own_members(data: bytes) -> list[Member] | None:
    """The members of a tar that `pack_tar` made, None for any other; ten times as fast as `tarfile`.

    A shard has some 150 members, and `tarfile` with NumPy's header parser takes 100 us for each: as long as everything
    else that is done to the shard's 25,000 samples.
    """
    members: list[Member] = []
    at = 0
    while at + 512 <= len(data) and data[at] != 0:
        name = data[at : data.index(b"\0", at, at + 512)]
        if data[at + 257 : at + 262] != b"ustar" or data[at + 156] != 0x30 or data[at + 345] != 0 or len(name) > 99:
            return None
        if b"/" in name:
            return None
        header = _NPY.match(data, at + 512, at + 1024)
        key, _, field = name.partition(b".")
        if header is None or not field.endswith(b".npy"):
            return None
        dtype, shape = np.dtype(header[1].decode()), tuple(int(n) for n in header[2].split(b",") if n.strip())
        count, size = math.prod(shape), int(data[at + 124 : at + 135], 8)
        stop = header.end() + count * dtype.itemsize
        if stop - at - 512 != size or stop > len(data):
            return None
        array = np.frombuffer(data, dtype, count, header.end()).reshape(shape)
        members.append((key.decode(), field[:-4].decode(), array))
        at += 512 + -(-size // 512) * 512
    return members


def _any_members(data: bytes, where: str) -> list[Member]:
    members = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar:
            key, _, field = info.name.partition(".")
            if not info.isfile() or not field.endswith(".npy") or "/" in info.name:
                raise InputError(f"{where}: unexpected member {info.name!r}")
            members.append((key, field.removesuffix(".npy"), _read_npy(data, info.offset_data, info.size)))
    return members


def _read_npy(data: bytes, start: int, size: int) -> np.ndarray:
    """An array that shares `data`'s memory."""
    if start + size > len(data):
        raise ValueError("truncated")
    head = io.BytesIO(data[start : start + min(size, 4096)])
    version = np.lib.format.read_magic(head)
    if version != (1, 0):
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if fortran or dtype.hasobject:
        raise ValueError("only plain C-ordered arrays are read")
    count = math.prod(shape)
    if head.tell() + count * dtype.itemsize != size:
        raise ValueError("array size and member size differ")
    return np.frombuffer(data, dtype, count, start + head.tell()).reshape(shape)


def write_shard(path: Path, blocks: list[Block]) -> ShardInfo:
    """Write blocks as `path` (atomically) and describe it. Keys are `<shard number>-<block number>`."""
    stem = path.stem.removeprefix("shard-")
    keys = [f"{stem}-{number:03d}" for number in range(len(blocks))]
    members = [
        (f"{key}.{field}", block[field].astype(dtype, copy=False))
        for key, block in zip(keys, blocks, strict=True)
        for field, dtype in FIELDS.items()
        if field in block
    ]
    data = pack_tar(members)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    lines = [describe(block, key) for key, block in zip(keys, blocks, strict=True)]
    return ShardInfo(
        path.name,
        len(data),
        hashlib.sha256(data).hexdigest(),
        sum(line["impressions"] for line in lines),
        sum(line["samples"] for line in lines),
        lines,
    )


def parse_shard(data: bytes, where: str) -> dict[str, Block]:
    """Blocks by key, in file order."""
    blocks: dict[str, Block] = {}
    for key, field, array in unpack_tar(data, where):
        blocks.setdefault(key, {})[field] = array
    for key, block in blocks.items():
        missing = [field for field in FIELDS if field not in block and field != "candidate_clicked"]
        if missing:
            raise InputError(f"{where}: block {key} lacks {', '.join(missing)}; prepare the data again")
        if fault := block_fault(block):
            raise InputError(f"{where}: block {key}: {fault}; prepare the data again")
    return blocks


def block_fault(block: Block) -> str | None:
    """What in a block's arrays contradicts `FIELDS` or each other; None when nothing does."""
    for field, array in block.items():
        if field not in FIELDS:
            return f"unknown array {field}"
        if array.ndim != 1 or array.dtype != FIELDS[field]:
            return f"{field} is {array.dtype} {list(array.shape)}, expected {FIELDS[field]} of one dimension"
    impressions = len(block["row"])
    for field in ("impression_id", "time", "impression_history"):
        if len(block[field]) != impressions:
            return f"{field} has {len(block[field])} entries for {impressions} impressions"
    for kind in ("history", "candidate"):
        offsets, flat = block[f"{kind}_offsets"], block[f"{kind}_news"]
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(flat) or (offsets[1:] < offsets[:-1]).any():
            return f"{kind}_offsets do not cut {kind}_news into lists"
    if len(block["candidate_offsets"]) != impressions + 1:
        return f"candidate_offsets has {len(block['candidate_offsets'])} entries for {impressions} impressions"
    histories, pointed = len(block["history_offsets"]) - 1, block["impression_history"]
    if impressions and (pointed.min() < 0 or pointed.max() >= histories):
        return f"impression_history points outside the block's {histories} histories"
    clicked = block.get("candidate_clicked")
    if clicked is not None and (len(clicked) != len(block["candidate_news"]) or (len(clicked) and clicked.max() > 1)):
        return "candidate_clicked is not a 0 or 1 for each candidate"
    return None


def check_bytes(data: bytes, info: ShardInfo, where: str) -> None:
    """Raise InputError when a shard is not, byte for byte, what its index says."""
    if len(data) != info.bytes:
        raise InputError(f"{where}: {len(data):,} bytes, the index says {info.bytes:,} (truncated?); prepare it again")
    if hashlib.sha256(data).hexdigest() != info.sha256:
        raise InputError(f"{where}: damaged, its sha256 differs from the index; prepare it again")


def read_shard(path: Path, info: ShardInfo | None = None) -> dict[str, Block]:
    """Read a local shard; with `info` its size and sha256 are checked first."""
    try:
        if info is not None and path.stat().st_size != info.bytes:  # before it is read whole
            size = path.stat().st_size
            raise InputError(f"{path}: {size:,} bytes, the index says {info.bytes:,} (truncated?); prepare it again")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if info is not None:
        check_bytes(data, info, str(path))
    return parse_shard(data, str(path))


def index_to_dict(index: SplitIndex) -> dict[str, object]:
    """index.json's content."""
    return {
        "split": index.split,
        "labelled": index.labelled,
        "impressions": index.impressions,
        "samples": index.samples,
        "shards": [vars(shard) for shard in index.shards],
    }


def index_from_dict(value: object, where: str) -> SplitIndex:
    """Parse index.json's content; InputError when it is not one."""
    try:
        if not isinstance(value, dict):
            raise TypeError(f"a {type(value).__name__}, not an object")
        shards = [ShardInfo(**shard) for shard in value["shards"]]
        seen: set[str] = set()
        for shard in shards:
            if not isinstance(shard.name, str) or "/" in shard.name or shard.name.startswith("."):
                raise InputError(f"{where}: shard name {shard.name!r} leaves its folder")
            if shard.name in seen:
                raise InputError(f"{where}: {shard.name} is listed twice; prepare the data again")
            seen.add(shard.name)
            _check_line(vars(shard), ("bytes", "impressions", "samples"), f"{where}: {shard.name}")
            for block in shard.blocks:
                _check_line(block, _BLOCK_COUNTS, f"{where}: a block of {shard.name}")
        return SplitIndex(value["split"], bool(value["labelled"]), shards)
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: not a shard index ({error!r})") from None


def _check_line(line: Mapping[str, object], counts: tuple[str, ...], where: str) -> None:
    """Raise InputError for a count of the index that is missing or none; TypeError where there is no line at all."""
    for name in counts:
        if name not in line or ("key" not in line and counts is _BLOCK_COUNTS):
            raise InputError(f"{where} lacks one of key, {', '.join(counts)}; prepare the data again")
        count = line[name]
        if type(count) is not int or count < 0:
            raise InputError(f"{where}: {name}={count!r}: not a count; prepare the data again")


def read_index(folder: Path, split: str) -> SplitIndex:
    """The index of a split of a prepared data set. Raises InputError when there is none, or it is damaged."""
    path = folder / split / "index.json"
    if not path.is_file():
        there = sorted(p.parent.name for p in folder.glob("*/index.json"))
        raise InputError(
            f"{folder}: no prepared {split} split"
            + (f" (there is {', '.join(there)})" if there else "")
            + "; run `tnr data prepare`"
        )
    index = index_from_dict(read_json(path), str(path))
    check_file(folder, f"{split}/index.json")
    return index
