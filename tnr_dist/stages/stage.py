"""What a stage declares: its name, the runs that it makes, and what is trained for one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from tnr_dist.config.schema import Config

if TYPE_CHECKING:  # a stage beside its settings is read without torch
    from tnr_dist.data.dataset import DataSet
    from tnr_dist.engines.base import Engine
    from tnr_dist.runs.folder import RunFolder
    from tnr_dist.stages.parts.task import TrainsRecommender

# The run of a row of the results table: of a configuration, its data set and the row's number of layers (0: all).
RowRun: TypeAlias = "Callable[[Config, DataSet, int], RunFolder]"


class Stage(Protocol):
    """A kind of run. `registry.py` lists them."""

    @property
    def name(self) -> str:
        """As the marks of its run folders have it."""

    def make(self, run: RunFolder, engine: Engine, *, redo: bool = False) -> None:
        """Make one run whose inputs are there; a complete one is left as it is.

        With `redo` a run of other settings in its folder's place is replaced; without, that is an InputError.
        """


@dataclass(frozen=True)
class Training:
    """A stage that trains a recommender.

    Attributes:
        name: as the marks of its run folders have it.
        build: what is trained for one of its runs; raises InputError for bad data, models and settings.
        keep: of a configuration, how many models before the end are kept, and how many steps apart (0: all steps cut
            into as many parts).
    """

    name: str
    build: Callable[[RunFolder, DataSet, Engine], TrainsRecommender]
    keep: Callable[[Config], tuple[int, int]] = lambda config: (1, 0)

    def make(self, run: RunFolder, engine: Engine, *, redo: bool = False) -> None:
        """Build what is trained for the run, and train it."""
        from tnr_dist.data.dataset import DataSet
        from tnr_dist.stages.run import train_model

        def task() -> TrainsRecommender:
            return self.build(run, DataSet.open(run.config), engine)

        train_model(engine, run, task, redo, *self.keep(run.config))
