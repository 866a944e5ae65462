"""`recommender.json`, which makes a folder an export: what it holds, what it was made from, how texts and users are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from tnr_dist.util.digests import SEAL, Stated, check_seal, describe, fault, write_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json
from tnr_dist.util.json_types import JsonObject, built, checked
from tnr_dist.util.lock import LOCK

FORMAT_VERSION = 1
FORMATS = ("hf", "onnx", "torch.export", "vectors")
FILE = "recommender.json"
#: News and user encoder of `torch.export` and of `onnx`, the quantised news encoder, news ids and vectors of `vectors`.
PROGRAMS = ("news_encoder.pt2", "user_encoder.pt2")
GRAPHS = ("news_encoder.onnx", "user_encoder.onnx")
INT8_GRAPH = "news_encoder.int8.onnx"
TABLES = ("news_ids.npy", "vectors.npy")
_CARD = "README.md"  # its owner may write into it
_FOR_OTHERS = ("news.parquet", "index.faiss")  # of `vectors`; nothing here reads them
_OBJECTS = ("model", "made_from", "checks", "files")
_LEAST = {"title_tokens": 3, "history": 1, "pad_id": 0}


class Checks(TypedDict, total=False):
    """What was measured of an export, by variant; `other_work` and `busy` as in `measure.check`."""

    variants: dict[str, dict[str, float]]
    measured_on: dict[str, object]
    other_work: float
    busy: bool


@dataclass(frozen=True)
class Description:
    """What `recommender.json` says.

    Attributes:
        format: one of `FORMATS`.
        model: the model's specification (`ModelSpec.to_dict`).
        title_tokens: tokens kept of a title, special ones included.
        history: L, the clicked news that count.
        pad_id: token id of padding.
        made_from: run, stage, id and hash of the model, hash of the tokenizer, and for vectors the data set's id.
        checks: what was measured of the exported model; {} if nothing was.
        files: size and sha256 of every file of the export but the card; {} in an older version's.
    """

    format: str
    model: JsonObject
    title_tokens: int
    history: int
    pad_id: int
    made_from: Mapping[str, str]
    checks: Checks = field(default_factory=Checks)
    files: Stated = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def news_dim(self) -> int:
        """D."""
        size = self.model["news_dim"]
        assert isinstance(size, int)  # compared when it was read
        return size

    def same_as(self, other: Description) -> bool:
        """Whether both describe the same export; what was measured and the bytes of the files do not count."""
        return dataclasses.replace(self, checks=Checks(), files={}) == dataclasses.replace(
            other, checks=Checks(), files={}
        )

    def write(self, folder: Path) -> None:
        """Write `folder`/recommender.json, which states the other files as they are now."""
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        files = describe(folder, (name for name in names if name not in (FILE, LOCK, _CARD)))
        write_sealed(folder / FILE, dataclasses.asdict(dataclasses.replace(self, files=files)))

    def check(self, folder: Path, *, all_files: bool = False) -> None:
        """Raise InputError when a file is not what was exported: one that a `Recommender` reads, or any of them.

        A file that is missing is left to what reads it.
        """
        for name in self.files:
            wanted = (all_files or name not in _FOR_OTHERS) and (folder / name).exists()
            if wanted and (found := fault(folder, name, self.files)):
                raise InputError(f"{folder / name}: {found}; export the run again, with --force")

    @classmethod
    def read(cls, folder: Path) -> Description:
        """Raises InputError when `folder` is no export, or one of another version, or this file is damaged."""
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"{folder}: not an export (no {FILE}); make one with `tnr export RUN --to FORMAT`")
        values = read_json(path)
        if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
            raise InputError(f"{path}: not of format version {FORMAT_VERSION}; export the run again")
        try:
            found = built(cls, {name: value for name, value in values.items() if name != SEAL})
        except TypeError as error:
            raise InputError(f"{path}: {error}; export the run again") from None
        if found.format not in FORMATS:
            raise InputError(f"{path}: format {found.format!r} is not one of {', '.join(FORMATS)}")
        wrong = [name for name in _OBJECTS if not isinstance(getattr(found, name), dict)]
        wrong += [name for name, least in _LEAST.items() if not _at_least(getattr(found, name), least)]
        if not wrong:
            wrong += ["model"] * (not _at_least(found.model.get("news_dim"), 1))
            wrong += ["made_from"] * ("model_sha256" not in found.made_from)
        if wrong:
            value = getattr(found, wrong[0])
            shown = f" ({value})" if isinstance(value, int) else ""
            raise InputError(f"{path}: {wrong[0]} is not what an export says{shown}; export the run again")
        check_seal(path, values)
        checked(found.checks, Checks, f"{path}: checks.")
        return found


def _at_least(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
