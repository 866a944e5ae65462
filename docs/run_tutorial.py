"""Run docs/tutorial.md as a reader would: its files are written, its commands run, its outputs compared.

    python docs/run_tutorial.py [FOLDER]     # in FOLDER (empty or new), by default a temporary one; exit code 0 if all went well

Blocks are taken in order. ```yaml title="NAME"``` and ```python title="NAME"``` are files. ```bash``` is run by bash and must
exit with 0. ```text title="output"``` is what the block before it prints, loosely: each of its lines must be found in the
output, in this order; `…` stands for anything, and runs of blanks for one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("tutorial.md")
_BLOCK = re.compile(r'^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, title and text, and the line it begins in."""

    kind: str
    title: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(found["kind"], found["title"] or "", found["text"], page.count("\n", 0, found.start()) + 1)
        for found in _BLOCK.finditer(page)
    ]


def missing_line(expected: str, printed: str) -> str | None:
    """The first line of `expected` that is not in `printed` after the ones before it; None where all are."""
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for line in expected.splitlines():
        words = " ".join(line.split())
        pattern = re.compile(".*".join(map(re.escape, words.split("…"))))
        if not any(pattern.search(one) for one in lines):
            return line
    return None


def run(page: Path, folder: Path) -> None:
    """Go through a page's blocks in `folder`. Raises RuntimeError naming the page's line where something is not so."""
    # The commands of this interpreter's environment first: `tnr`, `python`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
    printed = ""
    for block in blocks_of(page.read_text(encoding="utf-8")):
        where = f"{page}, line {block.line}"
        if block.kind in ("yaml", "python") and block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.kind == "bash":
            began = time.monotonic()
            print(f"--- line {block.line}\n{block.text}", end="", flush=True)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            printed = done.stdout
            print(f"{printed}--- {time.monotonic() - began:.1f} s", flush=True)
            if done.returncode:
                raise RuntimeError(f"{where}: exit code {done.returncode}")
        elif block.title == "output":
            missing = missing_line(block.text, printed)
            if missing is not None:
                raise RuntimeError(f"{where}: the page says {missing!r}, which was not printed")


def main() -> int:
    """Exit code: 0, or 1 with a message."""
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and sys.argv[1].startswith("-")):
        print(__doc__)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) == 2 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            print(f"{folder}: not empty", file=sys.stderr)
            return 2
        began = time.monotonic()
        try:
            run(PAGE, folder)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{PAGE.name}: all commands ran in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
