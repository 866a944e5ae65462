"""`tnr run CONFIG --dry-run`: what would be made, resumed, replaced and skipped, with the times of earlier runs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.prepare.existing import check_options
from tnr_dist.data.prepare.raw_files import find_splits
from tnr_dist.runs.checkpoint_files import sorted_steps
from tnr_dist.runs.folder import RunFolder, plain_name
from tnr_dist.runs.owned import is_abandoned, is_run
from tnr_dist.stages.pipeline import explain_new_folder, is_complete, placed_rows, prepare_options, raw_folder
from tnr_dist.stages.targets import each_seed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json

MAKE, GO_ON, REPLACE, SKIP, REFUSE = "made", "resumed", "replaced", "skipped", "refused"


@dataclass(frozen=True)
class Step:
    """What `tnr run` would do about one run.

    Attributes:
        what: MAKE, GO_ON, REPLACE, SKIP (it is complete) or REFUSE (its inputs were made again; needs --replace).
        why: more about it, in words.
        seconds: what a whole training like it took; None where none is known.
    """

    run: RunFolder
    what: str
    why: str
    seconds: float | None


def steps(config: Config, *, replace: bool) -> list[Step]:
    """Every run of every seed, inputs first. Nothing is written. Raises InputError for a damaged run folder."""
    data, earlier = data_of(config), _earlier(Path(config.output))
    runs = [run for one in each_seed(config) for run in placed_rows(one, data, instead=replace)[0]]
    return [step_of(run, _estimate_seconds(run, earlier), replace) for run in runs]


def data_of(config: Config) -> DataSet:
    """The data set; before it is prepared one whose id no run knows."""
    if (Path(config.data.dir) / "manifest.json").is_file():
        return DataSet.open(config)
    return DataSet(Path(config.data.dir), {}, "not prepared yet")


def step_of(run: RunFolder, seconds: float | None, replace: bool) -> Step:
    """What `tnr run` would do about a run that has its folder (`in_order`)."""
    mine = run.found() == run.path
    if mine and (run.path / "complete.json").is_file():
        try:
            state, why = run.state()
        except InputError:  # an input has to be made again first; as a rule it comes out the same
            return Step(run, SKIP, "complete, unless its inputs change", seconds)
        if state == "complete":
            try:
                run.check_files()
            except InputError as error:
                return Step(run, REFUSE, str(error), seconds)
            return Step(run, SKIP, "complete", seconds)
        said = f"{why.replace('inputs.', '')} was made again"
        return Step(
            run, REPLACE if replace else REFUSE, said if replace else f"{said}; --replace makes it again", seconds
        )
    if mine:
        done = sorted_steps(run.path / "checkpoints")
        return Step(run, GO_ON, f"from step {done[-1]:,}" if done else "from its beginning", seconds)
    if is_run(run.path) and not is_abandoned(run.path):
        return Step(run, REPLACE if replace else REFUSE, "holds a run with other settings", seconds)
    why = explain_new_folder(run)
    return Step(run, MAKE, f"{run.plain.name} is kept, it {why}" if why else "", seconds)


def _earlier(output: Path) -> list[tuple[str, str, float]]:
    """Plain name, stage and seconds of the finished runs of an output folder, of any seed and settings."""
    found = []
    for mark in [*output.glob("*/complete.json"), *output.glob("seed-*/*/complete.json")]:
        try:
            done = read_json(mark)
        except InputError:
            continue
        if isinstance(done, dict) and isinstance(seconds := done.get("seconds"), int | float):
            found.append((plain_name(mark.parent.name), str(done.get("stage")), float(seconds)))
    return found


def _estimate_seconds(run: RunFolder, earlier: Sequence[tuple[str, str, float]]) -> float | None:
    """The median of what runs of this name took; where there are none, of those of its stage."""
    named = [seconds for name, _, seconds in earlier if name == run.name]
    alike = named or [seconds for _, stage, seconds in earlier if stage == run.stage]
    return statistics.median(alike) if alike else None


def describe(config: Config, *, replace: bool) -> str:
    """The outlook in lines."""
    lines = [f"data: {config.data.dir}: {data_state(config)}"]
    found = steps(config, replace=replace)
    width = max(len(step.run.path.name) for step in found)
    for seed in dict.fromkeys(step.run.config.seed for step in found):
        ours = [step for step in found if step.run.config.seed == seed]
        lines.append(f"seed {seed}: {ours[0].run.config.output}")
        for step in ours:
            took = f"about {format_seconds(step.seconds)}" if step.seconds is not None else "time not known"
            notes = [step.why, *([took] if step.what not in (SKIP, REFUSE) else [])]
            lines.append(f"  {step.run.path.name:{width}}  {step.what}: {', '.join(note for note in notes if note)}")
    lines.append(_summary(found))
    if is_complete(config):
        lines.append(f"{config.evaluate.split}: every row is scored")
    else:
        lines.append(f"{config.evaluate.split}: rows that have no results yet are scored")
    return "\n".join(lines)


def _summary(found: list[Step]) -> str:
    count = Counter(step.what for step in found)
    parts = [f"{count[what]} {what}" for what in (MAKE, GO_ON, REPLACE, SKIP, REFUSE) if count[what]]
    left = [step for step in found if step.what in (MAKE, GO_ON, REPLACE)]
    known = [step.seconds for step in left if step.seconds is not None]
    if known:
        parts.append(f"about {format_seconds(sum(known))}")
    if unknown := len(left) - len(known):
        parts.append(f"{unknown} of unknown time")
    return f"{len(found)} runs: {', '.join(parts)}"


def data_state(config: Config) -> str:
    """What would become of the data set: prepared, would be prepared, or would be generated and prepared.

    Raises InputError when the folder holds another data set, or there is nothing to prepare it from.
    """
    if not (Path(config.data.dir) / "manifest.json").is_file():
        if not config.data.input:
            return "would be generated and prepared"
        find_splits(config.data.input)
        return "would be prepared"
    if config.data.input or raw_folder(config).is_dir():
        check_options(prepare_options(config), Path(config.data.dir))
    return "prepared"


def format_seconds(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
