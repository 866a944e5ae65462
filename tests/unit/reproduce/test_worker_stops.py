"""The parent of workers, whose processes are threads here that answer as they are told."""

import multiprocessing
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from tnr_dist.reproduce import workers
from tnr_dist.stages.methods import Tree


@dataclass(frozen=True)
class Run:
    """What `run_works` asks of a run."""

    key: Path
    needs: list[Path] = field(default_factory=list)
    seed: int = 0

    def is_complete(self) -> bool:
        return False


def made_by(monkeypatch, folder: Path, works: list[Run], answers: list[list[str]]) -> list[str]:
    """The runs that workers were given. `answers`: of each worker in turn; it is gone after its last one."""
    made: list[str] = []
    workers_left, found, gone = iter(answers), [], threading.Event()

    def serve(connection, ends: list[str]) -> None:
        for end in ends:
            made.append(connection.recv().key.name)
            connection.send((end, ""))
        connection.close()
        gone.set()

    def start(*_):
        mine, theirs = multiprocessing.Pipe()
        threading.Thread(target=serve, args=(theirs, next(workers_left)), daemon=True).start()
        return workers._Worker(SimpleNamespace(is_alive=lambda: False), mine)

    monkeypatch.setattr(workers, "_start", start)
    monkeypatch.setattr(workers, "say", lambda _: gone.wait(10))  # what the parent does between two runs
    parent = threading.Thread(
        target=lambda: found.append(workers.run_works(works, Tree(), 1, folder, "test")), daemon=True
    )
    parent.start()
    parent.join(20)
    assert found == [workers.Outcome()]
    return made


WORKS = [Run(Path("teacher")), Run(Path("student"), [Path("teacher")])]


def test_a_run_whose_worker_alone_was_told_to_stop_is_gone_on_with(monkeypatch, tmp_path):
    made = made_by(monkeypatch, tmp_path, WORKS, [["preempted"], ["done", "done"]])
    assert made == ["teacher", "teacher", "student"]


def test_a_worker_that_dies_between_two_runs_is_replaced(monkeypatch, tmp_path):
    made = made_by(monkeypatch, tmp_path, WORKS, [["done"], ["done"]])
    assert made == ["teacher", "student"]
