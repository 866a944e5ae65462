"""What a run says of how it was made: without keys and passwords, and of this source, not of a project around it."""

import subprocess

from tnr_dist.runs.environment import command_line
from tnr_dist.util import revision


def test_the_command_line_holds_no_secrets():
    said = command_line(
        [
            "/somewhere/tnr_dist/cli.py",
            "run",
            "my config.yaml",
            "data.shards=https://me:secret@host/x?sig=abc",
            "data.input=pipe:cat key",
        ]
    )
    assert said == "tnr run 'my config.yaml' data.shards=https://host/x data.input=pipe:..."
    assert command_line(["/usr/bin/torchrun", "x"]) == "torchrun x" and command_line([]) == "tnr"


def test_a_commit_is_that_of_the_package_alone(tmp_path, monkeypatch):
    """A virtual environment inside another project's checkout does not make its commit ours."""
    package = tmp_path / "project" / ".venv" / "tnr_dist"
    package.mkdir(parents=True)

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path / "project", check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "x")
    monkeypatch.setattr(revision, "__file__", str(package / "util" / "revision.py"))
    assert revision.commit() == ""
    (tmp_path / "project" / "tnr_dist").mkdir()
    monkeypatch.setattr(revision, "__file__", str(tmp_path / "project" / "tnr_dist" / "util" / "revision.py"))
    assert len(revision.commit()) == 12
    (tmp_path / "project" / "tnr_dist" / "a.py").write_text("")
    git("add", ".")
    assert revision.commit()[12:] == "+"
    monkeypatch.setattr(revision, "__file__", str(tmp_path / "nothing" / "tnr_dist" / "util" / "revision.py"))
    assert revision.commit() == ""
