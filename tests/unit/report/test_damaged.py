"""A report of damaged run folders: a page, or one clear line that names the file; never anything else."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.run_folders import make_config, write_experiment
from tnr_dist.cli.app import main
from tnr_dist.config.schema import RowConfig
from tnr_dist.report.command import make_document
from tnr_dist.report.group_by_seed import group_runs
from tnr_dist.report.html import to_html
from tnr_dist.report.markdown import to_markdown
from tnr_dist.report.read_runs import find_runs
from tnr_dist.report.results import models_of
from tnr_dist.util.errors import InputError

STUDENT = "seed-0/stage2-1"
FILES = ("complete.json", "begun.json", "results.json", "environment.json", "config.yaml", "metrics.jsonl")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    """Two models of one seed."""
    output = tmp_path_factory.mktemp("damaged") / "run"
    config = make_config(output, [RowConfig("teacher", "teacher"), RowConfig("student", "tiny-newsrec", 1)])
    config.seeds = 1
    write_experiment(config)
    environment = {"commit": "abc", "device": "cpu", "torch": "2.0"}
    (output / STUDENT / "environment.json").write_text(json.dumps(environment))
    return output


@pytest.fixture
def damaged(experiment, tmp_path) -> Path:
    return Path(shutil.copytree(experiment, tmp_path / "run"))


def page(output: Path) -> str:
    """All of the report but its pictures' files."""
    runs = find_runs([output])
    groups = group_runs(runs)
    document = make_document([output], runs, groups, models_of(groups), 1_800_000_000.0)
    return to_markdown(document) + to_html(document)


def page_or_line(output: Path, name: str) -> str:
    """The page; or '' and one line that names the file."""
    try:
        return page(output)
    except InputError as error:
        said = str(error)
    assert name in said and "\n" not in said and len(said) < 600, said
    return ""


VALUES: list[Any] = [None, True, 3, -1, 0, 1e308, 10**400, "x", "", [], {}, [[1]], {"a": []}, float("nan"), 5e-324]


def paths(value: Any, at: tuple = ()) -> list[tuple]:
    """Where values stand in a JSON value, itself included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    return [at, *(path for key, one in inner for path in paths(one, (*at, key)))]


def put(value: Any, path: tuple, what: Any) -> Any:
    if not path:
        return what
    value = copy.deepcopy(value)
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = what
    return value


@pytest.mark.parametrize("name", [f"{STUDENT}/{file}" for file in FILES] + ["baselines.json"])
def test_any_value_of_another_kind(damaged, name):
    """Every value of a file replaced by one of each kind, some hundred of them drawn."""
    path = damaged / name
    if name.endswith("begun.json"):
        (path.parent / "complete.json").unlink()
    sound = path.read_text()
    lines = sound.splitlines() if name.endswith("jsonl") else [sound]
    value = json.loads(lines[0]) if not name.endswith("yaml") else None
    rng = random.Random(name)
    if value is None:
        import yaml

        value = yaml.safe_load(sound)
    forms = [put(value, place, what) for place in paths(value) for what in VALUES]
    for form in rng.sample(forms, min(len(forms), 60)):
        lines[0] = json.dumps(form)  # which is YAML, too
        path.write_text("\n".join(lines))
        page_or_line(damaged, path.name)


@pytest.mark.parametrize("name", [f"{STUDENT}/{file}" for file in FILES] + ["baselines.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b"\xff\xfe{}", b"null", b"3", b'"x"', b"9" * 5000, b"a: 2020-01-01\n1: !!set {x}"],
)
def test_any_other_content(damaged, name, content):
    path = damaged / name
    if name.endswith("begun.json"):
        (path.parent / "complete.json").unlink()
    path.write_bytes(content)
    page_or_line(damaged, path.name)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text", [BOMB, "a: &a [*a]", "a: &a {b: *a}", "a: " + "x" * 2_000_000, "seed: 0b" + "1" * 200_000]
)
def test_yaml_that_would_fill_the_memory(damaged, text, monkeypatch, capsys):
    (damaged / STUDENT / "config.yaml").write_text(text)
    assert page_or_line(damaged, "config.yaml") == ""
    for command in ("report", "run"):
        argument = damaged if command == "report" else damaged / STUDENT / "config.yaml"
        monkeypatch.setattr("sys.argv", ["tnr", command, str(argument)])
        with pytest.raises(SystemExit) as stop:
            main()
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.count("\n") == 1 and "config.yaml" in err and len(err) < 600


def test_sound_folders_give_a_page(experiment):
    assert "student" in page(experiment)
