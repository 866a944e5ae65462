"""What the wandb client has written offline, read back: its log of records (LevelDB's format) and the tables beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32_768
_FULL, _FIRST, _LAST = 1, 2, 4


@dataclass
class Offline:
    """One process's part of a run."""

    run: Any  # RunRecord
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)  # name or glob -> step metric
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None
    preempting: bool = False
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_offline(run: Path) -> list[Offline]:
    """The parts of a run folder's run, oldest first; the client's process is ended, so that all is on disk."""
    import wandb

    wandb.teardown()
    return [
        _read(file)
        for file in sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    ]


def _read(file: Path) -> Offline:
    from wandb.proto.wandb_internal_pb2 import Record

    out = Offline(None)
    for data in _records(file.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            out.run = record.run
            out.config.update({item.key: json.loads(item.value_json) for item in record.run.config.update})
        elif kind == "config":
            out.config.update({item.key: json.loads(item.value_json) for item in record.config.update})
        elif kind == "history":
            out.history.append(_values(record.history.item))
        elif kind == "metric":
            out.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            out.artifacts.append(record.artifact)
        elif kind == "exit":
            out.exit_code = record.exit.exit_code
        elif kind == "preempting":
            out.preempting = True
    for values in out.history:
        for key, value in values.items():
            if isinstance(value, dict) and value.get("_type") == "table-file":
                out.tables[key] = json.loads((file.parent / "files" / value["path"]).read_text())
    return out


def _values(items: Any) -> dict[str, Any]:
    """A record's values by key; those of an object stand one by one, with the path inside it."""
    values: dict[str, Any] = {}
    for item in items:
        first, *rest = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if rest:
            values.setdefault(first, {})["/".join(rest)] = value
        else:
            values[first] = value
    return values


def _records(data: bytes) -> list[bytes]:
    position, records, part = 7, [], b""  # the file's own header
    while position + 7 <= len(data):
        if _BLOCK - position % _BLOCK < 7:
            position += _BLOCK - position % _BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        if not kind:
            break
        body = data[position + 7 : position + 7 + length]
        position += 7 + length
        part = body if kind in (_FULL, _FIRST) else part + body
        if kind in (_FULL, _LAST):
            records.append(part)
    return records
