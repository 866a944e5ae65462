"""Runs of a study in worker processes: made once, a failed one stops only what needs it, a stop leaves checkpoints."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tnr_dist.config_file import load_config
from tnr_dist.reproduce.command import Prepared, run_here
from tnr_dist.reproduce.plan import Work

pytestmark = pytest.mark.slow

OVERRIDES = ["reproduce.size=1", "reproduce.beta1=[1.0]", "reproduce.beta2=[0.1, 0.2]", "wandb.mode=disabled"]


@pytest.fixture
def prepared(chain_yaml: Path, tmp_path: Path) -> Prepared:
    return Prepared.open("fig6", load_config(chain_yaml, [f"output={tmp_path / 'out'}", *OVERRIDES]))


def test_every_run_is_made_and_scored_once(prepared):
    assert not run_here(prepared, 2).failed
    assert all(work.is_complete() for work in prepared.works)
    marks = {work.key: (work.key / "complete.json").read_text() for work in prepared.works}
    assert not run_here(prepared, 2).failed
    assert {work.key: (work.key / "complete.json").read_text() for work in prepared.works} == marks
    scored = [work for work in prepared.works if work.scored]
    assert len(scored) == 2 and all((work.key / "impressions.parquet").is_file() for work in scored)


def test_a_failed_run_leaves_out_what_needs_it_only(prepared):
    teacher = next(work for work in prepared.works if work.place.name == "teacher-1")
    teacher.place.config.finetune.lr = 1e30  # its loss is no number soon
    outcome = run_here(prepared, 2)
    assert list(outcome.failed) == [teacher.key] and "FloatingPointError" in outcome.failed[teacher.key]
    names = {work.place.name for work in prepared.works if work.key in outcome.left_out}
    assert names == {"cache", "stage2-1"}
    assert all(work.is_complete() for work in prepared.works if work.place.name in ("teacher-0", "stage1-1"))


def test_a_worker_that_is_killed_is_one_failed_run(prepared, monkeypatch):
    monkeypatch.setattr(Work, "do", Work.do)
    victim = next(work for work in prepared.works if work.place.name == "teacher-0")
    object.__setattr__(victim, "place", _Deadly(victim.place))
    outcome = run_here(prepared, 1)
    assert "exit code -9" in outcome.failed[victim.key]
    assert next(work for work in prepared.works if work.place.name == "teacher-1").is_complete()


class _Deadly:
    """A run whose stage kills the process that makes it."""

    def __init__(self, place):
        self.__dict__.update(name=place.name, path=place.path, stage=place.stage, config=place.config)

    def is_complete(self) -> bool:
        return False

    def __reduce__(self):
        return _kill, ()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_stop_leaves_checkpoints_and_goes_on(chain_yaml, tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "tnr_dist.cli", "reproduce", "fig6", chain_yaml, f"output={out}", *OVERRIDES,
        "post_train.max_steps=200", "--jobs", "1",
    ]  # fmt: skip
    process = subprocess.Popen(
        [str(word) for word in command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not any(out.glob("seed-0/post-train-*/metrics.jsonl")) and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    (state,) = list(out.glob("seed-0/post-train-*/checkpoints/*/state.json"))[-1:]
    assert json.loads(state.read_text())["step"] > 0
