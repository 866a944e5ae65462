"""Which source this is: the commit of the checkout that the package lies in."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """The source's commit, with `+` when files differ from it; empty outside a checkout."""
    root = Path(__file__).parents[2]
    found = _git(root, "rev-parse", "--show-toplevel", "--short=12", "HEAD")
    # An environment inside another project's checkout is not that project's source.
    if found is None or Path(found.split("\n")[0]).resolve() != root.resolve():
        return ""
    return found.split("\n")[1] + ("+" if _git(root, "status", "--porcelain", "-uno") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        ran = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()
