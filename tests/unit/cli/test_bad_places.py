"""Places where a command may not read, may not write or has no room, and folders in which another process works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.bad_child import in_child, short_files, without_rights
from tests.unit.cli.bad_table import Place, snapshot
from tests.unit.cli.test_bad_input import BEGUN
from tnr_dist.util import lock
from tnr_dist.util.errors import InputError


def the_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("tnr: ")]
    assert len(lines) == 1 and err.splitlines()[-1] == lines[0] and "Traceback" not in err, err
    return lines[0]


# Permissions ----------------------------------------------------------------------------------------------------------


def _config(place: Place) -> tuple[list[Any], Path]:
    path = place.config()
    return ["stage2", path], path


def _manifest(place: Place) -> tuple[list[Any], Path]:
    data = place.data()
    return ["finetune", place.config(), "finetune.init=plm", f"data.dir={data}"], data / "manifest.json"


def _tokens(place: Place) -> tuple[list[Any], Path]:
    data = place.data()
    arguments = ["finetune", place.config(), "finetune.init=plm", f"data.dir={data}"]
    return arguments, data / "tokens" / "title.values.npy"


def _weights(place: Place) -> tuple[list[Any], Path]:
    plm = place.model()
    return ["plm", "convert", plm, "--output", place.path / "out"], plm / "model.safetensors"


def _vocabulary(place: Place) -> tuple[list[Any], Path]:
    plm = place.model()
    return ["plm", "convert", plm, "--output", place.path / "out"], plm / "vocab.txt"


def _raw_news(place: Place) -> tuple[list[Any], Path]:
    raw = place.raw()
    return place.prepare(input=raw), raw / "news.tsv"


def _model(place: Place) -> tuple[list[Any], Path]:
    return ["evaluate", place.config()], place.finished() / "stage2-1" / "model.safetensors"


def _prediction(place: Place) -> tuple[list[Any], Path]:
    (place.path / "p.zip").write_bytes(b"PK")
    return ["predict", "--check", place.path / "p.zip"], place.path / "p.zip"


@pytest.mark.parametrize("case", [_config, _manifest, _tokens, _weights, _vocabulary, _raw_news, _model, _prediction])
def test_a_file_that_may_not_be_read(case, place):
    arguments, path = case(place)
    path.chmod(0)
    before = snapshot(place.path)
    code, err = in_child(place.path, arguments, without_rights)
    assert code == 2, (code, err)
    line = the_line(err)
    assert str(path.relative_to(place.path)) in line and re.search("(?i)permission denied|not readable", line)
    after = snapshot(place.path)
    assert {name for name, what in after.items() if what != "folder"} == {n for n, w in before.items() if w != "folder"}


WRITING: dict[str, Callable[[Place, Path], list[Any]]] = {
    "synth": lambda place, out: ["data", "synth", "--output", out / "x", "--news", 300, "--users", 50, "--impressions", 80],
    "prepare": lambda place, out: [*place.prepare(input=place.raw_mind), "--output", out / "x"],
    "post-train": lambda place, out: ["post-train", place.config(), f"output={out}"],
    "finetune": lambda place, out: ["finetune", place.config(), "finetune.init=plm", f"output={out}"],
    "convert": lambda place, out: ["plm", "convert", place.plm, "--output", out / "x"],
    "export": lambda place, out: ["export", place.runs / "stage2-1", "--to", "hf", "--no-speed", "--output", out],
    "run": lambda place, out: ["run", place.config(), f"data.dir={out / 'x'}"],
    "report": lambda place, out: ["report", place.runs, "--output", out / "x"],
}  # fmt: skip


@pytest.mark.parametrize("name", WRITING)
def test_a_folder_that_may_not_be_written(name, place):
    out = place.path / "out"
    out.mkdir()
    arguments = WRITING[name](place, out)
    before = snapshot(place.path)
    out.chmod(0o555)
    code, err = in_child(place.path, arguments, without_rights)
    assert code == 2, (code, err)
    line = the_line(err)
    assert str(out) in line and "permission denied" in line
    assert snapshot(place.path) == before


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_run_that_may_not_be_written(command, place):
    run = place.finished() / "stage2-1"
    arguments = [command, place.config()]
    before = snapshot(place.path)
    run.chmod(0o555)
    code, err = in_child(place.path, arguments, without_rights)
    assert code == 2, (code, err)
    assert str(run) in the_line(err) and "permission denied" in the_line(err)
    assert snapshot(place.path) == before


# Room -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(place) -> Iterator[Path]:
    """A file system of 40 KiB."""
    out = place.path / "out"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", out], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs needs root: {mounted.stderr.decode().strip()}")
    try:
        yield out
    finally:
        subprocess.run(["umount", "-l", out], check=True)


def unfinished(folder: Path) -> set[str]:
    """Files that look whole and are not: what a command may leave is what it takes up again when it is run anew."""
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in left if Path(name).name not in BEGUN and not name.startswith(("x/.work/", "x/tokens/"))}


@pytest.mark.parametrize("name", [name for name in WRITING if name != "run"])
def test_a_full_disk(name, place, full_disk):
    arguments = WRITING[name](place, full_disk)
    code, err = in_child(place.path, arguments)
    assert code == 2, (code, err)
    line = the_line(err)
    assert str(full_disk) in line and "No space left" in line
    assert not unfinished(full_disk) - {"x/news.parquet"}
    subprocess.run(["mount", "-o", "remount,size=64m", full_disk], check=True)
    code, err = in_child(place.path, arguments)
    assert code == 0, err


@pytest.mark.parametrize("name", ["synth", "prepare", "finetune", "convert", "export"])
def test_files_that_may_not_be_so_large(name, place):
    out = place.path / "out"
    out.mkdir()
    arguments = WRITING[name](place, out)
    code, err = in_child(place.path, arguments, short_files)
    assert code == 2, (code, err)
    assert str(out) in the_line(err) and "too large" in the_line(err)
    assert not unfinished(out) - {"x/news.parquet"}


# Another process ------------------------------------------------------------------------------------------------------

HOLD = "import sys, pathlib, tnr_dist.util.lock as l\nwith l.held(pathlib.Path(sys.argv[1])):\n print('held', flush=True)\n sys.stdin.read()"


@pytest.fixture
def held(monkeypatch) -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Another process that holds a folder until it is killed."""
    monkeypatch.setattr(lock, "_PATIENCE", 0.2)
    holders = []

    def hold(folder: Path) -> subprocess.Popen:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        holders.append(holder)
        assert holder.stdout.readline() == "held\n"
        return holder

    yield hold
    for holder in holders:
        holder.kill()
        holder.wait()


def test_two_runs_in_one_folder(place, held):
    arguments = ["finetune", place.config(), "finetune.init=plm", "finetune.layers=1"]
    run = place.path / "run" / "finetune-1"
    holder = held(run)
    before = snapshot(place.path)
    code, err = in_child(place.path, arguments)
    assert code == 2, (code, err)
    line = the_line(err)
    assert str(run) in line and f"process {holder.pid} on {os.uname().nodename}" in line
    assert snapshot(place.path) == before
    holder.kill()  # its lock goes with it, however it ends
    holder.wait()
    assert in_child(place.path, arguments)[0] == 0
    assert not (run / lock.LOCK).exists() and (run / "complete.json").is_file()


def test_two_preparations_in_one_folder(place, held):
    arguments = place.prepare(input=place.raw())
    holder = held(place.path / "out")
    before = snapshot(place.path)
    code, err = in_child(place.path, arguments)
    assert code == 2 and f"process {holder.pid}" in the_line(err), err
    assert snapshot(place.path) == before


def test_a_finished_run_is_skipped_whoever_holds_its_folder(place, held):
    run = place.finished()
    held(run / "teacher-0")
    code, err = in_child(place.path, ["finetune", place.config()])
    assert code == 0 and "complete, skipped" in err


def test_processes_that_share_a_folder(tmp_path, monkeypatch):
    """Parts of a preparation work beside each other; whoever takes the whole folder does not work beside them."""
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    refused = pytest.raises(InputError, match=f"process {os.getpid()}")
    with lock.held(tmp_path, shared=True), lock.held(tmp_path, shared=True), refused, lock.held(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    with lock.held(tmp_path / "new"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_given_up_in_time(tmp_path, held, monkeypatch):
    """A job that is started again may meet the process of its former life, which is about to end."""
    monkeypatch.setattr(lock, "_PATIENCE", 30.0)
    holder = held(tmp_path)
    began = time.monotonic()
    holder.stdin.close()
    with lock.held(tmp_path):
        assert time.monotonic() - began < 30
    assert not list(tmp_path.iterdir())
