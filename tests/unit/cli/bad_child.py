"""A command in a process with fewer rights or less room, forked from a server that has imported everything (tests/ranks.py)."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import multiprocessing
import os
import resource
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[3]


def without_rights() -> None:
    """Give up root's right to read and write everything; another user has none to give up."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    assert ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) == 0


def short_files() -> None:
    """No file of more than 20 kB, as on a disk that is almost full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def as_it_is() -> None:
    """No difference."""


def _command(folder: Path, arguments: list[str], said: Path, first: Any) -> None:
    from tnr_dist.cli.app import main

    faulthandler.dump_traceback_later(60, exit=True)  # a command that hangs says where
    os.chdir(folder)
    with said.open("w", buffering=1) as sys.stderr:
        sys.stdout = io.StringIO()
        sys.argv = ["tnr", *arguments]
        first()
        main()


def in_child(folder: Path, arguments: list[Any], first: Any = as_it_is) -> tuple[int, str]:
    """Exit code and stderr of a command, run in `folder` after `first`."""
    context = multiprocessing.get_context("forkserver")
    everything = ["tests.ranks", "tnr_dist.cli.app", "tnr_dist.stages.pipeline", "torch._dynamo", "transformers"]
    context.set_forkserver_preload([*everything, "tests.unit.cli.bad_child"])
    said = folder.parent / f"{folder.name}.stderr"
    process = context.Process(target=_command, args=(folder, list(map(str, arguments)), said, first))
    with contextlib.chdir(_ROOT):  # where the server finds `tests`
        process.start()
    process.join(90)
    assert process.exitcode is not None, "the command hangs"
    return process.exitcode, said.read_text()
