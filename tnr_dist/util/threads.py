"""Work done ahead in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def run_ahead(make: Callable[[], Iterator[T]], ahead: int, name: str) -> Generator[T]:
    """Run the iterator that `make` returns in a thread, at most `ahead` items before the consumer.

    Errors arrive where the item would have; closing the generator ends the thread.
    """
    items: queue.Queue[Any] = queue.Queue(maxsize=ahead)
    stop = threading.Event()
    end = object()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                items.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            made = make()
            try:
                for item in made:
                    if not put((item, None)):
                        return
            finally:
                if isinstance(made, Generator):
                    made.close()
            put((end, None))
        except BaseException as error:  # handed to the consumer, whatever it is
            put((end, error))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        thread.join()
