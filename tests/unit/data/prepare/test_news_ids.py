"""Words, hashes and the news lookup equal what Python's own strings and dicts give."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tnr_dist.data.prepare.news_ids import NewsLookup, equal_ranges, gather_ascii, hash_strings, mix, split_words


def one_key() -> tuple[str, str, str]:
    """Two ids of 16 letters and one of 8 that have one 64-bit key."""
    random = np.random.default_rng(0)

    def words(numbers):
        return np.ascontiguousarray(numbers)[:, None].view(np.uint8).reshape(-1, 8)

    printable = random.integers(33, 127, (1 << 17, 8), np.uint8)
    heads = printable.view(np.uint64)[:, 0]
    tail = np.frombuffer(b"-letters", np.uint64)[0]
    # The key of head + tail is mix(head) ^ tail.
    short = mix(heads) ^ tail
    first = next(i for i, row in enumerate(words(short)) if ((row > 32) & (row < 127)).all())
    tails = words(mix(heads) ^ short[first])
    second = next(
        i
        for i, row in enumerate(tails)
        if i != first and ((row > 32) & (row < 127)).all() and row.tobytes() != b"-letters"
    )
    one, other = printable[first].tobytes() + b"-letters", printable[second].tobytes() + tails[second].tobytes()
    return one.decode(), other.decode(), words(short)[first].tobytes().decode()


word = st.text(st.characters(codec="utf-8", exclude_characters=" \0"), min_size=1, max_size=20)
text = st.lists(st.one_of(word, st.just("")), max_size=6).map(" ".join)


@settings(deadline=None)
@given(st.lists(text, max_size=12), st.integers(0, 5))
def test_split_words(texts, skip):
    words = split_words(pa.array(texts, pa.large_string()).slice(skip))
    got = [[words.text(i) for i in range(a, b)] for a, b in zip(words.offsets[:-1], words.offsets[1:], strict=True)]
    assert got == [[w for w in t.split(" ") if w] for t in texts[skip:]]


@settings(deadline=None)
@given(st.lists(word, unique=True, max_size=30), st.lists(word, max_size=30), st.integers(0, 2))
def test_lookup_is_a_dict(ids, others, ending):
    wanted = ids[::2] + others + [one[:-1] for one in ids if len(one) > 1] + [one + "x" for one in ids]
    words = split_words(pa.array([" ".join(one + "-1"[2 - ending :] for one in wanted)]))
    index = {one: i for i, one in enumerate(ids)}
    assert NewsLookup(pa.array(ids, pa.string())).find(words, ending).tolist() == [index.get(w, -1) for w in wanted]


def test_lookup_of_many():
    ids = np.array([f"N{i}" for i in np.random.default_rng(0).permutation(200_000)[:60_000]])
    lookup = NewsLookup(pa.array(ids))
    numbers = np.random.default_rng(1).integers(0, 220_000, 50_000)
    index = {one: i for i, one in enumerate(ids.tolist())}
    found = lookup.find(split_words(pa.array([" ".join(f"N{i}" for i in numbers)])))
    assert found.tolist() == [index.get(f"N{i}", -1) for i in numbers]


@pytest.mark.parametrize("known", list(itertools.product([False, True], repeat=3)))
def test_ids_of_one_key_are_told_apart(known):
    """All of them, two, or one alone, which must not stand for the others."""
    ids = one_key()
    assert len(set(hash_strings(pa.array(ids)).tolist())) == 1 and len(set(ids)) == 3
    there = [one for one, keep in zip(ids, known, strict=True) if keep]
    lookup = NewsLookup(pa.array(["N1", *there, "a-name-of-22-letters-N2"], pa.string()))
    wanted = [*ids, "N1", "N2", *ids, "a-name-of-22-letters-N2", "a-name-of-22-letters-N3"]
    index = {one: i for i, one in enumerate(lookup.ids.to_pylist())}
    for ending in ("", "-1"):
        words = split_words(pa.array([" ".join(one + ending for one in wanted)]))
        assert lookup.find(words, len(ending)).tolist() == [index.get(one, -1) for one in wanted]


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=20))
def test_equal_ranges(pairs):
    pairs = [*pairs, *((a, a) for a, _ in pairs), *((a, a[:-1] + b"x") for a, _ in pairs if a)]
    lengths = np.array([min(len(a), len(b)) for a, b in pairs], np.int64)
    data, others = (np.frombuffer(b"".join(one), np.uint8) for one in (list(zip(*pairs, strict=True)) or [(), ()]))
    starts, other_starts = (
        np.concatenate([[0], np.cumsum([len(pair[side]) for pair in pairs])])[:-1].astype(np.int64) for side in (0, 1)
    )
    found = equal_ranges(data, starts, others, other_starts, lengths)
    assert found.tolist() == [a[:n] == b[:n] for (a, b), n in zip(pairs, lengths.tolist(), strict=True)]


def test_hashes_are_fixed_and_spread():
    users = pa.array([f"U{i}" for i in range(20_000)] + ["a-much-longer-user-id", "a-much-longer-user-ie", ""])
    hashes = hash_strings(users)
    assert len(np.unique(hashes)) == len(users)
    for modulus in (2, 7, 64, 137):
        share = np.bincount(hashes % np.uint64(modulus)) / len(users) * modulus
        assert share.min() > 0.6 and share.max() < 1.4
    # The same on every machine: shards of two runs must agree. U1 is its bytes, little-endian, through splitmix64.
    x, m = int.from_bytes(b"U1", "little"), (1 << 64) - 1
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & m
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & m
    assert int(hash_strings(pa.array(["U1"]))[0]) == x ^ (x >> 31)


def test_gather_ascii():
    data = np.frombuffer("héllo wörld".encode(), np.uint8)
    assert gather_ascii(data, np.array([7, 0]), np.array([9, 3])).to_pylist() == ["w?", "h??"]
