"""What a job makes of the end of its ranks, with stand-ins for srun and scontrol; needs no Slurm."""

import re
import signal
import subprocess
import time

import pytest

from tests.cluster.harness import ROOT, clean_environment
from tnr_dist.launch.environment import detect

SRUN = """#!/bin/bash
for word in "$@"; do case $word in --output=*) log=${word#*=};; esac; done
%s
"""
SCONTROL = """#!/bin/bash
case $*:$RECORD in
  "show hostnames"*) echo node1;;
  *"show job"*:?*) echo "JobId=40123 $RECORD Reboot=0";;
  requeue*) echo "$@" >> "$CALLS"; kill -TERM $PPID;;
esac
"""
SQUEUE = """#!/bin/bash
echo "${TIME:-12:00 15:00}"
"""


@pytest.fixture
def job(tmp_path):
    """Start slurm/stage2.sh as inside a job, whose srun is the given bash."""
    binary = tmp_path / "bin"
    binary.mkdir()
    (tmp_path / "c.yaml").write_text("")

    def start(srun, restarts=0, **settings):
        for name, text in (("srun", SRUN % srun), ("scontrol", SCONTROL), ("squeue", SQUEUE)):
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
    start.forget = lambda: (tmp_path / "calls").unlink(missing_ok=True)
    start.logs = tmp_path / "logs" / "tnr_stage2-40123"
    return start


def first(end):
    return f'echo "srun: error: node2: task 1: {end}" >&2; echo "srun: error: node1: task 0: Terminated" >&2; exit 143'


BAD_INPUT_SEEN_LATE = (
    'echo "srun: error: node2: task 1: Exited with exit code 69" >&2; '
    'echo "srun: error: node1: task 0: Exited with exit code 2" >&2; exit 69'
)
WAIT = "trap 'exit {}' USR1 USR2; echo up; for ((i = 0; i < 300; i++)); do sleep 0.1; done"
SAVE = 'touch "$TNR_PROGRESS"; '


@pytest.mark.parametrize(
    ("srun", "code", "requeued"),
    [
        ("exit 0", 0, False),
        (first("Exited with exit code 2"), 2, False),
        (first("Exited with exit code 1"), 1, False),
        (first("Exited with exit code 75"), 75, True),
        (first("Exited with exit code 69"), 69, True),
        (BAD_INPUT_SEEN_LATE, 2, False),
        (first("Killed"), 143, True),
        (first("Out Of Memory"), 143, True),
        ("exit 1", 1, False),  # srun's own failure, of which it says nothing
        (
            'echo "srun: error: Unable to create step for job 7: Invalid generic resource (gres) specification" >&2; exit 1',
            1,
            False,
        ),
        ('echo "srun: error: Node failure on node2" >&2; exit 1', 69, True),
        (
            'echo "srun: error: Task launch for StepId=7.0 failed on node node2: Communication connection failure" >&2; exit 1',
            69,
            True,
        ),
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


def warn(process, number=signal.SIGUSR1):
    while "up" not in process.stdout.readline():
        pass
    process.send_signal(number)
    return process.communicate(timeout=60)


@pytest.mark.parametrize("code", [75, 138])
def test_a_start_that_outlasts_the_time_limit_is_not_tried_for_ever(job, code):
    """So does an evaluation that does not fit into it; the last line has both times."""
    for attempt in range(4):
        process = job(WAIT.format(code), TIME="2:00 10:00")
        _, err = warn(process)
        assert job.requeued() is (attempt < 3)
        job.forget()
    assert process.returncode == 2
    last = err.splitlines()[-1]
    assert "nothing was saved within the time limit of 10:00: this start had run for 0:00:0" in last, err
    assert "--time" in last and "tried 4 times" in last


@pytest.mark.parametrize(
    ("settings", "srun"),
    [({"TIME": "2:00 10:00"}, SAVE + WAIT.format(75)), ({"TIME": "5:00:00 10:00:00"}, WAIT.format(75))],
    ids=["saved", "not near the limit"],
)
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_warning_is_no_crash(job, settings, srun, number):
    for _ in range(5):
        process = job(srun, **settings)
        warn(process, number)
        assert process.returncode == 75 and job.requeued()
        job.forget()
    assert not (job.logs / "crashes").exists()


def test_ranks_that_do_not_end_are_given_up_before_slurm_would_end_the_job_for_good(job):
    process = job(
        "trap '' USR1; echo up; exec >&- 2>&-; for ((i = 0; i < 300; i++)); do sleep 0.1; done", TIME="0:04 10:00"
    )
    began = time.monotonic()
    _, err = warn(process)
    assert job.requeued() and "still at work and the time is up" in err, err
    assert time.monotonic() - began < 20


def test_a_script_that_slurm_had_lost_leaves_the_job_to_its_later_start(job):
    process = job(first("Exited with exit code 75"), 1, RECORD="Requeue=1 Restarts=2")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and not job.requeued() and "a later start of job 40123 has taken over" in out


def test_nobody_promises_a_queue_to_a_job_without_one(job):
    process = job(first("Exited with exit code 75"), RECORD="Requeue=0 Restarts=0")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and not job.requeued()
    assert "not requeued (--no-requeue)" in out and "is requeued" not in out


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
        process = job(first("Exited with exit code 69"))
        process.communicate(timeout=60)
        assert job.requeued() is (attempt < 3)
        job.forget()


def test_progress_makes_the_count_begin_anew(job):
    """A job for days in a queue of preemptible nodes outlives its fourth lost rank, if it got further in between."""
    for attempt in range(10):
        process = job((SAVE if attempt % 3 == 2 else "") + first("Killed"))
        process.communicate(timeout=60)
        assert job.requeued(), attempt
        job.forget()


@pytest.mark.parametrize("end", ["exit 75", "kill -TERM $PPID; sleep 1; exit 75"], ids=["stopped", "preempted"])
def test_progress_counts_however_its_start_ended(job, end):
    for srun in [*[first("Killed")] * 3, SAVE + end, *[first("Killed")] * 3]:
        job(srun).communicate(timeout=60)
        assert job.requeued() or "TERM" in srun, srun
        job.forget()
    job(first("Killed")).communicate(timeout=60)
    assert not job.requeued()


def test_a_job_that_is_given_up_ends_with_the_ranks_own_line(job):
    say = 'echo "tnr: rank 0: lost rank 1 (host node2)" >> "${log/\\%t/0}"; '
    _, err = job(say + first("Killed"), TNR_MAX_CRASHES=0).communicate(timeout=60)
    assert "the first to end: node2: task 1: Killed" in err and "tried 1 times without progress" in err
    assert err.splitlines()[-1] == "tnr: rank 0: lost rank 1 (host node2)"


def test_only_lines_since_the_last_start_are_shown(job):
    say = 'echo "tnr: {}" >> "${{log/\\%t/0}}"; exit 2'
    job(say.format("old trouble")).communicate(timeout=60)
    _, err = job(say.format("new trouble")).communicate(timeout=60)
    assert "tnr: new trouble" in err and "old" not in err
    _, err = job("exit 2").communicate(timeout=60)
    assert "trouble" not in err


def test_the_result_of_a_job_is_in_its_output(job):
    say = 'echo "tnr: done: {}" >> "${{log/\\%t/0}}"; exit 0'
    job(say.format("runs/a")).communicate(timeout=60)
    out, _ = job(say.format("runs/b")).communicate(timeout=60)
    assert out.splitlines()[-1] == "tnr: done: runs/b" and "runs/a" not in out
