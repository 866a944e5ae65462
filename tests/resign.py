"""Digests of files that a test has changed on purpose: without them readers would stop at "damaged"."""

from __future__ import annotations

from pathlib import Path

from tnr_dist.data.manifest import MANIFEST
from tnr_dist.runs.finished import DONE, describe_run
from tnr_dist.util.digests import describe, write_sealed
from tnr_dist.util.files import read_json_object


def resign_run(run: Path) -> None:
    """State the files of a finished run as they are now."""
    write_sealed(run / DONE, {**read_json_object(run / DONE), "files": describe_run(run)})


def resign_data(folder: Path) -> None:
    """State the files of a prepared data set as they are now."""
    manifest = read_json_object(folder / MANIFEST)
    names = [name for name in manifest["files"] if (folder / name).is_file()]
    write_sealed(folder / MANIFEST, {**manifest, "files": describe(folder, names)})
