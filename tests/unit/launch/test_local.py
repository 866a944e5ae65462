"""The launcher of local ranks: an input error that all ranks meet is one line, one that a single rank meets is said."""

import sys
from pathlib import Path

import pytest

from tnr_dist.launch.local import is_first_report, launch

FAIL = "import os; from tnr_dist.cli.app import fail; fail({message}, {code})"


def lines(capfd: pytest.CaptureFixture[str], message: str, code: int = 2) -> list[str]:
    assert launch(2, [sys.executable, "-c", FAIL.format(message=message, code=code)]) == code
    return sorted(line for line in capfd.readouterr().err.splitlines() if line.startswith("tnr: "))


def test_what_all_ranks_say_is_said_once(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert lines(capfd, "'c.yaml: bad'") == ["tnr: c.yaml: bad"]
    assert lines(capfd, "'rank ' + os.environ['RANK']") == ["tnr: rank 0", "tnr: rank 1"]
    assert not list(tmp_path.iterdir())


def test_only_input_errors_are_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert lines(capfd, "'preempted'", 75) == ["tnr: preempted"] * 2


def test_without_the_launcher_everything_is_said(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TNR_SAID", raising=False)
    assert is_first_report("x") and is_first_report("x")
    monkeypatch.setenv("TNR_SAID", str(tmp_path / "gone"))
    assert is_first_report("x") and is_first_report("x")


def test_a_lost_rank_ends_the_others_and_its_code_is_kept() -> None:
    assert launch(2, [sys.executable, "-c", ONE_FAILS.format(code=69, other="time.sleep(60)")]) == 69


def test_bad_input_counts_more_than_the_rank_that_missed_it() -> None:
    """A rank sees that the other has closed its connections before the launcher sees that its process has ended."""
    late = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(2)); time.sleep(60)"
    assert launch(2, [sys.executable, "-c", ONE_FAILS.format(code=69, other=late)]) == 2


ONE_FAILS = "import os, signal, sys, time\nif os.environ['RANK'] == '1': time.sleep(1); sys.exit({code})\n{other}"
