"""What may be shown of a user's settings: keys and passwords are logged nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar, overload

# A shell command, alone, in a list of braces, or in an override: `data.shards=pipe:...`.
_PIPE = re.compile(r"(?<![A-Za-z0-9])pipe:.*", re.DOTALL | re.IGNORECASE)
_USER = re.compile(r"[^\s={},'\"]*:\S*@")  # `user:password@host` without a scheme


V = TypeVar("V")


@overload
def without_secrets(value: str) -> str: ...
@overload
def without_secrets(value: dict[str, V]) -> dict[str, V]: ...
@overload
def without_secrets(value: object) -> object: ...
def without_secrets(value: object) -> object:
    """A configuration's values without what an address may carry beside its place: user, password, signature, fragment.

    Of a `pipe:` address, which is a shell command, nothing stays: a key may stand anywhere in it. Where a password cannot
    be told from a query, nothing of the address stays either.
    """
    if isinstance(value, dict):
        return {key: without_secrets(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    if isinstance(value, str):
        value = _PIPE.sub("pipe:...", value)
        before, scheme, rest = value.partition("://")
        value = before + scheme + _place(rest) if scheme else _USER.sub("...@", value)
    return value


def without_arguments_secrets(message: str, arguments: Iterable[str]) -> str:
    """A message in which arguments of the command line, and values in them, stand as they may be shown."""
    for argument in arguments:
        for piece in (argument, *argument.partition("=")[::2]):
            shown = without_secrets(piece)
            if shown != piece:
                message = message.replace(piece, shown).replace(repr(piece)[1:-1], shown)
    return message


def _place(rest: str) -> str:
    """What follows `://`, without user and password (they may hold slashes) and without query and fragment."""
    user, at, place = rest.rpartition("@")
    if at and re.search(r"[?#]", user):
        return "..."
    # An `@` in the path cannot be told from the end of a password with a slash: what is before it is left out.
    return ("...@" if "/" in user else "") + re.split(r"[?#]", place, maxsplit=1)[0]
