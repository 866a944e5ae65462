"""Ends that nobody asks for, on a Slurm with its default timeouts: the job goes on by itself, or says what to mend."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.runs import LISTENER, LONG, assert_same_as, in_mid_epoch, signal_rank

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

OFTEN = (*LONG, "log.checkpoint_every=5")
# Python reads it when it starts: rank 1 comes late, at the first start or always.
LATE = "import os, time\nif os.environ.get('SLURM_PROCID') == '1' and {when}: time.sleep({seconds})\n"


def last_line(cluster: Cluster, job: int) -> str:
    return (cluster.work / "logs" / f"stage2-{job}.out").read_text().splitlines()[-1]


def python_path(first: Path) -> str:
    return os.pathsep.join([str(first), *filter(None, [os.environ.get("PYTHONPATH")])])


def until(condition, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_node_that_dies_and_is_back_before_slurm_misses_it(cluster, config, uninterrupted, inputs):
    """The node without the batch script: its ranks' end is the job's own to see.

    Where the batch script dies too, only Slurm can start the job again: here it did so in one run and not in another.
    """
    node = "node2"
    output = inputs(node)
    job = cluster.sbatch("stage2", config, f"output={output}", *OFTEN, "timeout=15")
    in_mid_epoch(cluster, job, output, 7)
    cluster.kill_node(node)
    time.sleep(3)
    cluster.boot_node(node)
    assert int(cluster.succeed(job, 400)["Restarts"]) >= 1
    assert "resuming at step" in cluster.logs(job)
    assert_same_as(uninterrupted, output)


def test_a_rank_that_is_stopped_for_longer_than_the_others_wait(cluster, config, uninterrupted, inputs):
    output = inputs("stopped")
    job = cluster.sbatch("stage2", config, f"output={output}", *OFTEN, "timeout=15")
    in_mid_epoch(cluster, job, output, 7)
    signal_rank(job, 1, signal.SIGSTOP)
    assert cluster.succeed(job, 400)["Restarts"] == "1"
    logs = cluster.logs(job)
    assert "lost rank 1 (host node2)" in logs and "exit code 69" in logs and "resuming at step" in logs
    assert_same_as(uninterrupted, output)


def test_a_port_in_use_and_ranks_that_come_late(cluster, config, uninterrupted, inputs, tmp_path):
    """Two jobs, each of which meets its trouble at its first start."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    (tmp_path / "sitecustomize.py").write_text(
        LATE.format(when="os.environ.get('SLURM_RESTART_COUNT', '0') == '0'", seconds=60)
    )
    outputs = inputs("port"), inputs("late")
    with contextlib.ExitStack() as running:
        other = running.enter_context(cluster.on_node("node1", "python", "-c", LISTENER, port))
        running.callback(other.kill)
        assert other.stdout.readline() == "up\n"
        first = cluster.sbatch("stage2", config, f"output={outputs[0]}", *LONG, MASTER_PORT=port)
        second = cluster.sbatch(
            "stage2", config, f"output={outputs[1]}", *LONG, "timeout=30", PYTHONPATH=python_path(tmp_path)
        )
        until(lambda: f"port {port} on node1 is not free" in cluster.logs(first))
    assert int(cluster.succeed(first, 400)["Restarts"]) >= 1
    assert int(cluster.succeed(second, 400)["Restarts"]) >= 1
    assert "did not meet" in cluster.logs(second) and "rank 1 of 2 is missing" in cluster.logs(second)
    for output in outputs:
        assert_same_as(uninterrupted, output)


def test_ranks_that_slurm_has_lost_let_go_of_the_run(cluster, config, uninterrupted, inputs):
    """Only slurmd is gone (stopped: here it is what the node is made of). Slurm starts the job again on the other node while the ranks of before are still at work."""
    output = inputs("slurmd")
    options = ("--ntasks-per-node=2",)
    job = cluster.sbatch("stage2", config, f"output={output}", *OFTEN, "stage2.max_steps=60", nodes=1, options=options)
    in_mid_epoch(cluster, job, output, 7)
    node = cluster.jobs(job)[0]["NodeList"]
    os.kill(slurmd_of(cluster, node), signal.SIGSTOP)
    try:
        cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=silent")
        assert cluster.succeed(job, 400)["Restarts"] == "1"
    finally:
        cluster.kill_node(node)  # with all that is left of the job there
        cluster.boot_node(node, noticed=True)
    logs = cluster.logs(job)
    assert "stopped at step" in logs and "resuming at step" in logs
    assert_same_as(uninterrupted, output)


def slurmd_of(cluster: Cluster, node: str) -> int:
    """A node's slurmd: a child of the node's first process."""
    first = cluster.process(node)
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return next(int(child) for child in children if "slurmd" in Path(f"/proc/{child}/cmdline").read_text())


def test_a_time_limit_shorter_than_the_start(cluster, config, uninterrupted, inputs, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(LATE.format(when="True", seconds=300))
    options = ("--time=1", "--signal=B:USR1@40")
    job = cluster.sbatch(
        "stage2",
        config,
        f"output={inputs('short')}",
        *LONG,
        options=options,
        PYTHONPATH=python_path(tmp_path),
        max_crashes=0,
    )
    record = cluster.wait(job, 240)[0]
    assert (record["JobState"], record["ExitCode"]) == ("FAILED", "2:0"), cluster.logs(job)
    assert "nothing was saved within the time limit of 1:00: this start had run for 0:00:" in last_line(cluster, job)
