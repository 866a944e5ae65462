"""What a method declares for the rooms that only need to know of it: configuration, command line, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tnr_dist.config.schema import Section


@dataclass(frozen=True)
class Made:
    """A kind of run that a method makes, a stage.

    Attributes:
        name: as the marks of its run folders have it.
        inputs: stages that its runs start from.
        input_name: what runs that start from it call it; empty: its own name.
        trains: what of a recommender; only a whole one may be a row of the results table, others start from the rest.
        first: whether a report puts it before all other stages, as what they start from.
    """

    name: str
    inputs: tuple[str, ...] = ()
    input_name: str = ""
    trains: Literal["recommender", "news encoder", "plm", "nothing"] = "recommender"
    first: bool = False


@dataclass(frozen=True)
class Method:
    """A stage or method as `methods.py` lists it. Nothing here imports torch: a configuration is read without it.

    Attributes:
        command: `tnr COMMAND` makes its runs.
        section: its settings.
        makes: the kinds of run that it makes, inputs first.
        help: what `tnr COMMAND --help` says.
        rows: `method` of the rows that it can make -> what such a row is, where that is not plain from its name.
        chooses: settings that say which runs are made and change none of them.
        baseline: whether it is one of `tnr baseline METHOD`.
    """

    command: str
    section: type[Section]
    makes: tuple[Made, ...]
    help: str
    rows: Mapping[str, str] = field(default_factory=dict)
    chooses: tuple[str, ...] = ()
    baseline: bool = False

    @property
    def code(self) -> str:
        """The module that has STAGES, ROWS, and what its command makes: `runs`, or `run_folder` where that is one run."""
        return self.section.__module__.removesuffix("_settings")
