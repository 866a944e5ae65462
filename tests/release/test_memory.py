"""Memory as a user sees it: what the demo's processes hold at a time, and that no stage leaves much behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Says before each stage what the process holds.
_STAGES = """
import sys
from tnr_dist.cli.app import app
from tnr_dist.stages import pipeline
from tnr_dist.util.memory import resident
make = pipeline.make
def made(run, engine, **options):
    print("starts", run.stage, resident() >> 20, flush=True)
    make(run, engine, **options)
pipeline.make = made
sys.argv[0] = "tnr"
app()
"""
_SMALL = [
    "ranks=1", "threads=1", "wandb.mode=disabled", "rows=[{name: Tiny-NewsRec-1, method: tiny-newsrec, layers: 1}]",
    "synth.news=300", "synth.users=80", "synth.impressions=600", "synth.dev_impressions=50", "synth.test_impressions=50",
    *(f"{stage}.{setting}" for stage in ("post_train", "stage1", "finetune", "stage2") for setting in ("max_steps=6", "batch_size=32")),
]  # fmt: skip


def _run(*command: object, limit: float) -> str:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, text=True, capture_output=True, timeout=limit)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(1000)
def test_no_stage_starts_with_more_than_the_first(tmp_path):
    said = _run(
        sys.executable, "-c", _STAGES, "run", "configs/demo.yaml", f"output={tmp_path}/run", f"data.dir={tmp_path}/data", *_SMALL,
        limit=900,
    )  # fmt: skip
    held = [(stage, int(mebibytes)) for stage, mebibytes in re.findall(r"starts (\S+) (\d+)", said)]
    assert len(held) == 6
    assert max(mebibytes for _, mebibytes in held) <= held[0][1] + 300, held


@pytest.mark.timeout(2400)  # six minutes on two idle cores
def test_the_demo_stays_below_four_gibibytes(tmp_path):
    said = _run(
        sys.executable, "-m", "tnr_dist.cli.app", "run", "configs/demo.yaml", f"output={tmp_path}/run",
        f"data.dir={tmp_path}/data", limit=2300,
    )  # fmt: skip
    found = re.search(r"memory: at most ([\d.]+) GiB", said)
    assert found and float(found[1]) < 4.0, said[-500:]
