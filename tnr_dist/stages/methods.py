"""All stages and methods, and the configuration's tree with their sections. To add one: its module in `_DECLARED`.

`registry.py` has what they do; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from tnr_dist.config import schema
from tnr_dist.config.fields import meaning, setting
from tnr_dist.stages.method import Made, Method

# Below tnr_dist.stages; in the order of the configuration's sections and of the command line.
_DECLARED = (
    "post_train_settings",
    "stage1_settings",
    "finetune_settings",
    "cache_settings",
    "stage2_settings",
    "further_pretrain_settings",
    "baselines.tinybert_settings",
    "baselines.newsbert_settings",
    "baselines.bert_pkd",
)

METHODS: tuple[Method, ...] = tuple(import_module(f"tnr_dist.stages.{name}").METHOD for name in _DECLARED)
#: Kinds of run, in the order of the pipeline.
MADE: tuple[Made, ...] = tuple(
    sorted((made for method in METHODS for made in method.makes), key=lambda made: not made.first)
)
SECTIONS: tuple[str, ...] = tuple(method.section.key for method in METHODS)
#: Settings that say which runs of a stage are made and change none of them, dotted.
CHOICES: tuple[str, ...] = tuple(f"{one.section.key}.{name}" for one in METHODS for name in one.chooses)


def sections_behind(name: str) -> set[str]:
    """Sections of the stage that an input of this name comes from, and of those that it starts from itself."""
    found: set[str] = set()
    for method in METHODS:
        for made in method.makes:
            if name in (made.name, made.input_name):
                found |= {method.section.key}.union(*map(sections_behind, made.inputs))
    return found


def _row() -> type[schema.RowConfig]:
    """`RowConfig` with the methods that there are."""
    rows = {name: words for method in METHODS for name, words in method.rows.items()}
    said = "; ".join(f"{name}: {words}" for name, words in rows.items() if words)
    method = ("method", Literal[tuple(rows)], setting("tiny-newsrec", said))
    named = {"__module__": __name__, "__doc__": schema.RowConfig.__doc__}
    return make_dataclass("Row", [method], bases=(schema.RowConfig,), namespace=named)


def _tree() -> type[schema.Config]:
    """`Config` with every method's section in its place."""
    sections = [(one.section.key, one.section, field(default_factory=one.section)) for one in METHODS]
    between = make_dataclass("Sections", sections, bases=(schema.HeadConfig,))
    no_rows: list[schema.RowConfig] = setting([], meaning(schema.Config, "rows"))
    # The order of the bases is the order of the keys, from behind.
    named = {"__module__": __name__, "__doc__": "Settings of the whole run."}
    return make_dataclass("Tree", [("rows", list[Row], no_rows)], bases=(schema.Config, between), namespace=named)


if TYPE_CHECKING:
    Row: TypeAlias = schema.RowConfig
    Tree: TypeAlias = schema.Config
else:
    Row = _row()
    Tree = _tree()


def load_config(path: Path | str | None, overrides: Sequence[str] = ()) -> schema.Config:
    """Read a configuration with the sections of all methods: defaults < YAML file < `key.sub=value` overrides.

    Args:
        path: a YAML file; None: defaults only.

    Raises:
        InputError: a missing file, bad YAML, an unknown key, a wrong type, or a value out of range.
    """
    from tnr_dist.config import read  # not for `tnr --help`

    return read.read_config(Tree, path, overrides)
