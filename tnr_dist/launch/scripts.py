"""configs/, launch/ and slurm/: where this installation has them, and how `tnr init` writes them into a user's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path

FOLDERS = ("configs", "launch", "slurm")


def shipped_folder() -> Path:
    """The folder that holds `FOLDERS`: inside the package in a wheel (setup.py), else the checkout it lies in.

    Raises InputError where there is neither.
    """
    inside, checkout = Path(__file__).parent / "files", Path(__file__).parents[2]
    for folder in (inside, checkout):
        if all((folder / name).is_dir() for name in FOLDERS):
            return folder
    raise InputError(f"{inside}: not there; install tnr_dist again, from a wheel or a whole checkout")


def shipped_files(folder: Path) -> Iterator[Path]:
    """The paths of all files of `FOLDERS` below `folder`, relative to it, in order.

    A checkout also holds what is not for others: compiled Python, and a cluster's own settings such as slurm/env.local.sh.
    """
    for name in FOLDERS:
        for path in sorted((folder / name).rglob("*")):
            inside = path.relative_to(folder)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if path.is_file() and not hidden and not path.match("env.*.sh"):
                yield inside


def write_scripts(folder: Path, *, force: bool = False) -> list[Path]:
    """Write configurations and scripts into `folder`; returns the paths of those that were not there before.

    Each file appears whole or not at all, and scripts are executable. Files with the same content stay as they are. Where a
    file has other content nothing is written at all, unless `force` says to replace it.

    Raises:
        InputError: a file is there with other content, or what is there is no file.
    """
    source = shipped_folder()
    contents = {inside: (source / inside).read_bytes() for inside in shipped_files(source)}
    changed = [inside for inside, content in contents.items() if _differs(folder / inside, content)]
    if changed and not force:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise InputError(
            f"{folder / changed[0]}{more}: exists with other content; nothing was written. Move it away, give another "
            "folder, or replace it with --force"
        )
    written = []
    for inside, content in contents.items():
        target = folder / inside
        if inside in changed or not target.exists():
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
                _make_executable(temporary, content)
            written.append(target)
        else:
            _make_executable(target, content)
    return written


def find_script(name: str) -> Path:
    """The script `name` of slurm/: of the current folder where `tnr init` wrote one, with the user's settings beside it.

    Otherwise the one that came with the package. Raises InputError where there is none.
    """
    here = Path("slurm") / name
    if here.is_file() and here.with_name("common.sh").is_file():
        return here.absolute()
    return shipped_folder() / "slurm" / name


def _differs(path: Path, content: bytes) -> bool:
    """Whether a file is at `path` with other content; raises InputError for what is no file."""
    if path.is_file():
        return path.read_bytes() != content
    in_the_way = [parent for parent in path.parents if parent.exists() and not parent.is_dir()]
    if path.exists() or path.is_symlink():
        in_the_way = [path]
    if in_the_way:
        kind = "folder" if in_the_way[0] in path.parents else "file"
        raise InputError(f"{in_the_way[0]}: is there and no {kind}; move it away, or give another folder")
    return False


def _make_executable(path: Path, content: bytes) -> None:
    """Whoever may read a script may also run it. Files that are only sourced have no `#!` line."""
    mode = path.stat().st_mode
    if content.startswith(b"#!") and mode != (wanted := mode | (mode & 0o444) >> 2):
        path.chmod(wanted)
