"""Work done ahead: order, errors, and an end to the thread in every case."""

import threading

import pytest

from tnr_dist.util.transfer import run_ahead


def alive():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_items_in_order():
    assert list(run_ahead(lambda: iter(range(100)), 3, "ahead")) == list(range(100))
    assert not alive()


def test_an_error_arrives_after_the_items_before_it():
    def make():
        yield 1
        raise ValueError("late")

    items = run_ahead(make, 2, "ahead")
    assert next(items) == 1
    with pytest.raises(ValueError, match="late"):
        next(items)
    assert not alive()


def test_closing_ends_the_thread_and_its_iterator():
    closed = []

    def make():
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    items = run_ahead(make, 2, "ahead")
    assert next(items) == 0
    items.close()
    assert closed and not alive()


def test_only_so_many_are_made_ahead():
    made = []
    items = run_ahead(lambda: (made.append(i) or i for i in range(100)), 2, "ahead")
    next(items)
    threading.Event().wait(0.2)
    assert len(made) <= 5
    items.close()
