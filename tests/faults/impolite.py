"""Ends that leave something behind: a half-written checkpoint, the lock of a dead machine, ranks that live on."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time

from tests.faults.injections import Fault, Harm, moment
from tests.faults.world import LIMIT, Case
from tnr_dist.util.lock import LOCK


def kill_in_checkpoint(case: Case, rng: random.Random) -> Harm:
    """KILL launcher and ranks while a checkpoint is being written."""
    attempt = case.start(0, "log.checkpoint_every=1")
    when = moment(case, attempt, rng, early=False)
    folder, end = case.run / "checkpoints", time.monotonic() + LIMIT
    while attempt.running() and time.monotonic() < end and not list(folder.glob(".*.tmp")):
        time.sleep(0.0005)
    time.sleep(rng.choice([0.0, rng.uniform(0.0, 0.02)]))
    attempt.kill_all()
    left = len(list(folder.glob(".*.tmp")))
    return Harm(f"KILL launcher and ranks in a checkpoint ({left} left unfinished) after {when}")


def foreign_lock(case: Case, rng: random.Random) -> Harm:
    """A machine dies with the lock; its file server may keep the lock, as for a client that may come back."""
    attempt = case.start()
    when = moment(case, attempt, rng, early=False)
    attempt.kill_all()
    path = case.run / LOCK
    if not path.exists():
        return Harm(f"KILL launcher and ranks at {when}")
    path.write_text("process 4000000 on node9, lease 0badc0de-0123456789ab")
    if rng.random() < 0.5:
        return Harm(f"the lock of a machine that died at {when}")
    handle = os.open(path, os.O_RDWR)
    case.undo.append(lambda: os.close(handle))
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.utime(handle, (1, 1))
    return Harm(f"the lock of a machine that died at {when}, kept by the file server")


def start_again(case: Case, rng: random.Random) -> Harm:
    """The scheduler loses sight of a job and starts it again, while its ranks are at work, or stopped and then at work again."""
    case.environment = {"TNR_JOB_ID": "7", "TNR_RESTART_COUNT": "0"}
    former = case.start()
    when = moment(case, former, rng, early=False)
    stopped = rng.random() < 0.4
    everyone = [former.signal_launcher, *(lambda n, r=r: former.signal_rank(r, n) for r in range(former.world_size))]
    if stopped:
        for one in everyone:
            one(signal.SIGSTOP)
    reached = case.reached()
    case.environment = {"TNR_JOB_ID": "7", "TNR_RESTART_COUNT": "1"}
    later = case.start()
    if stopped:
        case.wait_for(later, min(reached + 3, 50))
        for one in everyone:
            one(signal.SIGCONT)
    code = former.wait(LIMIT)
    if code not in (0, 69, 75):
        raise TimeoutError(f"the ranks of before the restart ended with {code}: {former.text()[-500:]}")
    how = "stopped, and going on later" if stopped else "at work"
    return Harm(f"started again at {when} beside its former ranks, {how}; those ended with {code}", codes=(0,))


FAULTS: dict[str, Fault] = {
    "killed in a checkpoint": kill_in_checkpoint,
    "lock left by a dead machine": foreign_lock,
    "started again beside its former ranks": start_again,
}
