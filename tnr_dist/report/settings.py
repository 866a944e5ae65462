"""The settings of the runs: settings that differ between them, settings that are not the default, all settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import yaml

from tnr_dist.config.schema import to_dict
from tnr_dist.figures.shorten import shortened
from tnr_dist.report.group_by_seed import Group, differing, flat, value_text
from tnr_dist.report.page import Block, Cell, Fold, Paragraph, Section, Table
from tnr_dist.stages.methods import SECTIONS, Tree

# Where things lie, and how often and by whom they are made: the same experiment all the same.
_NOT_THE_EXPERIMENT = (
    "output",
    "folders",
    "seed",
    "seeds",
    "evaluate.run",
    "finetune.teacher",
    "rows",
    "cache.shard_range",
)
# Sections that only matter to a run that is made, or made from what is made, by them.
_OF_STAGES = ("student", "reproduce", *SECTIONS)
_LONG = 60  # characters of a value in a table


def settings_section(groups: Sequence[Group]) -> Section | None:
    """In what the results differ, what is not the default in them, and all settings."""
    found = [(group, _settings(group)) for group in _results(groups) if group.first.config]
    if not found:
        return None
    keys = [key for key in differing([tree for _, tree in found]) if len(_values(found, key)) > 1]
    blocks: list[Block] = []
    if keys:
        rows: list[list[Cell | str]] = [[key, *_values_of(key, [tree for _, tree in found])] for key in keys]
        caption = "Settings that differ. A dash: the run does not depend on it."
        columns = ["Setting", *(group.label for group, _ in found)]
        blocks.append(Table(caption, columns, rows, words=len(columns)))
    elif len(found) > 1:
        blocks.append(Paragraph("All results were made with the same settings, seeds and folders apart."))
    defaults = flat(to_dict(Tree()))
    everything = {key: value for _, tree in reversed(found) for key, value in tree.items()}
    own: list[list[Cell | str]] = [
        [key, *_values_of(key, [everything, defaults])]
        for key in sorted(everything, key=_place(defaults))
        if key not in keys and (key not in defaults or defaults[key] != everything[key])
    ]
    if own:
        caption = "Settings that are not the default" + (", the same wherever they matter." if len(found) > 1 else ".")
        blocks.append(Table(caption, ["Setting", "Value", "Default"], own, words=3))
    texts: dict[str, list[str]] = {}
    for group, _ in found:
        text = yaml.safe_dump(group.first.config, sort_keys=False, allow_unicode=True)
        texts.setdefault(text, []).append(group.label)
    blocks += [Fold(f"All settings of {', '.join(labels)}", text) for text, labels in texts.items()]
    return Section("settings", "Settings", blocks)


def _results(groups: Sequence[Group]) -> list[Group]:
    """What the other runs were made for: the evaluated groups, and those that nothing else is made from."""
    used = {one for group in groups for run in group.runs for one in run.made_from["inputs"].values()}
    found = [group for group in groups if group.scored or not any(run.id in used for run in group.runs)]
    return sorted(found, key=lambda one: (str(one.first.base), one.row is None, one.row))


def _settings(group: Group) -> Mapping[str, object]:
    """The configuration, without the sections of stages that had no part in this result."""
    part = {key.partition(".")[0] for key in group.settings}
    out = {}
    for key, value in flat(group.first.config).items():
        section = key.partition(".")[0]
        if key in _NOT_THE_EXPERIMENT or section == "wandb" or (section in _OF_STAGES and section not in part):
            continue
        out[key] = value
    return out


def _values(found: Sequence[tuple[Group, Mapping[str, object]]], key: str) -> set[str]:
    return {json.dumps(tree[key], sort_keys=True) for _, tree in found if key in tree}


def _place(defaults: Mapping[str, object]) -> Callable[[str], tuple[int, str]]:
    """The order of the configuration's own keys; unknown ones last."""
    order = {key: number for number, key in enumerate(defaults)}
    return lambda key: (order.get(key, len(order)), key)


def _values_of(key: str, trees: Sequence[Mapping[str, object]]) -> list[Cell]:
    """A setting's values side by side, cut so that different ones still differ."""
    short = shortened((value_text(tree[key]) for tree in trees if key in tree), _LONG)
    return [Cell(short[value_text(tree[key])]) if key in tree else Cell("-", quiet=True) for tree in trees]
