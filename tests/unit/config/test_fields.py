from dataclasses import dataclass

import pytest

from tnr_dist.config.fields import POSITIVE, SHARE, Limits, limits_of, meaning, setting


@dataclass
class Base:
    size: int = setting(3, "how many", POSITIVE)
    names: list[str] = setting(["a"], "who: all of them.")
    plain: int = 0


@dataclass
class Derived(Base):
    size: int = 5
    names: list[str] = setting(["b"], "others")


def test_a_derived_class_keeps_what_it_does_not_say_anew():
    assert (Derived().size, meaning(Derived, "size"), limits_of(Derived, "size")) == (5, "how many.", POSITIVE)
    assert (meaning(Base, "names"), meaning(Derived, "names")) == ("who: all of them.", "others.")
    assert meaning(Base, "plain") == "" and limits_of(Base, "plain") is None and limits_of(Base, "other") is None


def test_lists_are_copied():
    one, other = Base(), Base()
    one.names.append("c")
    assert other.names == Base().names == ["a"]


@pytest.mark.parametrize(
    ("limits", "good", "bad", "says"),
    [
        (POSITIVE, [1, 1e-9], [0, -1], "must be greater than 0"),
        (Limits(at_least=0), [0], [-1], "must not be negative"),
        (Limits(at_least=2), [2], [1], "must be 2 or more"),
        (Limits(at_most=1024), [1024], [1025], "must be at most 1,024"),
        (Limits(below=1), [0.9], [1], "must be below 1"),
        (Limits(at_least=-1, never=0), [-1, 1], [0], "must not be 0"),
        (Limits(at_least=0, also=-1), [0, -1], [-0.5, -2], "must not be negative"),
        (SHARE, [0, 1], [-0.1, 1.1], "a share between 0 and 1"),
        (Limits(length=2, at_least=0), [[0, 1]], [[1], [1, 2, 3]], "must have 2 values"),
        (Limits(length=2, at_least=0), [[0, 1]], [[0, -1]], "must not be negative"),
        (Limits(filled=True), [[0]], [[]], "must not be empty"),
    ],
)
def test_limits(limits, good, bad, says):
    assert [limits.fault(value) for value in good] == [""] * len(good)
    assert [limits.fault(value) for value in bad] == [says] * len(bad)
