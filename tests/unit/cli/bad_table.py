"""The table of malformed inputs: what a case is, and the folder in which it happens.

A case is a function that prepares and damages files and returns a command line; the decorator says what the command's
one line must name. `test_bad_input.py` runs them all; the cases are in `bad_raw.py`, `bad_settings.py`, `bad_data.py`
and `bad_runs.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.resign import resign_data

NEWS = "N1\tnews\tx\tA title\tAn abstract\tu\t[]\t[]\nN2\tnews\tx\tOther title\tAnother\tu\t[]\t[]\n"
ROWS = "1\tU1\t11/15/2019 8:55:22 AM\tN1\tN1-0 N2-1\n2\tU2\t11/15/2019 9:55:22 AM\t\tN1-1 N2-0\n"
CORPUS = "N1\tnews\tx\tA title\tAn abstract\tA body\n"


@dataclass(frozen=True)
class Place:
    """An empty folder of the case's own, and what all cases share and none may change."""

    path: Path
    raw_mind: Path  # generated MIND-format files
    prepared: Path  # those, prepared
    plm: Path
    runs: Path  # seed folder with post-train, teacher-0, stage1-1, cache and stage2-1, all finished

    def raw(self, news: str | bytes | None = NEWS, behaviors: str | bytes | None = ROWS) -> Path:
        """A small MIND-like folder; None leaves a file out."""
        folder = self.path / "raw"
        folder.mkdir()
        for name, content in (("news.tsv", news), ("behaviors.tsv", behaviors)):
            if content is not None:
                (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    def prepare(self, *more: Any, input: Path | None = None) -> list[Any]:
        """`tnr data prepare` of `input` into `out`."""
        chosen = [] if input is None else ["--input", input]
        return ["data", "prepare", *chosen, "--output", self.path / "out", "--plm", self.plm, *more]

    def config(self, text: str | bytes = "") -> Path:
        """A configuration file: that of `runs`, with other runs in `run`; or just `text`."""
        path = self.path / "c.yaml"
        content = text or settings(self.path / "run", self.prepared, self.raw_mind, self.plm)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def finished(self) -> Path:
        """A copy of the finished runs where `config()` expects them."""
        return Path(shutil.copytree(self.runs, self.path / "run"))

    def data(self) -> Path:
        """A copy of the prepared data, to be damaged; commands take it with `data.dir`."""
        return Path(shutil.copytree(self.prepared, self.path / "data"))

    def model(self) -> Path:
        """A copy of the PLM, to be damaged; commands take it with `plm.name`."""
        return Path(shutil.copytree(self.plm, self.path / "plm"))


def settings(output: Path, data: Path, raw: Path, plm: Path) -> str:
    """The configuration of `Place.runs`."""
    matching = "{batch_size: 16, max_steps: 1, negatives: 3, body_tokens: 40}"
    return "\n".join(
        [
            f"output: {output}",
            "threads: 1",
            "device: cpu",
            "precision: fp32",
            f"data: {{dir: {data}, input: {raw}, corpus: {raw / 'corpus.tsv'}, title_tokens: 24, body_tokens: 40, history: 10}}",
            f"plm: {{name: {plm}}}",
            "model: {news_dim: 16, query_dim: 8}",
            f"post_train: {matching}",
            f"stage1: {matching}",
            "finetune: {teachers: 1, batch_size: 32, max_steps: 1}",
            "stage2: {batch_size: 32, max_steps: 1}",
            "student: {layers: 1}",
            "rows: [{name: FT-1, method: finetune, layers: 1}]",
            "log: {every: 1}",
            "reproduce: {sizes: [1], size: 1}",
            "",
        ]
    )


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        says: texts that the line must hold: file, key or value.
        working: the command may have said what it did before (progress, tables on stdout).
        begun: it may leave a run folder that was begun, which the same command takes up again.
    """

    name: str
    arguments: Callable[[Place], list[Any]]
    says: tuple[str, ...]
    working: bool
    begun: bool


CASES: list[Case] = []


def case(*says: str, working: bool = False, begun: bool = False) -> Callable[[Any], Any]:
    """Put the function that follows into the table."""

    def register(arguments: Callable[[Place], list[Any]]) -> Callable[[Place], list[Any]]:
        CASES.append(Case(arguments.__name__, arguments, says, working, begun))
        return arguments

    return register


def add(
    name: str, arguments: Callable[[Place], list[Any]], *says: str, working: bool = False, begun: bool = False
) -> None:
    """Put a case of one line into the table."""
    CASES.append(Case(name, arguments, says, working, begun))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change what a JSON file says."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def first_shard(data: Path, split: str = "train") -> Path:
    return sorted((data / split).glob("*.tar"))[0]


def replace_shard(data: Path, content: bytes) -> None:
    """Other bytes for the first train shard, with the size and digest that the index then needs."""
    shard = first_shard(data)
    shard.write_bytes(content)

    def sign(index: Any) -> None:
        line = next(line for line in index["shards"] if line["name"] == shard.name)
        line |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    edit_json(data / "train" / "index.json", sign)
    resign_data(data)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and folder under `folder` with a digest of what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            what = f"link to {path.readlink()}"
        elif path.is_dir():
            what = "folder"
        else:
            what = hashlib.sha256(path.read_bytes()).hexdigest() if path.stat().st_mode & 0o400 else "no permission"
        found[str(path.relative_to(folder))] = what
    return found
