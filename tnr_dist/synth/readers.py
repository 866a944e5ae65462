"""The simulated readers behind `tnr data synth`: news, tastes, exposure and clicks, all as NumPy arrays.

An impression shows a user some recent news, popular ones more often. Of these the user clicks k, drawn without
replacement with probability softmax(logit), where

    logit(user, news) = interest(user, subcategory) + taste(user, form, tone) + quality(news) - fade * age.

Positions play no part. Interests are 3 to 6 subcategories, mostly of one or two home categories; they drift, so an
old history says less than a recent one. Everything but `quality` shows in the texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tnr_dist.synth.frames import FORMS, TONES

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Hours since 10/12/2019 0:00. History ends where train begins; then as in MIND 9-14 November, 15 November, the week after.
SPLIT_HOURS = {"train": (672, 816), "dev": (816, 840), "test": (840, 1008)}
FACETS = len(FORMS) * len(TONES)

_HISTORY_NEWS = 0.5  # share of news that is published before train begins
_FORM_SHARES = (0.5, 0.18, 0.16, 0.16)
_TONE_SHARES = (0.4, 0.3, 0.3)
_ZIPF = 0.6  # exposure ~ rank ** -_ZIPF
_EXPOSURE_HOURS = 18.0  # mean life of a news on the front page
_POOL_HOURS, _POOL_NEWS = 48, 200  # candidates are at most this old, unless there are too few
_MAX_INTERESTS = 6
_HOME_BONUS = 3.5  # log odds by which interests prefer the home categories
_INTEREST, _RANK_STEP = 4.1, 0.15  # logit of the first interest; what each next one is lower
_SIBLING = 2.0  # logit of the other subcategories of a category with an interest
_DRIFT = 0.4  # change of an interest's logit from one phase to the next, standard deviation
_TASTE = 0.6  # logit of the form and of the tone a user likes best
_FADE = 0.002  # loss of logit in an hour
_QUALITY, _POPULAR_QUALITY = 0.1, 0.32  # quality's own noise, and its share of standardised log exposure
_STEP = 0.05  # logits of users are multiples of this, kept as int8
_PHASES = 3  # early history, late history, impressions


@dataclass(frozen=True)
class News:
    """All news in order of publication; arrays [N]; facet = form * len(TONES) + tone."""

    subcategory: Ints
    facet: Ints
    birth: NDArray[np.float64]  # hours
    exposure: NDArray[np.float64]
    quality: Floats

    @property
    def cell(self) -> Ints:
        """Subcategory and facet as one number [N]."""
        return self.subcategory * FACETS + self.facet


@dataclass(frozen=True)
class Users:
    """Tastes of some users: `interest` [U, S] and `taste` [U, FACETS], in steps of `_STEP`; int8."""

    interest: NDArray[np.int8]
    taste: NDArray[np.int8]


def make_news(rng: np.random.Generator, count: int, subcategories: int) -> News:
    """Draw `count` news, earliest first."""
    popularity = rng.lognormal(0.0, 0.5, subcategories)
    first = round(_HISTORY_NEWS * count)
    start, end = SPLIT_HOURS["train"][0], SPLIT_HOURS["test"][1]
    birth = np.concatenate([rng.uniform(0, start, first), rng.uniform(start, end, count - first)])
    birth.sort()
    form = rng.choice(len(FORMS), size=count, p=_FORM_SHARES)
    tone = rng.choice(len(TONES), size=count, p=_TONE_SHARES)
    exposure = ((rng.permutation(count) + 1.0) / count) ** -_ZIPF
    log_exposure = np.log(exposure)
    quality = _QUALITY * rng.standard_normal(count)
    quality += _POPULAR_QUALITY * (log_exposure - log_exposure.mean()) / log_exposure.std()
    return News(
        rng.choice(subcategories, size=count, p=popularity / popularity.sum()),
        form * len(TONES) + tone,
        birth,
        exposure,
        quality.astype(np.float32),
    )


def make_users(rng: np.random.Generator, count: int, categories: Ints, signal: float = 1.0) -> list[Users]:
    """Draw `count` users, in each phase (early history, late history, impressions).

    Args:
        rng: the generator.
        count: how many users U.
        categories: category of each subcategory [S].
        signal: factor of all interests and tastes; less makes clicks harder to predict.
    """
    subcategories, kinds = len(categories), int(categories.max()) + 1
    homes = rng.integers(kinds, size=(count, 2))
    at_home = (categories[None] == homes[:, :1]) | (categories[None] == homes[:, 1:])
    appeal = rng.gumbel(size=(count, subcategories)).astype(np.float32) + _HOME_BONUS * at_home
    chosen = np.argsort(-appeal, axis=1, kind="stable")[:, :_MAX_INTERESTS]
    number = rng.integers(3, _MAX_INTERESTS + 1, size=(count, 1))
    rank = np.arange(_MAX_INTERESTS)
    strength = _INTEREST - _RANK_STEP * rank + 0.3 * rng.standard_normal(chosen.shape)
    strength[rank[None] >= number] = 0
    drift = _DRIFT * rng.standard_normal(chosen.shape)
    form, tone = rng.integers(len(FORMS), size=count), rng.integers(len(TONES), size=count)
    taste = 0.15 * rng.standard_normal((count, len(FORMS), len(TONES)))
    taste += _TASTE * (np.arange(len(FORMS)) == form[:, None])[:, :, None]
    taste += _TASTE * (np.arange(len(TONES)) == tone[:, None])[:, None, :]
    rows = np.arange(count)[:, None]
    followed = np.zeros((count, kinds), bool)
    followed[rows, np.where(rank[None] < number, categories[chosen], categories[chosen[:, :1]])] = True
    phases = []
    for phase in range(_PHASES):
        interest = (_SIBLING * followed[:, categories]).astype(np.float32)
        now = np.where(strength > 0, strength + drift * (phase - (_PHASES - 1)), 0)
        interest[rows, chosen] = np.maximum(interest[rows, chosen], now)
        phases.append(Users(_steps(signal * interest), _steps(signal * taste.reshape(count, FACETS))))
    return phases


def _steps(logits: NDArray[np.floating]) -> NDArray[np.int8]:
    steps: NDArray[np.int8] = np.clip(np.rint(logits / _STEP), -127, 127).astype(np.int8)
    return steps


def logits(users: Users, news: News, rows: Ints, items: Ints, hours: NDArray[np.float64]) -> Floats:
    """True logits of pairs (user `rows`, news `items`) at time `hours`; all [X]."""
    steps = users.interest[rows, news.subcategory[items]].astype(np.float32)
    steps += users.taste[rows, news.facet[items]]
    age = (hours - news.birth[items]).astype(np.float32)
    return np.float32(_STEP) * steps + news.quality[items] - np.float32(_FADE) * age


def sizes(rng: np.random.Generator, count: int, median: float, spread: float, low: int, high: int) -> Ints:
    """Log-normal whole numbers within [low, high]."""
    return np.clip(np.rint(median * np.exp(spread * rng.standard_normal(count))), low, max(low, high)).astype(np.int64)


def distinct(rng: np.random.Generator, rows: Ints, items: Ints, need: Ints) -> tuple[Ints, Ints]:
    """Keep at most `need[row]` distinct items of each row, in random order.

    Args:
        rng: gives each row its own order.
        rows, items: the draws [X]; rows < 2**23, items < 2**20.
        need: wanted number of items [R].

    Returns:
        (items, counts): row by row, and how many each row has [R].
    """
    salt = rng.integers(1 << 63, size=len(need), dtype=np.uint64)
    # Equal draws get equal keys, so one sort groups rows, shuffles within them and brings duplicates together.
    mixed = (items.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ salt[rows]
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(44)
    keys = (rows.astype(np.uint64) << np.uint64(40)) | (mixed << np.uint64(20)) | items.astype(np.uint64)
    keys.sort()
    fresh = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    keys = keys[fresh]
    row = (keys >> np.uint64(40)).astype(np.int64)
    counts = np.bincount(row, minlength=len(need))
    place = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
    keep = place < need[row]
    return (keys[keep] & np.uint64((1 << 20) - 1)).astype(np.int64), np.minimum(counts, need)


class Exposure:
    """What the front page shows in each hour of a split: a table of draws per hour."""

    def __init__(self, news: News, split: str) -> None:
        self.first_hour, end = SPLIT_HOURS[split]
        largest, pools = 1, []
        for hour in range(self.first_hour, end):
            born = int(np.searchsorted(news.birth, hour))
            low = int(np.searchsorted(news.birth, hour - _POOL_HOURS))
            low = max(0, min(low, born - _POOL_NEWS))
            pools.append((low, born))
            largest = max(largest, born - low)
        slots = 1 << int(np.clip(np.ceil(np.log2(8 * largest)), 12, 16))
        self.low = np.array([low for low, _ in pools])
        self.size = np.array([born - low for low, born in pools])
        self._table = np.empty((len(pools), slots), np.int32)
        points = (np.arange(slots) + 0.5) / slots
        for place, (low, born) in enumerate(pools):
            weight = news.exposure[low:born] * np.exp((news.birth[low:born] - news.birth[born - 1]) / _EXPOSURE_HOURS)
            total = np.cumsum(weight)
            found = np.searchsorted(total, points * total[-1])
            self._table[place] = low + np.minimum(found, born - low - 1)

    def draw(self, rng: np.random.Generator, hours: Ints, need: Ints) -> tuple[Ints, Ints]:
        """Distinct candidates for impressions at these (whole) `hours` [R]: (news, counts), row by row.

        `need` [R] is lowered to half of what there is to show, so a candidate list never exhausts the front page.
        """
        place = hours - self.first_hour
        need = np.minimum(need, self.size[place] // 2)
        rows = np.repeat(np.arange(len(need)), need + need // 4 + 2)
        items = self._popular(rng, place[rows])
        chosen, counts = distinct(rng, rows, items, need)
        done_rows = np.repeat(np.arange(len(need)), counts)
        for attempt in range(1000):
            short = np.flatnonzero(counts < need)
            if not len(short):
                return chosen, counts
            # Only the short rows draw again; after a few rounds evenly, so that long lists of a small pool end too.
            again = np.repeat(np.arange(len(short)), 2 * (need - counts)[short] + 4)
            at = place[short[again]]
            if attempt < 3:
                items = self._popular(rng, at)
            else:
                items = self.low[at] + (rng.random(len(at)) * self.size[at]).astype(np.int64)
            is_short = np.zeros(len(need), bool)
            is_short[short] = True
            held = is_short[done_rows]
            number = np.cumsum(is_short) - 1
            rows_now = np.concatenate([number[done_rows[held]], again])
            items_now = np.concatenate([chosen[held], items])
            filled, filled_counts = distinct(rng, rows_now, items_now, need[short])
            counts[short] = filled_counts
            rows_all = np.concatenate([done_rows[~held], short[np.repeat(np.arange(len(short)), filled_counts)]])
            order = np.argsort(rows_all, kind="stable")
            chosen, done_rows = np.concatenate([chosen[~held], filled])[order], rows_all[order]
        raise AssertionError("candidate lists did not fill")

    def _popular(self, rng: np.random.Generator, place: Ints) -> Ints:
        slot = rng.integers(self._table.shape[1], size=len(place), dtype=np.int32)
        return self._table[place, slot].astype(np.int64)


def probabilities(scores: Floats, counts: Ints) -> Floats:
    """Softmax of `scores` [X] within each row of `counts` [R] candidates."""
    starts = np.cumsum(counts) - counts
    shifted = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), counts))
    shares: NDArray[np.float32] = (shifted / np.repeat(np.add.reduceat(shifted, starts), counts)).astype(np.float32)
    return shares


def click(rng: np.random.Generator, scores: Floats, counts: Ints) -> NDArray[np.int8]:
    """Labels [X]: in each row 1 + geometric clicks, never all candidates, drawn without replacement by softmax."""
    number = np.minimum(rng.geometric(0.655, size=len(counts)), counts - 1)
    noisy = scores + rng.gumbel(size=len(scores)).astype(np.float32)
    labels = np.zeros(len(scores), np.int8)
    starts = np.cumsum(counts) - counts
    rows = np.arange(len(counts))
    # Gumbel top-k: the largest of a row is a softmax draw; take it away and the next is one among the rest.
    while len(rows):
        sizes_now = counts[rows]
        begin = np.cumsum(sizes_now) - sizes_now
        flat = np.arange(int(sizes_now.sum())) + np.repeat(starts[rows] - begin, sizes_now)
        values = noisy[flat]
        best = values == np.repeat(np.maximum.reduceat(values, begin), sizes_now)
        labels[flat[best]] = 1
        noisy[flat[best]] = -np.inf
        number = number - 1
        keep = number > 0
        rows, number = rows[keep], number[keep]
    return labels


def draw_histories(rng: np.random.Generator, phases: list[Users], news: News, subcategories: int) -> tuple[Ints, Ints]:
    """Clicks before train, oldest first, of the users of `phases`: (news, counts [U]).

    The same click model with the whole front page as candidates: a click falls on a news with probability
    ~ exposure * exp(logit), in the first half of the history time by the early phase's tastes, then by the late one's.
    """
    end = int(np.searchsorted(news.birth, SPLIT_HOURS["train"][0]))
    middle = int(np.searchsorted(news.birth, SPLIT_HOURS["train"][0] / 2))
    count = len(phases[0].interest)
    need = sizes(rng, count, 19.9, 1.04, 1, min(801, end // 6))
    need[rng.random(count) < 0.022] = 0
    early = rng.binomial(need, 0.4)
    items, rows, wanted = [], [], np.zeros(count, np.int64)
    for users, share, low, high in ((phases[0], early, 0, middle), (phases[1], need - early, middle, end)):
        row = np.repeat(np.arange(count), np.where(share > 0, 2 * share + 2, 0))
        found = _draw_clicks(rng, users, news, row, low, high, subcategories)
        kept, counts = distinct(rng, row, found, share)
        items.append(kept)
        rows.append(np.repeat(np.arange(count), counts))
        wanted += counts
    keys = np.concatenate(rows) << 20 | np.concatenate(items)
    keys.sort()
    return keys & ((1 << 20) - 1), wanted


def _draw_clicks(
    rng: np.random.Generator, users: Users, news: News, rows: Ints, low: int, high: int, subcategories: int
) -> Ints:
    """One news of [low, high) for each of `rows`, ~ exposure * exp(logit): subcategory, then facet, then news."""
    weight = news.exposure[low:high] * np.exp(news.quality[low:high].astype(np.float64))
    cell = news.cell[low:high]
    order = np.argsort(cell, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weight[order])])
    bounds = total[np.searchsorted(cell[order], np.arange(subcategories * FACETS + 1))]
    mass = np.diff(bounds).reshape(subcategories, FACETS)
    taste = np.exp(_STEP * users.taste.astype(np.float64))
    by_subcategory = np.exp(_STEP * users.interest.astype(np.float64)) * (taste @ mass.T)
    subcategory = _choose(rng, np.cumsum(by_subcategory, axis=1), rows)
    by_facet = np.cumsum(taste[rows] * mass[subcategory], axis=1)
    facet = _choose(rng, by_facet, np.arange(len(rows)))
    chosen = subcategory * FACETS + facet
    point = bounds[chosen] + rng.random(len(rows)) * (bounds[chosen + 1] - bounds[chosen])
    place = np.minimum(np.searchsorted(total, point, side="right") - 1, high - low - 1)
    drawn: NDArray[np.int64] = low + order[place]
    return drawn


def _choose(rng: np.random.Generator, cumulative: NDArray[np.float64], rows: Ints) -> Ints:
    """A column for each of `rows`, by the row's cumulative weights [R, S]."""
    width = cumulative.shape[1]
    share = cumulative / cumulative[:, -1:]
    # Rows laid end to end are one sorted array: row r spans (r, r + 1].
    flat = (share + np.arange(len(share))[:, None]).ravel()
    found = np.searchsorted(flat, rows + rng.random(len(rows)), side="right") - rows * width
    columns: NDArray[np.int64] = np.clip(found, 0, width - 1)
    return columns
