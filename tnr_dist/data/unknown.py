"""Histories whose news are in no news file: one of them to look at, and which separator they seem to have."""

from __future__ import annotations

from collections.abc import Container, Iterable

#: A larger share of a split's candidates, or of the news in its histories, is an error (`--max-unknown`).
MOST_UNKNOWN = 0.2
_SEPARATORS = ",;|/"
_LOOKED_AT = 10_000  # histories


def describe_unknown(histories: Iterable[str], known: Container[str]) -> str:
    """An unknown word of some histories, and the separator that would make known news of it, for a message.

    Args:
        histories: the fourth column of behaviors.tsv, with at least one unknown word.
        known: ids of the news that are there.
    """
    first = ""
    for _, history in zip(range(_LOOKED_AT), histories, strict=False):
        for word in history.split():
            if word in known:
                continue
            first = first or word
            for separator in _SEPARATORS:
                parts = [part for part in word.split(separator) if part]
                if len(parts) > 1 and 2 * sum(part in known for part in parts) > len(parts):
                    return f"such as {_cut(word)!r}; they seem to be separated by {separator!r}, spaces are expected"
    return f"such as {_cut(first)!r}; is the news file incomplete?" if first else "is the news file incomplete?"


def _cut(word: str) -> str:
    return word if len(word) <= 40 else f"{word[:39]}…"
