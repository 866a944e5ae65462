"""Faults of a job on a real Slurm of two nodes (tests/cluster): one rank a node, restarts by nobody but Slurm."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.harness import ENDED, Cluster
from tests.faults.injections import Fault, Harm, moment
from tests.faults.world import Case

_QUEUE = 180.0  # seconds that Slurm may take on top of the run: requeued jobs wait, as ranks that get no answer do
_ASK = 0.3  # seconds between two questions to Slurm


class Job:
    """A run as a job; see `Attempt`, whose place it takes. Its end is the last restart's."""

    def __init__(self, cluster: Cluster, arguments: list[str], options: tuple[str, ...], log: Path) -> None:
        self.cluster, self.log = cluster, log
        self.id = cluster.sbatch("stage2", *arguments, options=options)
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


def _submit(case: Case, *options: str) -> tuple[Cluster, Job]:
    cluster = case.world.cluster
    assert cluster is not None
    job = Job(cluster, case.arguments(), options, case.folder / "job.txt")
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


def preempt(case: Case, rng: random.Random) -> Harm:
    cluster, job = _submit(case, "--exclusive")
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
    "slurm: preempted by a higher partition": preempt,
    "slurm: requeued": requeue,
}
