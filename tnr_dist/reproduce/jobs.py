"""`tnr run` and `tnr reproduce` as Slurm jobs: which there are, which are left to be done, and what each waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tnr_dist.config.read import with_overrides
from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.reproduce import STUDY_NAMES
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import outlook, ready
from tnr_dist.stages.finetune_settings import FinetuneConfig
from tnr_dist.stages.stage2_settings import Stage2Config
from tnr_dist.stages.table_rows import is_evaluated
from tnr_dist.stages.targets import rows_of
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import say


@dataclass(frozen=True)
class Job:
    """One job of a chain.

    Attributes:
        script: of slurm/, without its ending.
        after: names of the jobs that must succeed first; with a `?` behind it that must only have ended.
        overrides: `key=value` after the command line's; of a study's job what goes before the configuration.
        width: `all` ranks, or `one` process.
        indices: of an array, such as `0-3` or `1,3`; empty: no array.
        count: into how many parts the indices divide the work.
        place, settings: marks of what the job makes and how (`ready.marks_of`).
    """

    name: str
    script: str
    after: list[str]
    overrides: list[str] = field(default_factory=list)
    width: str = "all"
    indices: str = ""
    count: int = 0
    place: str = ""
    settings: str = ""


def spans(numbers: Iterable[int]) -> str:
    """Numbers in ascending order as Slurm writes them: `0-3,7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def ready_job(script: str, config: Config, *, later: bool) -> list[str]:
    """What `slurm/SCRIPT.sh` has to know before it submits itself: `complete`, or `make` with marks and array.

    Args:
        later: the job waits for others, which may still make its inputs.

    Raises:
        InputError: an input is missing, or another result is in the way.
    """
    found = ready.check(script, config, later=later)
    if found and all(done for _, done in found):
        for place, _ in found:
            say(f"complete: {place}", dated=False)
        return ["complete"]
    indices, count = "", 0
    if script == "finetune":
        count = len(found)
        indices = spans(number for number, (_, done) in enumerate(found) if not done)
    return ["make", *ready.marks_of(ready.place_of(script, config), config), indices or "-", str(count)]


def chain(config: Config, cache_tasks: int) -> Iterator[Job]:
    """The jobs of `tnr run CONFIG`: the same stages in the same folders, so that the last job finds them complete.

    Baselines and rows with settings of their own have no jobs: the last one makes them. `slurm/reproduce.sh` is for many.
    """
    rows = [row for row in rows_of(config) if not row.set]
    yield Job("prepare", "prepare", [], width="one")
    last = []
    for seed in range(config.seed, config.seed + config.seeds):
        mark = f"-s{seed}" if config.seeds > 1 else ""
        common = [f"output={Path(config.output) / f'seed-{seed}'}", f"seed={seed}"]
        students = sorted({r.layers or config.student.layers for r in rows if r.method == "tiny-newsrec"}, reverse=True)
        plain = sorted({r.layers for r in rows if r.method == "finetune"}, reverse=True)
        if students or any(row.method == "teacher" for row in rows):
            yield Job(f"post-train{mark}", "post_train", ["prepare"], common)
            teachers = FinetuneConfig.of(config).teachers if students else 1
            several = [*common, f"finetune.teachers={teachers}"]
            yield Job(f"finetune{mark}", "finetune", [f"post-train{mark}"], several, count=teachers)
            last.append(f"finetune{mark}")
        if students:
            after = [f"finetune{mark}"]
            if cache_tasks > 1:
                yield Job(f"cache{mark}", "cache", after, common, count=cache_tasks)
                after = [*after, f"cache{mark}?"]  # it makes what a task of the array has not
            yield Job(f"cache-complete{mark}", "cache", after, common)
        for layers in students:
            size = [*common, f"student.layers={layers}"]
            name = f"{layers}{mark}"
            before = [f"cache-complete{mark}"]
            if Stage2Config.of(config).init == "stage1":
                yield Job(f"stage1-{name}", "stage1", [f"post-train{mark}"], size)
                before.insert(0, f"stage1-{name}")
            yield Job(f"stage2-{name}", "stage2", before, size)
            yield Job(f"evaluate-{name}", "evaluate", [f"stage2-{name}"], size)
            last.append(f"evaluate-{name}")
        for layers in plain:
            yield Job(
                f"finetune-plain-{layers}{mark}", "finetune_plain", ["prepare"], [*common, f"finetune.layers={layers}"]
            )
            last.append(f"finetune-plain-{layers}{mark}")
    # Where every row has jobs of its own, only yardsticks and the table are left to it.
    alone = bool(last) and all(row.method == "tiny-newsrec" and not row.set for row in rows_of(config))
    yield Job("report", "report", last or ["prepare"], width="one" if alone else "all")


def remaining_jobs(config: Config, cache_tasks: int) -> list[Job]:
    """The jobs of the chain whose work is not complete; what is, and what goes beside runs of other settings, is said.

    Raises InputError when there is nothing to prepare the data from, or an input was made again and its results were not.
    """
    state = outlook.data_state(config)
    placed = _placed(config) if state == "prepared" else None
    jobs = []
    for job in chain(config, cache_tasks):
        one = with_overrides(config, job.overrides)
        found = _remaining_part(job, config, one, placed)
        if found is not None:
            place = ready.place_of(job.script, one)
            if job.name.startswith("cache") and job.count:
                place += " (shards)"
            marks = ready.marks_of(place, with_overrides(config, found.overrides))
            jobs.append(replace(found, place=marks[0], settings=marks[1]))
    names = {job.name for job in jobs}
    return [replace(job, after=[one for one in job.after if one.removesuffix("?") in names]) for job in jobs]


def _placed(config: Config) -> tuple[DataSet, dict[str, RunFolder]]:
    """The data set, and all runs of all seeds by their keys, each with the folder that `tnr run` would give it."""
    steps = outlook.steps(config, replace=False)
    for step in steps:
        if step.what == outlook.REFUSE:
            raise InputError(f"{step.run.path}: {step.why.replace('--replace', '`tnr run --replace`')}")
    return DataSet.open(config), {step.run.key: step.run for step in steps}


def _remaining_part(
    job: Job, config: Config, one: Config, placed: tuple[DataSet, dict[str, RunFolder]] | None
) -> Job | None:
    """The job with the part of its work that is left; None where it is complete.

    Args:
        one: the configuration with the job's overrides.
        placed: None while the data is not prepared, and so nothing can be complete.
    """
    everything = replace(job, indices=spans(range(job.count)))
    if placed is None:
        return everything
    data, folders = placed
    if job.script == "prepare":
        return None
    if job.script == "report":
        return None if all(done for _, done in ready.check("report", config)) else everything
    if job.script == "evaluate":
        student = ready.runs_of("stage2", one, data)[0]
        student = folders.get(student.key, student)
        return None if is_evaluated(student) else everything
    runs = [folders.get(run.key, run) for run in ready.runs_of(job.script, one, data)]
    missing = [number for number, run in enumerate(runs) if not run.is_complete()]
    if not missing:
        return None
    beside = [runs[number] for number in missing if runs[number].path == runs[number].marked]
    if beside:
        for run in beside:
            say(f"{run.plain}: kept, it is of other settings; the new run goes to {run.path.name}", dated=False)
        everything = replace(everything, overrides=[*job.overrides, "folders=hashed"])
    return replace(everything, indices=spans(missing)) if job.script == "finetune" else everything


def remaining_study_jobs(study: str, config: Config, largest_array: int) -> list[Job]:
    """The jobs of `tnr reproduce` whose runs are not complete: arrays of at most `largest_array` runs for every level.

    A level begins once the one before has ended, however that ended: a run that failed ends those that need it, with exit
    code 2, and no others. What the runs are does not depend on the data, which may not be prepared yet.
    """
    from tnr_dist.reproduce.plan import levels, plan
    from tnr_dist.reproduce.studies import study_of

    if study not in STUDY_NAMES:
        raise InputError(f"{study!r}: no such table or figure; one of {', '.join(STUDY_NAMES)}")
    prepared = outlook.data_state(config) == "prepared"
    data = outlook.data_of(config)
    output = Path(config.output).absolute()
    first_of_all: list[str] = []
    jobs = []
    if not prepared:
        marks = ready.marks_of(ready.place_of("prepare", config), config)
        jobs.append(Job(f"{study}-prepare", "prepare", [], width="one", place=marks[0], settings=marks[1]))
        first_of_all = [f"{study}-prepare"]
    before: list[str] = []
    for number, step in enumerate(levels(plan(config, data, study_of(study, config)))):
        todo = [index for index, work in enumerate(step) if not (prepared and work.is_complete())]
        names = []
        for first in range(0, len(step), largest_array):
            ours = [index - first for index in todo if first <= index < first + largest_array]
            if not ours:
                continue
            name = f"{study}-{number}{f'.{first}' if first else ''}"
            marks = ready.marks_of(f"{output}/{name}", config)
            level = f"{number}+{first}" if first else str(number)
            jobs.append(
                Job(
                    name,
                    "reproduce_level",
                    first_of_all + before,
                    [study, level],
                    "all",
                    spans(ours),
                    1,
                    marks[0],
                    marks[1],
                )
            )
            names.append(name)
        before = [f"{name}?" for name in names] or before  # of a prepare that failed nothing comes
    marks = ready.marks_of(f"{output}/{study}-report", config)
    report = Job(
        f"{study}-report", "reproduce_report", first_of_all + before, [study], "one", place=marks[0], settings=marks[1]
    )
    return [*jobs, report]
