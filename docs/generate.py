"""What the documentation takes from the code: the configuration's keys, the commands' options, the PLMs that load, and
equations as MathML.

A hook of mkdocs. A page says where: `<!-- generated: configuration -->`, `commands`, `plms`. Equations are
written as `$x$` or `$$x$$` (LaTeX) and leave here as MathML, which browsers draw without a script or a font of ours.
"""

from __future__ import annotations

import dataclasses
import html
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tnr_dist.config.fields import meaning
from tnr_dist.config.training import ClickTrainConfig, TrainConfig
from tnr_dist.stages.methods import Tree

ROOT = Path(__file__).parent.parent
_OUTSIDE = re.compile(r"\[([^\]\n]+)\]\(\.\./[^)\n]*\)")
_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the configuration tree: its dotted name, type, default and meaning."""

    name: str
    kind: str
    default: str
    meaning: str

    @property
    def leaf(self) -> str:
        """The name within its group."""
        return self.name.rpartition(".")[2]


# Hooks ----------------------------------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what is generated; a link to a file outside docs/ is right on the forge and leads nowhere on the site."""
    for name, make in (("configuration", configuration), ("commands", commands), ("plms", plms)):
        mark = f"<!-- generated: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return _OUTSIDE.sub(r"\1", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Equations to MathML. An equation that cannot be converted ends the build."""
    return _MATH.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    block = found[1] == "div"
    latex = html.unescape(found[2]).strip()
    mathml = convert(latex, display="block" if block else "inline")
    if "\\" in mathml:  # what the converter does not know, it leaves as it is
        raise ValueError(f"not all of this equation can be converted: {latex}")
    return f'<div class="math" tabindex="0">{mathml}</div>' if block else mathml


# Configuration --------------------------------------------------------------------------------------------------------


def configuration() -> str:
    """Every key of the tree, section by section; what all training stages have stands once, before the first of them."""
    lines: list[str] = []
    shared = [(TrainConfig, "Every training stage"), (ClickTrainConfig, "Every stage on clicks")]
    for title, kind, keys in _sections(Tree, ""):
        if shared and issubclass(kind, TrainConfig):
            for base, name in shared:
                lines += _table(name, base, [key for key in _keys(base, "STAGE.") if not _as_in_base(base, key)])
            shared = []
        kept = [key for key in keys if not _as_in_base(kind, key)]
        rest = ", ".join(f"`{key.leaf}`" for key in keys if key not in kept)
        where = "[every training stage](#every-training-stage)"
        if issubclass(kind, ClickTrainConfig):
            where += " and [every stage on clicks](#every-stage-on-clicks)"
        lines += _table(title, kind, kept, f"As in {where}: {rest}." if rest else "")
    return "\n".join(lines)


def all_keys() -> list[Key]:
    """The keys that are no group of keys, in the tree's order."""
    return [key for _, _, keys in _sections(Tree, "") for key in keys]


def _table(title: str, kind: type, keys: list[Key], after: str = "") -> list[str]:
    lines = [
        f"## {title}",
        "",
        _sentence(kind.__doc__ or ""),
        "",
        "| Key | Type | Default | Meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{key.name}` | {key.kind} | {key.default} | {key.meaning} |" for key in keys]
    return [*lines, "", after, ""]


def _as_in_base(kind: type, key: Key) -> bool:
    """Whether a base that is described by itself has this key with this default and nothing is said of it here."""
    for base in kind.__mro__[1:]:
        if base in (ClickTrainConfig, TrainConfig) and key.leaf in {field.name for field in dataclasses.fields(base)}:
            same = next(one for one in _keys(base, "") if one.leaf == key.leaf)
            return (same.default, same.meaning) == (key.default, key.meaning)
    return False


def _sections(kind: type, prefix: str) -> Iterator[tuple[str, type, list[Key]]]:
    if rows := _keys(kind, prefix):
        yield (prefix.rstrip(".") or "General"), kind, rows
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _sections(typing.cast(type, hint), f"{prefix}{name}.")
        for inner in typing.get_args(hint):
            if dataclasses.is_dataclass(inner):
                yield from _sections(typing.cast(type, inner), f"{prefix}{name}[].")


def _keys(kind: type, prefix: str) -> list[Key]:
    """The keys of one group, groups inside it left out."""
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if not dataclasses.is_dataclass(hints[field.name])]
    return [_key(kind, prefix, field, hints[field.name]) for field in fields]


def _key(kind: type, prefix: str, field: dataclasses.Field[Any], hint: Any) -> Key:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Key(f"{prefix}{field.name}", _kind(hint), _value(default), _cell(meaning(kind, field.name)))


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        (inner,) = typing.get_args(hint)
        return "list of groups" if dataclasses.is_dataclass(inner) else f"list of {_kind(inner)}"
    return {int: "whole number", float: "number", bool: "true, false", str: "text"}[hint]


def _value(value: Any) -> str:
    if value == "":
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "`[" + ", ".join(str(one) for one in value) + "]`"
    return f"`{value}`"


def _sentence(text: str) -> str:
    return _cell(" ".join(text.split()))


def _cell(text: str) -> str:
    # Outside code spans a bracket could begin markup, such as [CLS].
    parts = re.split(r"(`[^`]*`)", text)
    escaped = [re.sub(r"([\[\]<>{}*_|])", r"\\\1", one) if i % 2 == 0 else one for i, one in enumerate(parts)]
    return "".join(escaped)


# PLMs -----------------------------------------------------------------------------------------------------------------


def plms() -> str:
    """The kinds of pre-trained models that load, one a row."""
    from tnr_dist.models.plm import KINDS

    types: dict[Any, list[str]] = {}
    for name, kind in KINDS.items():
        types.setdefault(kind, []).append(f"`{name}`")
    lines = [
        "| `model_type` | Model | For example | Tokenizer | Exported for `transformers` as |",
        "|---|---|---|---|---|",
    ]
    for kind, names in types.items():
        files = re.sub(r"[\w.]+\.(json|txt)", r"`\g<0>`", kind.tokenizer)
        lines.append(f"| {', '.join(names)} | {kind.name} | `{kind.example}` | {files} | `{kind.exported_as}` |")
    return "\n".join(lines)


# Commands -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Parameter:
    """An argument or option of a command."""

    name: str
    option: bool
    value: str  # what an option takes; empty for a flag
    required: bool
    default: str
    meaning: str


def commands() -> str:
    """Every command with its arguments and options, as `tnr COMMAND --help` has them."""
    lines: list[str] = []
    for path, command in all_commands().items():
        parameters = parameters_of(command)
        arguments = [
            one.name if one.required or one.name[0] == "[" else f"[{one.name}]" for one in parameters if not one.option
        ]
        options = ["[OPTION]..."] if any(one.option for one in parameters) else []
        usage = " ".join(["tnr", path, *arguments, *options])
        lines += [f"## tnr {path}", "", _sentence(command.__doc__ or ""), "", "```text", usage, "```", ""]
        rows = [one for one in parameters if one.name not in _EVERYWHERE]
        if rows:
            lines += ["| Argument or option | Default | Meaning |", "|---|---|---|"]
            for one in rows:
                default = "required" if one.required else one.default and f"`{one.default}`"
                lines.append(f"| `{f'{one.name} {one.value}'.strip()}` | {default} | {one.meaning} |")
            lines.append("")
    return "\n".join(lines)


def all_commands() -> dict[str, Any]:
    """The function of every command by its words, such as `data prepare`."""
    from tnr_dist.cli.app import app

    found: dict[str, Any] = {}

    def visit(group: Any, words: list[str]) -> None:
        for one in group.registered_commands:
            found[" ".join([*words, one.name or one.callback.__name__.replace("_", "-")])] = one.callback
        for inner in group.registered_groups:
            visit(inner.typer_instance, [*words, inner.name])

    visit(app, [])
    return found


def parameters_of(command: Any) -> list[Parameter]:
    """Arguments and options of a command's function, as typer reads them."""
    found = []
    hints = typing.get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, info = typing.get_args(hints[name])[:2]
        option = type(info).__name__ == "OptionInfo"
        # Within Annotated the first name stands where a default would; typer moves it, but only when it runs.
        words = [one for one in (info.default, *(info.param_decls or ())) if str(one).startswith("-")]
        word = name.replace("_", "-")
        flags = ", ".join(words) or (f"--{word}, --no-{word}" if kind is bool else f"--{word}")
        shown = flags if option else info.metavar or name.upper()
        required = parameter.default is inspect.Parameter.empty
        default = "" if required or parameter.default in (None, "", False) else str(parameter.default)
        value = "" if not option or kind is bool else _TAKES.get(kind, "TEXT")
        found.append(Parameter(shown, option, value, required, default, _sentence(info.help or "")))
    return found


_EVERYWHERE = ("CONFIG", "[KEY=VALUE]...", "--print-config")  # the page says it once
_TAKES = {int: "N", float: "X", Path: "PATH", Path | None: "PATH"}
