"""What of a machine's memory a job may plan with, and what processes hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tnr_dist.util import memory
from tnr_dist.util.memory import GIB, TreePeak, job_limit, tree_bytes

TOTAL = 64 * GIB


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/user/job_7\n", "sys/fs/cgroup/user/job_7/memory.max": "max\n"}
V1 = {"proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/slurm/job_7\n0::/\n"}


@pytest.mark.parametrize(
    ("contents", "gib"),
    [
        ({**V2, "sys/fs/cgroup/user/memory.max": f"{8 * GIB}\n"}, 8),  # the group above counts too
        (
            {
                **V2,
                "sys/fs/cgroup/user/job_7/memory.high": f"{6 * GIB}\n",
                "sys/fs/cgroup/user/memory.max": f"{8 * GIB}",
            },
            6,
        ),
        ({"proc/self/cgroup": "0::/host/only\n", "sys/fs/cgroup/memory.max": f"{3 * GIB}"}, 3),  # in a container
        ({**V1, "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes": f"{5 * GIB}"}, 5),
    ],
)
def test_the_cgroups_limit_counts(tmp_path, contents, gib):
    assert job_limit({}, files(tmp_path, contents), TOTAL) == (gib * GIB, "cgroup", True)


@pytest.mark.parametrize(
    "contents",
    [
        {},
        V2,
        {**V1, "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes": "9223372036854771712\n"},
        {**V2, "sys/fs/cgroup/user/job_7/memory.max": f"{2 * TOTAL}\n"},
        {"proc/self/cgroup": "nonsense\n"},
    ],
)
def test_without_a_limit_the_machine_counts(tmp_path, monkeypatch, contents):
    monkeypatch.setattr(memory, "cores", lambda: os.cpu_count())
    assert job_limit({}, files(tmp_path, contents), TOTAL) == (TOTAL, "the machine", False)


def test_without_a_limit_a_share_of_the_cores_is_one_of_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(memory, "cores", lambda: 16)
    assert job_limit({}, tmp_path, TOTAL).size == TOTAL // 4


@pytest.mark.parametrize(
    ("variables", "gib"),
    [
        ({"SLURM_MEM_PER_NODE": "16384"}, 16),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "4"}, 8),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8"}, 32),  # memory is not shared out there: 8 of 16 cores
    ],
)
def test_what_slurm_gives_counts(tmp_path, monkeypatch, variables, gib):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    limit = job_limit(variables, tmp_path, TOTAL)
    assert (limit.size, limit.given) == (gib * GIB, True) and limit.source.startswith("Slurm")


def test_the_least_counts_and_memory_gib_is_one_of_them(tmp_path, monkeypatch):
    root = files(tmp_path, {**V2, "sys/fs/cgroup/user/memory.max": str(8 * GIB)})
    monkeypatch.setattr(memory, "STATED_GIB", 2.5)
    assert job_limit({"SLURM_MEM_PER_NODE": "16384"}, root, TOTAL) == (int(2.5 * GIB), "memory_gib", True)


_CHILD = """
import mmap, sys
size = 200 << 20
with open(sys.argv[1], "r+b") if sys.argv[1:] else open("/dev/null") as file:
    where = (file.fileno(), size) if sys.argv[1:] else (-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block = mmap.mmap(*where)
for at in range(0, size, 4096):
    block[at] = 1
print("full", flush=True)
input()
"""


def grown_by_children(*files: Path, children: int) -> float:
    """MiB that this process's tree grows by, when it starts children that hold 200 MiB each."""
    before, running = tree_bytes(os.getpid()), []
    for _ in range(children):
        command = [sys.executable, "-c", _CHILD, *map(str, files)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        running.append(child)
    grown = tree_bytes(os.getpid()) - before
    for child in running:
        child.communicate(b"\n")
    return grown / 2**20


def test_a_tree_counts_its_processes():
    assert 400 <= grown_by_children(children=2) < 460


def test_what_its_processes_share_counts_once(tmp_path):
    shared = tmp_path / "shared"
    shared.write_bytes(bytes(200 << 20))
    assert grown_by_children(shared, children=2) < 260


def test_the_peak_of_a_tree_outlives_it():
    before = tree_bytes(os.getpid()) / GIB
    with TreePeak() as peak:
        block = bytearray(200 << 20)
        peak.look()
        del block
    assert peak.gib >= before + 0.19
