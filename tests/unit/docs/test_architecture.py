"""The architecture page names files and functions that exist, all files of a traced step, and the rooms in their order."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
# A file, then the functions that follow it in backticks.
NAMED = [
    (file, name)
    for file, names in re.findall(r"`([\w/]+\.py)`((?:,?\s+`[A-Za-z_]\w*(?:\.\w+)?`)+)", TEXT)
    for name in re.findall(r"`([\w.]+)`", names)
]


def test_the_page_names_functions() -> None:
    assert len(NAMED) > 30 and ("train/loop.py", "train_step") in NAMED


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_function_is_in_its_file(file: str, name: str) -> None:
    module = importlib.import_module("tnr_dist." + file.removesuffix(".py").replace("/", "."))
    found: object = module
    for part in name.split("."):
        found = getattr(found, part)
    assert getattr(found, "__module__", module.__name__) == module.__name__


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`((?!tests/|docs/)[\w/]+\.py)`", TEXT))))
def test_every_file_exists(file: str) -> None:
    assert (ROOT / "tnr_dist" / file).is_file()


def test_the_picture_names_functions_and_files_that_exist() -> None:
    picture = (ROOT / "docs/assets/step.svg").read_text(encoding="utf-8")
    names = re.findall(r'font-weight="bold">([\w., ]+)<', picture)
    files = re.findall(r'fill="#37474f">([\w./, ]+)<', picture)
    assert len(names) == len(files) == 12
    for name, file in zip(names, files, strict=True):
        first, *others = file.split(", ")
        paths = [ROOT / "tnr_dist" / first, *((ROOT / "tnr_dist" / first).with_name(other) for other in others)]
        source = "".join(path.read_text(encoding="utf-8") for path in paths)
        for part in re.split(r"\.|, ", name):
            assert re.search(rf"(?:def|class) \w*{part}", source), (name, file)


def test_the_rooms_are_those_that_are_kept_apart_in_their_order() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = [layer for contract in contracts if contract["type"] == "layers" for layer in contract["layers"]]
    table = TEXT.partition("## The rooms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.M)
    wanted = [sorted(re.findall(r"tnr_dist\.(\w+)", layer)) for layer in layers]
    assert [sorted(re.findall(r"\w+", row)) for row in rows] == wanted
