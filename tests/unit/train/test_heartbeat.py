"""A rank that stops beating is named by the others."""

from types import SimpleNamespace

import pytest
import torch

from tnr_dist.cli import engine as command_engine
from tnr_dist.launch.environment import Environment
from tnr_dist.stages.methods import Tree
from tnr_dist.train import heartbeat
from tnr_dist.train.heartbeat import Heartbeat, watched
from tnr_dist.util import preemption
from tnr_dist.util.errors import RankLost


def ranks(folder, n):
    return [Heartbeat(folder, Environment(r, n, r, n, "127.0.0.1", 0, "none")) for r in range(n)]


def test_the_one_that_stops_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "_EVERY", 0.02)
    monkeypatch.setattr(heartbeat, "_SILENT", 0.2)
    beats = ranks(tmp_path / "beats", 3)
    assert beats[0].silent() == []
    beats[1].close()
    names = beats[0].wait_for_silent()
    assert len(names) == 1 and names[0].startswith("rank 1 (host ")
    for beat in beats:
        beat.remove()
    assert not (tmp_path / "beats").exists()


def test_alone_writes_nothing(tmp_path):
    beat = Heartbeat(tmp_path / "beats", Environment(0, 1, 0, 1, "127.0.0.1", 0, "none"))
    assert not (tmp_path / "beats").exists()
    beat.remove()


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4. GLHF!"


@pytest.mark.parametrize(("text", "kind"), [(GLOO, RankLost), ("shapes differ", RuntimeError)])
def test_a_rank_that_is_ended_because_of_another_says_so_itself(tmp_path, text, kind):
    """Its launcher tells it to stop before it can find out who is gone."""
    _, other = ranks(tmp_path, 2)
    preemption.request_stop()
    try:
        with pytest.raises(kind) as found, watched(tmp_path, Environment(0, 2, 0, 2, "127.0.0.1", 0, "none")):
            raise RuntimeError(text)
    finally:
        preemption.clear_request()
        other.close()
    assert found.type is kind
    if kind is RankLost:
        assert "lost another rank, or the way to it (Connection closed by peer [127.0.0.1]:4); run" in str(found.value)


def test_memory_that_a_rank_lacks_is_its_own_trouble(tmp_path):
    """Whoever else is gone by then."""
    with pytest.raises(torch.OutOfMemoryError), watched(tmp_path, Environment(0, 2, 0, 2, "127.0.0.1", 0, "none")):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_command_that_loses_a_rank_outside_of_training_says_so_too(monkeypatch):
    place = Environment(1, 2, 1, 2, "127.0.0.1", 0, "none")
    stand_in = SimpleNamespace(environment=place, device="cpu", close=lambda: None)
    monkeypatch.setattr("tnr_dist.engines.make.make_engine", lambda *_: stand_in)
    monkeypatch.setattr("tnr_dist.stages.parts.terms.terms_of", lambda *_: None)
    monkeypatch.setattr(command_engine, "_BEFORE_LOST", 0.0)
    with (
        pytest.raises(RankLost, match="rank 1: lost another rank"),
        command_engine.open_engine(Tree(), "cache", stops=False),
    ):
        raise RuntimeError(GLOO)
