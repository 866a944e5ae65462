"""A real Slurm on this machine, and its login node as Python sees it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE"}


def clean_environment(**extra: Any) -> dict[str, str]:
    """This process's environment without what a launcher, an engine or a user's settings left in it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"TNR_|SLURM_|SBATCH_|OMPI_|HOROVOD_|GLOO_|NCCL_|MASTER_|(RANK|WORLD_SIZE|LOCAL_RANK)$", name)
    }
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}:/usr/sbin"
    return kept | {name: str(value) for name, value in extra.items()}


class NoCluster(Exception):
    """Why there can be no Slurm on this machine."""


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A Slurm of two nodes, ended whatever happens inside. Raises NoCluster."""
    if os.geteuid() != 0:
        raise NoCluster("a Slurm cluster on this machine needs root")
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    tools = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter")
    if absent := [tool for tool in tools if not shutil.which(tool, path=path)]:
        raise NoCluster(
            f"there is no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client munge iproute2"
        )
    # Not pytest's folder, which is closed to others, as munge and Slurm do not accept.
    folder = Path(tempfile.mkdtemp(prefix="tnr-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        code, said = _uninterrupted(HERE / "start_cluster.sh", folder)
        if code:
            raise NoCluster(f"the cluster did not start (namespaces or network not permitted?): {said[-600:]}")
        yield Cluster(folder)
    finally:
        code, said = _uninterrupted(HERE / "stop_cluster.sh", folder)
        assert code == 0, said
        shutil.rmtree(folder)


def _uninterrupted(*command: Any) -> tuple[int, str]:
    """Exit code and stderr of a script that a ctrl-C must not cut short: what it has half started nobody could end."""
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=120)
    finally:
        process.wait(timeout=120)
    return process.returncode, said


class Cluster:
    """Commands on the login node, and what has become of jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()

    def run(self, *command: Any, check: bool = True, seconds: float = 60, **settings: Any) -> Any:
        """Run a command on the login node, in the repository, with `settings` as TNR_… in its environment (as they are if upper case)."""
        environment = clean_environment(
            TNR_LOGS=self.work / "logs",
            **{name if name.isupper() else f"TNR_{name.upper()}": value for name, value in settings.items()},
        )
        full = [str(self.folder / "in"), *map(str, command)]
        done = subprocess.run(full, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=seconds)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def sbatch(
        self, script: str, *arguments: Any, nodes: int = 2, options: tuple[str, ...] = (), **settings: Any
    ) -> int:
        """Submit slurm/SCRIPT.sh on one rank per node, with `settings` as for `run`; the log is work/logs/SCRIPT-ID.out."""
        (self.work / "logs").mkdir(exist_ok=True)
        log = f"--output={self.work}/logs/{script}-%j.out"
        command = ("sbatch", "--parsable", f"--nodes={nodes}", "--time=10", log, *options, f"slurm/{script}.sh")
        return int(self.run(*command, *arguments, **settings).stdout.split(";")[0])

    def jobs(self, job: int) -> list[dict[str, str]]:
        """The job's records, one for each member of an array."""
        lines = self.run("scontrol", "-o", "show", "job", job).stdout.splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]

    def wait(self, job: int, seconds: float = 180) -> list[dict[str, str]]:
        """The records once all have ended."""
        end = time.monotonic() + seconds
        while True:
            jobs = self.jobs(job)
            if all(one["JobState"] in ENDED for one in jobs):
                return jobs
            assert time.monotonic() < end, f"job {job} has not ended in {seconds} s: {jobs}\n{self.logs(job)}"
            time.sleep(0.3)

    def succeed(self, job: int, seconds: float = 180) -> dict[str, str]:
        """The record of a job that must complete."""
        record = self.wait(job, seconds)[0]
        assert record["JobState"] == "COMPLETED", f"{record}\n{self.logs(job)}"
        return record

    def kill_node(self, name: str, *, noticed: bool = False) -> None:
        """A node's power fails: its first process, and with it all that runs there, is killed.

        `noticed`: an operator says so to Slurm, which would see it after five minutes.
        """
        os.kill(self.process(name), signal.SIGKILL)
        if noticed:
            self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")

    def boot_node(self, name: str, *, noticed: bool = False) -> None:
        """It comes back."""
        code, said = _uninterrupted(HERE / "boot_node.sh", self.folder, name)
        assert code == 0, said
        if noticed:
            self.run("scontrol", "update", f"nodename={name}", "state=resume")

    def process(self, name: str) -> int:
        """The first process of a node."""
        lines = [line.split() for line in (self.folder / "pids").read_text().splitlines()]
        return int([pid for pid, of in lines if of == name][-1])

    def on_node(self, name: str, *command: Any) -> subprocess.Popen[str]:
        """Start a command on a node, past Slurm and outside of what the node takes along when it dies."""
        inside = ["nsenter", "--target", str(self.process(name)), "--net", "--uts", "--mount"]
        return subprocess.Popen(
            [*inside, *map(str, command)], stdout=subprocess.PIPE, text=True, env=clean_environment()
        )

    def logs(self, job: int) -> str:
        """All that the job has written."""
        files = [*(self.work / "logs").glob(f"*-{job}.out"), *(self.work / "logs").glob(f"*-{job}/*")]
        return "\n".join(f"== {file.name}\n{file.read_text()}" for file in sorted(files))
