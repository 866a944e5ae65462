"""Ranks that are separate Python processes, as every launcher starts them: the order of a set is each one's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lanes import missing, reason_against

ROOT = Path(__file__).parents[2]
# Seeds of Python's hashes with which the set {exp_avg, exp_avg_sq} has one order on rank 0 and the other on rank 1.
SEEDS = (0, 1)
TIMEOUTS = """
import os
import torch
import torch.distributed as dist
from tests import engine_task as task
from tnr_dist.config.schema import DeepSpeedConfig
from tnr_dist.engines import core
from tnr_dist.engines.make import make_engine

core.TIMEOUT_SECONDS = 77.0
engine = make_engine("deepspeed", "cpu", 1, DeepSpeedConfig(zero_stage=1))
task.setup(engine)
task.steps(engine, 0, 1)
groups = list(dist.distributed_c10d._world.pg_map)
waits = {group._get_backend(torch.device("cpu")).options._timeout.total_seconds() for group in groups}
engine.close()
if os.environ["RANK"] == "0":
    print(len(groups), "groups wait", sorted(waits))
"""
PROGRAM = """
import os, sys
from tests import engine_task as task
from tnr_dist.config.schema import DeepSpeedConfig
from tnr_dist.engines.make import make_engine

engine = make_engine("deepspeed", "cpu", 1, DeepSpeedConfig(zero_stage=int(sys.argv[1])))
task.setup(engine)
task.steps(engine, 0, 3)
state = engine.state_dict()["state"]
engine.close()
if os.environ["RANK"] == "0":
    print("negative:", sum(int((values["exp_avg_sq"] < 0).sum()) for values in state.values()), "of", len(state))
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_moments_of_a_sharded_optimizer_are_not_mixed_up(stage: int) -> None:
    if reason_against("deepspeed"):
        missing(reason_against("deepspeed"))
    start = f'if [ "$RANK" = 0 ]; then PYTHONHASHSEED={SEEDS[0]}; else PYTHONHASHSEED={SEEDS[1]}; fi; export PYTHONHASHSEED; exec "$@"'
    command = [sys.executable, "-m", "tnr_dist.launch.local", "2", "--", "sh", "-c", start, "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", PROGRAM, str(stage)], cwd=ROOT, text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "negative: 0 of " in done.stdout


@pytest.mark.slow
def test_every_group_of_deepspeed_waits_as_long_as_ours() -> None:
    if reason_against("deepspeed"):
        missing(reason_against("deepspeed"))
    command = [sys.executable, "-m", "tnr_dist.launch.local", "2", "--", sys.executable, "-c", TIMEOUTS]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    count, _, waits = done.stdout.strip().splitlines()[-1].partition(" groups wait ")
    assert int(count) > 1 and waits == "[77.0]"
