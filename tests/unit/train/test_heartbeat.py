"""A rank that stops beating is named by the others."""

from tnr_dist.engines.environment import Environment
from tnr_dist.train import heartbeat
from tnr_dist.train.heartbeat import Heartbeat


def ranks(folder, n):
    return [Heartbeat(folder, Environment(r, n, r, n, "127.0.0.1", 0, "none")) for r in range(n)]


def test_the_one_that_stops_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "_EVERY", 0.02)
    monkeypatch.setattr(heartbeat, "_SILENT", 0.2)
    beats = ranks(tmp_path / "beats", 3)
    assert beats[0].silent() == []
    beats[1].close()
    names = beats[0].who()
    assert len(names) == 1 and names[0].startswith("rank 1 (host ")
    for beat in beats:
        beat.remove()
    assert not (tmp_path / "beats").exists()


def test_alone_writes_nothing(tmp_path):
    beat = Heartbeat(tmp_path / "beats", Environment(0, 1, 0, 1, "127.0.0.1", 0, "none"))
    assert not (tmp_path / "beats").exists()
    beat.remove()
