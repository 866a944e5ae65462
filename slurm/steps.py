"""What the Slurm scripts ask about a configuration: `python slurm/steps.py plan|levels|prepare|teachers|shards … CONFIG [key=value…]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tnr_dist.config import Config
from tnr_dist.config_file import load_config
from tnr_dist.data.shards import read_index
from tnr_dist.errors import InputError
from tnr_dist.stages import pipeline
from tnr_dist.stages.targets import rows_of

# A job: its name, its script, the jobs it waits for, the size of its array (0: none), further overrides.
Job = tuple[str, str, list[str], int, list[str]]


def plan(config: Config, cache_tasks: int) -> Iterator[Job]:
    """The jobs of `tnr run CONFIG`: the same stages in the same folders, so that the last job finds them complete.

    Baselines and rows with settings of their own have no jobs: the last one makes them. `slurm/reproduce.sh` is for many.
    """
    rows = [row for row in rows_of(config) if not row.set]
    yield "prepare", "prepare", [], 0, []
    last = []
    for seed in range(config.seed, config.seed + config.seeds):
        mark = f"-s{seed}" if config.seeds > 1 else ""
        common = [f"output={Path(config.output) / f'seed-{seed}'}", f"seed={seed}"]
        students = sorted({r.layers or config.student.layers for r in rows if r.method == "tiny-newsrec"}, reverse=True)
        plain = sorted({r.layers for r in rows if r.method == "finetune"}, reverse=True)
        if students or any(row.method == "teacher" for row in rows):
            yield f"post-train{mark}", "post_train", ["prepare"], 0, common
            teachers = config.finetune.teachers if students else 1
            several = [*common, f"finetune.teachers={teachers}"]
            yield f"finetune{mark}", "finetune", [f"post-train{mark}"], teachers, several
            last.append(f"finetune{mark}")
        if students:
            after = f"finetune{mark}"
            if cache_tasks > 1:
                yield f"cache{mark}", "cache", [after], cache_tasks, common
                after = f"cache{mark}"
            yield f"cache-complete{mark}", "cache", [after], 0, common
        for layers in students:
            size = [*common, f"student.layers={layers}"]
            name = f"{layers}{mark}"
            before = [f"cache-complete{mark}"]
            if config.stage2.init == "stage1":
                yield f"stage1-{name}", "stage1", [f"post-train{mark}"], 0, size
                before.insert(0, f"stage1-{name}")
            yield f"stage2-{name}", "stage2", before, 0, size
            yield f"evaluate-{name}", "evaluate", [f"stage2-{name}"], 0, size
            last.append(f"evaluate-{name}")
        for layers in plain:
            yield (
                f"finetune-plain-{layers}{mark}",
                "finetune_plain",
                ["prepare"],
                0,
                [*common, f"finetune.layers={layers}"],
            )
            last.append(f"finetune-plain-{layers}{mark}")
    yield "report", "report", last or ["prepare"], 0, []  # without a job of its own for any row it makes them all


def level_sizes(study: str, config: Config) -> list[int]:
    """Runs of each level of `tnr reproduce`; they do not depend on the data, which may not be prepared yet."""
    from tnr_dist.reproduce.plan import levels, plan
    from tnr_dist.reproduce.studies import study_of
    from tnr_dist.stages.common import DataSet

    nothing = DataSet(Path(config.data.dir), {}, "not prepared yet")
    return [len(step) for step in levels(plan(config, nothing, study_of(study, config)))]


def share(items: int, index: int, count: int) -> tuple[int, int]:
    """Part `index` of `count` of `items`, as first and one past the last; sizes differ by one at most."""
    return items * index // count, items * (index + 1) // count


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    command, *rest = arguments
    if command == "plan":  # plan CACHE_TASKS CONFIG…: of every job five fields and the overrides, each ended by a NUL
        tasks, path, *overrides = rest
        for name, script, after, array, extra in plan(load_config(path, overrides), int(tasks)):
            fields = [name, script, ",".join(after) or "-", str(array), str(len(extra)), *extra]
            print(*fields, sep="\0", end="\0")
    elif command == "levels":  # levels STUDY CONFIG…: the number of runs of each level of a study's graph
        study, path, *overrides = rest
        print(*level_sizes(study, load_config(path, overrides)))
    elif command == "prepare":  # prepare CONFIG…
        pipeline.ensure_data(load_config(rest[0], rest[1:]))
    elif command == "teachers":  # teachers INDEX COUNT CONFIG…: the teachers of one task of an array
        index, count, path, *overrides = rest
        config = load_config(path, overrides)
        print(*range(int(index), config.finetune.teachers, int(count)))
    elif command == "shards":  # shards INDEX COUNT CONFIG…: A:B of one task, or nothing where there are too few shards
        index, count, path, *overrides = rest
        config = load_config(path, overrides)
        most = max(len(read_index(Path(config.data.dir), split).shards) for split in config.cache.splits)
        first, end = share(most, int(index), int(count))
        print(f"{first}:{end}" if first < end else "")
    else:
        raise InputError(f"unknown command {command!r}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"tnr: {error}", file=sys.stderr)
        raise SystemExit(2) from None
