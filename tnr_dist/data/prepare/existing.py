"""A data set that is there already: whether it is the one that was asked for, and what its making has left."""

from __future__ import annotations

import shutil
from pathlib import Path

from tnr_dist.data.manifest import Manifest, read_manifest
from tnr_dist.data.prepare.options import (
    WORK,
    PrepareOptions,
    Request,
    manifest_request,
)
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import say


def existing(output: Path, request: Request) -> Manifest:
    """The manifest of a complete data set; InputError when it was not made from this request."""
    manifest = _made_from(output, request)
    say(f"{output}: already prepared")
    return manifest


def check_options(options: PrepareOptions, output: Path) -> None:
    """Raise InputError when a complete data set was not made from these options and the files that they name."""
    _made_from(output, manifest_request(options))


def _made_from(output: Path, request: Request) -> Manifest:
    manifest = read_manifest(output)
    before = {key: value for key, value in manifest.get("request", {}).items() if key != "plm"}
    changed = [key for key in {**before, **request} if before.get(key) != request.get(key)]
    if changed:
        raise InputError(
            f"{output}: holds a data set prepared with other settings ({', '.join(changed)}); choose another folder"
        )
    return manifest


def tidy(output: Path) -> None:
    """Remove from a complete data set what only its making needed, and what a killed process was just writing."""
    shutil.rmtree(output / WORK)
    for path in [*output.glob(".*.tmp"), *output.glob("*/.*.tmp")]:
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def files_of(output: Path, splits: list[str]) -> list[str]:
    """Every file of a data set that a result depends on but for the shards, of which index.json has the digests."""
    found = [path for folder in ("tokens", "tokenizer") for path in (output / folder).glob("[!.]*")]
    found += [output / split / "index.json" for split in splits]
    names = [str(path.relative_to(output)) for path in (output / "news.parquet", *found) if path.is_file()]
    return sorted(names)
