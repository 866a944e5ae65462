"""One `Recommender`, many threads: readers get right pairs of id and score, and nothing that a writer adds is lost."""

import threading
import time
from collections import Counter

import numpy as np
import pytest

from tnr_dist.export import Recommender


def _right(name, start):
    """The vectors that news `name` may have: its own, or twice it."""
    return (start[name], 2 * start[name])


def _check(model, readers, writers, seconds):
    """Let readers and writers work side by side; returns reads, wrong pairs, errors, and the ids that were added."""
    start = dict(zip(model.ids, model.vectors.copy(), strict=True))
    known = list(start)
    added = [[] for _ in range(writers)]
    reads, wrong = [], []  # appending is atomic
    errors, stop = Counter(), threading.Event()

    def read(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            user = model.encode_user([*rng.choice(known, 20), "never there"])
            pairs = model.recommend(user, 5) + model.rank(user, list(rng.choice(known, 5)))
            for name, score in pairs:
                if name in start:
                    right = any(abs(float(vector @ user) - score) < 1e-2 for vector in _right(name, start))
                else:  # what the writers add
                    right = abs(float(_new(name, model) @ user) - score) < 1e-2
                if not right:
                    wrong.append(name)
            reads.append(seed)

    def write(number):
        rng = np.random.default_rng(100 + number)
        while not stop.is_set():
            name = str(rng.choice(known))
            model.add_news([name], _right(name, start)[rng.integers(2)][None])
            fresh = [f"new-{number}-{len(added[number]) + i}" for i in range(4)]
            model.add_news(fresh, np.stack([_new(one, model) for one in fresh]))
            added[number] += fresh
            time.sleep(0.01)

    def guarded(work, number):
        try:
            work(number)
        except Exception as error:
            errors[repr(error)] += 1

    threads = [threading.Thread(target=guarded, args=(read, number)) for number in range(readers)]
    threads += [threading.Thread(target=guarded, args=(write, number)) for number in range(writers)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    late = time.monotonic() + 60  # on a machine that has other things to do
    while not errors and time.monotonic() < late and (len(reads) < 4 * readers or not all(added)):
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    return len(reads), wrong, errors, known, [name for one in added for name in one]


def _new(name, model):
    """The vector of an added news follows from its name; it is small, so that the known ones are recommended too."""
    seed = [int(part) for part in name.split("-")[1:]]
    return 0.1 * np.random.default_rng(seed).standard_normal(model.description.news_dim).astype(np.float32)


@pytest.mark.parametrize(
    ("readers", "writers", "seconds"),
    [(4, 2, 1.5), pytest.param(8, 2, 60, marks=pytest.mark.slow)],
)
def test_readers_beside_writers(readers, writers, seconds, exports, caplog):
    caplog.set_level("ERROR")  # the skipped news of every request
    model = Recommender.from_pretrained(exports("hf"), vectors=exports("vectors"))
    reads, wrong, errors, known, added = _check(model, readers, writers, seconds)
    assert reads >= 4 * readers and not wrong and not errors
    assert len(added) >= 4 * writers and set(model.ids[len(known) :]) == set(added) and model.ids[: len(known)] == known
    np.testing.assert_array_equal(model.vectors_of(added), np.stack([_new(name, model) for name in added]))


def test_titles_of_several_writers_are_all_kept(exports):
    model = Recommender.from_pretrained(exports("hf"))
    titles = [f"Storm number {number} on the coast" for number in range(40)]

    def write(part):
        for number in range(part, 40, 4):
            model.add_news([f"N{number}"], titles[number : number + 1])

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(model.ids) == sorted(f"N{number}" for number in range(40))
    expected = Recommender.from_pretrained(exports("hf")).encode_news(titles)
    np.testing.assert_allclose(model.vectors_of([f"N{number}" for number in range(40)]), expected, atol=1e-5)
