"""Runs of a study in worker processes: made once, a failed one stops only what needs it, a stop leaves checkpoints."""

import contextlib
import copy
import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tnr_dist.reproduce.command import Prepared, run_here
from tnr_dist.stages.methods import load_config

pytestmark = pytest.mark.slow

OVERRIDES = [
    "reproduce.size=1",
    "reproduce.sizes=[1]",
    "reproduce.beta1=[1.0]",
    "reproduce.beta2=[0.1, 0.2]",
    "wandb.mode=disabled",
]


@pytest.fixture
def study(chain_yaml: Path, tmp_path: Path) -> Prepared:
    return Prepared.open("fig6", load_config(chain_yaml, [f"output={tmp_path / 'out'}", *OVERRIDES]))


def test_every_run_is_made_and_scored_once(study):
    assert not run_here(study, 2).failed
    assert all(work.is_complete() for work in study.works)
    marks = {work.key: (work.key / "complete.json").read_text() for work in study.works}
    assert not run_here(study, 2).failed
    assert {work.key: (work.key / "complete.json").read_text() for work in study.works} == marks
    scored = [work for work in study.works if work.scored]
    assert len(scored) == 2 and all((work.key / "impressions.parquet").is_file() for work in scored)


def test_a_failed_run_leaves_out_what_needs_it_only(study):
    teacher = next(work for work in study.works if work.place.name == "teacher-1")
    bad = dataclasses.replace(teacher.place, config=copy.deepcopy(teacher.place.config))
    assert bad.path == teacher.key
    bad.config.finetune.lr = 1e30  # its loss is no number soon
    object.__setattr__(teacher, "place", bad)
    outcome = run_here(study, 2)
    assert list(outcome.failed) == [teacher.key] and "FloatingPointError" in outcome.failed[teacher.key]
    names = {work.place.name for work in study.works if work.key in outcome.left_out}
    assert names == {"cache", "stage2-1"}
    assert all(work.is_complete() for work in study.works if work.place.name in ("teacher-0", "stage1-1"))


def test_a_worker_that_is_killed_is_one_failed_run(study):
    victim = next(work for work in study.works if work.place.name == "teacher-0")

    def kill() -> None:
        until = time.monotonic() + 120
        while not (victim.key / "begun.json").exists() and time.monotonic() < until:
            time.sleep(0.005)
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a child of an earlier test that nobody has waited for
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = run_here(study, 1)
    killer.join()
    assert "exit code -9" in outcome.failed[victim.key]
    assert next(work for work in study.works if work.place.name == "teacher-1").is_complete()
    assert not run_here(study, 1).failed and victim.is_complete()


_SCRIPT = """
import sys
from pathlib import Path
from tnr_dist.stages.methods import load_config
from tnr_dist.util.errors import Preempted
from tnr_dist.reproduce.command import Prepared, run_here
if __name__ == "__main__":
    try:
        run_here(Prepared.open("fig6", load_config(sys.argv[1], sys.argv[2:])), 1)
    except Preempted as stop:
        print(stop, file=sys.stderr)
        sys.exit(75)
"""


def test_a_stop_leaves_checkpoints_and_goes_on(chain_yaml, tmp_path):
    out, script = tmp_path / "out", tmp_path / "script.py"
    script.write_text(_SCRIPT)
    overrides = [f"output={out}", *OVERRIDES, "post_train.max_steps=0", "post_train.epochs=200"]
    command = [str(word) for word in (sys.executable, script, chain_yaml, *overrides)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not any(out.glob("seed-0/post-train-*/metrics.jsonl")) and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75 and "stopped after checkpoints" in said, said
    states = list(out.glob("seed-0/post-train-*/checkpoints/*/state.json"))
    assert states and all(json.loads(state.read_text())["step"] > 0 for state in states)
