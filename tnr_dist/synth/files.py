"""The files of a generated data set that hold text: news.tsv of each split and corpus.tsv; and what synth.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tnr_dist.synth import readers as model
from tnr_dist.synth.frames import FORMS, TONES
from tnr_dist.synth.grammar import Vocabulary, Writer
from tnr_dist.util.progress import Bar

_EMPTY_ABSTRACTS = 0.05  # about as many as MIND has


class Arguments(TypedDict, total=False):
    """What a data set is generated from; `impressions` by split, `body_words` 0 without bodies."""

    news: int
    users: int
    impressions: dict[str, int]
    seed: int
    body_words: int
    signal: float


class Stamp(TypedDict, total=False):
    """synth.json; `oracle`: AUC on dev of the true probabilities and of the most popular news."""

    version: int
    arguments: Arguments
    categories: int
    subcategories: int
    splits: dict[str, dict[str, float]]
    oracle: dict[str, float]


def write_texts(
    folder: Path,
    rngs: list[np.random.Generator],
    news: model.News,
    names: NDArray[np.int64],
    vocabularies: tuple[Vocabulary, ...],
    body_words: int,
) -> list[str]:
    """All news as lines without their id, in order of publication; with `body_words` also corpus.tsv.

    `rngs`: for titles and abstracts, for bodies, for which abstracts are empty.
    """
    writer = Writer(rngs[0], rngs[1])
    empty = rngs[2].random(len(names)) < _EMPTY_ABSTRACTS
    folder.mkdir(parents=True, exist_ok=True)
    lines, corpus = [], []
    with Bar("news", len(names), "news") as bar:
        for place, (number, kind, facet) in enumerate(
            zip(names.tolist(), news.subcategory.tolist(), news.facet.tolist(), strict=True)
        ):
            vocabulary = vocabularies[kind]
            form, tone = divmod(facet, len(TONES))
            text = writer.write(vocabulary, FORMS[form], TONES[tone], body_words)
            abstract = "" if empty[place] else text.abstract
            head = f"{vocabulary.category}\t{vocabulary.subcategory}\t{text.title}\t{abstract}"
            entities = f"{_entities(text.name, text.title)}\t{_entities(text.name, abstract)}"
            lines.append(f"{head}\thttps://example.org/news/N{number}.html\t{entities}\n")
            if body_words:
                corpus.append(f"N{number}\t{head}\t{text.body}\n")
            if place % 1000 == 999:
                bar.advance(1000)
        bar.advance(len(names) % 1000)
    if body_words:
        with (folder / "corpus.tsv").open("w", encoding="utf-8", newline="") as file:
            file.writelines(corpus)
    return lines


def _entities(name: str, text: str) -> str:
    """MIND's JSON list of the entities that a text mentions."""
    place = text.lower().find(name.lower()) if name else -1
    if place < 0:
        return "[]"
    number = 900_000_000 + int.from_bytes(name.encode()[:3], "big")  # no real Wikidata item
    surface = text[place : place + len(name)]
    return json.dumps(
        [
            {
                "Label": name,
                "Type": "U",
                "WikidataId": f"Q{number}",
                "Confidence": 1.0,
                "OccurrenceOffsets": [place],
                "SurfaceForms": [surface],
            }
        ]
    )


def write_news(path: Path, names: NDArray[np.int64], lines: list[str], mentioned: NDArray[np.bool_]) -> None:
    """The news of a split in order of their ids, so that the order tells nothing of their dates."""
    with path.open("w", encoding="utf-8", newline="") as file:
        for place in np.argsort(names).tolist():
            if mentioned[place]:
                file.write(f"N{names[place]}\t{lines[place]}")
