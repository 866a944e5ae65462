"""All stages and methods. To add one: a module that declares it as those below do, and its name in `_MODULES`."""

from __future__ import annotations

from types import ModuleType

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import cache, finetune, further_pretrain, post_train, stage1, stage2
from tnr_dist.stages.baselines import newsbert, tinybert
from tnr_dist.stages.stage import RowRun, Stage

# Each declares STAGES; what its command makes, as `runs`, or as `run_folder` where that is one run; and, for rows of the
# results table, ROWS.
_MODULES: dict[str, ModuleType] = {
    "post-train": post_train,
    "finetune": finetune,
    "cache": cache,
    "stage1": stage1,
    "stage2": stage2,
    "further-pretrain": further_pretrain,
    "tinybert": tinybert,
    "newsbert": newsbert,
}

STAGES: dict[str, Stage] = {stage.name: stage for module in _MODULES.values() for stage in module.STAGES}
ROWS: dict[str, RowRun] = {
    method: run for module in _MODULES.values() for method, run in getattr(module, "ROWS", {}).items()
}


def make(run: RunFolder, engine: Engine, *, replace: bool = False) -> None:
    """Make one run whose inputs are there; a complete one is left as it is.

    What is in its folder's place and was made otherwise is only replaced with `replace`; else that is an InputError.
    """
    STAGES[run.stage].make(run, engine, redo=replace)


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
