"""What an encoder is built from, checked; it imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import JsonObject, built

ACTIVATION_NAMES = ("gelu", "gelu_new", "relu")


@dataclass(frozen=True)
class EncoderConfig:
    """Architecture of an encoder.

    Attributes:
        position_offset: position of a sequence's first token: 0 in BERT, pad_id + 1 in RoBERTa and MPNet.
        type_vocab_size: 0 where there are no token types; all tokens are of type 0.
        relative_buckets: 0 = no relative position bias.
        relative_max_distance: distance from which on all share the last bucket.
    """

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    max_positions: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    position_offset: int = 0
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    relative_buckets: int = 0
    relative_max_distance: int = 128
    pad_id: int = 0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden", "layers", "heads", "intermediate", "max_positions"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"encoder configuration: {name} is {value!r}; it must be a positive integer")
        for name in ("type_vocab_size", "position_offset", "relative_buckets", "relative_max_distance", "pad_id"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise InputError(f"encoder configuration: {name} is {value!r}; it must be 0 or more")
        eps = self.layer_norm_eps
        if not isinstance(eps, float) or not 0 < eps < 1:
            raise InputError(f"encoder configuration: layer_norm_eps is {eps!r}; it must be above 0 and below 1")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"encoder configuration: {name} is {getattr(self, name)!r}; it must be 0 or more, below 1"
                )
        if self.hidden % self.heads:
            raise InputError(f"encoder configuration: hidden {self.hidden} is not a multiple of heads {self.heads}")
        if self.activation not in ACTIVATION_NAMES:
            known = ", ".join(ACTIVATION_NAMES)
            raise InputError(f"encoder configuration: activation {self.activation!r} is not one of {known}")
        if self.relative_buckets and (self.relative_buckets < 4 or self.relative_buckets % 4):
            raise InputError(f"encoder configuration: relative_buckets {self.relative_buckets} must divide by 4")

    @property
    def max_length(self) -> int:
        """Longest sequence the position table allows."""
        return self.max_positions - self.position_offset

    def to_dict(self) -> JsonObject:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> EncoderConfig:
        """Inverse of `to_dict`; an unknown or missing key is an `InputError`."""
        try:
            return built(cls, values)
        except TypeError as error:
            raise InputError(f"encoder configuration: {error}") from None
