"""Sound files damaged in every way that bytes can be, and the one property: a valid result, or InputError."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tnr_dist.util.errors import InputError

# The same examples every time, unless EXAMPLES and SEED ask for more (`make fuzz EXAMPLES=5000 SEED=7`).
fuzzed = settings(
    max_examples=int(os.environ.get("EXAMPLES") or 300),
    derandomize=not os.environ.get("SEED"),
    database=None,
    deadline=datetime.timedelta(seconds=20),  # a reader that hangs
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

# What readers stumble over: signs, ends, separators, numbers too large, other encodings, other formats' first bytes.
_TOKENS = [
    b"\0", b"\n", b"\r", b"\r\n", b"\t", b"\t\t\t\t", b" ", b"-", b"-1", b"-0", b"0", b"1e999", b"nan", b"NaN", b"inf",
    b"99999999999999999999", b"-9223372036854775809", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\x80",
    b"[", b"{", b"}", b'"', b"'", b"!!python/object/apply:os.system [true]", b"&a [*a]", b"<<: ", b"../", b"/", b"PK\3\4",
    b"\x93NUMPY", b"|O", b"<f8", b"cposix\nsystem\n(S'true'\ntR.", b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93",
    b"null", b"true", b"{}", b"[]", b"\x00" * 512, b"\xff" * 8,
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` after one to four edits: a bit, a byte, a token in between or instead, a piece cut out, doubled or moved."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 4, 8, 16, 64, 512, 4096]))
        kind = draw(st.sampled_from(["bit", "byte", "insert", "replace", "cut", "double", "move", "end"]))
        if kind == "bit" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from(_TOKENS))
        elif kind == "replace":
            token = draw(st.sampled_from(_TOKENS))
            data[at : at + len(token)] = token
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "move":
            piece = data[at : at + length]
            del data[at : at + length]
            where = draw(st.integers(0, len(data)))
            data[where:where] = piece
        else:
            del data[at:]
    return bytes(data)


def anything(sound: bytes) -> st.SearchStrategy[bytes]:
    """Mostly `sound` damaged, sometimes bytes of no meaning."""
    return st.one_of(damaged(sound), damaged(sound), damaged(sound), st.binary(max_size=600))


_EXECUTED: list[str] = []
_FORBIDDEN = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "pickle.find_class",
    "ctypes.dlopen",
)


def _audit(event: str, _: Any) -> None:
    if event in _FORBIDDEN:
        _EXECUTED.append(event)


sys.addaudithook(_audit)


def sound_or_refused(read: Callable[[], Any]) -> Any:
    """What `read` returns, or None where it says what is wrong; any other error, and any code executed, is a finding."""
    _EXECUTED.clear()
    try:
        return read()
    except InputError as error:
        assert str(error)
        return None
    finally:
        assert not _EXECUTED, _EXECUTED
