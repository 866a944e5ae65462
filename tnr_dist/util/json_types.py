"""What a JSON file may hold, and records read from one: a TypedDict says which keys, `checked` compares once."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import TypeAlias, TypeVar, cast

from tnr_dist.util.errors import InputError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]

T = TypeVar("T")

_LARGEST = 1e300  # a number of 400 digits is none
_SAID: dict[object, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def built(kind: type[T], values: Mapping[str, object]) -> T:
    """`kind(**values)`, where `values` were read and `kind` itself says what is wrong. Raises TypeError for other keys."""
    return kind(**values)


def checked(value: Mapping[str, object], kind: type[T], where: str) -> T:
    """An object that was read, as the TypedDict `kind`.

    A key that is missing, or null, is one that an older version did not write; one that `kind` does not name is left.
    Raises InputError, which begins with `where`, for the first value, by dotted key, of another kind.
    """
    _check(value, kind, where, "")
    return cast(T, value)


def _check(value: object, hint: object, where: str, key: str) -> None:
    if value is None or hint is object:
        return
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # `X | None`
        hint = next(one for one in typing.get_args(hint) if one is not types.NoneType)
    kind = dict if typing.is_typeddict(hint) else typing.get_origin(hint) or hint
    if not _is(kind, value) or (isinstance(value, int | float) and not abs(value) < _LARGEST):
        raise InputError(f"{where}{key}={str(value)[:60]!r}: not {_SAID[kind]}; it is damaged, make it again")
    if isinstance(value, dict):
        hints = typing.get_type_hints(hint) if typing.is_typeddict(hint) else {}
        others = typing.get_args(hint)[1] if typing.get_args(hint) else object
        for name, one in value.items():
            _check(one, hints.get(name, others), where, f"{key}.{name}" if key else name)


def _is(kind: object, value: object) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(kind, type) and isinstance(value, kind)
