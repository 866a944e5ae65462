"""The account of a preparation: what was read, kept and dropped; and its tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields

import numpy as np

from tnr_dist.data.manifest import Manifest


@dataclass
class SplitCounts:
    """What was read, kept and dropped in a split; adds up over shards."""

    impressions: int = 0  # read
    impressions_kept: int = 0
    impressions_without_candidates: int = 0  # dropped: no known candidate at all
    users: int = 0
    users_with_changing_history: int = 0
    histories: int = 0
    empty_histories: int = 0
    history_items: int = 0  # in distinct histories
    unknown_history_items: int = 0  # dropped
    candidates: int = 0  # read
    unknown_candidates: int = 0  # dropped (kept unranked in an unlabelled split)
    clicks: int = 0  # read
    unknown_clicks: int = 0  # samples dropped because their clicked news is unknown
    samples: int = 0  # (impression, click) pairs that can be trained on
    times_iso: int = 0  # impressions whose time is not of MIND's form, by the form that it has
    times_unix_seconds: int = 0
    times_unix_milliseconds: int = 0
    max_candidates: int = 0
    max_history: int = 0
    first_time: int = field(default=1 << 62)
    last_time: int = field(default=0)

    def add(self, other: SplitCounts) -> None:
        """Take another part of the split in."""
        for one in fields(self):
            a, b = getattr(self, one.name), getattr(other, one.name)
            combine = (
                max if one.name.startswith(("max_", "last_")) else min if one.name == "first_time" else int.__add__
            )
            setattr(self, one.name, combine(a, b))

    def counts(self) -> dict[str, int]:
        """Every figure by name; of the forms of times those that occur."""
        return {name: value for name, value in asdict(self).items() if value or not name.startswith("times_")}

    @property
    def unknown_share(self) -> float:
        """Share of the split's candidates that are not in any news.tsv."""
        return self.unknown_candidates / max(self.candidates, 1)

    @property
    def unknown_history_share(self) -> float:
        """Share of the news in the split's histories that are not in any news.tsv."""
        return self.unknown_history_items / max(self.history_items, 1)


# Key, label, and what it is a share of.
_LABELS: Iterable[tuple[str, str, str]] = (
    ("impressions", "impressions read", ""),
    ("impressions_without_candidates", "  dropped: no known candidate", "impressions"),
    ("impressions_kept", "  kept", ""),
    ("times_iso", "  times in ISO 8601, UTC where no offset stands", "impressions"),
    ("times_unix_seconds", "  times in Unix seconds", "impressions"),
    ("times_unix_milliseconds", "  times in Unix milliseconds", "impressions"),
    ("candidates", "candidates read", ""),
    ("unknown_candidates", "  of unknown news: dropped*", "candidates"),
    ("max_candidates", "  most in an impression kept", ""),
    ("clicks", "clicks read", ""),
    ("unknown_clicks", "  dropped: unknown news", "clicks"),
    ("clicks_alone", "  no non-clicked candidate beside", "clicks"),
    ("samples", "  training samples", ""),
    ("users", "users", ""),
    ("users_with_changing_history", "  whose history changes", "users"),
    ("histories", "distinct histories of a user", ""),
    ("empty_histories", "  empty", "histories"),
    ("history_items", "news in histories", ""),
    ("unknown_history_items", "  dropped: unknown news", "history_items"),
    ("max_history", "  most in a history", ""),
)
_TEXTS: Iterable[tuple[str, str, str]] = (
    ("news", "news", ""),
    ("empty_titles", "  without a title", "news"),
    ("empty_abstracts", "  without an abstract", "news"),
    ("news_described_differently", "  mentioned again with other words (first kept)", ""),
    ("header_rows", "header rows of the files, skipped", ""),
    ("title_tokens", "  title tokens", ""),
    ("news_tokens", "  tokens of all news inputs", ""),
)
_CORPUS: Iterable[tuple[str, str, str]] = (
    ("without_title", "  dropped: no title", "articles"),
    ("without_body", "  dropped: no body", "articles"),
    ("kept", "  kept", ""),
    ("title_tokens", "  title tokens", ""),
    ("body_tokens", "  body tokens", ""),
)


def _cell(counts: dict[str, int], key: str, whole: str) -> str:
    value = counts.get(key, 0)
    if not value or not whole:
        return f"{value:,}"
    # "0.0 %" of something that is there would hide it.
    share = 100 * value / counts[whole]
    return f"{value:,} ({'<0.1' if value and share < 0.05 else f'{share:.1f}'} %)"


def _time(seconds: int) -> str:
    return str(np.datetime64(seconds, "s")).replace("T", " ")


def print_counts(manifest: Manifest) -> None:
    """The account of a data set as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    counts = manifest["counts"]
    # Rich takes 80 columns where there is no terminal, and would break every other label.
    console = Console() if Console().is_terminal else Console(width=110)
    splits: dict[str, dict[str, int]] = {}
    for name, split in counts.get("splits", {}).items():
        splits[name] = split | {"clicks_alone": split["clicks"] - split["unknown_clicks"] - split["samples"]}
    if splits:
        table = Table(title="impressions", caption="* kept without a score in a split without labels")
        table.add_column("")
        for name in splits:
            table.add_column(name, justify="right")
        for key, label, whole in _LABELS:
            if key.startswith("times_") and not any(split.get(key) for split in splits.values()):
                continue  # all in MIND's form
            table.add_row(label, *(_cell(split, key, whole) for split in splits.values()))
        for key, label in (("first_time", "first impression kept"), ("last_time", "last impression kept")):
            times = [_time(split[key]) if split["impressions_kept"] else "-" for split in splits.values()]
            table.add_row(label, *times)
        console.print(table)
    table = Table(title="texts")
    table.add_column("")
    table.add_column("", justify="right")
    if "news" in counts:
        texts = {key: count for key, count in counts.items() if isinstance(count, int)}
        for key, label, whole in (row for row in _TEXTS if row[0] in texts):
            table.add_row(label, _cell(texts, key, whole))
    corpus = counts.get("corpus")
    if corpus:
        own = manifest.get("request", {}).get("corpus")
        table.add_row(f"(title, {'body' if own else 'abstract'}) pairs for matching", f"{corpus['articles']:,}")
        for key, label, whole in _CORPUS:
            table.add_row(label if own else label.replace("body", "abstract"), _cell(corpus, key, whole))
    console.print(table)
