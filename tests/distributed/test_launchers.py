"""The same command alone, under torchrun, and started by launch/local.sh or ranks=2 gives the same float32 loss curve."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.lanes import missing
from tnr_dist.runs.tracker import read_metrics

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def config(prepared, tiny_plm, tmp_path_factory):
    path = tmp_path_factory.mktemp("launch") / "c.yaml"
    path.write_text(
        f"threads: 1\nprecision: fp32\ndata: {{dir: {prepared}, history: 10, title_tokens: 24}}\nplm: {{name: {tiny_plm}}}\n"
        "model: {news_dim: 16, query_dim: 8, dropout: 0.0}\nlog: {every: 1}\n"
        "finetune: {init: plm, layers: 2, batch_size: 40, max_steps: 6, lr: 1e-3, trainable_layers: 1}\n"
    )
    return path


def start(command, config, output, *overrides):
    full = [*map(str, command), "finetune", str(config), f"output={output}", *overrides]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    return subprocess.Popen(full, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def curve(output):
    return np.array([r["train/loss"] for r in read_metrics(output / "finetune-2" / "metrics.jsonl")])


def horovod_speaks_mpi() -> bool:
    """Asked in another process: Horovod starts threads when it is imported."""
    ask = "import horovod.torch as h; raise SystemExit(not h.mpi_built())"
    return subprocess.run([BIN / "python", "-c", ask], capture_output=True).returncode == 0


LAUNCHERS = {
    "torchrun": ([BIN / "torchrun", "--standalone", "--nproc-per-node", 2, "--no-python", BIN / "tnr"], []),
    "local.sh": ([ROOT / "launch" / "local.sh", 2, BIN / "tnr"], []),
    "ranks=2": ([BIN / "tnr"], ["ranks=2"]),
    "torchrun.sh": ([ROOT / "launch" / "torchrun.sh", 2, BIN / "tnr"], []),
    "deepspeed.sh": ([ROOT / "launch" / "deepspeed.sh", 2, BIN / "tnr"], []),
    "horovodrun.sh": ([ROOT / "launch" / "horovodrun.sh", 2, BIN / "tnr"], []),
    "mpirun": ([ROOT / "launch" / "horovodrun.sh", "--mpi", 2, BIN / "tnr"], []),
    "horovod over gloo": ([ROOT / "launch" / "horovodrun.sh", 2, BIN / "tnr"], ["engine=horovod"]),
    "horovod over MPI": ([ROOT / "launch" / "horovodrun.sh", "--mpi", 2, BIN / "tnr"], ["engine=horovod"]),
}
NEEDS = {
    "deepspeed.sh": "deepspeed",
    "horovodrun.sh": "horovodrun",
    "mpirun": "mpirun",
    "horovod over gloo": "horovodrun",
    "horovod over MPI": "mpirun",
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_same_curve(config, tmp_path, launcher):
    program = NEEDS.get(launcher, "python3")
    if not shutil.which(program, path=f"{BIN}:{os.environ['PATH']}"):
        missing(f"there is no {program}: see CONTRIBUTING.md, cluster tests")
    if launcher == "horovod over MPI" and not horovod_speaks_mpi():
        missing("Horovod was built without MPI: HOROVOD_MPI=1 launch/install_horovod.sh")
    alone = start([BIN / "tnr"], config, tmp_path / "alone")
    assert alone.wait(120) == 0, alone.stderr.read()
    command, overrides = LAUNCHERS[launcher]
    several = start(command, config, tmp_path / "several", *overrides)
    assert several.wait(180) == 0, several.stderr.read()
    np.testing.assert_allclose(curve(tmp_path / "alone"), curve(tmp_path / "several"), atol=1e-5)
    assert len(curve(tmp_path / "several")) == 6


def test_bad_configuration_ends_all_ranks_with_2(config, tmp_path):
    process = start([ROOT / "launch" / "local.sh", 2, BIN / "tnr"], config, tmp_path, "data.streams=3")
    assert process.wait(120) == 2
    assert process.stderr.read().count("is not a multiple of the 2 ranks") == 1


def test_term_checkpoints_and_the_same_command_goes_on(config, tmp_path):
    long = ["finetune.max_steps=400", "finetune.epochs=100"]
    process = start([BIN / "tnr"], config, tmp_path, "ranks=2", *long)
    metrics = tmp_path / "finetune-2" / "metrics.jsonl"
    end = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 75, process.stderr.read()
    reached = max(int(p.name) for p in (tmp_path / "finetune-2" / "checkpoints").iterdir())
    assert 5 <= reached < 400
    again = start([BIN / "tnr"], config, tmp_path, "ranks=2", *long)
    assert again.wait(180) == 0, again.stderr.read()
    steps = [r["step"] for r in read_metrics(metrics)]
    assert steps == list(range(1, 401))
