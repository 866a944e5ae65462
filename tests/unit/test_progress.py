from tnr_dist.progress import Bar


def test_plain_lines_without_a_terminal(capsys):
    with Bar("count", 4, "things", every=0) as bar:
        bar.advance(1, "note")
        bar.advance(3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("count: 1/4 ") and "things/s" in lines[0] and lines[0].endswith("note")
    assert lines[-1].startswith("count: 4 things in ")


def test_the_last_note_stays(capsys):
    with Bar("count", 3, "things", every=0) as bar:
        bar.advance(1, "loss 2")
        bar.advance(1)
    assert capsys.readouterr().err.splitlines()[1].endswith("loss 2")


def test_silent_on_other_ranks(capsys):
    with Bar("count", 4, enabled=False, every=0) as bar:
        bar.advance(4)
    assert capsys.readouterr().err == "" and bar.done == 4
