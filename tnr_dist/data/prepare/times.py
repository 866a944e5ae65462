"""Times of impressions: MIND's own form, ISO 8601, and Unix seconds or milliseconds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tnr_dist.util.errors import InputError

#: The forms, by their numbers: those that are not MIND's are counted in the account as `times_NAME`.
FORMS = ("mind", "iso", "unix_seconds", "unix_milliseconds")
_ISO = (
    r"^\s*(?P<year>\d{4})-?(?P<month>\d{2})-?(?P<day>\d{2})"
    r"(?:[Tt ]\s*(?P<hour>\d{2}):?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,]\d+)?)?"
    r"\s*(?P<zone>[Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?\s*$"
)
# 9 or 10 digits are seconds from 1973 to 2286, 13 are milliseconds from 2001 on.
_UNIX = r"^\s*(?P<whole>\d{9,10}|\d{13})(?:\.\d+)?\s*$"
_EXPECTED = "11/15/2019 8:55:22 AM, ISO 8601 as 2019-11-15T08:55:22Z, or Unix seconds or milliseconds"


def parse_times(values: pa.Array, lines: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Times as seconds since 1970, int64 [I], and the number of each one's form in `FORMS`, int8 [I].

    UTC is assumed where a time does not say its offset, and fractions of a second are left out. Raises InputError naming
    the line (of `lines`) of the first text that is no time.
    """
    seconds, fine = _mind(values)
    forms = np.zeros(len(values), np.int8)
    for form, parse in ((1, _iso), (2, _unix)):
        left = np.flatnonzero(~fine)
        if not len(left):
            break
        found, good = parse(values.take(pa.array(left)))
        at = left[good]
        seconds[at], forms[at], fine[at] = found[good], form, True
    milliseconds = (forms == 2) & (seconds >= 10**10)
    forms[milliseconds] = 3
    seconds[milliseconds] //= 1000
    if not fine.all():
        bad = int(np.argmin(fine))
        raise InputError(f"{where}, line {lines[bad]}: time {_cut(values[bad].as_py())!r}; expected {_EXPECTED}")
    return seconds, forms


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _mind(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """MIND's `11/15/2019 8:55:22 AM`: seconds and whether it is one."""
    parsed = pc.strptime(values, format="%m/%d/%Y %I:%M:%S %p", unit="s", error_is_null=True)
    seconds = parsed.cast(pa.int64())
    # The 30th of February is taken for the 2nd of March, and a year of two digits for one of the first century.
    beyond = pc.and_(pc.less_equal(pc.day(parsed), 3), pc.match_substring_regex(values, r"^\s*\d+/\s*(29|30|31)/"))
    wrong = pc.fill_null(pc.or_(beyond, pc.less(seconds, 0)), True)
    fine = ~wrong.to_numpy(zero_copy_only=False)
    return pc.fill_null(seconds, 0).to_numpy(zero_copy_only=False).copy(), fine


def _iso(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    found = pc.extract_regex(values, _ISO)
    matched = found.is_valid().to_numpy(zero_copy_only=False)

    def number(text: pa.Array) -> np.ndarray:
        text = pc.fill_null(text, "")
        numbers: np.ndarray = pc.cast(pc.if_else(pc.equal(text, ""), "0", text), pa.int64()).to_numpy(
            zero_copy_only=False
        )
        return numbers

    fields = {name: found.field(name) for name in ("year", "month", "day", "hour", "minute", "second", "zone")}
    year, month, day, hour, minute, second = (number(text) for text in list(fields.values())[:6])
    zone = pc.fill_null(fields["zone"], "")
    digits = pc.replace_substring_regex(zone, r"[^0-9]", "")
    offset_hour, offset_minute = (number(pc.utf8_slice_codeunits(digits, at, at + 2)) for at in (0, 2))
    offset = (offset_hour * 60 + offset_minute) * 60
    offset[pc.starts_with(zone, "-").to_numpy(zero_copy_only=False)] *= -1
    sound = matched & (month >= 1) & (month <= 12) & (hour <= 23) & (minute <= 59) & (second <= 60)
    sound &= (offset_hour <= 23) & (offset_minute <= 59) & (year >= 1970)
    months = np.where(sound, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    first = months.astype("datetime64[D]").astype(np.int64)
    length = (months + 1).astype("datetime64[D]").astype(np.int64) - first
    seconds = ((first + day - 1) * 24 + hour) * 3600 + minute * 60 + second - offset
    return seconds, sound & (day >= 1) & (day <= length) & (seconds >= 0)


def _unix(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    whole = pc.fill_null(pc.extract_regex(values, _UNIX).field("whole"), "")
    seconds = pc.cast(pc.if_else(pc.equal(whole, ""), "0", whole), pa.int64()).to_numpy(zero_copy_only=False)
    return seconds, seconds >= 10**8
