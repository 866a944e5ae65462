"""benchmarks/compare_losses.py: two commits that train alike, two that do not, and those that cannot be run."""

import contextlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CURVES = {"stage2-2": {"loss": [2.0, 1.0], "grad_norm": [3.0, 2.0]}}
QUICK = [f"{stage}.max_steps=2" for stage in ("post_train", "stage1", "finetune", "stage2")]
QUICK.append("rows=[{name: student, method: tiny-newsrec}]")


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("compare_losses", ROOT / "benchmarks" / "compare_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("other", "arguments", "code"),
    [
        ({"loss": [2.0, 1.00001], "grad_norm": [3.0, 2.0]}, [], 0),
        ({"loss": [2.0, 1.0001], "grad_norm": [3.0, 2.0]}, [], 1),
        ({"loss": [2.0, 1.0001], "grad_norm": [3.0, 2.0]}, ["--loss", "1e-3"], 0),
        ({"loss": [2.0, 1.0], "grad_norm": [3.0, 2.01]}, ["--loss", "1e-3"], 1),
        ({"loss": [2.0, 1.0], "grad_norm": [3.0, 2.01]}, ["--grad-norm", "0.1"], 0),
        (None, [], 1),
    ],
)
def test_exit_codes(script, monkeypatch, capsys, other, arguments, code):
    found = iter([CURVES, {} if other is None else {"stage2-2": other}])
    monkeypatch.setattr(script, "worktree", lambda commit, folder: contextlib.nullcontext(folder))
    monkeypatch.setattr(script, "curves_of", lambda *_: next(found))
    monkeypatch.setattr(sys, "argv", ["compare_losses.py", "A", "B", *arguments])
    assert script.main() == code
    assert ("above" in capsys.readouterr().out) == bool(code)


def test_a_commit_that_is_not_there(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare_losses.py", "no-such-commit", "HEAD"])
    assert script.main() == 2
    assert capsys.readouterr().err.count("compare_losses: no-such-commit: git worktree add") == 1


def git(folder, *arguments):
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_change_of_the_loss_is_found(tmp_path):
    """In a clone, whose second commit weights the target loss 2 % more in stage 2."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(clone))
    for file in (ROOT / "tests", ROOT / "benchmarks"):  # as they are now
        shutil.copytree(file, clone / file.name, dirs_exist_ok=True)
    equation = clone / "tnr_dist/losses/stage2.py"  # the function that carries the equation is the one that trains
    sound, sum_of_parts = equation.read_text(), "emb_user + beta2 * target, distill"
    assert sound.count(sum_of_parts) == 1
    equation.write_text(sound.replace(sum_of_parts, sum_of_parts.replace("beta2", "1.02 * beta2")))
    git(clone, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "-am", "another loss")

    def compared(*commits):
        command = [sys.executable, "benchmarks/compare_losses.py", *commits, *QUICK]
        return subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=900)

    moved = compared("HEAD~1", "HEAD")
    assert moved.returncode == 1, moved.stderr
    assert {line.split()[0] for line in moved.stdout.splitlines() if "above" in line} == {"stage2-2"}
    assert {line.split()[0] for line in moved.stdout.splitlines()} == {
        "curve", "post-train", "stage1-2", "teacher-0", "teacher-1", "stage2-2",
    }  # fmt: skip
    assert git(clone, "worktree", "list").count("\n") == 1
