"""Where shards' bytes come from: a local folder, or any URL that `webdataset` opens (http, pipe:, s3 through pipe:)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tnr_dist.data.shards import Block, ShardInfo, SplitIndex, check_bytes, parse_shard
from tnr_dist.errors import InputError
from tnr_dist.redaction import without_secrets


def expand_braces(pattern: str) -> list[str]:
    """`shard-{000000..000003}.tar` and `{a,b}` as the list of what they stand for (as webdataset does)."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if span:
        low, high = span[1], span[2]
        if int(high) < int(low):
            raise InputError(f"shards {without_secrets(pattern)!r}: {{{match[1]}}} counts down")
        options = [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
    else:
        options = match[1].split(",")
    return [
        full for option in options for full in expand_braces(pattern[: match.start()] + option + pattern[match.end() :])
    ]


@dataclass(frozen=True)
class ShardSource:
    """Reads a split's shards and checks every byte against the index (size and sha256)."""

    folder: Path  # the split's folder
    urls: dict[str, str] = field(default_factory=dict)  # shard name -> URL, for those that are not in the folder

    @classmethod
    def of(cls, folder: Path, index: SplitIndex, pattern: str = "") -> ShardSource:
        """`pattern` (braces allowed) names each shard of the index by its file name; '' reads the folder.

        Raises InputError when the pattern misses a shard of the index.
        """
        if not pattern:
            return cls(folder)
        urls, shown = {}, without_secrets(pattern)
        for url in expand_braces(pattern):
            match = re.search(r"shard-\d+\.tar", url)
            if match is None:
                raise InputError(f"shards {shown!r}: {without_secrets(url)!r} names no shard-NNNNNN.tar")
            urls[match[0]] = url
        missing = [shard.name for shard in index.shards if shard.name not in urls]
        if missing:
            raise InputError(
                f"shards {shown!r}: {len(missing)} shards of the index are not among them, first {missing[0]}"
            )
        return cls(folder, urls)

    def name(self, info: ShardInfo) -> str:
        """What messages call the shard: its address without secrets, and always its own name."""
        if info.name not in self.urls:
            return str(self.folder / info.name)
        shown: str = without_secrets(self.urls[info.name])
        return shown if info.name in shown else f"{shown} {info.name}"

    def read(self, info: ShardInfo) -> bytes:
        """A shard's bytes. Raises InputError when it is missing, truncated or damaged, naming it."""
        where, url = self.name(info), self.urls.get(info.name)
        try:
            # Only what the user configured is ever opened as a URL (`pipe:` runs a shell command): a name that stands
            # in index.json is a file of the folder, whatever it looks like.
            if url is not None and _is_url(url):
                data = _read_url(url)
            else:
                data = Path(url or where).read_bytes()
        except FileNotFoundError:
            raise InputError(f"{where}: missing; prepare it again") from None
        except (OSError, ValueError) as error:  # ValueError: webdataset was told not to run commands
            raise InputError(f"{where}: cannot be read ({_reason(error, url)})") from None
        check_bytes(data, info, where)
        return data

    def read_blocks(self, info: ShardInfo) -> dict[str, Block]:
        """A shard's blocks by key, in file order. Raises InputError as `read` does, and for what is not a shard."""
        return parse_shard(self.read(info), self.name(info))


def _is_url(where: str) -> bool:
    return "://" in where or where.startswith(("pipe:", "file:"))


def _reason(error: Exception, url: str | None) -> str:
    """What an error says, without the command of which webdataset tells that it failed."""
    if url is None or not _is_url(url):
        return str(error)
    code = re.search(r"exit -?\d+", str(error))
    return code[0] if code else str(error).replace(url.removeprefix("pipe:"), "...")


def _read_url(url: str) -> bytes:
    try:
        from webdataset.gopen import gopen
    except ImportError:
        raise InputError(
            f"{without_secrets(url)}: reading URLs needs the webdataset package (pip install webdataset)"
        ) from None
    with gopen(url) as stream:
        return stream.read()
