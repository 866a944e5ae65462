"""A request to stop is the process's: it counts from the first moment, once."""

import os
import signal
import subprocess
import sys

import pytest

from tnr_dist.train import preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_kept_until_it_is_granted(number):
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        preemption.listen()
        assert not preemption.asked()
        os.kill(os.getpid(), number)
        preemption.listen()  # the loop listens again; what came before it stays
        assert preemption.asked()
        preemption.forget()
        assert not preemption.asked()
    finally:
        preemption.forget()
        for s, handler in before.items():
            signal.signal(s, handler)


SIGNALS_IN_EVERY_LINE = """
import os, signal, sys
from tnr_dist.train import preemption

def again(frame, event, argument):
    os.kill(os.getpid(), signal.SIGUSR1)
    return again

preemption.listen()
sys.settrace(again)
preemption._ask(signal.SIGTERM, None)
preemption.forget()
sys.settrace(None)
print("over")
"""


def test_a_signal_in_the_middle_of_another_is_no_deadlock():
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS_IN_EVERY_LINE], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "over\n"
