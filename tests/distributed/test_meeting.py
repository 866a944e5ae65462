"""Ranks that meet: of one run, or refused; one that does not come is named in time; a signal ends the wait."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.lanes import missing, reason_against
from tests.ranks import on_ranks
from tnr_dist.engines import core
from tnr_dist.engines.base import Terms
from tnr_dist.engines.make import make_engine
from tnr_dist.util import preemption
from tnr_dist.util.errors import InputError, Preempted, Unavailable

ENGINES = ["ddp", "deepspeed", "horovod"]


def end_of_meeting(name="ddp", seconds=30.0, *, settings=None, device="cpu"):
    """How this process's meeting ends, in words, and after how many seconds."""
    core.TIMEOUT_SECONDS = seconds
    began = time.monotonic()
    engine = None
    try:
        engine = make_engine(name, device, 1, terms=Terms(settings or {}, {}, preemption.stop_requested))
        return "met", "", time.monotonic() - began
    except (InputError, Unavailable, Preempted) as error:
        return type(error).__name__, str(error), time.monotonic() - began
    finally:
        if engine is not None:
            engine.close()


def rank():
    return int(os.environ["RANK"])


def be(number, world):
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))


def _another_seed(name, stranger):
    return end_of_meeting(name, settings={"seed": str(rank() == stranger), "lr": "1"})


@pytest.mark.parametrize("name", ENGINES)
def test_ranks_of_two_runs_refuse_each_other(name):
    if reason_against(name):
        missing(reason_against(name))
    for kind, line, _ in on_ranks(3, _another_seed, name, 1):
        assert kind == "InputError"
        assert line.startswith("rank 1 runs another configuration (differs in: seed): two runs meet at 127.0.0.1:")


@pytest.mark.parametrize("name", ENGINES)
def test_ranks_of_one_run_meet(name):
    if reason_against(name):
        missing(reason_against(name))
    assert [kind for kind, _, _ in on_ranks(3, _another_seed, name, 9)] == ["met"] * 3


def _other_engine():
    return end_of_meeting(["ddp", "deepspeed"][rank()], settings={"engine": str(rank())})


def test_ranks_of_two_engines_refuse_each_other():
    if reason_against("deepspeed"):
        missing(reason_against("deepspeed"))
    assert {(kind, "differs in: engine)" in line) for kind, line, _ in on_ranks(2, _other_engine)} == {
        ("InputError", True)
    }


def _one_too_many(folder, seed, restarts):
    """Three processes, of which the last comes as another rank 1 when two others have met."""
    os.environ["SLURM_RESTART_COUNT"] = restarts
    mine = rank()
    if mine < 2:
        be(mine, 2)
        engine = make_engine("ddp", "cpu", 1, terms=Terms({"seed": "0"}))
        (folder / f"met-{mine}").touch()
        until(lambda: (folder / "refused").exists())  # rank 0 serves the store
        engine.close()
        return "met", ""
    until(lambda: len(list(folder.glob("met-*"))) == 2)
    be(1, 2)
    found = end_of_meeting(settings={"seed": seed})
    (folder / "refused").touch()
    return found[:2]


def until(condition):
    end = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_who_comes_to_a_run_that_has_met_is_refused_and_the_run_goes_on(tmp_path):
    first, second, third = on_ranks(3, _one_too_many, tmp_path, "1", "0")
    assert first[0] == second[0] == "met"
    assert third[0] == "InputError" and "rank 1 of 2: another run has met at" in third[1] and "seed" in third[1]


@pytest.mark.parametrize(("restarts", "kind"), [("0", "InputError"), ("2", "EarlierStart")])
def test_a_restart_that_meets_its_former_ranks_is_passing_trouble(tmp_path, restarts, kind):
    first, second, third = on_ranks(3, _one_too_many, tmp_path, "0", restarts)
    assert (first[0], second[0], third[0]) == ("met", "met", kind)


def _absent(here, seconds):
    be(here[rank()], 3)
    return end_of_meeting(seconds=seconds)


@pytest.mark.parametrize(
    ("here", "who"),
    [([0], "ranks 1, 2 of 3 are missing"), ([1], "rank 0 of 3 is missing"), ([0, 1], "rank 2 of 3 is missing")],
)
def test_a_rank_that_does_not_come_is_named_in_time(here, who):
    for kind, line, seconds in on_ranks(len(here), _absent, here, 3.0):
        assert kind == "RankLost" and "within 3 s" in line and who in line
        assert seconds < 6


def _stopped(here, told, number):
    mine = here[rank()]
    be(mine, 3)
    with preemption.listening():
        if mine == told:
            threading.Timer(1.0, os.kill, (os.getpid(), number)).start()
        return end_of_meeting(seconds=40.0)


@pytest.mark.parametrize(
    ("here", "told", "number"), [([0, 1], 1, signal.SIGTERM), ([0, 1], 0, signal.SIGUSR1), ([1], 1, signal.SIGTERM)]
)
def test_a_rank_that_is_told_to_stop_ends_the_wait_of_all(here, told, number):
    for kind, line, seconds in on_ranks(len(here), _stopped, here, told, number):
        assert kind == "Preempted" and "stopped before training began" in line
        assert seconds < 20


def _mute(seconds, told):
    """Something listens where rank 0 should be, takes the connection, and never says a word: torch waits in C++."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(os.environ["MASTER_PORT"])))
        other.listen()
        be(1, 2)
        with preemption.listening():
            if told:
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            return end_of_meeting(seconds=seconds)


@pytest.mark.parametrize(("told", "kind"), [(False, "RankLost"), (True, "Preempted")])
def test_a_wait_inside_torch_ends_too(told, kind):
    ((found, _, seconds),) = on_ranks(1, _mute, 60.0 if told else 2.0, told)
    assert found == kind and seconds < 9


def _taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(os.environ["MASTER_PORT"])))
        other.listen()
        be(0, 2)
        return end_of_meeting()


def test_a_port_that_is_taken_is_said_at_once():
    ((kind, line, seconds),) = on_ranks(1, _taken)
    assert kind == "PortTaken" and "is not free" in line and "MASTER_PORT" in line and seconds < 10


# Whole commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(prepared, tiny_plm, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        f"threads: 1\nprecision: fp32\ndata: {{dir: {prepared}, history: 10, title_tokens: 24}}\nplm: {{name: {tiny_plm}}}\n"
        "model: {news_dim: 16, query_dim: 8}\nfinetune: {init: plm, layers: 1, batch_size: 40, max_steps: 2}\n"
    )
    return path


@contextlib.contextmanager
def task(config, number, *overrides, step="0", port):
    """`tnr finetune` as task `number` of two of a Slurm step on this machine."""
    place = {
        "SLURM_JOB_ID": "4242", "SLURM_STEP_ID": step, "SLURM_PROCID": str(number), "SLURM_NTASKS": "2",
        "SLURM_LOCALID": str(number), "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_JOB_NODELIST": "localhost",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MASTER_", "SLURM_"))} | place
    command = [sys.executable, "-m", "tnr_dist.cli.app", "finetune", str(config), *overrides]
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_command_that_misses_its_ranks_ends_with_69(config, tmp_path):
    with task(config, 1, f"output={tmp_path / 'a'}", "timeout=1", port=free_port()) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 69, said
    assert "rank 0 of 2 is missing" in said.splitlines()[-1] and "Traceback" not in said


def test_two_steps_of_a_job_that_share_a_port_train_nothing(config, tmp_path):
    port = free_port()
    first = task(config, 0, "seed=0", f"output={tmp_path / 'a'}", port=port)
    second = task(config, 1, "seed=1", f"output={tmp_path / 'b'}", "finetune.lr=0.01", step="1", port=port)
    with first as zero, second as one:
        for process in (zero, one):
            _, said = process.communicate(timeout=240)
            assert process.returncode == 2, said
            lines = [line for line in said.splitlines() if line.startswith("tnr: ")]
            assert len(lines) == 1 and "Traceback" not in said
            assert "rank 1 runs another configuration (differs in: seed, finetune.lr, output)" in lines[0]
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=["TERM", "USR1", "INT"]
)
def test_a_signal_while_a_command_waits_for_its_ranks(config, tmp_path, number, code):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        mute.settimeout(240)
        with task(config, 1, f"output={tmp_path / 'a'}", "timeout=90", port=mute.getsockname()[1]) as process:
            mute.accept()
            time.sleep(0.5)  # now it waits for a word, inside torch
            process.send_signal(number)
            began = time.monotonic()
            _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said and time.monotonic() - began < 20  # most of it Python's own end
    assert ("stopped before training began" in said) == (code == 75)
