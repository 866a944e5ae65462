"""Jobs of stage 2 in the tests: how far they are, their ranks' processes, and whether they ended as an uninterrupted one."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.cluster.harness import Cluster
from tnr_dist.runs.tracker import read_metrics

LONG = ("stage2.max_steps=60", "stage2.lr=1e-3")
# A program that has a port of its machine until it is killed.
LISTENER = "import socket, sys, time; s = socket.create_server(('', int(sys.argv[1]))); print('up', flush=True); time.sleep(600)"
Ended = tuple[dict[str, Tensor], np.ndarray]


def curve(output: Path) -> np.ndarray:
    return np.array([r["train/loss"] for r in read_metrics(output / "stage2-1" / "metrics.jsonl") if "train/loss" in r])


def ended(output: Path) -> Ended:
    """Weights and loss curve of a finished stage 2."""
    return load_file(output / "stage2-1" / "model.safetensors"), curve(output)


def assert_same_as(uninterrupted: Ended, output: Path) -> None:
    weights, losses = uninterrupted
    found = load_file(output / "stage2-1" / "model.safetensors")
    assert [name for name in weights if not torch.equal(weights[name], found[name])] == []
    np.testing.assert_array_equal(losses, curve(output))


def in_mid_epoch(cluster: Cluster, job: int, output: Path, steps: int = 5) -> None:
    """Wait until the job's stage 2 has made so many steps."""
    metrics = output / "stage2-1" / "metrics.jsonl"
    end = time.monotonic() + 180
    while not metrics.exists() or metrics.read_text().count("\n") < steps:
        assert time.monotonic() < end and cluster.jobs(job)[0]["JobState"] in ("PENDING", "RUNNING"), cluster.logs(job)
        time.sleep(0.05)


def signal_rank(job: int, rank: int, number: int) -> None:
    """Send a signal to the Python process of a rank of the job's first step."""
    wanted = {f"SLURM_JOB_ID={job}", f"SLURM_PROCID={rank}", "SLURM_STEP_ID=0"}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = set((process / "environ").read_text().split("\0"))
            if wanted <= environment and "python" in (process / "exe").readlink().name:
                os.kill(int(process.name), number)
