"""What a job of one stage would find: whether its work is done already, and whether its inputs are there.

Asked before a job goes into a queue (`slurm/steps.py`); nothing is made, and nothing is written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tnr_dist.config.read import with_overrides
from tnr_dist.config.schema import Config, to_dict
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.shards import read_index
from tnr_dist.evaluation.results import read_results
from tnr_dist.runs.finished import check_run
from tnr_dist.runs.folder import RunFolder, completed_id
from tnr_dist.stages import outlook, registry
from tnr_dist.stages.cache_settings import CacheConfig
from tnr_dist.stages.chosen import chosen_run
from tnr_dist.stages.evaluate import labelled_index, result_key
from tnr_dist.stages.pipeline import is_complete, report_folder
from tnr_dist.util.errors import InputError


def runs_of(script: str, config: Config, data: DataSet) -> list[RunFolder]:
    """The runs that a training script makes."""
    if script == "finetune_plain":
        config = with_overrides(config, ["finetune.init=plm"])
        script = "finetune"
    return registry.runs_of(script.replace("_", "-"), config, data)


def place_of(script: str, config: Config) -> str:
    """What a job of this script writes to, the same for any settings; two jobs of one place would be in each other's way."""
    base, part = config.output, script
    if script == "prepare":
        base = config.data.dir
    elif script == "evaluate":
        part = f"evaluate {config.evaluate.run or _first_run('stage2', config)}"
    elif script not in ("doctor", "report"):
        part = _first_run(script, config)
    return f"{Path(base).absolute()}/{part}"


def _first_run(script: str, config: Config) -> str:
    """The first run that a script makes stands for all of them: those of more or fewer teachers are in each other's way."""
    return runs_of(script, config, outlook.data_of(config))[0].name


def marks_of(place: str, config: Config) -> tuple[str, str]:
    """A place and a configuration as 12 hexadecimal digits each, which a job's comment can hold."""
    settings = json.dumps(to_dict(config), sort_keys=True)
    return _short_digest(place), _short_digest(settings)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check(script: str, config: Config, *, later: bool = False) -> list[tuple[str, bool]]:
    """What a job of this script would make, each with whether it is complete; of `doctor` nothing.

    Args:
        later: the job waits for others, which may still make the data set and the inputs.

    Raises:
        InputError: an input is missing or damaged, or another result is in the way.
    """
    if script == "doctor":
        return []
    if script == "prepare":
        return [(config.data.dir, outlook.data_state(config) == "prepared")]
    if script == "report":
        return _whole(config)
    try:
        data = DataSet.open(config)
    except InputError:
        if later:
            return [(script, False)]
        raise
    if script == "evaluate":
        return [_scored(config, data, later)]
    if script == "cache":
        for split in CacheConfig.of(config).splits:
            read_index(data.folder, split)
    return [(str(run.path), _is_done(run, later)) for run in runs_of(script, config, data)]


def _is_done(run: RunFolder, later: bool) -> bool:
    if run.is_complete():
        return True
    try:
        for need in run.needs:
            completed_id(need.path, need.stage)  # says which stage to run
            check_run(need.path)
    except InputError:
        if later:
            return False
        raise
    run.check(redo=False)
    return False


def _scored(config: Config, data: DataSet, later: bool) -> tuple[str, bool]:
    split = config.evaluate.split
    labelled_index(data, split)
    try:
        run = chosen_run(config, data)
        key = result_key(config, data.id, completed_id(run, "training"))
    except InputError:
        if later:
            return "evaluate", False
        raise
    results = run / "results.json"
    return str(results), results.is_file() and read_results(results).get("made_from") == key


def _whole(config: Config) -> list[tuple[str, bool]]:
    """All of `tnr run`; its table is made again where it is missing."""
    if outlook.data_state(config) != "prepared":
        return [(config.output, False)]
    for step in outlook.steps(config, replace=False):
        if step.what == outlook.REFUSE:
            raise InputError(f"{step.run.path}: {step.why}")
    table = report_folder(config) / "table.json"
    return [(config.output, is_complete(config) and table.is_file())]
