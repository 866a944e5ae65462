"""Shards from folders and URLs; stock WebDataset reads them; nothing in index.json is ever run."""

import functools
import http.server
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tnr_dist.data import addresses
from tnr_dist.data.batches.clicks import ClickLoader, LoaderOptions
from tnr_dist.data.shards import (
    SplitIndex,
    _any_members,
    _own_members,
    index_from_dict,
    index_to_dict,
    pack_tar,
    read_index,
    read_shard,
    unpack_tar,
)
from tnr_dist.data.source import ShardSource, expand_braces
from tnr_dist.util.errors import InputError


@pytest.fixture
def server(split):
    """The split's folder over http."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args):  # a reader that has had enough
            pass

    handler = functools.partial(Handler, directory=str(split.folder))
    with Server(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_braces():
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    assert expand_braces("plain") == ["plain"]
    with pytest.raises(InputError, match="counts down"):
        expand_braces("{3..1}")


def test_braces_expand_as_webdataset_does():
    shardlists = pytest.importorskip("webdataset.shardlists", reason="webdataset is not installed")
    for pattern in ("x/shard-{000000..000012}.tar", "{a,b}-{1..3}.tar"):
        assert expand_braces(pattern) == shardlists.expand_urls(pattern)


@pytest.mark.parametrize("kind", ["folder", "braces", "file", "pipe", "http"])
def test_every_way_of_reading_gives_the_same_batches(split, kind, request):
    if kind in ("file", "pipe", "http"):
        pytest.importorskip("webdataset", reason="webdataset is not installed")
    names = "shard-{000000..000004}.tar"
    pattern = {
        "folder": "",
        "braces": f"{split.folder}/{names}",
        "file": f"file:{split.folder}/{names}",
        "pipe": f"pipe:cat {split.folder}/{names}",
    }.get(kind) if kind != "http" else f"{request.getfixturevalue('server')}/{names}"  # fmt: skip
    options = LoaderOptions(8, history=5, streams=8)
    plain = list(ClickLoader(split.index, split.source, options).epoch(0))
    elsewhere = Path("/nowhere") if pattern else split.folder
    read = list(ClickLoader(split.index, ShardSource.of(elsewhere, split.index, pattern), options).epoch(0))
    assert len(read) == len(plain)
    for a, b in zip(read, plain, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], strict=True)


@pytest.mark.parametrize("kind", ["pipe", "http"])
def test_what_a_url_does_not_give_is_named(split, kind, request):
    pytest.importorskip("webdataset", reason="webdataset is not installed")
    (split.folder / "shard-000001.tar").unlink()
    base = f"pipe:cat 2>/dev/null {split.folder}" if kind == "pipe" else request.getfixturevalue("server")
    source = ShardSource.of(split.folder, split.index, base + "/shard-{000000..000004}.tar")
    source.read(split.index.shards[0])
    with pytest.raises(InputError, match=r"shard-000001\.tar: .*(cannot be read|truncated)"):
        source.read(split.index.shards[1])


@pytest.mark.parametrize("command", ["exit 22; cat", "cat /nowhere"])
def test_messages_do_not_show_what_may_be_a_key(split, command):
    pytest.importorskip("webdataset", reason="webdataset is not installed")
    pattern = f"pipe:KEY=secret; {command} shard-{{000000..000004}}.tar"
    with pytest.raises(InputError, match=r"^pipe:\.\.\. shard-000001\.tar: cannot be read \(exit \d+\)$"):
        ShardSource.of(split.folder, split.index, pattern).read(split.index.shards[1])
    for wrong in (
        "pipe:KEY=secret cat x.tar",
        "https://me:secret@host/shard-{000000..000003}.tar?key=secret",
        "pipe:secret{3..1}",
    ):
        with pytest.raises(InputError) as caught:
            ShardSource.of(split.folder, split.index, wrong)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "pattern", ["{0..1000000000}/shard-000000.tar", "{0..999}{0..999}{0..999}{a,b}", "{1..999999999999999999}"]
)
def test_patterns_of_a_billion_are_refused(split, pattern):
    with pytest.raises(InputError, match="stand for more than 200,000 addresses"):
        ShardSource.of(split.folder, split.index, pattern)
    with pytest.raises(InputError, match="names no shard"):
        ShardSource.of(split.folder, split.index, "{0..9999999999999999999999}")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("sleep 60 #", r"no end within 0\.5 s"),
        ("while true; do echo x; sleep 0.1; done #", r"no end within 0\.5 s"),
        ("sleep 60 & sleep 60 #", r"no end within 0\.5 s"),
        ("yes #", r"more than the [\d,]+ bytes of the index"),
        ("cat /dev/zero #", r"more than the [\d,]+ bytes of the index"),
        ("exec >&-; sleep 60 #", "does not end after its output"),
        ("kill -9 $$ #", "exit -9"),
    ],
)
def test_a_command_without_end_ends(split, monkeypatch, command, says):
    monkeypatch.setattr(addresses, "READ_SECONDS", 0.5)
    monkeypatch.setattr(addresses, "_GRACE", 0.2)
    source = ShardSource.of(split.folder, split.index, f"pipe:{command} shard-{{000000..000004}}.tar")
    began = time.monotonic()
    with pytest.raises(InputError, match=rf"^pipe:\.\.\. shard-000001\.tar: cannot be read \(.*{says}"):
        source.read(split.index.shards[1])
    assert time.monotonic() - began < 10


def test_a_url_that_sends_more_than_the_index_says(split, server):
    pytest.importorskip("webdataset", reason="webdataset is not installed")
    source = ShardSource.of(split.folder, split.index, server + "/shard-{000000..000004}.tar")
    path = split.folder / "shard-000001.tar"
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + (1 << 28))
    with pytest.raises(
        InputError, match=r"shard-000001\.tar: cannot be read \(more than the [\d,]+ bytes of the index\)"
    ):
        source.read(split.index.shards[1])
    with pytest.raises(InputError, match=r"shard-000001\.tar: cannot be read \([\d,]+ bytes, the index says"):
        split.source.read(split.index.shards[1])
    with pytest.raises(InputError, match=r"shard-000001\.tar: [\d,]+ bytes, the index says"):
        read_shard(path, split.index.shards[1])
    with pytest.raises(InputError, match="no shard has more than"):
        split.source.read(replace(split.index.shards[0], bytes=1 << 50))


def test_what_is_no_file_is_not_waited_for(split):
    path = split.folder / "shard-000001.tar"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"shard-000001\.tar: cannot be read \(not a regular file\)"):
        split.source.read(split.index.shards[1])


def test_the_environment_cannot_run_a_command(split, server, tmp_path, monkeypatch):
    """webdataset rewrites addresses as GOPEN_REWRITE says, into commands too."""
    pytest.importorskip("webdataset", reason="webdataset is not installed")
    monkeypatch.setenv("GOPEN_REWRITE", f"{server}=pipe:touch {tmp_path}/owned; echo ")
    source = ShardSource.of(split.folder, split.index, server + "/shard-{000000..000004}.tar")
    assert source.read(split.index.shards[0]) == split.source.read(split.index.shards[0])
    assert not (tmp_path / "owned").exists()


def test_a_pattern_must_name_every_shard(split):
    with pytest.raises(InputError, match=r"1 shards of the index are not among them, first shard-000004\.tar"):
        ShardSource.of(split.folder, split.index, "/x/shard-{000000..000003}.tar")
    with pytest.raises(InputError, match="names no shard"):
        ShardSource.of(split.folder, split.index, "/x/part-{0..3}.tar")


def test_the_index_cannot_run_a_command(split, tmp_path, monkeypatch):
    """`pipe:` is for the configuration: a shard's name from index.json is only ever a file of the folder."""
    monkeypatch.chdir(tmp_path)
    bad = replace(split.index.shards[0], name="pipe:touch owned; echo shard-000000.tar")
    index = index_from_dict(index_to_dict(SplitIndex("train", True, [bad])), "index.json")
    for folder in (split.folder, Path()):
        with pytest.raises(InputError, match="missing"):
            ShardSource.of(folder, index).read(index.shards[0])
    assert not (tmp_path / "owned").exists()
    for name in ("pipe:cat /etc/passwd", "../shard-000000.tar", "http://x/shard-000000.tar"):
        with pytest.raises(InputError, match="leaves its folder"):
            index_from_dict(index_to_dict(SplitIndex("train", True, [replace(bad, name=name)])), "index.json")


def test_a_stock_webdataset_pipeline_sees_the_same_arrays(split):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    urls = f"{split.folder}/shard-{{000000..{len(split.index.shards) - 1:06d}}}.tar"
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    blocks = [block for shard in split.blocks for block in shard]
    assert [s["__key__"] for s in samples] == [line["key"] for info in split.index.shards for line in info.blocks]
    for sample, block in zip(samples, blocks, strict=True):
        assert {key.removesuffix(".npy") for key in sample if not key.startswith("__")} == block.keys()
        for field, values in block.items():
            np.testing.assert_array_equal(sample[f"{field}.npy"], values)


def assert_same_members(found, expected):
    assert [member[:2] for member in found] == [member[:2] for member in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[2], other[2], strict=True)


def test_the_fast_reader_equals_the_general_one(split):
    users = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    side = pack_tar([("k.teacher_users", users), ("k.none", np.zeros((0, 4), np.float32)), ("k.n", np.float64(3))])
    assert len(unpack_tar(side, "x")) == 3  # a number has no shape: the general reader's
    for data in [split.source.read(info) for info in split.index.shards] + [pack_tar([("k.teacher_users", users)])]:
        assert_same_members(_own_members(data), _any_members(data, "x"))


def test_the_fast_reader_leaves_what_it_does_not_know(split):
    assert not _own_members(b"")
    assert not _own_members(b"not\0a tar" * 200)
    assert not _own_members(pack_tar([("k.row", np.asfortranarray(np.zeros((2, 2), complex)))]))
    data = split.source.read(split.index.shards[0])
    whole = _own_members(data)
    for cut in range(0, len(data), 97):  # never a part of an array
        found = _own_members(data[:cut])
        if found is not None:
            assert_same_members(found, whole[: len(found)])


def test_read_index_round_trip(split):
    assert read_index(split.folder.parent, "train") == split.index
    assert json.loads((split.folder / "index.json").read_text())["samples"] == len(split.samples())
