"""YAML of bounded size: a text of 400 bytes can name each of its lists ten times in the next, and be gigabytes when read."""

from __future__ import annotations

import yaml

from tnr_dist.util.errors import InputError

MOST_CHARACTERS = 1 << 18  # of a file; a table of a hundred rows has a tenth
_MOST_DEEP = 100  # levels; PyYAML's parser in C calls itself for each, and ends the process when its stack is full
_MOST_DIGITS = 100  # of a whole number
_MOST_EXPANDED = 4 << 20  # characters and values after every alias has been replaced by what it stands for


def load_yaml(text: str, where: str, loader: type[yaml.SafeLoader]) -> object:
    """The value of a YAML text, by a safe `loader` of PyYAML.

    Raises InputError, which says `where`, for a text that is too long or nested too deeply, or would be too long with its
    aliases replaced; and yaml.YAMLError as PyYAML does.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{where}: {len(text):,} characters, at most {MOST_CHARACTERS:,} are read of a configuration")
    _check_depth(text, where)
    reader = loader(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        if _size(node, where) > _MOST_EXPANDED:
            raise InputError(
                f"{where}: its aliases (*name) stand for more than {_MOST_EXPANDED:,} characters in all, or for themselves; "
                "write out what they stand for"
            )
        return reader.construct_document(node)
    finally:
        reader.dispose()


def _check_depth(text: str, where: str) -> None:
    depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_DEEP:
                raise InputError(f"{where}: not a configuration: nested more than {_MOST_DEEP} levels deep")
    except yaml.YAMLError:
        return  # said below, by the loader itself


def _size(root: yaml.Node, where: str) -> int:
    """Characters and values of a node with every alias replaced; more than allowed for one that contains itself.

    Raises InputError for a whole number that Python takes minutes to print, or refuses to.
    """
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    while stack:
        node, seen = stack.pop()
        key = id(node)
        if isinstance(node, yaml.ScalarNode):
            if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MOST_DIGITS:
                line = node.start_mark.line + 1
                raise InputError(f"{where}, line {line}: a whole number of {len(node.value):,} characters")
            sizes[key] = 1 + len(node.value)
            continue
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        if seen:
            open_nodes.discard(key)
            sizes[key] = min(1 + sum(sizes[id(one)] for one in inner), _MOST_EXPANDED + 1)
        elif key in open_nodes:
            return _MOST_EXPANDED + 1
        elif key not in sizes:
            open_nodes.add(key)
            stack.append((node, True))
            stack += [(one, False) for one in inner]
    return sizes[id(root)]
