"""Raw MIND-format files: finding the splits in folders and zips, nested or not, and opening their files.

Nothing is ever extracted under a name taken from an archive, and what an archive may unpack to is bounded.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tnr_dist.util.errors import InputError

SPLITS = ("train", "dev", "test")
_NAMES = ("news.tsv", "behaviors.tsv")
_SPLIT_WORDS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
# What zipfile raises for damaged, truncated, encrypted or unsupported archives, beside what any file raises.
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError, ValueError, OSError, struct.error)
#: Bytes of a news.tsv, which is read whole, and of a behaviors.tsv, which a zip's is unpacked to.
MOST_BYTES = {"news.tsv": 2 << 30, "behaviors.tsv": 64 << 30}
#: A larger member of a zip is not expected to unpack to more than this many times its packed size: MIND's are 3 to 5.
MOST_EXPANSION = 200
_LOOKED_AT = 10_000  # names in a folder where something is missing
_SMALL = 64 << 20  # bytes, whatever their expansion
_EXPECTED = "; expected MINDlarge_train (or train, dev, test) as folders or zips"
# How files that are packed in another way than a zip are unpacked.
_UNPACK = {
    ".tar": "tar xf", ".tgz": "tar xf", ".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".lzma": "unlzma",
    ".zst": "unzstd", ".lz4": "unlz4", ".z": "uncompress", ".7z": "7z x", ".rar": "unrar x", ".zip": "unzip",
}  # fmt: skip
_PACKED_SPLIT = re.compile(
    rf"(?i)(?:MIND(?:large|small)?[_-]?)?({'|'.join(_SPLIT_WORDS)})\.(?:tar(?:\.\w+)?|tgz|7z|rar)"
)
_LIKE = re.compile(r"(?i)(news|behaviou?rs?)\.")


@dataclass(frozen=True)
class Source:
    """A raw file: a path, or a member of a zip."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading bytes; whatever goes wrong before the end of the block is an InputError.

        So is a file that is larger than what can be read, or a member of a zip that unpacks to far more than it takes.
        """
        try:
            if self.member:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                    # zipfile stops at the size that the archive states, so that one is the bound.
                    info = archive.getinfo(self.member)
                    self._check_size(info.file_size, info.compress_size)
                    yield file
            else:
                with self.path.open("rb") as file:
                    self._check_size(self.path.stat().st_size)
                    yield file
        except _ZIP_FAULTS as error:
            advice = "; download it again" if self.member else ""
            raise InputError(f"{self}: cannot be read ({error}){advice}") from None

    def _check_size(self, size: int, packed: int | None = None) -> None:
        name = re.split(r"[/\\]", self.member)[-1] if self.member else self.path.name
        if size > (most := MOST_BYTES.get(name, size)):
            raise InputError(f"{self}: {size:,} bytes; a {name} of more than {most:,} is not read")
        if packed is not None and size > max(_SMALL, MOST_EXPANSION * packed):
            raise InputError(
                f"{self}: unpacks from {packed:,} bytes to {size:,}, more than {MOST_EXPANSION} times as many; if it is "
                "what you expect, unpack it yourself"
            )

    def pieces(self, size: int = 1 << 20) -> Iterator[bytes]:
        """Its bytes, some at a time; what goes wrong with them at the caller's is no fault of the source."""
        with self.open() as file:
            while piece := file.read(size):
                yield piece


@dataclass(frozen=True)
class RawSplit:
    """The two files of a split."""

    news: Source
    behaviors: Source


def split_of(name: str) -> str | None:
    """The split that a folder's or zip's name stands for (MINDlarge_train, valid, test.zip); None for another name."""
    words = re.split(r"[^a-z]+", name.lower().removesuffix(".zip"))
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    # MINDlarge_train, MINDsmall_dev: the last word says it; "MINDlargetrain" is not a name in use.
    return found.pop() if len(found) == 1 else None


def unpack_command(name: str) -> str:
    """The command that unpacks a file of this name; '' for one that is not packed."""
    ending = Path(name).suffix.lower()
    return "tar xf" if re.search(r"(?i)\.tar(\.\w+)?$", name) else _UNPACK.get(ending, "")


def check_not_packed(path: Path) -> None:
    """Raise InputError for a file that is packed in another way than as a zip."""
    if path.suffix != ".zip" and (command := unpack_command(path.name)):
        raise InputError(f"{path}: a packed file; unpack it ({command} {path.name})")


def _found_instead(names: Iterable[str], missing: tuple[str, ...] = _NAMES) -> str:
    """Of names in a folder, for each missing file the first that may be it, and what to do with it."""
    found: dict[str, str] = {}
    for name in names:
        last = re.split(r"[/\\]", name)[-1]
        like = _LIKE.match(last)
        if not like or last in _NAMES:
            continue
        wanted = _NAMES[0] if like[1].lower() == "news" else _NAMES[1]
        if command := unpack_command(last):
            found.setdefault(wanted, f"; found {name}: unpack it ({command} {last})")
        else:
            found.setdefault(wanted, f"; found {name}: it must be tab-separated text and be called {wanted}")
    return "".join(found.get(wanted, "") for wanted in missing)


def _names_in(path: Path) -> Iterator[str]:
    """What lies in a folder, at any depth, or in a zip."""
    if path.is_dir():
        yield from sorted(str(one.relative_to(path)) for one in itertools.islice(path.rglob("*"), _LOOKED_AT))
    else:
        with contextlib.suppress(*_ZIP_FAULTS), zipfile.ZipFile(path) as archive:
            yield from archive.namelist()


def _files_of(path: Path) -> dict[str, list[Source]]:
    """The news.tsv and behaviors.tsv in a folder or zip, at any depth (MIND's zips may hold a nested folder)."""
    found: dict[str, list[Source]] = {name: [] for name in _NAMES}
    if path.is_dir():
        for name, sources in found.items():
            sources += [Source(p) for p in sorted(path.rglob(name))]
        return found
    check_not_packed(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                parts = re.split(r"[/\\]", member)
                if ".." in parts or not parts[0] or ":" in parts[0]:
                    raise InputError(f"{path}: member {member!r} points out of the archive; download it again")
                if parts[-1] in found and "__MACOSX" not in parts:
                    if stat.S_ISLNK(archive.getinfo(member).external_attr >> 16):
                        raise InputError(f"{path}: member {member!r} is a symbolic link; put the file itself there")
                    found[parts[-1]].append(Source(path, member))
    except _ZIP_FAULTS as error:
        raise InputError(f"{path}: not a readable zip file ({error}); download it again") from None
    return found


def find_splits(folder: Path | str) -> dict[str, RawSplit]:
    """Find the splits in `folder`: MINDlarge_train/…, train/dev/test, zips or folders, nested or not, any subset.

    A folder that itself holds news.tsv and behaviors.tsv is a train split. Raises InputError when nothing is found or a
    split is incomplete or found twice.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if folder.is_file() or any((folder / name).is_file() for name in _NAMES):
        splits = _splits_among([(split_of(folder.name) or "train", folder)], folder)
    else:
        # A download is often one folder deeper than expected (MIND/MINDlarge_train/...): look there too.
        for depth in ("*", "*/*"):
            named = [(split_of(path.name), path) for path in sorted(folder.glob(depth))]
            places = [
                (split, path)
                for split, path in named
                if split and (path.is_dir() or (path.suffix == ".zip" and path.is_file()))
            ]
            splits = _splits_among(places, folder)
            if splits:
                break
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        # A split that lies there in another archive than a zip is not passed over.
        if (match := _PACKED_SPLIT.fullmatch(path.name)) and _SPLIT_WORDS[match[1].lower()] not in splits:
            raise InputError(f"{folder}: found {path.name}: unpack it ({unpack_command(path.name)} {path.name})")
    if not splits:
        found = _found_instead(_names_in(folder))
        raise InputError(f"{folder}: no news.tsv and behaviors.tsv found{found or _EXPECTED}")
    return {split: splits[split] for split in SPLITS if split in splits}


def _splits_among(places: list[tuple[str, Path]], folder: Path) -> dict[str, RawSplit]:
    splits: dict[str, RawSplit] = {}
    chosen: dict[str, Path] = {}
    for split, path in places:
        files = _files_of(path)
        if not any(files.values()):
            if found := _found_instead(_names_in(path)):
                raise InputError(f"{path}: no news.tsv and behaviors.tsv in it{found}")
            continue
        for name, sources in files.items():
            if not sources:
                found = _found_instead(_names_in(path), (name,)) or "; a split is a news.tsv and a behaviors.tsv"
                raise InputError(f"{path}: no {name} in it{found}")
            if len(sources) > 1:
                listed = " and ".join(str(source) for source in sources[:2])
                raise InputError(f"{path}: {len(sources)} files {name}, {listed}; keep one")
        for (source,) in files.values():
            if not source.path.is_file():  # a pipe or a device has no end
                raise InputError(f"{source.path}: no file, or not a regular one")
        if split in splits:
            # The folder and the zip it was extracted from may lie side by side; the folder is faster to read.
            if chosen[split].is_dir() == path.is_dir() or not _same_name(chosen[split], path):
                raise InputError(f"{folder}: two {split} splits, {chosen[split].name} and {path.name}; keep one")
            if not path.is_dir():
                continue
        splits[split] = RawSplit(files["news.tsv"][0], files["behaviors.tsv"][0])
        chosen[split] = path
    return splits


def _same_name(a: Path, b: Path) -> bool:
    return a.name.removesuffix(".zip") == b.name.removesuffix(".zip")
