"""Start n ranks of a command on this machine, as torchrun would: `python -m tnr_dist.launch.local N -- COMMAND…`.

Unlike torchrun it keeps the ranks' exit code (75: preempted, 69: a rank was lost) and passes USR1 and USR2 on. Started once
per node by srun or mpirun it gives each node n ranks, all of one group.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from tnr_dist.launch.environment import LAUNCHER_MARK, Environment, detect
from tnr_dist.util.errors import InputError

_SAID = "TNR_SAID"  # the folder in which ranks of one launcher mark what one of them has said
_PR_SET_PDEATHSIG = 1
_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_GRACE = 30.0  # seconds the others get to end after one rank has failed or all were asked to stop


def launch(ranks: int, command: Sequence[str], node: Environment | None = None) -> int:
    """Run `command` as `ranks` processes; returns the first failing exit code, or 0.

    They meet on loopback, or with the ranks of the other nodes when `node` is this process's place among the nodes.
    SIGTERM, SIGUSR1, SIGUSR2 and SIGINT are passed on. When one rank fails the others are ended.
    """
    if node is None or node.world_size == 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            node = Environment(0, 1, 0, 1, "127.0.0.1", probe.getsockname()[1], "none")
    processes: list[subprocess.Popen[bytes]] = []
    said = tempfile.TemporaryDirectory(prefix="tnr-said-", ignore_cleanup_errors=True)

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _PASSED_ON}
    try:
        for rank in range(ranks):
            place = {
                LAUNCHER_MARK: "local",
                "RANK": node.rank * ranks + rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": node.world_size * ranks,
                "LOCAL_WORLD_SIZE": ranks,
                "MASTER_ADDR": node.master_addr,
                "MASTER_PORT": node.master_port,
                _SAID: said.name,
            }
            environment = os.environ | {key: str(value) for key, value in place.items()}
            processes.append(subprocess.Popen(command, env=environment, preexec_fn=die_with(os.getpid())))
        return _wait(processes, node.rank * ranks)
    except KeyboardInterrupt:
        _end(processes)
        return 130
    finally:
        _end(processes)
        said.cleanup()
        for number, handler in before.items():
            signal.signal(number, handler)


def is_first_report(message: str) -> bool:
    """Whether no other rank of this rank's launcher has said `message` before: most input errors meet all of them alike.

    True where no launcher of ours has started this process.
    """
    folder = os.environ.get(_SAID)
    if not folder:
        return True
    try:
        Path(folder, hashlib.sha256(message.encode(errors="replace")).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # rather twice than never
        return True
    return True


def die_with(launcher: int) -> Callable[[], None] | None:
    """What a rank does first: ask the kernel (Linux) to kill it when the launcher is killed.

    A rank that lived on would write to the run's folder beside the ranks of the requeued job.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError, TypeError):
        return None

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:  # it was killed before this rank could ask
            os._exit(1)

    return ask


def _wait(processes: list[subprocess.Popen[bytes]], first_rank: int) -> int:
    first_failure, deadline = 0, float("inf")
    # A list, so that every one of them is asked: a rank that has ended is not to be missed while an earlier one runs.
    while None in [process.poll() for process in processes]:
        failed = [
            (rank, process.returncode) for rank, process in enumerate(processes, first_rank) if process.returncode
        ]
        if failed and not first_failure:
            (rank, first_failure), deadline = failed[0], time.monotonic() + _GRACE
            if first_failure not in (2, 75):
                how = f"was killed by signal {-first_failure}" if first_failure < 0 else f"ended with {first_failure}"
                print(f"launcher: rank {rank} {how}; the others are ended", file=sys.stderr, flush=True)
        if first_failure and (first_failure not in (2, 75) or time.monotonic() > deadline):
            # A crash leaves the others in a collective that cannot complete. 2 and 75 are mostly reached by all ranks;
            # those that cannot (one rank met a damaged shard) say what they miss and end by themselves.
            _end(processes)
        time.sleep(0.05)
    codes = [process.returncode for process in processes if process.returncode]
    code = first_failure or (codes[0] if codes else 0)
    if code == 69 and 2 in codes:  # a rank was missed before the end of its process was seen: its reason counts
        code = 2
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
    command = arguments[2:] if arguments[1:2] == ["--"] else arguments[1:]
    if not command or not arguments[0].isdecimal() or int(arguments[0]) < 1:
        print("usage: launch/local.sh N COMMAND [ARGUMENT…]   (N: the number of ranks, 1 or more)", file=sys.stderr)
        raise SystemExit(2)
    try:
        node = detect()
        if node.local_world_size > 1:
            raise InputError(
                f"{node.launcher} started {node.local_world_size} processes on this node; start one per node"
            )
        code = launch(int(arguments[0]), command, node)
    except (InputError, OSError) as error:
        print(f"launch/local.sh: {error}", file=sys.stderr)
        code = 2
    raise SystemExit(code)


if __name__ == "__main__":
    main()
