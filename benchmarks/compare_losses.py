"""Do two commits train alike? The golden set-up (tests/golden/stages.yaml) with each of them, step by step.

    python benchmarks/compare_losses.py main my-branch                 # commits, branches or tags
    python benchmarks/compare_losses.py HEAD~3 HEAD --ranks 2 precision=bf16 --loss 0.03 --grad-norm 0.3

Both are checked out into temporary git worktrees and run `tnr run` on the same inputs, with this Python's packages. Prints
the largest relative difference of the loss and of the gradient norm of every training. Exit codes: 0 within the bounds,
1 above one, 2 a commit that cannot be had or run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.golden.curves import FLOAT32, SETUP, Curves, compare, input_overrides, read_curves, table  # noqa: E402
from tests.golden.inputs import write_inputs  # noqa: E402


class CannotRun(Exception):
    """What a commit failed at."""


@contextlib.contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """A commit's files in `folder` for as long as the context lasts."""
    _git("worktree", "add", "--quiet", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"git {' '.join(arguments)}: {done.stderr.strip()}")


def curves_of(tree: Path, setup: Path, overrides: list[str], output: Path) -> Curves:
    """The curves of `tnr run` with the package in `tree`. Raises CannotRun with the end of what it said."""
    module, _, function = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["scripts"]["tnr"].partition(
        ":"
    )
    # An installed tnr_dist must not stand in for the commit's.
    program = (
        f"import tnr_dist; assert tnr_dist.__file__.startswith({str(tree)!r}), tnr_dist.__file__\n"
        f"from {module} import {function} as tnr; tnr()"
    )
    where = [f"data.dir={output / 'data'}", f"output={output / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-c", program, "run", str(setup), *overrides, *where],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "WANDB_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise CannotRun(f"tnr run ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return read_curves(output / "run")


def compared(commits: list[str], setup: Path, overrides: list[str]) -> list[Curves]:
    """The curves of each commit."""
    found = []
    with tempfile.TemporaryDirectory(prefix="compare-losses-") as name:
        folder = Path(name)
        write_inputs(folder / "inputs")
        for number, commit in enumerate(commits):
            print(f"{commit} …", file=sys.stderr, flush=True)
            try:
                with worktree(commit, folder / f"tree-{number}") as tree:
                    settings = [*input_overrides(folder / "inputs"), *overrides]
                    found.append(curves_of(tree, setup, settings, folder / str(number)))
            except CannotRun as error:
                raise CannotRun(f"{commit}: {error}") from None
    return found


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of both, on top of the set-up's")
    parser.add_argument("--setup", type=Path, default=SETUP, help="another configuration than the golden one")
    parser.add_argument("--ranks", type=int, default=1)
    for quantity, bound in FLOAT32.items():
        parser.add_argument(f"--{quantity.replace('_', '-')}", type=float, default=bound, metavar="BOUND")
    options = parser.parse_args()
    bounds = {quantity: getattr(options, quantity) for quantity in FLOAT32}
    try:
        a, b = compared(options.commits, options.setup.resolve(), [*options.overrides, f"ranks={options.ranks}"])
    except CannotRun as error:
        print(f"compare_losses: {error}", file=sys.stderr)
        return 2
    differences = compare(b, a, bounds)
    print(table(differences))
    return int(any(one.above for one in differences))


if __name__ == "__main__":
    sys.exit(main())
