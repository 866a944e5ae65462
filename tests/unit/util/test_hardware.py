"""What this machine is, and who else works on it."""

import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from tnr_dist.util import hardware
from tnr_dist.util.errors import InputError
from tnr_dist.util.hardware import OtherWork, check_platform

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")


@pytest.mark.parametrize(
    ("after", "own", "cores"),
    [
        (Times(120, 0, 0, 100, 0, 0, 0, 0, 0, 0), 20, 0.0),  # all of the work was this process's
        (Times(120, 0, 0, 100, 0, 0, 0, 0, 0, 0), 5, 1.5),
        (Times(108, 4, 1, 100, 7, 1, 1, 5, 0, 0), 10, 1.0),
        (Times(120, 0, 0, 100, 0, 0, 0, 0, 20, 0), 10, 1.0),  # a guest's time is in user, too
        (Times(120, 0, 0, 100, 0, 0, 0, 0, 0, 0), 21, 0.0),  # by rounding
    ],
)
def test_work_of_others(after, own, cores, monkeypatch):
    clock = iter([1000.0, 1010.0])
    used = iter([3.0, 3.0 + own])
    times = iter([Times(100, 0, 0, 100, 0, 0, 0, 0, 0, 0), after])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time, "process_time", lambda: next(used))
    others = OtherWork()
    found = others.cores()
    monkeypatch.undo()
    assert found == pytest.approx(cores)


def test_work_of_this_machine_is_a_number_of_cores():
    others = OtherWork()
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    assert 0 <= others.cores() <= (psutil.cpu_count() or 1) + 0.5


@pytest.mark.parametrize("system", ["darwin", "win32", "freebsd14"])
def test_on_another_system_a_command_says_what_it_needs_in_one_line(system):
    program = f"""
import sys, types
{"sys.modules['fcntl'] = None" if system == "win32" else ""}
import tnr_dist.cli.app, tnr_dist.util.hardware
tnr_dist.util.hardware.sys, sys.argv = types.SimpleNamespace(platform={system!r}), ["tnr", "run", "none.yaml"]
tnr_dist.cli.app.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.endswith("; tnr runs on Linux with /proc mounted (docs/plms.md, Platforms)\n")


def test_a_system_without_locks_is_said_to_python_too():
    program = "import sys; sys.modules['fcntl'] = None; import tnr_dist.util.lock"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "InputError: tnr_dist locks its folders with fcntl, which this system has not" in done.stderr


def test_a_linux_without_proc(monkeypatch, tmp_path):
    check_platform()
    monkeypatch.setattr(hardware, "Path", lambda path: tmp_path / path.lstrip("/"))
    with pytest.raises(InputError, match=r"^/proc/self/status: not there; tnr runs on Linux"):
        check_platform()
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ("of_task", "affinity", "ranks", "cores"),
    [("", 8, 4, 2), ("8", 32, 4, 8), ("8", 8, 4, 8), ("8", 4, 4, 4), ("", 2, 4, 1), ("word", 8, 2, 4)],
    ids=[
        "no Slurm",
        "tasks of a node share its cores",
        "bound by srun",
        "bound to fewer",
        "more ranks than cores",
        "no number",
    ],
)
def test_cores_of_a_rank_are_divided_once(monkeypatch, of_task, affinity, ranks, cores):
    monkeypatch.setattr(hardware, "cores", lambda: affinity)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", of_task)
    assert hardware.cores_of_rank(ranks) == cores
