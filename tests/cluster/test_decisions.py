"""What a job makes of the end of its ranks, with stand-ins for srun and scontrol; needs no Slurm."""

import re
import signal
import subprocess
import time

import pytest

from tests.cluster.harness import ROOT, clean_environment
from tnr_dist.engines.environment import detect

SRUN = """#!/bin/bash
for word in "$@"; do case $word in --output=*) log=${word#*=};; esac; done
%s
"""
SCONTROL = """#!/bin/bash
case $1 in hostnames|show) echo node1;; requeue) echo "requeue $2" >> "$CALLS"; kill -TERM $PPID;; esac
"""


@pytest.fixture
def job(tmp_path):
    """Start slurm/stage2.sh as inside a job, whose srun is the given bash."""
    binary = tmp_path / "bin"
    binary.mkdir()
    (tmp_path / "c.yaml").write_text("")

    def start(srun, restarts=0, **settings):
        for name, text in (("srun", SRUN % srun), ("scontrol", SCONTROL)):
            (binary / name).write_text(text)
            (binary / name).chmod(0o755)
        environment = clean_environment(
            SLURM_JOB_ID=40123, SLURM_JOB_NAME="tnr stage2", SLURM_JOB_NODELIST="node1", TNR_LOGS=tmp_path / "logs",
            CALLS=tmp_path / "calls", SLURM_RESTART_COUNT=restarts, **settings,
        )  # fmt: skip
        # common.sh puts the project's environment first on PATH, which has no srun.
        environment["PATH"] = f"{binary}:{environment['PATH']}"
        command = [ROOT / "slurm" / "stage2.sh", tmp_path / "c.yaml", "engine=ddp"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    start.requeued = lambda: (tmp_path / "calls").exists()
    start.logs = tmp_path / "logs" / "tnr_stage2-40123"
    return start


def first(end):
    return f'echo "srun: error: node2: task 1: {end}" >&2; echo "srun: error: node1: task 0: Terminated" >&2; exit 143'


@pytest.mark.parametrize(
    ("srun", "code", "requeued"),
    [
        ("exit 0", 0, False),
        (first("Exited with exit code 2"), 2, False),
        (first("Exited with exit code 1"), 1, False),
        (first("Exited with exit code 75"), 75, True),
        (first("Killed"), 143, True),
        (first("Out Of Memory"), 143, True),
        ("exit 1", 1, False),  # srun's own failure: no task has ended
    ],
)
def test_exit_codes(job, srun, code, requeued):
    process = job(srun)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert job.requeued() is requeued


def test_the_ranks_find_the_first_node_and_get_a_log_each(job):
    # The port is the step's own (engines.environment): one that the job named would be the same for all its steps.
    process = job('echo "$MASTER_ADDR:${MASTER_PORT:-none} $*"; exit 0')
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "node1:none --kill-on-bad-exit=1 --open-mode=append" in out
    assert f"--output={job.logs}/rank-%t.log" in out and out.rstrip().endswith("engine=ddp")


def test_a_warning_is_passed_on_and_the_job_requeued_whatever_the_ranks_make_of_it(job):
    # No $(...) behind `up`: a signal that bash gets while it reads from one can be lost.
    process = job("trap 'exit 138' USR1; echo up; for ((i = 0; i < 300; i++)); do sleep 0.1; done")
    while "up" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == 138 and job.requeued()


def test_work_without_checkpoints_is_not_requeued_for_ever(job):
    """An evaluation that does not fit into the time limit gets no further however often it begins."""
    for attempt in range(4):
        process = job("trap 'exit 138' USR1; echo up; for ((i = 0; i < 300; i++)); do sleep 0.1; done")
        while "up" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=60)
        assert process.returncode == 138 and job.requeued() is (attempt < 3)
        if job.requeued():
            (job.logs.parents[1] / "calls").unlink()


def test_when_slurm_ends_the_job_it_only_waits_for_the_ranks(job):
    process = job("trap '' TERM; echo up; sleep 1; exit 75")
    while "up" not in process.stdout.readline():
        pass
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75 and not job.requeued() and time.monotonic() - began > 0.5


def test_a_port_of_the_users_own_reaches_the_ranks(job):
    out, err = job('echo "port $MASTER_PORT"', MASTER_PORT=1234).communicate(timeout=60)
    assert err == "" and "port 1234\n" in out


@pytest.mark.parametrize(("job_id", "step"), [(70012, 0), (70012, 3), (1234567, 12)])
def test_bash_and_python_name_one_port_for_a_step(job_id, step):
    numbers = {"SLURM_JOB_ID": str(job_id), "SLURM_STEP_ID": str(step)}
    ask = ["bash", "-c", ". launch/common.sh && step_port"]
    said = subprocess.run(ask, cwd=ROOT, env=clean_environment(**numbers), text=True, capture_output=True, timeout=60)
    place = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}
    assert int(said.stdout) == detect({**numbers, **place}).master_port, said.stderr


@pytest.mark.parametrize("restarts", [0, 1, 2, 3])
def test_the_ranks_step_has_another_number_than_before_the_restart(job, restarts):
    out, err = job('echo "step of ${*: -1}"', restarts).communicate(timeout=60)
    assert err == "" and re.findall("step of (.*)", out) == ["true"] * (restarts % 2) + ["engine=ddp"]


def test_crashes_are_counted(job):
    for attempt in range(4):
        process = job(first("Killed"))
        process.communicate(timeout=60)
        assert job.requeued() is (attempt < 3)
        if job.requeued():
            (job.logs.parents[1] / "calls").unlink()


def test_only_lines_since_the_last_start_are_shown(job):
    say = 'echo "tnr: {}" >> "${{log/\\%t/0}}"; exit 2'
    job(say.format("old trouble")).communicate(timeout=60)
    _, err = job(say.format("new trouble")).communicate(timeout=60)
    assert "tnr: new trouble" in err and "old" not in err
    _, err = job("exit 2").communicate(timeout=60)
    assert "trouble" not in err
