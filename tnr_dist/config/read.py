"""Reading a configuration: defaults < YAML file < dotted `key=value` overrides.

Strict: an unknown key is an error that names the nearest one, a wrong type is an error that names the key, the value
and what was expected.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import types
import typing
import unicodedata
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import yaml

from tnr_dist.config.fields import limits_of
from tnr_dist.config.hints import nearest_key
from tnr_dist.config.schema import Config
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_text
from tnr_dist.util.redaction import without_secrets
from tnr_dist.util.yaml_text import MOST_CHARACTERS, load_yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats (`1e-6` is a number) and no duplicate keys."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)$|^[-+]?\.\d[\d_]*([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, object]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue  # `<<: *anchor`, which construct_mapping resolves
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


C = TypeVar("C", bound=Config)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where values come from, and the tree that they are for."""

    name: str
    kind: type[Config]

    def __str__(self) -> str:
        return self.name


def read_config(kind: type[C], path: Path | str | None, overrides: typing.Sequence[str] = ()) -> C:
    """Read `path` (YAML; None: defaults only), apply `key.sub=value` overrides, check everything.

    Args:
        kind: the tree; `stages.methods.Tree` has the sections of all stages.

    Raises InputError for a missing file, bad YAML, an unknown key, a wrong type, or a value out of range.
    """
    tree: object = None
    where = "defaults"
    if path is not None:
        where = str(path)
        text = _read(Path(path))
        tree = _parse_yaml(text, where)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected a mapping of keys at the top level, found {type(tree).__name__}")
    config = _overridden(_build(kind, tree, "", _Source(where, kind)), overrides, "command line")
    try:
        _check(config)
    except InputError as error:
        keys = tuple(override.partition("=")[0] for override in overrides)
        if path is None or str(error).startswith(keys):
            raise
        raise InputError(f"{where}: {error}") from None
    return config


def _read(path: Path) -> str:
    """A configuration file's text. What a shell puts in a file's place (`<(...)`) is a pipe, and is read too."""
    try:
        if path.parent in (Path("/dev/fd"), Path("/proc/self/fd")):
            with path.open(encoding="utf-8") as file:
                return file.read(MOST_CHARACTERS + 1)
        if not path.exists():
            raise InputError(f"{path}: no such configuration file")
        return read_text(path, 4 * MOST_CHARACTERS)
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; give a configuration file (YAML)") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file") from None


def with_overrides(config: C, overrides: typing.Sequence[str], where: str = "command line") -> C:
    """A copy of `config` with `key.sub=value` overrides, checked; InputError as `read_config`, which says `where`."""
    config = _overridden(config, overrides, where)
    _check(config)
    return config


def _overridden(config: C, overrides: typing.Sequence[str], where: str) -> C:
    """A copy of `config` with `key.sub=value` overrides, each of its type, not yet checked against each other."""
    config = copy.deepcopy(config)
    for override in overrides:
        _override(config, override, _Source(where, type(config)))
    return config


def _parse_yaml(text: str, where: str) -> object:
    try:
        return load_yaml(text, where, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{where}{line}: not valid YAML: {problem}") from None
    except RecursionError:
        raise InputError(f"{where}: not a configuration: nested too deeply") from None
    # A scalar that looks like a date or a number, or is tagged as one, and is none.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{where}: not valid YAML: {error}") from None


def _override(config: Config, override: str, where: _Source) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {without_secrets(override)!r}: expected key=value, for example stage2.lr=1e-4")
    node: object = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        hints = typing.get_type_hints(type(node)) if dataclasses.is_dataclass(node) else {}
        if part not in hints:
            raise InputError(_unknown(key, ".".join(parts[:depth]), part, type(node), where))
        if depth < len(parts) - 1:
            node = getattr(node, part)
    hint: type = typing.get_type_hints(type(node))[parts[-1]]
    value = text if hint is str else _parse_yaml(text, f"override {key}")
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(
                f"override {without_secrets(override)!r}: {key} is a group of keys; set one of them, such as {key}.{_first(hint)}"
            )
        for inner, inner_value in value.items():
            _override(config, f"{key}.{inner}={inner_value}", where)
        return
    setattr(node, parts[-1], _convert(hint, value, key, where))


def _first(kind: type[DataclassInstance]) -> str:
    return dataclasses.fields(kind)[0].name


def _unknown(full: str, parent: str, part: str, kind: type, where: _Source) -> str:
    return f"{where}: unknown key {full!r}; did you mean {nearest_key(full, parent, part, kind, where.kind)!r}?"


def _build(kind: type[T], tree: dict[str, object], prefix: str, where: _Source) -> T:
    hints = typing.get_type_hints(kind)
    for key in tree:
        if key not in hints:
            raise InputError(_unknown(prefix + str(key), prefix.rstrip("."), str(key), kind, where))
    return kind(**{key: _convert(hints[key], value, prefix + key, where) for key, value in tree.items()})


def _convert(hint: type, value: object, key: str, where: _Source) -> object:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _type_error(key, value, "a group of keys", where)
        return _build(hint, value, f"{key}.", where)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise _type_error(key, value, "one of " + ", ".join(map(str, choices)), where)
        return value
    if origin is list:
        if not isinstance(value, list):
            raise _type_error(key, value, "a list", where)
        (inner,) = typing.get_args(hint)
        return [_convert(inner, item, f"{key}[{i}]", where) for i, item in enumerate(value)]
    if origin in (types.UnionType, typing.Union):
        raise AssertionError(f"{key}: unions are not used in the tree")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:  # of 400 digits
            raise _type_error(key, value, "a finite number", where) from None
    if hint is float and isinstance(value, str) and value.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        value = float(value)  # numbers to everyone but YAML, which spells them .nan and .inf
    if type(value) is not hint:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise _type_error(key, value, names[hint], where)
    if isinstance(value, float) and not math.isfinite(value):
        raise _type_error(key, value, "a finite number", where)
    if isinstance(value, str) and (strange := next((one for one in value if _is_control(one)), None)):
        raise _type_error(key, value, f"text of one line, without control characters (it has {strange!r})", where)
    return value


def _is_control(character: str) -> bool:
    """Line breaks, tabs and what else would end or change a line of a script, a log or a table that a setting is put in."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")


def _type_error(key: str, value: object, expected: str, where: _Source) -> InputError:
    return InputError(f"{where}: {key}={without_secrets(value)!r}: expected {expected}")


# What all rows share: the data, and the engine, which is started once.
_NOT_OF_A_ROW = (
    *("output", "rows", "seed", "seeds", "folders", "data", "synth", "evaluate"),
    *("engine", "ranks", "device", "kernels", "timeout", "memory_gib", "threads", "deepspeed", "horovod"),
)


def _check(config: Config) -> None:
    """Values that have the right type and still make no sense."""
    _check_limits(config, "")
    _check_groups(config, config)
    _check_rows(config)


def _check_limits(group: DataclassInstance, prefix: str) -> None:
    """Every value within the limits that are declared beside it."""
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _check_limits(value, f"{prefix}{field.name}.")
            continue
        limits = limits_of(type(group), field.name)
        if limits is not None and (fault := limits.fault(value)):
            raise InputError(f"{prefix}{field.name}={value}: {fault}")


def _check_groups(group: DataclassInstance, config: Config) -> None:
    """What the groups check themselves: values that do not fit each other."""
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            if hasattr(value, "check"):
                value.check(config)
            _check_groups(value, config)


def _check_rows(config: Config) -> None:
    """The last check, so that what is wrong without any row is not said of one."""
    names = [row.name for row in config.rows]
    if len(set(names)) != len(names) or "" in names:
        raise InputError("rows: every row needs a name of its own")
    alone = dataclasses.replace(config, rows=[])
    for row in config.rows:
        for setting in row.set:
            if setting.partition("=")[0].partition(".")[0] in _NOT_OF_A_ROW:
                raise InputError(f"row {row.name!r}: {without_secrets(setting)!r} cannot be set for one row only")
        try:
            _check_limits(row, "")
            with_overrides(alone, row.set, "its set")
        except InputError as error:
            raise InputError(f"row {row.name!r}: {error}") from None
