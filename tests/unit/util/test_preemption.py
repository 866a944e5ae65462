"""A request to stop is the process's: it counts from the first moment, once."""

import os
import signal
import subprocess
import sys

import pytest

from tnr_dist.util import preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_kept_until_it_is_granted(number):
    handler = signal.getsignal(number)
    try:
        with preemption.listening():
            assert not preemption.stop_requested()
            os.kill(os.getpid(), number)
            with preemption.listening():  # the loop listens again; what came before it stays
                assert preemption.stop_requested()
            preemption.clear_request()
            assert not preemption.stop_requested()
            os.kill(os.getpid(), number)  # the outer one still does
            assert preemption.stop_requested()
        assert signal.getsignal(number) is handler and preemption.stop_requested()
    finally:
        preemption.clear_request()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_command_grants_signals_to_its_very_end(number):
    program = "import os, sys; from tnr_dist.util import preemption; preemption.listen(); os.kill(os.getpid(), int(sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", program, str(int(number))], timeout=20).returncode == 0


SIGNALS_IN_EVERY_LINE = """
import os, signal, sys
from tnr_dist.util import preemption

def again(frame, event, argument):
    os.kill(os.getpid(), signal.SIGUSR1)
    return again

preemption.listen()
sys.settrace(again)
preemption._handle_signal(signal.SIGTERM, None)
preemption.clear_request()
sys.settrace(None)
print("over")
"""


def test_a_signal_in_the_middle_of_another_is_no_deadlock():
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS_IN_EVERY_LINE], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "over\n"
