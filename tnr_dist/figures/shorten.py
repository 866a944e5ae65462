"""Names and values cut to a length, so that what tells them apart stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def shortened(texts: Iterable[str], most: int) -> dict[str, str]:
    """Texts of at most `most` characters for texts of any length, different ones for different texts.

    A long one loses its middle. Where several then read the same, what they begin with goes instead; where that does not
    help either, they are numbered.
    """
    texts = list(dict.fromkeys(texts))
    out = {text: _without_middle(text, most) for text in texts}
    for found in _alike(out):
        out |= _from_where_they_differ(found, most)
    left = [text for found in _alike(out) for text in found]
    return out | {text: _without_middle(f"{number}: {text}", most) for number, text in enumerate(left, 1)}


def _alike(short: dict[str, str]) -> list[list[str]]:
    """Texts that are cut to one."""
    by_short: dict[str, list[str]] = {}
    for text, one in short.items():
        by_short.setdefault(one, []).append(text)
    return [found for found in by_short.values() if len(found) > 1]


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def _from_where_they_differ(texts: Sequence[str], most: int) -> dict[str, str]:
    """Their first letters, and each from a few letters before the first that is not the same in all."""
    head = min(4, most // 3)
    same = next(place for place in range(len(texts[0]) + 1) if len({text[: place + 1] for text in texts}) > 1)
    start = max(same - head, head)
    return {text: f"{text[:head]}…{_cut(text[start:], most - head - 1)}" for text in texts}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
