"""Malformed input over every command: one clear line, exit code 2, nothing lost, nothing half-written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.signals import given_back
from tests.unit.cli import bad_data, bad_raw, bad_runs, bad_settings
from tests.unit.cli.bad_table import CASES, Case, snapshot
from tnr_dist.cli.app import main

LONGEST = 1100  # characters of a clear line
# What a run folder may hold that was begun and came to nothing: the same command takes it up again.
BEGUN = {"begun.json", "config.yaml", "environment.json", "metrics.jsonl", "wandb_id"}
# A stage's own progress, such as `tokenise titles: 300 texts in 0.1 s`.
PROGRESS = re.compile(r"[\w\-:, ]+: [\d,]+ \w+ in [\d.]+ s")


def run(arguments, monkeypatch, capsys) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["tnr", *map(str, arguments)])
    capsys.readouterr()
    code = 0
    try:
        with given_back():
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """As at a prompt: pytest would keep a library's warnings, which a user sees, to itself."""
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning | ImportWarning | ResourceWarning):
        print(f"{category.__name__}: {message}", file=sys.stderr)


def check_line(err: str, case: Case) -> None:
    *before, line = err.splitlines()
    assert line.startswith("tnr: ") and not any(one.startswith("tnr:") for one in before), err
    assert "Traceback" not in err and line.isprintable() and len(line) < LONGEST, line
    assert not before or case.working, err
    for text in case.says:
        assert text in line, err


def check_folder(before: dict[str, str], after: dict[str, str], case: Case) -> None:
    lost = {name for name in before if after.get(name) != before[name]}
    assert not lost, f"lost or changed: {lost}"
    new = {name for name, what in after.items() if name not in before and what != "folder"}
    if case.begun:
        new = {name for name in new if Path(name).name not in BEGUN}
    assert not new, f"left behind: {sorted(new)}"


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_bad_input(case, place, monkeypatch, capsys):
    monkeypatch.setattr("warnings.showwarning", show_warning)
    arguments = case.arguments(place)
    before = snapshot(place.path)
    code, out, err = run(arguments, monkeypatch, capsys)
    assert code == 2, (code, err)
    assert not out or case.working, out
    check_line(err, case)
    check_folder(before, snapshot(place.path), case)
    assert not (place.path / "executed").exists()


def test_the_table_covers_every_command():
    """Each command that `tnr --help` names has a case of its own."""
    import typer.main

    from tnr_dist.cli.app import app

    names = set()
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        names |= {f"{name} {one}" for one in inner} if inner else {name}
    source = "".join(Path(module.__file__).read_text() for module in (bad_raw, bad_settings, bad_data, bad_runs))
    source += Path(__file__).with_name("bad_table.py").read_text()
    missing = {name for name in names if '"' + '", "'.join(name.split()) + '"' not in source}
    assert not missing
    assert len(CASES) >= 60


def test_what_cases_share_was_not_changed(place):
    """Cases work on copies: after all of them the shared data set is still what its manifest says."""
    from tnr_dist.data.prepare.verify import verify_prepared

    assert not [finding for finding in verify_prepared(place.prepared) if finding.level == "error"]
