import os
import subprocess
import sys

import pytest

from tnr_dist.errors import InputError
from tnr_dist.files import atomic_path, read_json, read_text, sweep, write_json


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


WRITE = "import sys, time, tnr_dist.files as f\nwith f.atomic_path(sys.argv[1]) as t:\n t.write_text('half')\n print('here', flush=True)\n sys.stdin.read()"


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
