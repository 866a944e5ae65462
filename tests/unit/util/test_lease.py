"""A lock that is not enough by itself: of a dead machine, of one machine only, none at all; and who has lost his folder."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tnr_dist.util import lease, lock, preemption
from tnr_dist.util.errors import EarlierStart, InputError, LeaseLost, Preempted
from tnr_dist.util.files import write_json
from tnr_dist.util.lock import LOCK, held, is_held

# Another process, on this machine or on one of another name, with locks or without: it holds a folder and writes there.
HOLDER = """
import fcntl, json, sys, time
from pathlib import Path
from tnr_dist.util import lease, lock
from tnr_dist.util.errors import LeaseLost
from tnr_dist.util.files import write_json
from tnr_dist.util import preemption

folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
lease.BEAT = options["beat"]
if "machine" in options:
    lock.machine = lease.machine = lambda: options["machine"]
if "flock" in options:
    def flock(handle, kind):
        if options["flock"] == "none":
            raise OSError(38, "Function not implemented")
    lock.fcntl.flock = flock
try:
    with lock.held(folder):
        print("held", flush=True)
        while not preemption.stop_requested():
            if (folder / "write").exists():
                write_json(folder / "ours.json", "holder")
            time.sleep(0.02)
        print("asked", flush=True)
except LeaseLost as error:
    print("lost", error, flush=True)
"""


@pytest.fixture
def quick(monkeypatch):
    """Seconds become tenths of a second."""
    monkeypatch.setattr(lease, "BEAT", 0.1)
    for name, seconds in {"BEAT": 0.1, "_PATIENCE": 0.3, "_SILENT": 0.6, "_LEASE_TIME": 1.5, "_SETTLE": 0.1}.items():
        monkeypatch.setattr(lock, name, seconds)
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "TNR_JOB_ID", "TNR_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    yield
    preemption.clear_request()


@pytest.fixture
def holder(tmp_path, quick):
    running = []

    def start(folder=tmp_path, environment=None, **options):
        command = [sys.executable, "-c", HOLDER, folder, json.dumps({"beat": 0.1, **options})]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {}))
        running.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def without_locks(monkeypatch, name):
    """`none`: flock is refused by the file system; `local`: it is granted whatever another machine holds."""

    def flock(handle, kind):
        if name == "none":
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)


def ours(folder):
    return json.loads((folder / "ours.json").read_text())


def restarted(monkeypatch, job="7", count="1", wait="20"):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    monkeypatch.setenv("TNR_LOCK_WAIT", wait)


@pytest.mark.parametrize("flock", ["none", "local"])
def test_signs_of_life_are_respected_where_no_lock_is(tmp_path, monkeypatch, holder, flock):
    process = holder(flock=flock, machine="aaaa")
    without_locks(monkeypatch, flock)
    assert is_held(tmp_path)
    with pytest.raises(InputError, match=f"process {process.pid} on .* is using it"), held(tmp_path):
        pass
    assert process.poll() is None


@pytest.mark.parametrize("flock", ["none", "local"])
def test_without_signs_of_life_the_folder_is_free(tmp_path, monkeypatch, holder, flock):
    process = holder(flock=flock, machine="aaaa")
    without_locks(monkeypatch, flock)
    process.kill()
    process.wait()
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began > 0.25  # it may have been between two signs
        assert not (tmp_path / lease.WANTED).exists()
    assert not is_held(tmp_path) and not list(tmp_path.iterdir())


def test_two_in_one_process_where_no_lock_is(tmp_path, monkeypatch, quick):
    without_locks(monkeypatch, "none")
    with held(tmp_path), pytest.raises(InputError, match="is using it"), held(tmp_path):
        pass
    with held(tmp_path, shared=True), held(tmp_path, shared=True):
        write_json(tmp_path / "ours.json", "both")
    assert ours(tmp_path) == "both"


def test_where_locks_are_the_one_of_a_dead_process_is_free_at_once(tmp_path, holder):
    process = holder()
    process.kill()
    process.wait()
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began < 0.3


def test_a_holder_that_is_stopped_is_respected_for_a_while_and_then_loses_its_folder(tmp_path, monkeypatch, holder):
    process = holder()
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(InputError, match="is using it"), held(tmp_path):
        pass
    restarted(monkeypatch)
    with held(tmp_path):
        write_json(tmp_path / "ours.json", "second")
        (tmp_path / "write").touch()
        os.kill(process.pid, signal.SIGCONT)
        said = process.stdout.readline()
        assert said == "asked\n" or (said.startswith("lost") and str(tmp_path) in said), said
        process.wait()
        assert ours(tmp_path) == "second" and is_held(tmp_path)
        write_json(tmp_path / "ours.json", "again")


def test_the_lock_of_a_dead_machine_that_its_file_server_keeps(tmp_path, monkeypatch, quick):
    """flock is refused for ever; the holder of the text is gone."""
    (tmp_path / LOCK).write_text("process 12 on node9, lease aaaa-1234")
    taken = []

    def flock(handle, kind):
        if os.path.samestat(os.fstat(handle), old):
            raise BlockingIOError
        taken.append(handle)

    old = (tmp_path / LOCK).stat()
    monkeypatch.setattr(fcntl, "flock", flock)
    restarted(monkeypatch)
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began > 1.4 and "node9" not in (tmp_path / LOCK).read_text()
        write_json(tmp_path / "ours.json", "second")
    assert {one.name for one in tmp_path.iterdir()} == {"ours.json"}


def test_one_of_long_ago_is_not_waited_for(tmp_path, monkeypatch, quick):
    (tmp_path / LOCK).write_text("process 12 on node9, lease aaaa-1234")
    os.utime(tmp_path / LOCK, (1, 1))
    monkeypatch.setattr(lock, "_SILENT", 50.0)
    with held(tmp_path):
        pass


def test_a_clock_that_is_wrong_takes_nothing_from_the_living(tmp_path, monkeypatch, holder):
    """The holder's machine is minutes behind the file server: its signs of life look old, but they come."""
    process = holder(flock="local", machine="aaaa")
    without_locks(monkeypatch, "local")
    monkeypatch.setattr(lock, "_age", lambda path, found: 300.0)
    with pytest.raises(InputError, match=f"process {process.pid}"), held(tmp_path):
        pass


def test_a_lock_of_an_older_version_gives_no_signs_of_life(tmp_path, quick):
    """While its process holds it, it is respected for ever."""
    path = tmp_path / LOCK
    path.write_text("process 12 on node9")
    os.utime(path, (1, 1))
    with path.open() as older:
        fcntl.flock(older, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="process 12 on node9 is using it"), held(tmp_path):
            pass


@pytest.mark.parametrize("what", ["removed", "replaced", "overwritten"])
def test_who_lost_the_folder_writes_nothing_there(tmp_path, quick, what):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    run, path = tmp_path / "run", tmp_path / "run" / LOCK
    with held(run):
        write_json(run / "ours.json", 1)
        if what == "overwritten":
            path.write_text("process 12 on node9, lease aaaa-1234")
        else:
            path.unlink()
        if what == "replaced":
            path.write_text("process 12 on node9, lease aaaa-1234")
        for place in (run / "ours.json", run / "checkpoints" / "x.json"):
            with pytest.raises(LeaseLost, match="took it over"):
                write_json(place, 2)
        write_json(tmp_path / "elsewhere.json", 3)
        deadline = time.monotonic() + 10
        while not preemption.stop_requested():  # it is told to stop, too: whatever it computes is for nothing
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert ours(run) == 1 and path.exists() is (what != "removed")
    assert not list(run.glob("checkpoints/*"))
    write_json(run / "ours.json", 4)  # not held: nobody's


def test_a_restarted_job_waits_and_its_former_life_is_asked_to_stop(tmp_path, monkeypatch, holder):
    process = holder(environment={"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"})
    restarted(monkeypatch)
    with held(tmp_path):
        assert process.stdout.readline() == "asked\n"
        assert not (tmp_path / lease.WANTED).exists()
    process.wait(20)


@pytest.mark.parametrize(("job", "count"), [("8", "1"), ("7", "2"), ("7", "3")])
def test_nobody_else_is_asked_to_stop(tmp_path, monkeypatch, holder, job, count):
    """Another job, or a later start of the same."""
    process = holder(environment={"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"})
    restarted(monkeypatch, job, count, wait="1")
    if (job, count) == ("7", "3"):
        with held(tmp_path):
            assert process.stdout.readline() == "asked\n"
        return
    said = rf"process {process.pid} on .* \(job 7, restart 2\) is still using it"
    with pytest.raises(EarlierStart, match=said), held(tmp_path):
        pass
    assert process.poll() is None


def test_other_schedulers_say_which_start_it_is(tmp_path, monkeypatch, holder):
    process = holder(environment={"TNR_JOB_ID": "abc", "TNR_RESTART_COUNT": "0"})
    monkeypatch.setenv("TNR_JOB_ID", "abc")
    monkeypatch.setenv("TNR_RESTART_COUNT", "1")
    with held(tmp_path):
        assert process.stdout.readline() == "asked\n"


def test_a_wait_for_the_lock_ends_when_told_to_stop(tmp_path, monkeypatch, holder):
    holder()
    restarted(monkeypatch, wait="60")
    preemption.request_stop()
    began = time.monotonic()
    with pytest.raises(Preempted, match="stopped while it waited for process"), held(tmp_path):
        pass
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_a_bad_wait_is_said(tmp_path, monkeypatch, quick, text):
    restarted(monkeypatch, wait=text)
    with pytest.raises(InputError, match=f"TNR_LOCK_WAIT='{text}'"), held(tmp_path):
        pass


def test_the_request_beside_the_lock_is_no_way_to_another_file(tmp_path, monkeypatch, holder):
    holder(environment={"SLURM_JOB_ID": "7"})
    victim = tmp_path / "thesis.tex"
    victim.write_text("mine")
    (tmp_path / lease.WANTED).symlink_to(victim)
    restarted(monkeypatch)
    with held(tmp_path):
        pass
    assert victim.read_text() == "mine"


def test_a_folder_that_is_renamed_is_not_guarded_any_more(tmp_path, quick):
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(tmp_path / "run"))
        (tmp_path / "run").rename(tmp_path / "aside")
        lease.forget(tmp_path / "run")
        (tmp_path / "aside" / LOCK).unlink()
        write_json(tmp_path / "run" / "ours.json", "new")
        stack.enter_context(held(tmp_path / "run"))
        write_json(tmp_path / "run" / "ours.json", "newer")
    assert ours(tmp_path / "run") == "newer" and not (tmp_path / "run" / LOCK).exists()
