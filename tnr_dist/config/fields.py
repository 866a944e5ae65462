"""Declaring a setting: its default, what it means and which values it may have, in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Which numbers a setting may be; of a list, which each of its items may be.

    Attributes:
        above, at_least, at_most, below: bounds; None: none.
        never: values within the bounds that make no sense.
        also: a value outside the bounds that has a meaning of its own.
        length: of a list, exactly so many items.
        filled: of a list, one item or more.
        says: what is expected, for the error; by default it names the bound that does not hold.
    """

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    never: float | None = None
    also: float | None = None
    length: int | None = None
    filled: bool = False
    says: str = ""

    def fault(self, value: float | list[float]) -> str:
        """What is expected in place of `value`; empty where it is allowed."""
        items = value if isinstance(value, list) else [value]
        faults = (self._fault(item) for item in items)
        if self.length is not None and len(items) != self.length:
            found = f"must have {self.length} values"
        elif self.filled and not items:
            found = "must not be empty"
        else:
            found = next((fault for fault in faults if fault), "")
        return found and (self.says or found)

    def _fault(self, value: float) -> str:
        if value == self.also:
            return ""
        if value == self.never:
            return f"must not be {self.never}"
        if self.above is not None and value <= self.above:
            return f"must be greater than {self.above}"
        if self.at_least is not None and value < self.at_least:
            return "must not be negative" if self.at_least == 0 else f"must be {self.at_least} or more"
        if self.at_most is not None and value > self.at_most:
            return f"must be at most {self.at_most:,}"
        if self.below is not None and value >= self.below:
            return f"must be below {self.below}"
        return ""


POSITIVE = Limits(above=0)
NOT_NEGATIVE = Limits(at_least=0)
SHARE = Limits(at_least=0, at_most=1, says="a share between 0 and 1")
BELOW_ONE = Limits(at_least=0, below=1, says="must be at least 0 and below 1")
# Far more threads or processes end torch with a segmentation fault.
THREADS = Limits(at_least=0, at_most=1024, says="must not be negative, and at most 1,024 on one machine")
# A text is at least [CLS], one token and [SEP].
TOKENS = Limits(at_least=3, says="at least 3 tokens, [CLS] and [SEP] among them")
# Of trainings in which nothing would learn with all layers frozen.
LAYERS_LEARN = Limits(at_least=-1, never=0, says="its layers are what learns; -1 (everything), 1 or more")
# Of what the tables and figures of `tnr reproduce` vary.
VARIED = Limits(filled=True, says="give one value or more, or leave it out for the paper's")


def setting(default: T, meaning: str = "", limits: Limits | None = None) -> T:
    """A setting of a dataclass of the tree.

    Args:
        default: its default; a list is copied.
        meaning: for `--print-config`, the documentation and the guess at a mistyped key. Empty: as in the base class.
        limits: the values that it may have. None: as in the base class.
    """
    metadata = {name: said for name, said in (("meaning", meaning), ("limits", limits)) if said}
    if isinstance(default, list):
        return cast(T, dataclasses.field(default_factory=lambda: list(default), metadata=metadata))
    return dataclasses.field(default=default, metadata=metadata)


def meaning(kind: type, name: str) -> str:
    """What field `name` means, as class `kind` itself says it or the nearest base; empty where none says it."""
    text = str(_declared(kind, name, "meaning") or "")
    return text if not text or text[-1] in ".:;," else f"{text}."


def limits_of(kind: type, name: str) -> Limits | None:
    """Which values field `name` may have, as class `kind` itself says it or the nearest base."""
    found = _declared(kind, name, "limits")
    return found if isinstance(found, Limits) else None


def _declared(kind: type, name: str, what: str) -> object:
    for one in kind.__mro__:
        field = getattr(one, "__dataclass_fields__", {}).get(name)
        if field is not None and what in field.metadata:
            return field.metadata[what]
    return None
