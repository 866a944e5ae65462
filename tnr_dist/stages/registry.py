"""What the stages and methods of `methods.py` do: which runs a command makes, and how one is made."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages.methods import METHODS
from tnr_dist.stages.stage import RowRun, Stage

# Each has STAGES; what its command makes, as `runs`, or as `run_folder` where that is one run; and, for rows of the
# results table, ROWS.
_MODULES: dict[str, ModuleType] = {method.command: import_module(method.code) for method in METHODS}

STAGES: dict[str, Stage] = {stage.name: stage for module in _MODULES.values() for stage in module.STAGES}
ROWS: dict[str, RowRun] = {
    method: run for module in _MODULES.values() for method, run in getattr(module, "ROWS", {}).items()
}


def make(run: RunFolder, engine: Engine, *, replace: bool = False) -> None:
    """Make one run whose inputs are there; a complete one is left as it is.

    What is in its folder's place and was made otherwise is only replaced with `replace`; else that is an InputError.
    """
    STAGES[run.stage].make(run, engine, redo=replace)
    engine.forget()


def runs_of(command: str, config: Config, data: DataSet) -> list[RunFolder]:
    """The runs that a command such as `post-train` makes. Raises InputError for settings that name none."""
    module = _MODULES[command]
    if not hasattr(module, "runs"):
        return [module.run_folder(config, data)]
    runs: list[RunFolder] = module.runs(config, data)
    return runs


def run_command(command: str, config: Config, engine: Engine) -> None:
    """Make the runs of a command such as `post-train`, in their order."""
    for run in runs_of(command, config, DataSet.open(config)):
        make(run, engine)
