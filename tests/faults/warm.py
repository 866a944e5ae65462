"""The launcher and its ranks, forked from a process that has imported everything: a fifth of what starting anew takes.

All else is real: `engines.local` runs as it is, its ranks are its own children, with their own signals and ends.
One thing is not: forked ranks order their sets alike, which ranks started anew (`Attempt`) and those of a Slurm job do not.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

_HERE = "tests.faults.warm"


def start(arguments: list[str], log: str, environment: dict[str, str]) -> BaseProcess:
    """`python -m tnr_dist.launch.local ARGUMENTS` with its output in a file, and more in its environment."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    everything = ["tnr_dist.cli.app", "tnr_dist.stages.stage2", "torch._dynamo", "transformers", "tests.faults.engines"]
    context.set_forkserver_preload([_HERE, *everything])
    process = context.Process(target=_launcher, args=(arguments, log, environment))
    process.start()
    return process


class _Forked(subprocess.Popen):  # type: ignore[type-arg]
    """Popen whose child is a fork that goes on as `python -m tnr_dist.cli.app` instead of one that starts Python anew."""

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any, *rest: Any
    ) -> None:
        command = [str(part) for part in args]
        if command[:3] != [sys.executable, "-m", "tnr_dist.cli.app"]:  # such as git, which is asked for the commit
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)  # type: ignore[misc]
            return
        self.pid = os.fork()
        self._child_created = True
        if self.pid:
            return
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_DFL)
            if preexec_fn is not None:
                preexec_fn()
            if env is not None:
                os.environ.clear()
                os.environ.update(env)
            sys.argv = ["tnr", *command[3:]]
            code = _code_of(_tnr)
        finally:
            threading._shutdown()  # what the interpreter does at its end, so that a thread that hangs is seen
            atexit._run_exitfuncs()
            sys.stderr.flush()
            os._exit(code)


def _tnr() -> None:
    from tnr_dist.cli.app import main

    main()


def _launcher(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from tnr_dist.launch import local

    subprocess.Popen = _Forked  # type: ignore[misc]
    sys.argv = ["local", *arguments]
    sys.exit(_code_of(local.main))


def _code_of(main: Any) -> int:
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0
