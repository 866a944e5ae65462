import io
import re
import time

import pytest
from rich.console import Console
from rich.text import Text

from tnr_dist.train.throughput import status
from tnr_dist.util import progress
from tnr_dist.util.progress import Bar, say


def test_plain_lines_without_a_terminal(capsys):
    with Bar("count", 4, "things", every=0) as bar:
        bar.advance(1, "note")
        bar.advance(3)
    lines = capsys.readouterr().err.splitlines()
    assert " count: 1/4 " in lines[0] and "things/s" in lines[0] and lines[0].endswith("note")
    assert " count: 4 things in " in lines[-1]


def test_lines_of_a_log_say_when(capsys, monkeypatch):
    say("begun")
    say("tnr: ended", dated=False)
    first, second = capsys.readouterr().err.splitlines()
    when, _, text = first.partition(" ")
    assert text == "begun" and second == "tnr: ended"
    assert abs(time.mktime(time.strptime(when, "%Y-%m-%dT%H:%M:%S")) - time.time()) < 60
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    say("begun")
    assert capsys.readouterr().err == "begun\n"


def test_what_an_earlier_start_has_done_is_no_part_of_the_rate(capsys):
    with Bar("train", 60, "steps", every=0) as bar:
        bar.skip(36)
        bar._start -= 60
        assert bar.line(200, 90.0).plain.endswith("36/60 1:30 left")  # no rate yet
        bar.advance(24)
        assert bar.rate() == pytest.approx(24 / 60, rel=0.05) and bar.done == 60
        assert "steps/s" in bar.line(200, 0.0).plain
    with Bar("train", 60, "steps", every=0) as bar:
        bar.skip(36)
        bar._start -= 60
        bar.advance(12)
    lines = capsys.readouterr().err.splitlines()
    left = re.search(r"train: 48/60 0.20 steps/s, (\d+) s left", lines[2])
    assert left and 55 <= int(left[1]) <= 65, lines[2]
    assert re.search(r"train: 12 of 48 steps in \d+.\d s$", lines[3])


def test_on_a_terminal_too(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(progress, "_stderr", Console(file=out, force_terminal=True, width=100))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Bar("train", 60, "steps") as bar:
        bar.skip(36)
        assert bar._rich.tasks[0].time_remaining is None  # not known before a step of this start
        bar.advance(1)
        assert bar._rich.tasks[0].completed == 37


def test_the_last_note_stays(capsys):
    with Bar("count", 3, "things", every=0) as bar:
        bar.advance(1, "loss 2")
        bar.advance(1)
    assert capsys.readouterr().err.splitlines()[1].endswith("loss 2")


def test_silent_on_other_ranks(capsys):
    with Bar("count", 4, enabled=False, every=0) as bar:
        bar.advance(4)
    assert capsys.readouterr().err == "" and bar.done == 4


RANKS = {f"ranks/{name}_{rank}": 4.7 for name in ("data_wait_pct", "max_gib") for rank in range(2)}
RECORD = {"train/loss": 1.2345, "perf/samples_per_s": 1234.0, "perf/data_wait_pct": 3.0, "memory/max_gib": 4.7} | RANKS


@pytest.mark.parametrize("title", ["stage2-2", "finetune, teacher 1", "tinybert-intermediate-4"])
@pytest.mark.parametrize("width", [50, 80, 100, 200])
def test_on_a_narrow_terminal_the_note_goes_first(monkeypatch, title, width):
    """Stage, bar, step and time left of a training on two ranks."""
    out, note = io.StringIO(), status(RECORD, 2)
    monkeypatch.setattr(progress, "_stderr", Console(file=out, force_terminal=True, width=width))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Bar(title, 3_383_656, "steps") as bar:
        bar._start -= 1000
        bar.advance(1_234_567, note)
        lines = [bar.line(width, left).plain for left in (None, 1.0, 59.6, 754.0, 45296.0)]
    for line, left in zip(lines, ("-:--", "0:01", "1:00", "12:34", "12:34:56"), strict=True):
        assert len(line) <= width and line.startswith(title if width >= 80 else title[:4])
        assert f" 1,234,567/3,383,656 {left} left" in line and line.count("━") >= 10
        if width >= 100:
            assert "loss 1.2345" in line
        parts = line.partition("steps/s ")[2]
        assert note.startswith(parts) and (parts == note or note[len(parts)] in ",l")  # no figure is cut
    shown = Text.from_ansi(out.getvalue()).plain
    assert title[:4] in shown and "1,234,567/3,383,656" in shown


def test_the_bar_fills(monkeypatch):
    with Bar("count", 4, enabled=False) as bar:
        spans = []
        for _ in range(5):
            line = bar.line(80, 1.0)
            spans.append(sum(span.end - span.start for span in line.spans if span.style == "bar.complete"))
            bar.advance(1)
    assert spans == [0, 10, 20, 30, 40]
