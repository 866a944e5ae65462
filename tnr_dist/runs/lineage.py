"""Data, teacher caches, models and checkpoints as wandb artifacts: references to the files, which stay where they are.

An artifact's version changes when its small files of digests (manifest.json, cache.json, complete.json, state.json) do;
the large files beside them are named, not read. What a run was made from is its input, so that the graph leads from the
data over the teachers and their cache to the student.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tnr_dist.runs.checkpoint_files import sorted_steps
from tnr_dist.runs.folder import RunFolder
from tnr_dist.runs.wandb import WandbRun, experiment
from tnr_dist.util.files import read_json_object

if TYPE_CHECKING:
    from wandb import Artifact


def use_inputs(wandb_run: WandbRun, run: RunFolder) -> None:
    """Name what a run is made from: the data set, and the finished runs among its inputs."""
    for name, one in run.inputs.items():
        if isinstance(one, RunFolder):
            wandb_run.use(partial(_result, one))
        elif name == "data":
            wandb_run.use(partial(_data, Path(run.config.data.dir), one))


def log_result(wandb_run: WandbRun, run: RunFolder) -> None:
    """Name what a finished run has made: a model, or the teachers' cache."""
    wandb_run.artifact(partial(_result, run))


def log_checkpoints(wandb_run: WandbRun, run: RunFolder) -> None:
    """Name the checkpoints that a run leaves, if there are any."""
    if sorted_steps(run.path / "checkpoints"):
        wandb_run.artifact(partial(_checkpoints, run))


def input_ids(run: RunFolder) -> dict[str, str]:
    """A run's inputs for its configuration, where they can be searched for."""
    return {name: one.path.name if isinstance(one, RunFolder) else one for name, one in run.inputs.items()}


def _data(folder: Path, identity: str, wandb: ModuleType) -> Artifact:
    manifest = read_json_object(folder / "manifest.json")
    metadata = {"id": identity, "counts": manifest["counts"], "tokenizer": manifest["tokenizer"]}
    pinned = [folder / "manifest.json", *sorted(folder.glob("*/index.json"))]
    name = f"data-{folder.absolute().name}"
    return _referring(wandb, name, "dataset", metadata, pinned, [folder / "news.parquet"], folder)


def _result(run: RunFolder, wandb: ModuleType) -> Artifact:
    kind = "teacher-cache" if run.stage == "cache" else "model"
    done = read_json_object(run.path / "complete.json")
    metadata = {key: value for key, value in done.items() if isinstance(value, str | int | float)}
    pinned = [run.path / name for name in ("complete.json", "cache.json", "news.json")]
    large = [run.path / name for name in ("model.safetensors", "news.safetensors")]
    return _referring(wandb, _name(run), kind, metadata, pinned, large, run.path)


def _checkpoints(run: RunFolder, wandb: ModuleType) -> Artifact:
    steps = sorted_steps(run.path / "checkpoints")
    places = [run.path / "checkpoints" / str(step) for step in steps]
    large = [file for place in places for file in sorted(place.glob("*.safetensors"))]
    pinned = [place / "state.json" for place in places]
    return _referring(wandb, f"{_name(run)}-checkpoints", "checkpoint", {"steps": steps}, pinned, large, run.path)


def _name(run: RunFolder) -> str:
    """Unique among the experiments of a project; a seed has a folder of its own."""
    folder = Path(run.config.output).absolute().name
    seed = [folder] if re.fullmatch(r"seed-\d+", folder) else []
    return "-".join([experiment(run.config), *seed, run.path.name])


def _referring(
    wandb: ModuleType,
    name: str,
    kind: str,
    metadata: Mapping[str, object],
    pinned: list[Path],
    large: list[Path],
    base: Path,
) -> Artifact:
    """An artifact that refers to the files that are there, `pinned` ones by content and `large` ones by place."""
    artifact: Artifact = wandb.Artifact(
        re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:128], kind, metadata=dict(metadata)
    )
    for file in (*pinned, *large):
        if file.is_file():
            uri = file.resolve().as_uri()
            artifact.add_reference(uri, name=str(file.relative_to(base)), checksum=file in pinned)
    return artifact
