"""`tnr init` writes what a checkout has, whole, executable, and over nothing of the user's."""

import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.cli.bad_table import snapshot
from tnr_dist.cli.app import app
from tnr_dist.launch import scripts
from tnr_dist.reproduce import command
from tnr_dist.util.errors import InputError

ROOT = Path(__file__).parents[3]


def init(*arguments):
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def test_every_tracked_file_is_written_with_its_content_and_mode(tmp_path):
    done = init(tmp_path / "news" / "work")
    assert done.exit_code == 0, done.output
    listed = subprocess.run(
        ["git", "ls-files", "--stage", *scripts.FOLDERS], cwd=ROOT, text=True, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a checkout: git cannot say which files there are")
    tracked = {line.split("\t")[1]: line.startswith("100755") for line in listed.stdout.splitlines()}
    written = {str(path): path for path in scripts.shipped_files(tmp_path / "news" / "work")}
    assert sorted(written) == sorted(tracked) and len(tracked) > 30
    for name, executable in tracked.items():
        path = tmp_path / "news" / "work" / name
        assert path.read_bytes() == (ROOT / name).read_bytes()
        assert os.access(path, os.X_OK) == executable, name


def test_it_says_the_next_two_steps(tmp_path):
    done = init(tmp_path / "my work")
    assert done.stdout.splitlines() == [
        f"On this machine: cd '{tmp_path}/my work'; tnr run configs/demo.yaml",
        "On Slurm: put account, partition and GPUs into slurm/env.local.sh; then slurm/pipeline.sh CONFIG --dry-run",
    ]


def test_a_second_time_nothing_changes(tmp_path):
    init(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = init(tmp_path)
    assert done.exit_code == 0 and "all files exist already" in done.output
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_only_what_is_missing_comes_back(tmp_path):
    init(tmp_path)
    (tmp_path / "slurm" / "env.local.sh").write_text("TNR_ACCOUNT=news\n")
    (tmp_path / "slurm" / "job.sh").unlink()
    (tmp_path / "launch" / "local.sh").chmod(0o644)
    assert scripts.write_scripts(tmp_path) == [tmp_path / "slurm" / "job.sh"]
    assert os.access(tmp_path / "launch" / "local.sh", os.X_OK)
    assert (tmp_path / "slurm" / "env.local.sh").read_text() == "TNR_ACCOUNT=news\n"


def test_other_content_is_an_error_and_then_nothing_is_written(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text("output: mine\n")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"configs/demo.yaml: exists with other content; nothing was written"):
        scripts.write_scripts(tmp_path)
    assert snapshot(tmp_path) == before
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "local.sh").write_text("mine\n")
    with pytest.raises(InputError, match=r"demo.yaml \(and 1 more\)"):
        scripts.write_scripts(tmp_path)


def test_force_replaces_it(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text("output: mine\n")
    assert init(tmp_path, "--force").exit_code == 0
    assert (tmp_path / "configs" / "demo.yaml").read_bytes() == (ROOT / "configs" / "demo.yaml").read_bytes()


@pytest.mark.parametrize("place", ["slurm", "slurm/env.sh"])
def test_force_removes_no_folder_and_goes_through_no_file(tmp_path, place):
    if place == "slurm":
        (tmp_path / place).write_text("a file")
    else:
        (tmp_path / place).mkdir(parents=True)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=rf"{place}: is there and no f"):
        scripts.write_scripts(tmp_path, force=True)
    assert snapshot(tmp_path) == before


def test_an_interrupted_write_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def fails(path, content):
        assert path.read_bytes() == content and path.suffix == ".tmp"
        raise KeyboardInterrupt

    monkeypatch.setattr(scripts, "_make_executable", fails)
    with pytest.raises(KeyboardInterrupt):
        scripts.write_scripts(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_clusters_own_settings_and_compiled_files_are_not_passed_on(tmp_path, monkeypatch):
    source = tmp_path / "checkout"
    for name in ("slurm/env.sh", "slurm/env.local.sh", "slurm/__pycache__/steps.pyc", "launch/.swp", "configs/a.yaml"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    monkeypatch.setattr(scripts, "shipped_folder", lambda: source)
    written = scripts.write_scripts(tmp_path / "to")
    assert [str(path.relative_to(tmp_path / "to")) for path in written] == ["configs/a.yaml", "slurm/env.sh"]


def test_reproduce_submits_with_the_scripts_of_the_current_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert scripts.find_script("reproduce.sh") == ROOT / "slurm" / "reproduce.sh"
    init(tmp_path)
    (tmp_path / "slurm" / "reproduce.sh").write_text('echo "$0 $*"; exit 7\n')
    assert command.submit(["fig3", "fig4"], Path("c.yaml"), ["seeds=2"]) == 7
    assert capfd.readouterr().out == f"{tmp_path}/slurm/reproduce.sh fig3 c.yaml seeds=2\n"


def test_help_says_what_it_does():
    said = " ".join(CliRunner().invoke(app, ["init", "--help"]).output.split())
    assert all(text in said for text in ("configs/, launch/ and slurm/", "--force", "exit code 2", "env.local.sh"))
