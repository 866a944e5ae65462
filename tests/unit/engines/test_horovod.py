"""Horovod's traps that can be seen without it."""

import ast
import sys
import types
from pathlib import Path

import pytest

from tnr_dist.engines.horovod import engine as engine
from tnr_dist.engines.horovod.start import _environment, _places, load_horovod
from tnr_dist.util.errors import InputError

SOURCES = sorted(Path(engine.__file__).parent.glob("*.py"))
MESSAGES = ("allreduce", "allgather", "alltoall", "broadcast", "reducescatter", "grouped_allreduce")


def calls():
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield source.name, node.lineno, node.func.attr, {keyword.arg for keyword in node.keywords}


def test_every_message_has_a_name():
    """Unnamed ones are counted by each rank for itself: ranks that counted differently wait for ever."""
    found = [c for c in calls() if c[2].removesuffix("_").removesuffix("_async") in MESSAGES]
    assert len(found) >= 7
    assert [c for c in found if "name" not in c[3]] == []


def test_what_makes_a_step_or_has_no_name_is_not_called():
    avoided = {"broadcast_optimizer_state", "broadcast_object", "allgather_object", "barrier"}
    assert [c for c in calls() if c[2] in avoided] == []


def test_a_horovod_without_its_extension(monkeypatch):
    fake = types.ModuleType("horovod")
    fake.torch = types.ModuleType("horovod.torch")
    monkeypatch.setitem(sys.modules, "horovod", fake)
    monkeypatch.setitem(sys.modules, "horovod.torch", fake.torch)
    with pytest.raises(InputError, match=r"does not load; run launch/install_horovod\.sh"):
        load_horovod()


def test_no_horovod(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(InputError, match=r"not installed; run launch/install_horovod\.sh"):
        load_horovod()


def test_a_horovod_of_another_pytorch(monkeypatch, tmp_path):
    (tmp_path / "metadata.json").write_text('{"pytorch": "1.0"}')
    fake = types.ModuleType("horovod")
    fake.torch, fake.__file__ = types.ModuleType("horovod.torch"), str(tmp_path / "__init__.py")
    fake.torch.init = None
    monkeypatch.setitem(sys.modules, "horovod", fake)
    monkeypatch.setitem(sys.modules, "horovod.torch", fake.torch)
    with pytest.raises(InputError, match=r"built for PyTorch 1\.0"):
        load_horovod()


def test_places_on_uneven_nodes():
    places = _places(["a", "a", "b", "a"])
    assert [(p.local_rank, p.local_size, p.cross_rank, p.cross_size) for p in places] == [
        (0, 3, 0, 2), (1, 3, 0, 1), (0, 1, 1, 2), (2, 3, 0, 1),
    ]  # fmt: skip


def test_variables_for_the_start_only(monkeypatch):
    monkeypatch.setenv("HOROVOD_A", "old")
    monkeypatch.delenv("HOROVOD_B", raising=False)
    import os

    with _environment({"HOROVOD_A": "new", "HOROVOD_B": "new"}):
        assert os.environ["HOROVOD_A"] == os.environ["HOROVOD_B"] == "new"
    assert os.environ["HOROVOD_A"] == "old" and "HOROVOD_B" not in os.environ
