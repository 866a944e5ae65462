"""How a row's run is scored; which run is a row's is said in `targets.py`."""

from __future__ import annotations

import copy

from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.results import Results, read_results
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages.evaluate import evaluate, result_key


def is_evaluated(place: RunFolder) -> bool:
    """Whether a run is complete and its results are of this model, `evaluate.split` and the run's own settings.

    `tnr evaluate` with others (a shorter history, say) leaves its own results there: they are not this row's.
    """
    file = place.path / "results.json"
    if not place.is_complete() or not file.is_file():
        return False
    key = result_key(place.config, str(place.inputs["data"]), place.id)
    return bool(read_results(file).get("made_from") == key)


def evaluate_run(place: RunFolder, engine: Engine) -> Results:
    """Score `evaluate.split` with a finished run's model."""
    scored = copy.deepcopy(place.config)
    scored.evaluate.run = str(place.path)
    return evaluate(scored, engine)
