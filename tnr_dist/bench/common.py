"""What every benchmark reports beside its figures: where and with what they were measured."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import threading
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tnr_dist.engines.allocator import keep_freed_memory
from tnr_dist.errors import InputError
from tnr_dist.hardware import cpu_name

NAMES = ("prepare", "loader", "cache", "metrics", "teacher-pass", "inference", "step", "kernels", "engines", "serve")


def run_benchmark(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Run `tnr_dist.bench.NAME.run(**settings)`; its figures and the surroundings they were measured in.

    Raises InputError for an unknown benchmark, an unknown setting or a value of the wrong type.
    """
    if name not in NAMES:
        raise InputError(f"tnr bench {name}: unknown; one of {', '.join(NAMES)}")
    run = importlib.import_module(f"tnr_dist.bench.{name.replace('-', '_')}").run
    parameters = typing.get_type_hints(run)
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in parameters or key == "return":
            known = ", ".join(k for k in parameters if k != "return")
            raise InputError(f"tnr bench {name}: unknown setting {setting!r}; {known} can be set as key=value")
        kinds = [kind for kind in typing.get_args(parameters[key]) or (parameters[key],) if kind is not type(None)]
        try:
            values[key] = text.lower() in ("1", "true", "yes") if kinds[0] is bool else kinds[0](text)
        except ValueError:
            raise InputError(f"tnr bench {name}: {key}={text!r} is not {kinds[0].__name__}") from None
        if kinds[0] in (int, float) and not values[key] >= 0:
            raise InputError(f"tnr bench {name}: {key}={text}: must not be negative")
    where = surroundings()
    keep_freed_memory()  # for all that is compared alike
    return {**run(**values), **where}


def surroundings() -> dict[str, Any]:
    """Hardware, threads, versions and commit."""
    import torch

    where: dict[str, Any] = {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        where["gpu"] = torch.cuda.get_device_name()
    return where


def commit() -> str:
    """The source's commit, with `+` when files differ from it; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip() + ("+" if dirty.stdout.strip() else "")


class PeakMemory:
    """Peak resident memory of this process and all it starts, sampled every 50 ms; use as a context manager."""

    def __init__(self) -> None:
        self.gib = 0.0

    def __enter__(self) -> PeakMemory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.05):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    # Unique pages only would miss what is shared by fork; resident counts file pages too: an upper bound.
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.gib = max(self.gib, total / 2**30)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
