"""How any run is made and scored; which run is a row's is said in `targets.py`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.results import read_results
from tnr_dist.stages import cache, finetune, post_train, stage1, stage2
from tnr_dist.stages.baselines import further_pretrain, newsbert, tinybert, tinybert_joint
from tnr_dist.stages.evaluate import evaluate, result_key
from tnr_dist.train.runfolder import RunFolder

_MAKERS: dict[str, Callable[..., None]] = {
    "post-train": post_train.make,
    "finetune": finetune.make,
    "cache": cache.make,
    "stage1": stage1.make,
    "stage2": stage2.make,
    "further-pretrain": further_pretrain.make,
    "tinybert-general": tinybert.make_general,
    "tinybert-intermediate": tinybert.make_intermediate,
    "tinybert": tinybert.make,
    "tinybert-joint": tinybert_joint.make,
    "newsbert": newsbert.make,
}


def make(place: RunFolder, engine: Engine, *, replace: bool = False) -> None:
    """Make one run whose inputs are there; a complete one is left as it is.

    What is in its folder's place and was made otherwise is only replaced with `replace`; else that is an InputError.
    """
    _MAKERS[place.stage](place, engine, redo=replace)


def is_evaluated(place: RunFolder) -> bool:
    """Whether a run is complete and its results are of this model, `evaluate.split` and the run's own settings.

    `tnr evaluate` with others (a shorter history, say) leaves its own results there: they are not this row's.
    """
    file = place.path / "results.json"
    if not place.is_complete() or not file.is_file():
        return False
    key = result_key(place.config, str(place.inputs["data"]), place.id)
    return bool(read_results(file).get("made_from") == key)


def evaluate_run(place: RunFolder, engine: Engine) -> dict[str, Any]:
    """Score `evaluate.split` with a finished run's model."""
    scored = copy.deepcopy(place.config)
    scored.evaluate.run = str(place.path)
    return evaluate(scored, engine)
