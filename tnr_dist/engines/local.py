"""Start n ranks of a command on this machine, as torchrun would: `python -m tnr_dist.engines.local N -- COMMAND…`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

_GRACE = 30.0  # seconds the others get to end after one rank has failed or all were told to stop


def launch(ranks: int, command: Sequence[str]) -> int:
    """Run `command` as `ranks` processes that meet on loopback; returns the first failing exit code, or 0.

    SIGTERM, SIGUSR1 and SIGINT are passed on. When one rank fails the others are ended.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        for rank in range(ranks):
            place = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": ranks,
                "LOCAL_WORLD_SIZE": ranks,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            environment = os.environ | {key: str(value) for key, value in place.items()}
            processes.append(subprocess.Popen(command, env=environment))
        return _wait(processes)
    except KeyboardInterrupt:
        _end(processes)
        return 130
    finally:
        _end(processes)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: list[subprocess.Popen[bytes]]) -> int:
    first_failure, deadline = 0, float("inf")
    while any(process.poll() is None for process in processes):
        codes = [process.returncode for process in processes if process.returncode]
        if codes and not first_failure:
            first_failure, deadline = codes[0], time.monotonic() + _GRACE
        if first_failure and (first_failure not in (2, 75) or time.monotonic() > deadline):
            # A crash leaves the others in a collective that cannot complete; exits 2 and 75 are reached by all ranks.
            _end(processes)
        time.sleep(0.05)
    codes = [process.returncode for process in processes if process.returncode]
    code = first_failure or (codes[0] if codes else 0)
    return 128 - code if code < 0 else code


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + 5
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Command line of `launch/local.sh`."""
    arguments = sys.argv[1:]
    if len(arguments) < 2 or not arguments[0].isdigit() or int(arguments[0]) < 1:
        print("usage: launch/local.sh N COMMAND [ARGUMENT…]   (N: the number of ranks, 1 or more)", file=sys.stderr)
        raise SystemExit(2)
    command = arguments[1:]
    raise SystemExit(launch(int(arguments[0]), command[1:] if command[0] == "--" else command))


if __name__ == "__main__":
    main()
