"""Records read from JSON: every value of its kind, or one line that names the key."""

from __future__ import annotations

from typing import TypedDict

import pytest

from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import built, checked


class Inner(TypedDict, total=False):
    count: int


class Record(TypedDict, total=False):
    name: str
    share: float | None
    done: bool
    inner: Inner
    each: dict[str, int]
    names: list[str]
    whatever: object


SOUND = {
    "name": "a",
    "share": 1,
    "done": True,
    "inner": {"count": 2},
    "each": {"x": 1},
    "names": [],
    "whatever": [1],
    "of another version": {},
}


def test_a_sound_record_comes_back_as_it_is() -> None:
    assert checked(SOUND, Record, "file: ") is SOUND


def test_what_is_missing_or_null_is_an_older_version_s() -> None:
    assert checked({}, Record, "") == {}
    assert checked({"name": None, "inner": {"count": None}}, Record, "") == {"name": None, "inner": {"count": None}}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", 3, "name='3': not text"),
        ("share", True, "share='True': not a number"),
        ("share", 10**400, "not a number"),
        ("done", 1, "done='1': not true or false"),
        ("inner", [], r"inner='\[\]': not an object"),
        ("inner", {"count": 2.5}, "inner.count='2.5': not a whole number"),
        ("each", {"x": "1"}, "each.x='1': not a whole number"),
        ("names", {}, "names='{}': not a list"),
    ],
)
def test_a_value_of_another_kind_is_named(key: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=f"^file: .*{said}; it is damaged, make it again$"):
        checked({**SOUND, key: value}, Record, "file: ")


def test_built_gives_the_class_the_keys_to_refuse() -> None:
    assert built(dict, {"a": 1}) == {"a": 1}
    with pytest.raises(TypeError, match="colour"):
        built(Point, {"x": 1, "colour": 2})


class Point:
    def __init__(self, x: int) -> None:
        self.x = x
