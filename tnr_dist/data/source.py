"""Where shards' bytes come from: a local folder, or any URL that `webdataset` knows (http, pipe:, s3 through pipe:).

Nothing but what the user configured is opened as an address, and an address gives no more than the index says.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tnr_dist.data.addresses import read_address, read_file
from tnr_dist.data.shards import Block, ShardInfo, SplitIndex, check_bytes, parse_shard
from tnr_dist.util.errors import InputError
from tnr_dist.util.redaction import without_secrets

#: Addresses that a pattern may stand for.
MOST_SHARDS = 200_000
#: Bytes of a shard: the largest are some 10 MiB.
MOST_BYTES = 4 << 30


def expand_braces(pattern: str) -> list[str]:
    """`shard-{000000..000003}.tar` and `{a,b}` as the list of what they stand for (as webdataset does).

    Raises InputError for a range that counts down, and for more than `MOST_SHARDS` addresses.
    """
    found = list(itertools.islice(_expanded(pattern), MOST_SHARDS + 1))
    if len(found) > MOST_SHARDS:
        raise InputError(f"shards {without_secrets(pattern)!r}: stand for more than {MOST_SHARDS:,} addresses")
    return found


def _expanded(pattern: str) -> Iterator[str]:
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        yield pattern
        return
    span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", match[1])
    options: Iterable[str] = match[1].split(",")
    if span:
        low, high = span[1], span[2]
        if int(high) < int(low):
            raise InputError(f"shards {without_secrets(pattern)!r}: {{{match[1]}}} counts down")
        options = (str(number).zfill(len(low)) for number in range(int(low), int(high) + 1))
    for option in options:
        yield from _expanded(pattern[: match.start()] + option + pattern[match.end() :])


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
        if info.bytes > MOST_BYTES:
            raise InputError(f"{where}: the index says {info.bytes:,} bytes; no shard has more than {MOST_BYTES:,}")
        try:
            # Only what the user configured is ever opened as a URL (`pipe:` runs a shell command): a name that stands
            # in index.json is a file of the folder, whatever it looks like.
            data = read_file(Path(where), info.bytes) if url is None else read_address(url, info.bytes)
        except FileNotFoundError:
            raise InputError(f"{where}: missing; prepare it again") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{where}: cannot be read ({_reason(error, url)})") from None
        check_bytes(data, info, where)
        return data

    def read_blocks(self, info: ShardInfo) -> dict[str, Block]:
        """A shard's blocks by key, in file order. Raises InputError as `read` does, and for what is not a shard."""
        return parse_shard(self.read(info), self.name(info))


def _reason(error: Exception, url: str | None) -> str:
    """What an error says, without an address of which it may tell that it failed."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return said if url is None else said.replace(url.removeprefix("pipe:"), "...")
