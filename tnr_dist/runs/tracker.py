"""What a run writes while it trains: metrics.jsonl (never a partial line after a resume), and the same to wandb."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from tnr_dist.config.schema import Config
from tnr_dist.engines.base import Engine
from tnr_dist.runs.checkpoint_files import Room
from tnr_dist.runs.environment import write_environment
from tnr_dist.runs.finished import read_done
from tnr_dist.runs.folder import RunFolder
from tnr_dist.runs.lineage import input_ids, log_checkpoints, log_result, use_inputs
from tnr_dist.runs.wandb import WandbRun
from tnr_dist.runs.wandb_tables import Table
from tnr_dist.util import lease
from tnr_dist.util.files import read_bytes, write_text
from tnr_dist.util.json_types import JsonObject

METRICS = "metrics.jsonl"
Record = Mapping[str, float | str]  # `step`, `samples` and figures by name, such as `train/loss`
_MOST_BYTES = 1 << 30  # of a metrics file: a million records


class MetricsFile:
    """Appends records; when a run resumes at a step, records of later steps are taken back first.

    `room`: what makes some on a full disk.
    """

    def __init__(self, path: Path, resume_step: int = 0, room: Room | None = None) -> None:
        self._room = room
        if path.exists():
            steps = [(record, record.get("step", 0)) for record in read_metrics(path)]
            kept = [record for record, step in steps if isinstance(step, int | float) and step <= resume_step]
            write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Append one record and hand it to the operating system."""
        lease.check(Path(self._file.name))
        try:
            self._file.write(json.dumps(record) + "\n")
            # Done again it writes what of the line is not written yet.
            if self._room is None:
                self._file.flush()
            else:
                self._room.write(self._file.flush)
        except OSError as error:
            error.filename = self._file.name  # a full disk does not say of itself which one it is
            raise

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # of a record that could not be written, which was said then
            self._file.close()


def read_metrics(path: Path) -> list[JsonObject]:
    """The records of a metrics file; a line that is none, such as one cut off by a crash, is left out."""
    if not path.is_file():
        return []
    records = []
    for line in read_bytes(path, _MOST_BYTES).decode("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # no JSON, a number of 5,000 digits; nested without end
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def of_part_batches(records: Sequence[Mapping[str, object]]) -> list[bool]:
    """Of every logged step whether it is an epoch's last one with fewer samples than the others.

    Its loss is a mean over those few samples: drawn beside the others it looks as if the training had moved.
    """
    places = [tuple(_number(record.get(key)) for key in ("step", "samples", "epoch")) for record in records]
    batches = [
        (samples - before[1]) / (step - before[0])
        for before, (step, samples, _) in zip([(0.0, 0.0, 0.0), *places], places, strict=False)
        if step > before[0]
    ]
    out = []
    for step, samples, epoch in places:
        steps = round(step / epoch) if epoch > 0 else 0  # of an epoch
        full = max(batches, default=0.0)
        at_its_end = steps > 1 and step % steps == 0
        out.append(at_its_end and samples * steps / step - (steps - 1) * full < full - 0.5)
    return out


def _number(value: object) -> float:
    """0 for what is no finite number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


class Tracker:
    """A run's metrics and its wandb run, written by rank 0. A context manager: how the block ends is how the run does.

    Further nodes add their system metrics to a run that is online; those of rank 0's node are its own. Offline that is
    not possible (the client's shared mode wants a server): the records' `ranks/…` then speak for the other nodes.
    """

    def __init__(self, run: RunFolder, engine: Engine) -> None:
        self.run, self.engine = run, engine
        self.last: dict[str, float | str] = {}  # of every key written, on rank 0
        self._file: MetricsFile | None = None
        self._wandb = WandbRun(None, "disabled")

    @property
    def wandb_id(self) -> str:
        """For the checkpoint, so that a resumed run continues there; '' without one."""
        return self._wandb.id

    def start(self, step: int, wandb_id: str, facts: Mapping[str, object]) -> None:
        """Begin at `step`, going on with the run `wandb_id` ('': RUN/wandb_id or a new one); called by all ranks."""
        environment = self.engine.environment
        nodes = environment.world_size > environment.local_world_size
        if environment.rank == 0:
            self._file = MetricsFile(
                self.run.path / METRICS, step, Room(self.run.path / "checkpoints", self.run.config.log.keep_every)
            )
            write_environment(self.run.path, self.engine)
            facts = {**facts, "stage": self.run.stage, "ranks": environment.world_size, "inputs": input_ids(self.run)}
            self._wandb = WandbRun.open(self.run.config, self.run.path, self.run.stage, facts, wandb_id, shared=nodes)
            use_inputs(self._wandb, self.run)
        if nodes:
            said = self._wandb.id if self._wandb.mode == "shared" else ""
            shared = self.engine.gather(np.frombuffer(said.encode(), np.uint8))[0].tobytes().decode()
            if shared and environment.rank and environment.local_rank == 0:
                label = f"node of rank {environment.rank}"
                self._wandb = WandbRun.join(self.run.config, self.run.path, shared, label)

    def write(self, record: Record, *, more: bool = False) -> None:
        """One record; `step` and `samples` say where it belongs. Rank 0's counts. `more`: others of this step may follow."""
        if self._file is not None:
            self._file.write(record)
            self.last |= record
            self._wandb.log(record, int(record["step"]), commit=not more)

    def finished(self) -> None:
        """The run folder is complete: name its model as what the run has made. Rank 0's call counts."""
        if self.engine.environment.rank == 0:
            log_result(self._wandb, self.run)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            log_checkpoints(self._wandb, self.run)
        self._wandb.finish(error)


def log_evaluation(path: Path, config: Config, figures: Record, tables: Callable[[], dict[str, Table]]) -> None:
    """Add what was found out after the training to a finished run's metrics.jsonl and to its wandb run. By rank 0.

    Args:
        path: the run folder; config: what the run was trained with, but for `wandb.mode`.
        figures: such as `eval/auc`.
        tables: made only when there is a wandb run to show them.
    """
    done = read_done(path, "training")
    step = done.get("steps", 0)
    record = {"step": step, "samples": done.get("samples", 0), **figures}
    metrics = MetricsFile(path / METRICS, step)
    metrics.write(record)
    metrics.close()
    logged = WandbRun.open(config, path, done["stage"], {})
    if logged.active:
        evaluations = sum("eval/split" in one for one in read_metrics(path / METRICS))
        logged.log(record, step + evaluations, tables())
    logged.finish()


def log_work(run: RunFolder) -> None:
    """A wandb run for a finished stage that has no steps to log: what it was made from, what it made. By rank 0."""
    logged = WandbRun.open(run.config, run.path, run.stage, {"inputs": input_ids(run)})
    use_inputs(logged, run)
    log_result(logged, run)
    logged.finish()
