"""Tiny raw MIND folders for tests, and a slow reading of them in plain Python to compare with."""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, field
from pathlib import Path

WORDS = ["sun", "moon", "rain", "wins", "loses", "city", "team", "club", "house", "vote", "new", "old"]


def write_vocabulary(folder: Path) -> str:
    """A tokenizer folder with a vocabulary of a few words; its path is a `plm`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", '"', *WORDS]) + "\n")
    return str(folder)


@dataclass
class Row:
    """One line of behaviors.tsv."""

    id: int
    user: str
    time: datetime.datetime
    history: list[str]
    candidates: list[tuple[str, int]]
    space: str = " "

    def line(self, labelled: bool) -> str:
        hour = self.time.hour % 12 or 12
        time = f"{self.time:%m/%d/%Y} {hour}:{self.time:%M:%S} {'AM' if self.time.hour < 12 else 'PM'}"
        words = [f"{news}-{click}" if labelled else news for news, click in self.candidates]
        return f"{self.id}\t{self.user}\t{time}\t{self.space.join(self.history)}\t{self.space.join(words)}"

    @property
    def seconds(self) -> int:
        return int((self.time - datetime.datetime(1970, 1, 1)).total_seconds())


@dataclass
class Split:
    """A split's rows and news ids; `write` makes the two files."""

    rows: list[Row]
    news: list[str]
    labelled: bool = True
    end: str = "\n"
    titles: dict[str, str] = field(default_factory=dict)

    def news_text(self) -> str:
        lines = []
        for number, news in enumerate(self.news):
            title = self.titles.get(news, f'"{WORDS[number % 12]}" {WORDS[number % 5]} {number}')
            abstract = "" if number % 7 == 0 else f"{WORDS[number % 3]} {WORDS[number % 11]}"
            lines.append(f"{news}\tsports\tgolf\t{title}\t{abstract}\thttps://x\t[]\t[]{self.end}")
        return "".join(lines)

    def behaviours_text(self) -> str:
        return "".join(row.line(self.labelled) + self.end for row in self.rows)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "news.tsv").write_text(self.news_text(), newline="")
        (folder / "behaviors.tsv").write_text(self.behaviours_text(), newline="")
        return folder


def random_split(
    seed: int,
    rows: int = 60,
    users: int = 15,
    news: int = 30,
    unknown: int = 6,
    labelled: bool = True,
    prefix: str = "N",
) -> Split:
    """Rows with all that real files hold: users whose history changes, empty histories, unknown and repeated news."""
    rng = random.Random(seed)
    known = [f"{prefix}{i}" for i in range(news)]
    everything = known + [f"{prefix}{10_000 + i}" for i in range(unknown)]
    history = {u: rng.choices(everything, k=rng.choice([0, 1, 3, 20])) for u in range(users)}
    out = []
    for _ in range(rows):
        user = rng.randrange(users)
        if rng.random() < 0.05:
            history[user] = rng.choices(everything, k=4)
        candidates = rng.sample(everything, rng.choice([1, 2, 5, 12]))
        if unknown and rng.random() < 0.1:
            candidates = everything[-2:]
        out.append(
            Row(
                id=rng.randrange(10**6),
                user=f"U{user}",
                time=datetime.datetime(2019, 11, 9) + datetime.timedelta(seconds=rng.randrange(6 * 86_400)),
                history=history[user],
                candidates=[(c, int(rng.random() < 0.3)) for c in candidates],
                space=" " * rng.choice([1, 1, 1, 2]),
            )
        )
    return Split(out, known, labelled)


def expected(
    split: Split, index: dict[str, int], chosen: set[int] | None = None
) -> tuple[dict[int, tuple], dict[str, int]]:
    """By row number (impression id, user, seconds, history, candidates, clicks), and the account; plain Python."""
    kept: dict[int, tuple] = {}
    account = dict.fromkeys(
        [
            "impressions",
            "impressions_kept",
            "impressions_without_candidates",
            "candidates",
            "unknown_candidates",
            "clicks",
            "unknown_clicks",
            "samples",
            "max_candidates",
        ],
        0,
    )
    pairs: dict[tuple[str, tuple[str, ...]], None] = {}
    for number, row in enumerate(split.rows):
        if chosen is not None and number not in chosen:
            continue
        account["impressions"] += 1
        account["candidates"] += len(row.candidates)
        account["unknown_candidates"] += sum(news not in index for news, _ in row.candidates)
        if split.labelled:
            account["clicks"] += sum(click for _, click in row.candidates)
            account["unknown_clicks"] += sum(click for news, click in row.candidates if news not in index)
            candidates = [(index[news], click) for news, click in row.candidates if news in index]
        else:
            candidates = [(index.get(news, -1), 0) for news, _ in row.candidates]
        if not candidates:
            account["impressions_without_candidates"] += 1
            continue
        account["impressions_kept"] += 1
        account["max_candidates"] = max(account["max_candidates"], len(candidates))
        clicks = sum(click for _, click in candidates)
        account["samples"] += clicks if clicks < len(candidates) else 0
        history = [index[news] for news in row.history if news in index]
        kept[number] = (
            row.id, row.user, row.seconds, history, [news for news, _ in candidates],
            [click for _, click in candidates] if split.labelled else None,
        )  # fmt: skip
        # The text as it stands tells histories apart.
        pairs[row.user, (row.space.join(row.history),)] = None
    histories = [(user, text.split()) for user, (text,) in pairs]
    users = [user for user, _ in histories]
    account |= {
        "users": len(set(users)),
        "users_with_changing_history": sum(users.count(user) > 1 for user in set(users)),
        "histories": len(histories),
        "empty_histories": sum(not news for _, news in histories),
        "history_items": sum(len(news) for _, news in histories),
        "unknown_history_items": sum(one not in index for _, news in histories for one in news),
        "max_history": max((len(news) for _, news in histories), default=0),
        "first_time": min((kept[k][2] for k in kept), default=1 << 62),
        "last_time": max((kept[k][2] for k in kept), default=0),
    }
    return kept, account
