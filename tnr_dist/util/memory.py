"""Memory: what this job may take of the machine's, and what its processes hold."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil

from tnr_dist.util.hardware import cores

GIB = 2**30
STATED_GIB = 0.0  # the configuration's `memory_gib`
_PAGE = os.sysconf("SC_PAGE_SIZE")
_NO_LIMIT = 1 << 60  # from here on a number in a cgroup's file means none


class Limit(NamedTuple):
    """Bytes of this machine's memory that the job may plan with, and who says so; `given`: they are the job's own."""

    size: int
    source: str
    given: bool


def job_limit(variables: Mapping[str, str] | None = None, root: Path = Path("/"), total: int = 0) -> Limit:
    """The least of what the machine has, its cgroups allow, Slurm has given, and `memory_gib` states.

    Where nobody has set a limit, others may work on the machine too: then it is the share of its memory that this
    process's cores are of all cores.

    Args:
        variables: the environment's; root: where /proc and /sys lie; total: the machine's memory, 0: as it is.
    """
    variables = os.environ if variables is None else variables
    total = total or psutil.virtual_memory().total
    found = [Limit(size, source, True) for size, source in _limits(variables, root, total) if size < total]
    if STATED_GIB:
        found.append(Limit(int(STATED_GIB * GIB), "memory_gib", True))
    if found:
        return min(found)
    everywhere = os.cpu_count() or 1
    share = min(cores(), everywhere) / everywhere
    return Limit(int(total * share), "the machine" if share == 1 else "this process's share of the cores", False)


def _limits(variables: Mapping[str, str], root: Path, total: int) -> Iterator[tuple[int, str]]:
    yield from ((size, "cgroup") for size in _cgroup_limits(root))
    on_node = _number(variables.get("SLURM_CPUS_ON_NODE", ""))
    of_node, of_core = (_number(variables.get(f"SLURM_MEM_PER_{what}", "")) for what in ("NODE", "CPU"))
    if size := of_node or of_core * on_node:
        yield size << 20, "Slurm"
    elif "SLURM_JOB_ID" in variables and on_node:  # memory is not shared out: the job's part of the cores counts
        everywhere = os.cpu_count() or 1
        yield int(total * min(on_node, everywhere) / everywhere), "Slurm's share of the cores"


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The memory limits of this process's cgroup and of those above it, of cgroup version 1 or 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            base, names = root / "sys/fs/cgroup", ["memory.max", "memory.high"]
        elif "memory" in controllers.split(","):
            base, names = root / "sys/fs/cgroup/memory", ["memory.limit_in_bytes"]
        else:
            continue
        # In a container the path is often the host's, and what is mounted is the container's own: then the base counts.
        place = base / path.lstrip("/")
        for folder in [place, *place.parents]:
            for name in names:
                if size := _size_in(folder / name):
                    yield size
            if folder == base:
                break


def _size_in(file: Path) -> int:
    """0 for no limit."""
    try:
        size = _number(file.read_text(encoding="ascii", errors="replace").strip())
    except OSError:
        return 0
    return size if size < _NO_LIMIT else 0


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


# What processes hold ---------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that this process holds."""
    return _resident("self")[0]


def _resident(process: int | str) -> tuple[int, int]:
    """Bytes that a process holds, and how many of them it may share with others (files, shared memory)."""
    fields = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * _PAGE, int(fields[2]) * _PAGE


def tree_bytes(root: int) -> int:
    """Memory of a process and all that it has started; what they may share (libraries, mapped files) counts once."""
    own = shared = 0
    for process in _tree(root):
        try:
            held, common = _resident(process)
        except (OSError, ValueError, IndexError):  # it has ended
            continue
        own += held - common
        shared = max(shared, common)
    return own + shared


def _tree(root: int) -> Iterator[int]:
    yield root
    try:
        files = list(Path(f"/proc/{root}/task").glob("*/children"))
        if not files:
            raise FileNotFoundError
        children = [int(child) for file in files for child in file.read_text(encoding="ascii").split()]
    except OSError:  # a kernel without these files
        try:
            children = [child.pid for child in psutil.Process(root).children()]
        except psutil.Error:
            children = []
    for child in children:
        yield from _tree(child)


class TreePeak:
    """The most memory that this process and all it starts have held at a time; a context manager.

    `every`: seconds between two looks.
    """

    def __init__(self, every: float = 1.0) -> None:
        self.gib, self._every = 0.0, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def look(self) -> None:
        """Look now."""
        self.gib = max(self.gib, tree_bytes(os.getpid()) / GIB)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.look()

    def __enter__(self) -> TreePeak:
        self.look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.look()
        self._stop.set()
        self._thread.join()
