"""News text from topic grammars: titles, abstracts and bodies whose topic, form and tone show by meaning.

A subcategory is a small vocabulary of real-world concepts (`vocabulary/sports.txt` and its siblings); a news draws a
handful of them. Two news of one subcategory therefore often share no content word, yet a pre-trained language model
knows that "quarterback" and "onside kicks" belong together. That is what makes the generated data worth distilling on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from tnr_dist.synth import frames

_GROUPS = ("sports", "public", "money", "living", "arts")  # files of `vocabulary/`; people depend on the order
_KEYS = ("who", "names", "things", "acts", "how")
_PEOPLE = 60  # recurring people of a subcategory
_TITLE_WORDS = (5, 20)  # shortest and longest title
_QUOTED = 0.02  # share of reports that open with a quotation
_SUFFIXED = 0.4  # share of other titles with a suffix
_TITLE_CASE = 0.35  # share of titles in Title Case; MIND mixes both
_SMALL_WORDS = frozenset(
    ("a", "an", "and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "over", "the", "to", "with")
)

# Numbers inside an act vary from news to news; years, ordinals, "911" and the like stay.
_NUMBER = re.compile(r"(?<![\w.\-])(\$?)(\d{2,})(?= [a-z]|-|$)")
_FIXED = re.compile(r"\b(1[89]|20)\d\d\b|911|Hot 100|degrees|-meter|mile 25|65 |backside")


@dataclass(frozen=True)
class Vocabulary:
    """The words of one subcategory; `grim` acts are the bad news among them, `kind` the others."""

    category: str
    subcategory: str
    who: tuple[str, ...]
    names: tuple[str, ...]
    things: tuple[str, ...]
    kind: tuple[str, ...]
    grim: tuple[str, ...]
    how: tuple[str, ...]
    people: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class NewsText:
    """One news: `name` is the entity it mentions (empty when the title does not); `body` may be empty."""

    title: str
    abstract: str
    body: str
    name: str


@cache
def read_tables() -> tuple[Vocabulary, ...]:
    """All subcategories, in a fixed order.

    Table format: a paragraph per subcategory, first `category/subcategory`, then `who:` roles in the singular, `names:`
    entities that can stand before a role, `things:` plurals, `acts:` third-person verb phrases (`!` marks bad news),
    `how:` verb phrases that can follow "how to"; items end at ", " and lines without a key continue the one before.
    """
    folder = resources.files("tnr_dist.synth").joinpath("vocabulary")
    texts = [folder.joinpath(f"{group}.txt").read_text(encoding="utf-8") for group in _GROUPS]
    paragraphs = [paragraph for text in texts for paragraph in text.strip().split("\n\n")]
    return tuple(_read_paragraph(text, number) for number, text in enumerate(paragraphs))


def _read_paragraph(text: str, number: int) -> Vocabulary:
    head, *lines = text.split("\n")
    category, subcategory = head.split("/")
    fields: dict[str, str] = {}
    key = ""
    for line in lines:
        start, _, rest = line.partition(": ")
        if start in _KEYS:
            key = start
            fields[key] = rest
        else:
            fields[key] += " " + line
    items = {key: tuple(fields[key].split(", ")) for key in _KEYS}
    first, last = frames.FIRST_NAMES, frames.LAST_NAMES
    # Strides prime to the table sizes walk over all pairs, so subcategories have different people.
    people = tuple(
        (first[(number * 17 + j * 31) % len(first)], last[(number * 41 + j * 13) % len(last)]) for j in range(_PEOPLE)
    )
    return Vocabulary(
        category,
        subcategory,
        items["who"],
        items["names"],
        items["things"],
        kind=tuple(act for act in items["acts"] if not act.startswith("!")),
        grim=tuple(act[1:] for act in items["acts"] if act.startswith("!")),
        how=items["how"],
        people=people,
    )


class _Draws:
    """Uniform draws from a generator, buffered: a call costs a tenth of `Generator.integers`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._numbers: Iterator[int] = iter(())

    def number(self) -> int:
        for value in self._numbers:
            return value
        self._numbers = iter(self._rng.integers(1 << 31, size=1 << 14).tolist())
        return self.number()

    def pick(self, items: Sequence[str]) -> str:
        return items[self.number() % len(items)]

    def pair(self, items: Sequence[str]) -> tuple[str, str]:
        """Two different items."""
        first = self.number() % len(items)
        second = (first + 1 + self.number() % (len(items) - 1)) % len(items)
        return items[first], items[second]

    def chance(self, share: float) -> bool:
        return self.number() < share * (1 << 31)


class Writer:
    """Writes news; no two titles of one writer are alike.

    Bodies come from their own generator, so asking for them changes no title. Deterministic in the two generators.
    """

    def __init__(self, rng: np.random.Generator, body_rng: np.random.Generator) -> None:
        self._draws = _Draws(rng)
        self._body_draws = _Draws(body_rng)
        self._titles: set[str] = set()

    def write(self, vocabulary: Vocabulary, form: str, tone: str, body_words: int = 0) -> NewsText:
        """A news of this subcategory, form and tone (`frames.FORMS`, `TONES`).

        Args:
            vocabulary: the subcategory.
            form: what kind of text it is.
            tone: what mood it is in.
            body_words: about how many words of body; 0 for none.
        """
        draws = self._draws
        while True:
            story = _story(vocabulary, tone, draws)
            title = self._title(story, form, tone)
            if _TITLE_WORDS[0] <= title.count(" ") + 1 <= _TITLE_WORDS[1] and title.lower() not in self._titles:
                break
        self._titles.add(title.lower())
        lead = _sentence(draws.pick(frames.LEADS[form]), story)
        mood = _sentence(draws.pick(frames.MOODS[tone]), _refresh(story, vocabulary, tone, draws))
        name = story["N"] if story["N"].lower() in title.lower() else ""
        body = self._body(vocabulary, form, tone, story, body_words) if body_words else ""
        return NewsText(title, f"{lead} {mood}", body, name)

    def _title(self, story: dict[str, str], form: str, tone: str) -> str:
        draws = self._draws
        if form == "report":
            title = draws.pick(frames.REPORTS).format_map(story)
            if draws.chance(_QUOTED):
                title = f'"{draws.pick(frames.QUOTES[tone])}": {title}'
            elif tone != "plain" or draws.chance(0.85):
                # The tail speaks of other things than the head does.
                title += " " + draws.pick(frames.TAILS[tone]).replace("{t}", "{v}").format_map(story)
        else:
            title = draws.pick(frames.TITLES[form, tone]).format_map(story)
            if draws.chance(_SUFFIXED) and title[-1] not in "?!":
                title += draws.pick(frames.SUFFIXES).format_map(story)
        title = title[0].upper() + title[1:]
        return _title_case(title) if draws.chance(_TITLE_CASE) else title

    def _body(self, vocabulary: Vocabulary, form: str, tone: str, story: dict[str, str], words: int) -> str:
        """The same story at length: its people, names and acts, and other words of the subcategory."""
        draws = self._body_draws
        sentences = [_sentence(draws.pick(frames.LEADS[form]), story)]
        count = sentences[0].count(" ") + 1
        order = [(draws.number(), frame) for frame in frames.DETAILS]
        order.sort()
        used = 0
        while count < words:
            if used % 4 == 2:
                frame = draws.pick(frames.MOODS[tone])
            else:
                frame = order[used % len(order)][1]
            used += 1
            sentence = _sentence(frame, _refresh(story, vocabulary, tone, draws))
            if sentence not in sentences:
                sentences.append(sentence)
                count += sentence.count(" ") + 1
        return " ".join(sentences)


def _story(vocabulary: Vocabulary, tone: str, draws: _Draws) -> dict[str, str]:
    """The slots that a news keeps in title, abstract and body."""
    first, last = vocabulary.people[draws.number() % len(vocabulary.people)]
    story = {"P": f"{first} {last}", "L": last, "N": draws.pick(vocabulary.names), "W": draws.pick(vocabulary.who)}
    story["aW"] = _with_article(story["W"])
    story["C"], story["E"] = draws.pair(frames.CITIES)
    story["A"] = _act(vocabulary, tone, draws)
    return _refresh(story, vocabulary, tone, draws)


def _refresh(story: dict[str, str], vocabulary: Vocabulary, tone: str, draws: _Draws) -> dict[str, str]:
    """The story with fresh minor slots: other things, another act, another role, another number, another day."""
    fresh = dict(story)
    fresh["t"], fresh["u"] = draws.pair(vocabulary.things)
    fresh["v"] = draws.pick(vocabulary.things)
    while fresh["v"] in (fresh["t"], fresh["u"]):
        fresh["v"] = draws.pick(vocabulary.things)
    fresh["H"], fresh["I"] = draws.pair(vocabulary.how)
    fresh["M"] = _another(vocabulary.names, story["N"], draws)
    fresh["V"] = _another(vocabulary.who, story["W"], draws)
    fresh["aV"] = _with_article(fresh["V"])
    fresh["B"] = _act(vocabulary, tone, draws)
    fresh["k"] = str(3 + draws.number() % 18)
    fresh["D"] = draws.pick(frames.WEEKDAYS)
    return fresh


def _another(items: tuple[str, ...], taken: str, draws: _Draws) -> str:
    item = draws.pick(items)
    return item if item != taken else items[(items.index(item) + 1) % len(items)]


def _act(vocabulary: Vocabulary, tone: str, draws: _Draws) -> str:
    """An act that suits the tone; bad news is never uplifting."""
    if tone == "uplifting" or not vocabulary.grim:
        acts = vocabulary.kind or vocabulary.grim
    elif tone == "alarming":
        acts = vocabulary.grim
    else:
        acts = vocabulary.kind + vocabulary.grim
    act = draws.pick(acts)
    if _FIXED.search(act):
        return act
    return _NUMBER.sub(lambda match: match[1] + _vary(int(match[2]), draws), act)


def _vary(number: int, draws: _Draws) -> str:
    """A number of the same size, as a headline would write it."""
    value = max(10, number * (80 + draws.number() % 46) // 100)
    step = 10 ** (len(str(value)) - 2)
    return f"{value // step * step:,}"


def _with_article(noun: str) -> str:
    vowel = noun[0].lower() in "aeiou" and not noun.lower().startswith(("eu", "one", "uni", "u.", "un m"))
    spelled = noun.split()[0] in {"F-16", "FBI", "MIT", "NFL", "SUV", "EV", "IT", "AI", "UN", "LED", "MMA"}
    return f"{'an' if (vowel or spelled) and not noun.startswith('UN ') else 'a'} {noun}"


def _sentence(frame: str, slots: dict[str, str]) -> str:
    text = frame.format_map(slots)
    start = 1 if text[0] == '"' else 0
    return text[:start] + text[start].upper() + text[start + 1 :]


def _title_case(title: str) -> str:
    words = title.split(" ")
    return " ".join(
        word if place and word in _SMALL_WORDS else word[:1].upper() + word[1:] for place, word in enumerate(words)
    )
