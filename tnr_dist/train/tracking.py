"""metrics.jsonl: one JSON object a logged step, never a partial line after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tnr_dist.files import write_text


class MetricsFile:
    """Appends records; when a run resumes at a step, records of later steps are taken back first."""

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        if path.exists():
            kept = [record for record in read_metrics(path) if record.get("step", 0) <= resume_step]
            write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record and hand it to the operating system."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; a line cut off by a crash is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
