"""The parent of workers, whose processes are threads here that answer as they are told."""

import multiprocessing
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from tnr_dist.config import Config
from tnr_dist.reproduce import workers


@dataclass(frozen=True)
class Run:
    """What `run_works` asks of a run."""

    key: Path
    needs: list[Path] = field(default_factory=list)
    seed: int = 0

    def is_complete(self) -> bool:
        return False


def test_a_run_whose_worker_alone_was_told_to_stop_is_gone_on_with(monkeypatch, tmp_path):
    answers = iter([("preempted", "stopped"), ("done", ""), ("done", "")])
    made: list[str] = []

    def serve(connection) -> None:
        while True:
            try:
                made.append(connection.recv().key.name)
            except (EOFError, OSError):
                return
            connection.send(end := next(answers))
            if end[0] != "done":
                return

    def start(*_):
        mine, theirs = multiprocessing.Pipe()
        threading.Thread(target=serve, args=(theirs,), daemon=True).start()
        return workers._Worker(SimpleNamespace(is_alive=lambda: False), mine)

    monkeypatch.setattr(workers, "_start", start)
    works = [Run(Path("teacher")), Run(Path("student"), [Path("teacher")])]
    found: list[workers.Outcome] = []
    monkeypatch.setattr(workers.preemption, "listen", lambda: None)  # signals are the main thread's
    parent = threading.Thread(
        target=lambda: found.append(workers.run_works(works, Config(), 1, tmp_path, "test")), daemon=True
    )
    parent.start()
    parent.join(20)
    assert found == [workers.Outcome()] and made == ["teacher", "teacher", "student"]
