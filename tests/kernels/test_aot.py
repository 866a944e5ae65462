"""Every kernel, compiled for sm_90 on any machine, keeps its registers; the package works without Triton."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels import aot
from tests.kernels.aot_signatures import SIGNATURES
from tests.lanes import missing
from tnr_dist.kernels import dispatch
from tnr_dist.util.errors import InputError

MODULES = tuple(SIGNATURES)
ROOT = Path(__file__).parents[2]
KERNELS = Path(dispatch.__file__).parent


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run in a process whose Triton compiles: in this one it may interpret, for good."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def _need_tools() -> None:
    try:
        aot.bundled("cuobjdump")
    except InputError as error:
        missing(str(error))


@pytest.fixture(scope="module")
def compiled() -> subprocess.CompletedProcess[str]:
    """All kernels compiled, in one process: most of what a process needs is the import of torch."""
    _need_tools()
    return _python("-m", "tests.kernels.aot")


@pytest.mark.parametrize("module", MODULES)
def test_no_kernel_spills(module: str, compiled: subprocess.CompletedProcess[str]) -> None:
    reports = [json.loads(line) for line in compiled.stdout.splitlines()]
    reports = [report for report in reports if report["kernel"].startswith(f"{module}.")]
    assert reports, compiled.stderr
    spilled = [f"{r['kernel']} ({r['variant']}): {r['stack']} bytes" for r in reports if r["stack"]]
    assert not spilled, "registers kept in memory: " + "; ".join(spilled)
    assert all(0 < r["registers"] <= 255 and r["shared"] <= 227 * 1024 for r in reports)


def test_no_kernel_is_left_out(compiled: subprocess.CompletedProcess[str]) -> None:
    """Every function that is launched, those of the backward passes included."""
    launched = {
        name
        for path in KERNELS.glob("*.py")
        for name in re.findall(r"(?m)^@Kernel\ndef (\w+_kernel)\(", path.read_text())
    }
    assert len(launched) >= 11
    assert {json.loads(line)["kernel"].split(".")[1] for line in compiled.stdout.splitlines()} == launched


SPILLING = """
import triton, triton.language as tl
from tests.kernels import aot
@triton.jit
def spill(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    y = x * 2
    tl.store(x_ptr + at, x * y + tl.sum(tl.exp(x) * y))
report = aot._compile(aot.bundled("cuobjdump"), "test", spill, {"x_ptr": "*fp32", "n": "i32"}, {"BLOCK": 16384}, 1, 1)
print(report.stack)
"""


def test_a_spill_is_seen(tmp_path: Path) -> None:
    _need_tools()
    script = tmp_path / "spilling.py"
    script.write_text(SPILLING)
    done = _python(str(script))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(InputError, match="TRITON_INTERPRET"):
        aot.compile_all([])


WITHOUT = """
import sys
sys.modules["triton"] = None
import numpy as np, torch
from tnr_dist.util.errors import InputError
from tests.kernels import aot
from tnr_dist.kernels import dispatch, ragged_attention
x = torch.randn(5, 2, 32)
assert ragged_attention.ragged_attention(x, x, x, np.array([2, 3])).shape == x.shape
assert dispatch.gather_cast(x, torch.tensor([1]), torch.bfloat16).dtype == torch.bfloat16
for call in (aot.compile_all, lambda: dispatch.gather_cast(x, torch.tensor([1]), x.dtype, "triton")):
    try:
        call()
    except InputError as error:
        assert "not installed" in str(error), error
    else:
        raise SystemExit("no error")
"""


def test_without_triton_the_plain_forms_work() -> None:
    done = _python("-c", WITHOUT)
    assert done.returncode == 0, done.stderr
