"""What the keys of the configuration mean: the comments beside them in config.py, for `--print-config` and the docs."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import io
import textwrap
import tokenize
import typing

from tnr_dist.config import schema as tree
from tnr_dist.config.schema import Config, to_yaml

_WIDTH = 110


def meaning(kind: type, name: str) -> str:
    """The comment of field `name` where it is declared, in class `kind` itself or the nearest base; empty without one."""
    texts = (_comments().get(one.__name__, {}).get(name, "") for one in kind.__mro__)
    return next((text for text in texts if text), "")


def explained_yaml(config: Config) -> str:
    """`config.to_yaml` with the meaning of each key above it, where it was not said of the same key before."""
    lines: list[str] = []
    path: list[tuple[int, type]] = [(-1, Config)]  # groups that a line stands in, by their indentation
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


@functools.cache
def _comments() -> dict[str, dict[str, str]]:
    """Of every class of config.py and every field: the comment lines right above it and the one behind it."""
    source = inspect.getsource(tree)
    alone: dict[int, str] = {}
    behind: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("#: ").strip()
            place = alone if not token.line[: token.start[1]].strip() else behind
            place[token.start[0]] = text
    body = ast.parse(source).body
    aliases = {
        node.targets[0].id: _above(node.lineno, alone)
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    found: dict[str, dict[str, str]] = {}
    for node in body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields = found.setdefault(node.name, {})
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                after = [behind[n] for n in range(line.lineno, (line.end_lineno or line.lineno) + 1) if n in behind]
                alias = aliases.get(line.annotation.id, "") if isinstance(line.annotation, ast.Name) else ""
                texts = filter(None, [_above(line.lineno, alone), *after, alias])
                fields[line.target.id] = " ".join(one if one[-1] in ".:;," else f"{one}." for one in texts)
    return found


def _above(line: int, alone: dict[int, str]) -> str:
    texts: list[str] = []
    while (line := line - 1) in alone:
        texts.insert(0, alone[line])
    return " ".join(texts)
