"""How a command ends: output that cannot be written, files that end too early, numbers that no machine has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tnr_dist.cli import app
from tnr_dist.data.prepare import prepare as preparation
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.stages.methods import load_config
from tnr_dist.util import ends, preemption
from tnr_dist.util.errors import InputError

FULL = Path("/dev/full")


def run(*arguments: object, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of a command in a process of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHONU", "PYTHONIO"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "tnr_dist.cli.app", *map(str, arguments)],
        stdout=stdout, stderr=stderr, env=environment | variables, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, (done.stderr or b"").decode("utf-8", "surrogateescape")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["stats", "verify", "--version", "--help"])
def test_output_on_a_full_device_is_one_line(prepared, command, unbuffered):
    arguments = [command] if command.startswith("-") else ["data", command, prepared]
    with FULL.open("w") as full:
        code, said = run(*arguments, stdout=full, PYTHONUNBUFFERED=unbuffered)
        assert code == 2
        lines = [line for line in said.splitlines() if line.startswith("tnr: ")]
        assert lines == ["tnr: standard output: No space left on device; make room and run it again"]
        assert said.splitlines()[-1] == lines[0] and "Traceback" not in said
        assert run(*arguments, stdout=full, stderr=full, PYTHONUNBUFFERED=unbuffered)[0] == 2
        # The work's own line goes before.
        code, said = run("data", "stats", prepared / "none", stdout=full)
        assert code == 2 and said.count("\n") == 1 and "not a prepared data set" in said


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_log_on_a_full_device_does_not_end_the_work(raw_mind, tiny_plm, tmp_path):
    with FULL.open("w") as full:
        arguments = ["--input", raw_mind, "--plm", tiny_plm, "--output", tmp_path / "out", "--processes", 1]
        assert run("data", "prepare", *arguments, stderr=full)[0] == 0
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_reader_that_has_gone_is_no_fault(prepared):
    for command in (["--help"], ["data", "stats", prepared]):
        reading, writing = os.pipe()
        os.close(reading)
        code, said = run(*command, stdout=writing)
        os.close(writing)
        assert code in (0, 1) and "Traceback" not in said and "Exception ignored" not in said


@pytest.mark.parametrize("message", ["", "Ran out of input"])
def test_an_end_of_file_is_said(prepared, monkeypatch, capsys, message):
    def ends(folder):
        raise EOFError(*([message] if message else []))

    monkeypatch.setattr(preparation, "read_manifest", ends)
    monkeypatch.setattr(sys, "argv", ["tnr", "data", "stats", str(prepared)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tnr: EOFError: {message or 'a file or a stream ends too early'} (")


@pytest.mark.parametrize("setting", ["threads=100000", "ranks=1025", "data.workers=1000000000"])
def test_numbers_that_no_machine_has_are_refused(setting):
    key, _, value = setting.partition("=")
    with pytest.raises(InputError, match=f"{key}={value}: .*at most 1,024 on one machine"):
        load_config(None, [setting])


def test_as_many_processes_are_refused(raw_mind, tiny_plm, tmp_path):
    options = PrepareOptions(input=str(raw_mind), plm=str(tiny_plm))
    with pytest.raises(InputError, match="--processes 100000: 1 to 1024"):
        prepare(options, tmp_path / "out", processes=100_000)


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}])
def test_names_that_are_not_ascii_work_in_any_locale(raw_mind, tiny_plm, tmp_path, variables):
    output = tmp_path / "ausgabe-ä-日本"
    arguments = ["--input", raw_mind, "--plm", tiny_plm, "--output", output, "--processes", 1]
    assert run("data", "prepare", *arguments, **variables)[0] == 0
    for command in (["stats", output], ["verify", output]):
        code, said = run("data", *command, **variables)
        assert code == 0, said
    assert (output / "manifest.json").is_file()
    code, said = run("data", "stats", output / "none", **variables)
    assert code == 2 and said.startswith("tnr: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["pipe:curl -H 'Key: secret' x"],
        ["c.yaml", "pipe:curl -H 'Key: secret' x"],
        ["c.yaml", "data=pipe:echo secret"],
        ["c.yaml", "data={shards: [pipe:echo secret]}"],
        ["c.yaml", "rows=[{name: a, set: [data.shards=pipe:echo secret]}]"],
        ["c.yaml", "data.shards=pipe:echo secret", "data.dir=none"],
        ["c.yaml", "data.shards=https://me:sec/ret@host/x?y=secret", "data.history=0"],
        ["c.yaml", "pipe:echo secret=x"],
        ["--option=pipe:echo secret", "c.yaml"],
        ["c.yaml", "data.workers=https://me:secret@host/"],
    ],
)
def test_messages_do_not_show_secrets_of_the_command_line(arguments, tmp_path, monkeypatch, capsys):
    (tmp_path / "c.yaml").write_text("output: run\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preemption, "listen", lambda: None)
    monkeypatch.setattr(sys, "argv", ["tnr", "stage2", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert "secret" not in said and "sec/ret" not in said, said


def test_the_last_line_says_what_was_made(prepared, tiny_plm, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        f"output: {tmp_path / 'run'}\nthreads: 1\nprecision: fp32\ndata: {{dir: {prepared}, history: 10, title_tokens: 24}}\n"
        f"plm: {{name: {tiny_plm}}}\nmodel: {{news_dim: 16, query_dim: 8}}\nlog: {{every: 1}}\n"
        "finetune: {init: plm, layers: 1, batch_size: 32, max_steps: 2}\n"
    )
    folder = tmp_path / "run" / "finetune-1"
    code, said = run("finetune", config, "ranks=2")
    assert code == 0, said
    *_, last = said.splitlines()
    assert re.fullmatch(rf"tnr: done: {folder}: 2 steps in \d+ s, loss \d\.\d{{4}}", last) and said.count("tnr: ") == 1
    code, said = run("finetune", config)
    assert code == 0 and said.splitlines()[-1] == f"tnr: done: {folder}: was complete"
    code, said = run("evaluate", config, f"evaluate.run={folder}")
    last = said.splitlines()[-1]
    assert code == 0 and re.match(rf"tnr: done: {folder}/results.json: AUC \d\d\.\d\d, MRR .* impressions of dev", last)
    code, said = run("data", "stats", prepared)
    assert code == 0 and said == ""


def test_nothing_is_done_where_what_was_printed_is_lost(monkeypatch, capsys):
    ends.result("a: made")
    with pytest.raises(SystemExit):
        ends.end(1)
    ends.end(0)  # the next command of this process
    assert capsys.readouterr().err == ""
    ends.result("a: made")
    monkeypatch.setattr(ends, "_unwritten", lambda stream, number: "standard output: full")
    with pytest.raises(SystemExit) as ended:
        ends.end(0)
    assert ended.value.code == 2 and capsys.readouterr().err == "tnr: standard output: full\n"
