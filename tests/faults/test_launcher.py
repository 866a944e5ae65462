"""The local launcher, when a rank or it itself is killed."""

import signal
import subprocess
import sys
import time

import psutil

SLEEP = "import os, time; time.sleep(0.2 if os.environ['RANK'] == '{rank}' else 60); os.kill(os.getpid(), {number})"


def start(program: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tnr_dist.launch.local", "2", "--", sys.executable, "-c", program]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_rank_that_dies_is_missed_while_rank_0_lives() -> None:
    launcher = start(SLEEP.format(rank=1, number=int(signal.SIGKILL)))
    _, said = launcher.communicate(timeout=30)
    assert launcher.returncode == 128 + signal.SIGKILL
    assert "rank 1 was killed by signal 9" in said


def test_ranks_die_with_their_launcher() -> None:
    launcher = start("import time; time.sleep(60)")
    end = time.monotonic() + 20
    while len(ranks := psutil.Process(launcher.pid).children()) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.3)
    launcher.kill()
    launcher.communicate(timeout=10)
    assert not psutil.wait_procs(ranks, 5)[1]
