"""`tnr export`: a finished run in the forms of other people's tools."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tnr_dist.export.description import FORMATS, Description
from tnr_dist.runs.places import DATA, candidates_text
from tnr_dist.util.errors import InputError, os_error_advice
from tnr_dist.util.files import atomic_path
from tnr_dist.util.lock import held
from tnr_dist.util.progress import say

if TYPE_CHECKING:
    from tnr_dist.export.source import Source

#: Modules that a format needs beside tnr_dist's own dependencies, and the packages that bring them.
_NEEDS = {
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"},
    "vectors": {"faiss": "faiss-cpu"},
}
#: The temporary folder of an export, as `atomic_path` names it; earlier versions did not say which process writes it.
_TEMPORARY = re.compile(rf"\.({'|'.join(map(re.escape, FORMATS))})\.([0-9a-f]{{8}}-\d+-)?\w{{8}}\.tmp")


def export(
    run: Path,
    to: Sequence[str],
    out: Path | None = None,
    *,
    data: Path | None = None,
    force: bool = False,
    speed: bool = True,
) -> list[Path]:
    """Export the model of a finished run.

    Args:
        run: its folder.
        to: formats, of `FORMATS`.
        out: folder that gets one folder a format, named after it; None: RUN/export.
        data: prepared data set, for `vectors` and the card; None: the one that the run was trained on.
        force: replace what is there.
        speed: also measure latency and throughput of what was exported, some seconds a format.

    Returns:
        The folder of every format. One that is there, made from the same model, is left as it is without `force`.

    Raises:
        InputError: the run is not finished, a format is unknown, a package is missing, `data` does not fit, or the
            output exists and is something else. Nothing is written then, of any format.
    """
    _check(to)
    from tnr_dist.export.source import Source
    from tnr_dist.export.vectors import data_id

    source = Source.open(run)
    if data is None:
        data = _own_data(run, source, to)
    out = out or run / "export"
    _sweep(out)
    wanted: dict[Path, Description] = {}
    for form in dict.fromkeys(to):
        place = out / form
        description = source.describe(form, data_id(source, data) if form == "vectors" else None)
        if force or not place.exists():
            wanted[place] = description
        elif _is_there(source, place, description):
            say(f"{place}: complete, skipped")
        else:
            raise InputError(
                f"{place}: exists and is not this export of {run}; --force replaces it, --output takes another folder"
            )
    if wanted:
        _make_folder(out)
    for place, description in wanted.items():
        _make(source, description, data, place, speed)
    return [out / form for form in dict.fromkeys(to)]


def _own_data(run: Path, source: Source, to: Sequence[str]) -> Path:
    """The data set that a run was made from, which may be gone."""
    data = Path(source.config.data.dir)
    if not (data / "manifest.json").is_file():
        where = candidates_text(run, DATA, source.config.data.dir)
        if "vectors" in to:
            raise InputError(f"{run}: the data set that it was made from is not at {where}; name it with --data")
        say(
            f"{run}: the data set that it was made from is not at {where}; the card does not describe it (--data names it)"
        )
    return data


def _check(to: Sequence[str]) -> None:
    if not to:
        raise InputError(f"export: give --to, one or more of {', '.join(FORMATS)}")
    for form in to:
        if form not in FORMATS:
            raise InputError(f"export: --to {form!r} is unknown; one of {', '.join(FORMATS)}")
        missing = [package for module, package in _NEEDS.get(form, {}).items() if not importlib.util.find_spec(module)]
        if missing:
            raise InputError(
                f"export: --to {form} needs {', '.join(missing)}; run: pip install {' '.join(missing)} "
                "(or pip install 'tnr_dist[export]')"
            )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # in /proc it is a file that is not found
        message = os_error_advice(error) or f"{out}: this folder cannot be made ({error.strerror})"
        raise InputError(f"{message}; --output takes another folder") from None


def _is_there(source: Source, place: Path, description: Description) -> bool:
    """Whether `place` is the export that would be made: of this model, with the tokenizer written as today.

    Raises InputError when it is, and is damaged.
    """
    try:
        found = Description.read(place)
    except InputError:
        return False
    if not found.same_as(description):
        return False
    found.check(place, all_files=True)
    if description.format == "vectors":
        return True
    try:
        return (place / "tokenizer.json").read_text("utf-8") == source.tokenizer.to_json(source.title_tokens)
    except (OSError, UnicodeDecodeError):
        return False


def _sweep(out: Path) -> None:
    """Remove what exports that were killed have left in `out`; a finished one that was being replaced is put back."""
    for form in FORMATS:
        old, place = _old(out / form), out / form
        if place.exists():
            _remove(old)
        elif old.exists():
            old.rename(place)
    for path in out.iterdir() if out.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            try:
                with held(path):  # an export that is still at work holds it
                    pass
            except InputError:
                continue
            _remove(path)


def _old(place: Path) -> Path:
    """Where an export lies while the new one takes its place."""
    return place.with_name(f".{place.name}.old.tmp")


def _make(source: Source, description: Description, data: Path, place: Path, speed: bool) -> None:
    """Write one format under a temporary name, check it, and rename it."""
    from tnr_dist.export import card

    old = _old(place)
    with atomic_path(place) as temporary:
        description = _write(source, description, data, temporary, speed)
        if place.exists():
            _remove(old)
            place.rename(old)
    _remove(old)
    said = card.described(description.checks)
    say(f"{place}: written" + (f" ({said})" if said else ""))


def _write(source: Source, description: Description, data: Path, temporary: Path, speed: bool) -> Description:
    """Write one format into a folder to be made, which is held meanwhile; returns its description with the checks."""
    from tnr_dist.export import card, huggingface, measure

    with held(temporary):
        if description.format == "hf":
            huggingface.write(source, temporary)
        elif description.format == "onnx":
            from tnr_dist.export import onnx

            onnx.write(source, temporary)
            huggingface.write_tokenizer(source, temporary)
        elif description.format == "torch.export":
            from tnr_dist.export import program

            program.write(source, temporary)
            huggingface.write_tokenizer(source, temporary)
        else:
            from tnr_dist.export import vectors

            vectors.write(source, data, temporary)
        if description.format != "vectors":
            checks = measure.check(source, temporary, description, speed=speed)
            description = dataclasses.replace(description, checks=checks)
        card.write_card(source, description, data, temporary)
        description.write(temporary)
    return description


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
