"""The configuration with what its keys mean, for `--print-config`."""

from __future__ import annotations

import dataclasses
import textwrap
import typing

from tnr_dist.config.fields import meaning
from tnr_dist.config.schema import Config, to_yaml

_WIDTH = 110


def explained_yaml(config: Config) -> str:
    """`schema.to_yaml` with the meaning of each key above it, where it was not said of the same key before."""
    lines: list[str] = []
    path: list[tuple[int, type]] = [(-1, type(config))]  # groups that a line stands in, by their indentation
    said: set[tuple[str, str]] = set()
    for line in to_yaml(config).splitlines():
        name, colon, _ = line.lstrip().partition(":")
        indent = len(line) - len(line.lstrip())
        while path[-1][0] >= indent:
            path.pop()
        hint = typing.get_type_hints(path[-1][1]).get(name) if colon else None
        # Below a list or free text stand no keys of the tree.
        if hint is not None and indent == 2 * (len(path) - 1):
            is_group = dataclasses.is_dataclass(hint)
            text = " ".join((hint.__doc__ or "").split()) if is_group else meaning(path[-1][1], name)
            if typing.get_origin(hint) is typing.Literal:
                text = f"{text} One of: {', '.join(map(str, typing.get_args(hint)))}."
            if text and (name, text) not in said:
                said.add((name, text))
                lines += textwrap.wrap(
                    text, _WIDTH, initial_indent=" " * indent + "# ", subsequent_indent=" " * indent + "# "
                )
            if is_group:
                path.append((indent, typing.cast(type, hint)))
        lines.append(line)
    return "\n".join(lines) + "\n"
