"""What this machine is, and who else works on it."""

import time
from collections import namedtuple

import psutil
import pytest

from tnr_dist.hardware import OtherWork

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")


@pytest.mark.parametrize(
    ("after", "own", "cores"),
    [
        (Times(120, 0, 0, 100, 0, 0, 0, 0, 0, 0), 20, 0.0),  # all of the work was this process's
        (Times(120, 0, 0, 100, 0, 0, 0, 0, 0, 0), 5, 1.5),
        (Times(108, 4, 1, 100, 7, 1, 1, 5, 0, 0), 10, 1.0),
        (Times(120, 0, 0, 100, 0, 0, 0, 0, 20, 0), 10, 1.0),  # a guest's time is in user, too
        (Times(120, 0, 0, 100, 0, 0, 0, 0, 0, 0), 21, 0.0),  # by rounding
    ],
)
def test_work_of_others(after, own, cores, monkeypatch):
    clock = iter([1000.0, 1010.0])
    used = iter([3.0, 3.0 + own])
    times = iter([Times(100, 0, 0, 100, 0, 0, 0, 0, 0, 0), after])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time, "process_time", lambda: next(used))
    others = OtherWork()
    found = others.cores()
    monkeypatch.undo()
    assert found == pytest.approx(cores)


def test_work_of_this_machine_is_a_number_of_cores():
    others = OtherWork()
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    assert 0 <= others.cores() <= (psutil.cpu_count() or 1) + 0.5
