"""What is cut stays different where it was."""

import random

import pytest

from tnr_dist.figures.shorten import shortened

LONG = "Tiny-NewsRec-4 with everything that was ever tried on it"


@pytest.mark.parametrize("most", [12, 20, 30])
@pytest.mark.parametrize(
    "names",
    [
        [f"{LONG}, seed {i}" for i in range(12)],
        [f"{i} {LONG}" for i in range(12)],
        [f"{LONG} {i} {LONG}" for i in range(12)],
        [f"{LONG} {i} {LONG} {j} {LONG}" for i in range(3) for j in range(3)],
        [LONG, f"{LONG}.", f"{LONG}..", "short"],
        ["/data/a/very/long/folder/of/somebody/a/plm", "/data/a/very/long/folder/of/somebody/b/plm"],
    ],
)
def test_different_names_stay_different(names, most):
    short = shortened(names, most)
    assert set(short) == set(names) and len(set(short.values())) == len(names)
    assert max(map(len, short.values())) <= most


def test_random_names():
    draw = random.Random(0)
    for _ in range(300):
        names = {"".join(draw.choice("ab") for _ in range(draw.randint(1, 60))) for _ in range(8)}
        short = shortened(names, 14)
        assert len(set(short.values())) == len(names) and max(map(len, short.values())) <= 14


def test_what_fits_stays():
    assert shortened(["a", "b", "a"], 3) == {"a": "a", "b": "b"}
    assert shortened([LONG], 11) == {LONG: "Tiny-…on it"}
