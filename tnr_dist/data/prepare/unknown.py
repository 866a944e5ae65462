"""News of histories and candidates that are in no news file: how many, one to look at, which separator they seem to have."""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np

from tnr_dist.data.prepare.news_ids import Words

#: A larger share of a split's candidates, or of the news in its histories, is an error (`--max-unknown`).
MOST_UNKNOWN = 0.2
_SEPARATORS = ",;|/"
_COUNTED = np.isin(np.arange(256), np.frombuffer(b",;|", np.uint8))
_LOOKED_AT = 10_000  # texts


def count_separators(words: Words, unknown: np.ndarray) -> np.ndarray:
    """How many commas, semicolons and bars stand inside each of the `unknown` words, int64 [W]; 0 for the others."""
    out = np.zeros(len(words), np.int64)
    at = np.flatnonzero(unknown)
    if len(at):
        before = np.zeros(len(words.data) + 1, np.int64)
        np.cumsum(_COUNTED[words.data], out=before[1:])
        out[at] = before[words.ends[at] - 1] - before[np.minimum(words.starts[at] + 1, words.ends[at] - 1)]
    return out


def describe_unknown(texts: Iterable[str], known: Container[str], labelled: bool = False) -> str:
    """An unknown word of some texts, and the separator that would make known news of it, for a message.

    Args:
        texts: histories or candidates, with at least one unknown word.
        known: ids of the news that are there.
        labelled: the words end in -0 or -1.
    """

    def is_known(word: str) -> bool:
        return (word[:-2] if labelled and word.endswith(("-0", "-1")) else word) in known

    first = ""
    for _, text in zip(range(_LOOKED_AT), texts, strict=False):
        for word in text.split():
            if is_known(word):
                continue
            first = first or word
            if not labelled and word[-1] in "01" and word[:-2] in known:
                return f"such as {_cut(word)!r}; labels seem to follow a {word[-2]!r}, '-' is expected"
            for separator in _SEPARATORS:
                parts = [part for part in word.split(separator) if part]
                if parts and parts != [word] and 2 * sum(map(is_known, parts)) > len(parts):
                    return f"such as {_cut(word)!r}; they seem to be separated by {separator!r}, spaces are expected"
    return f"such as {_cut(first)!r}; is the news file incomplete?" if first else "is the news file incomplete?"


def _cut(word: str) -> str:
    return word if len(word) <= 40 else f"{word[:39]}…"
