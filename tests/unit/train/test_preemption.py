"""A request to stop is the process's: it counts from the first moment, once."""

import os
import signal

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
