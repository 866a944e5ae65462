"""A folder that came from elsewhere may hold a `.lock` of any kind: nothing but our own lock is written to or removed."""

import os
import socket

import pytest

from tnr_dist.util.errors import InputError
from tnr_dist.util.lock import LOCK, held


def symbolic_link(path, victim):
    path.symlink_to(victim)


def dangling_link(path, victim):
    path.symlink_to(victim.with_name("none"))


def hard_link(path, victim):
    os.link(victim, path)


def other_file(path, victim):
    path.write_text("notes")


def named_pipe(path, victim):
    os.mkfifo(path)


def folder(path, victim):
    path.mkdir()


def unix_socket(path, victim):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (symbolic_link, "a symbolic link"),
        (dangling_link, "a symbolic link"),
        (hard_link, "a file of something else"),
        (other_file, "a file of something else"),
        (named_pipe, "a named pipe"),
        (folder, "a folder"),
        (unix_socket, "a device or a socket"),
    ],
)
def test_what_is_no_lock_is_refused_in_one_line(tmp_path, monkeypatch, make, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    victim, path = tmp_path / "thesis.tex", tmp_path / "run" / LOCK
    victim.write_text("mine")
    make(path, victim)
    before = os.lstat(path)
    with pytest.raises(InputError, match=f"{LOCK}: not a lock but {says}; remove it"), held(tmp_path / "run"):
        raise AssertionError
    assert victim.read_text() == "mine" and sorted(one.name for one in tmp_path.iterdir()) == ["run", "thesis.tex"]
    assert os.path.samestat(os.lstat(path), before)


@pytest.mark.parametrize("left", ["", "process 4000000 on another-host"])
def test_what_a_killed_process_left_is_taken(tmp_path, left):
    (tmp_path / LOCK).write_text(left)
    with held(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on {socket.gethostname()}, lease ")
    assert not list(tmp_path.iterdir())
