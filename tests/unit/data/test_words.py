"""Words, hashes and the news lookup equal what Python's own strings and dicts give."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tnr_dist.data.words import NewsLookup, gather_ascii, hash_strings, keys_of, mix, split_words

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


def colliding(length: int) -> tuple[str, str]:
    """Two ids of `length` bytes with one 64-bit key."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", np.uint8)
    heads = rng.choice(letters, (3_000_000, 8)).view("<u8").ravel()
    tail = np.frombuffer(b"-article", "<u8")[0]
    other = (mix(heads) ^ mix(heads[:1]) ^ tail).view(np.uint8).reshape(-1, 8)
    at = 1 + int(np.flatnonzero(np.isin(other[1:], letters).all(1))[0])
    rest = "" if length == 16 else "x" * (length - 16)
    first = heads[:1].tobytes().decode() + "-article" + rest
    return first, heads[at : at + 1].tobytes().decode() + other[at].tobytes().decode() + rest


@pytest.mark.parametrize("length", [16, 21, 40])
def test_ids_of_one_key_are_told_apart(length):
    one, two = colliding(length)
    data = np.frombuffer((one + two).encode(), np.uint8)
    keys = keys_of(data, np.array([0, length]), np.array([length, length]))
    assert one != two and len(one) == len(two) == length and keys[0] == keys[1]
    words = split_words(pa.array([f"{one} {two} N1 {one}x"]))
    assert NewsLookup(pa.array([one, "N1", two])).find(words).tolist() == [0, 2, 1, -1]
    # One alone is not taken for the other, nor a short id for what has its bytes as key.
    assert NewsLookup(pa.array([two, "N1"])).find(words).tolist() == [-1, 0, 1, -1]
    labelled = split_words(pa.array([f"{one}-1 {two}-0"]))
    assert NewsLookup(pa.array([two])).find(labelled, ending=2).tolist() == [-1, 0]
