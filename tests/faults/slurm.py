"""Faults of a job on a real Slurm of two nodes (tests/cluster): one rank a node, restarts by nobody but Slurm."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.harness import ENDED, Cluster
from tests.cluster.runs import LISTENER, signal_rank
from tests.faults.injections import TIMEOUT, Fault, Harm, moment
from tests.faults.world import Case

_QUEUE = 180.0  # seconds that Slurm may take on top of the run: requeued jobs wait, as ranks that get no answer do
_ASK = 0.3  # seconds between two questions to Slurm


class Job:
    """A run as a job; see `Attempt`, whose place it takes. Its end is the last restart's."""

    def __init__(
        self, cluster: Cluster, arguments: list[str], options: tuple[str, ...], log: Path, settings: dict[str, object]
    ) -> None:
        self.cluster, self.log = cluster, log
        self.id = cluster.sbatch("stage2", *arguments, options=options, **settings)
        self._asked, self._record = 0.0, {"JobState": "PENDING"}

    def record(self) -> dict[str, str]:
        """What Slurm says of it, asked now and then only."""
        if time.monotonic() > self._asked + _ASK:
            self._record = self.cluster.jobs(self.id)[0]
            self._asked = time.monotonic()
        return self._record

    def code(self) -> int | None:
        """None until Slurm is done with it; 0 where it has completed."""
        record = self.record()
        if record["JobState"] not in ENDED:
            return None
        code, number = map(int, record["ExitCode"].split(":"))
        return 0 if record["JobState"] == "COMPLETED" else 128 + number if number else code or 1

    def running(self) -> bool:
        return self.code() is None

    def ranks(self, limit: float = _QUEUE) -> None:
        """Wait until its ranks are about to start."""
        self._until(lambda: self.record()["JobState"] in {"RUNNING", *ENDED}, limit)

    def wait(self, limit: float) -> int:
        """The exit code. Raises TimeoutError when the job is still there after the limit."""
        self._until(lambda: not self.running(), limit + _QUEUE)
        code = self.code()
        assert code is not None
        return code

    def _until(self, done: Callable[[], bool], limit: float) -> None:
        end = time.monotonic() + limit
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"job {self.id} hangs: {self.record()['JobState']} after {limit:.0f} s")
            time.sleep(_ASK)

    def end(self) -> None:
        """Cancel it if it is still there, so that nothing outlives the case; its log is kept with the case."""
        self.log.write_text(self.text())
        if self.running():
            self.cluster.run("scancel", "--full", "--signal=KILL", self.id, check=False)
            self.cluster.run("scancel", self.id, check=False)
            self._until(lambda: not self.running(), _QUEUE)

    def text(self) -> str:
        return self.cluster.logs(self.id)


def _submit(case: Case, *options: str, overrides: tuple[str, ...] = (), **settings: object) -> tuple[Cluster, Job]:
    cluster = case.world.cluster
    assert cluster is not None
    job = Job(cluster, [*case.arguments(), *overrides], options, case.folder / "job.txt", settings)
    case.attempts.append(job)
    return cluster, job


def kill_node(case: Case, rng: random.Random) -> Harm:
    """The node with the batch script and rank 0, or the other one; it comes back."""
    cluster, job = _submit(case)
    when = moment(case, job, rng)
    node, seconds = rng.choice(["node1", "node2"]), rng.uniform(0.0, 4.0)
    cluster.kill_node(node, noticed=True)
    time.sleep(seconds)
    cluster.boot_node(node, noticed=True)
    return Harm(f"KILL {node} at {when}, booted {seconds:.1f} s later", codes=(0,))


def lose_node(case: Case, rng: random.Random) -> Harm:
    """A node dies and is back before Slurm misses it.

    With the batch script only Slurm can start the job again, and does when the node comes back, but not for a job that began
    just before (BatchStartTimeout, 10 s, and as long for the message): no machine boots in that time.
    """
    cluster, job = _submit(case, overrides=(f"timeout={TIMEOUT}",))
    when = moment(case, job, rng)
    node, seconds = rng.choice(["node1", "node2"]), rng.uniform(0.0, 10.0)
    if node == "node1":
        seconds += 25.0
    cluster.kill_node(node)
    time.sleep(seconds)
    cluster.boot_node(node)
    return Harm(f"KILL {node} at {when}, booted {seconds:.1f} s later, unnoticed", codes=(0,))


def stop_rank(case: Case, rng: random.Random) -> Harm:
    _, job = _submit(case, overrides=(f"timeout={TIMEOUT}",))
    when = moment(case, job, rng, early=False)
    rank = rng.randrange(2)
    signal_rank(job.id, rank, signal.SIGSTOP)
    return Harm(f"STOP rank {rank} at {when}", codes=(0,))


def take_port(case: Case, rng: random.Random) -> Harm:
    """Another program has the port where the ranks were told to meet, for some of the job's starts."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    cluster = case.world.cluster
    assert cluster is not None
    other = cluster.on_node("node1", "python", "-c", LISTENER, port)
    try:
        assert other.stdout is not None and other.stdout.readline() == "up\n"
        _, job = _submit(case, MASTER_PORT=port)
        end = time.monotonic() + _QUEUE
        while "is not free" not in job.text() and job.running() and time.monotonic() < end:
            time.sleep(_ASK)
        seconds = rng.uniform(0.0, 5.0)
        time.sleep(seconds)
    finally:
        other.kill()
        other.wait()
    return Harm(f"port {port} in use until {seconds:.1f} s after the first start's end", codes=(0,))


def preempt(case: Case, rng: random.Random) -> Harm:
    # The whole node is given with its GPUs, which this torch cannot use.
    cluster, job = _submit(case, "--exclusive", overrides=("device=cpu",))
    when = moment(case, job, rng)
    seconds = rng.choice([0, 5])
    urgent = ("sbatch", "--partition=urgent", "--time=1", "--output=/dev/null", "--wrap", f"sleep {seconds}")
    cluster.run(*urgent)
    return Harm(f"a job of {seconds} s in a higher partition at {when}", codes=(0,))


def requeue(case: Case, rng: random.Random) -> Harm:
    """Once or twice."""
    cluster, job = _submit(case)
    done = []
    for _ in range(rng.choice([1, 1, 2])):
        when = moment(case, job, rng, first=min(case.reached(), 49))
        if not job.running():
            break
        # Refused where the job is just about to end.
        cluster.run("scontrol", "requeue", job.id, check=False)
        done.append(when)
        time.sleep(_ASK)
    return Harm(f"scontrol requeue at {' and '.join(done) or 'its end'}", codes=(0,))


FAULTS: dict[str, Fault] = {
    "slurm: node killed": kill_node,
    "slurm: node killed and back unnoticed": lose_node,
    "slurm: rank stopped beyond the timeout": stop_rank,
    "slurm: port in use": take_port,
    "slurm: preempted by a higher partition": preempt,
    "slurm: requeued": requeue,
}
