import os
import subprocess
import sys
from pathlib import Path

import pytest

from tnr_dist.util import files
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, read_json, read_text, sweep, write_json, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_folders_appear_whole(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "d") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("1")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_path(tmp_path / "d") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("1")
    assert (tmp_path / "d" / "x").read_text() == "1"


def test_json_errors_name_the_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    for name in ("bad.json", "none.json"):
        with pytest.raises(InputError, match=name):
            read_json(tmp_path / name)


def test_what_is_no_plain_file_of_some_length_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match=r"pipe\.json: not a plain file"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(InputError, match="not a plain file"):
        read_json("/dev/zero")
    (tmp_path / "long.json").write_text(" " * 1000 + "1")
    assert read_json(tmp_path / "long.json") == 1
    with pytest.raises(InputError, match=r"long\.json: 1,001 bytes, at most 1,000"):
        read_json(tmp_path / "long.json", 1000)
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    with pytest.raises(InputError, match=r"latin\.json: not a UTF-8 text file"):
        read_text(tmp_path / "latin.json")


WRITE = "import sys, time, tnr_dist.util.files as f\nwith f.atomic_path(sys.argv[1]) as t:\n t.write_text('half')\n print('here', flush=True)\n sys.stdin.read()"


@pytest.mark.parametrize("space", ["the same", "another"])
def test_a_killed_writers_file_goes_at_the_next_start(tmp_path, space, monkeypatch):
    """Whatever was written: a shard, a segment of frozen states, a submission. Another container counts its own processes."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path / "prediction.zip")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"here\n"
    writer.kill()
    writer.communicate()
    (left,) = tmp_path.iterdir()
    if space == "another":
        monkeypatch.setattr(Path, "readlink", lambda path: Path("pid:[1]"))
    own = tmp_path / ".report.abcd1234.tmp"
    own.write_text("of another program")
    for _ in range(2):  # once a process, and only what lies there then
        files._swept.discard(tmp_path)
        files._host.cache_clear()
        write_text(tmp_path / "results.json", "x")
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"results.json", own.name} | ({left.name} if space == "another" else set())
    files._host.cache_clear()


def test_what_killed_processes_left_is_swept_and_what_live_ones_write_is_not(tmp_path):
    arguments = [sys.executable, "-c", WRITE, str(tmp_path / "config.yaml")]
    writers = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        assert [writer.stdout.readline() for writer in writers] == [b"here\n"] * 2
        writers[0].kill()
        writers[0].wait()
        (tmp_path / ".config.yaml.abcd1234.tmp").write_text("of an older version")
        (tmp_path / ".onnx.abcd1234.tmp").mkdir()
        (tmp_path / ".onnx.abcd1234.tmp" / "model").write_text("half")
        elsewhere = tmp_path / ".config.yaml.00000000-7-abcdefgh.tmp"
        elsewhere.write_text("of another host")
        own = tmp_path / ".notes.tmp"
        own.write_text("the user's")
        sweep(tmp_path)
        assert own.exists()
        own.unlink()
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {elsewhere.name, *(name for name in left if f"-{writers[1].pid}-" in name)} and len(left) == 2
        os.utime(elsewhere, (0, 0))
        sweep(tmp_path)
        assert not elsewhere.exists()
        _, _ = writers[1].communicate(b"")
        assert (tmp_path / "config.yaml").read_text() == "half" and len(list(tmp_path.iterdir())) == 1
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
