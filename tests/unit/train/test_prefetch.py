"""Batches on the device ahead of the step."""

import contextlib

import pytest
import torch

from tnr_dist.util.transfer import prefetch


class Stream:
    """Notes what it is told to wait for."""

    def __init__(self, device=None):
        self.awaited = []

    def wait_stream(self, other):
        self.awaited.append(other)

    def wait_event(self, event):
        pass


class Event:
    def record(self, stream):
        pass


def test_copies_come_after_what_was_computed_before(monkeypatch):
    """The copies' stream reads the frozen layers' states, which the other one may still be computing."""
    current, streams = Stream(), []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams.append(Stream()) or streams[-1])
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", Event)

    def to_device(batch):
        assert streams[0].awaited == [current]
        return batch + 1

    assert list(prefetch(iter(range(3)), to_device, torch.device("cuda"))) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.gpu
def test_inputs_are_of_finished_states():
    device = torch.device("cuda")
    states, index = torch.zeros(1 << 20, device=device), torch.arange(1 << 20, device=device)
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)  # what comes before the states takes half a second
    states += 1
    inputs = [values for _, values in prefetch(iter(range(3)), lambda batch: states[index], device)]
    assert all(bool((values == 1).all()) for values in inputs)
