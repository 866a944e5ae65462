"""What the Slurm scripts ask about a configuration: `python slurm/steps.py COMMAND … CONFIG [key=value…]`; see `main`."""

from __future__ import annotations

import sys

try:
    from tnr_dist.reproduce import jobs
    from tnr_dist.util.errors import InputError
except ImportError as error:
    print(f"tnr: {sys.executable} cannot load tnr_dist ({error})", file=sys.stderr)
    raise SystemExit(2) from None

from collections.abc import Iterable, Sequence
from pathlib import Path

from tnr_dist.data.shards import read_index
from tnr_dist.stages import pipeline
from tnr_dist.stages.methods import load_config
from tnr_dist.util.errors import one_line, os_error_advice


def share(items: int, index: int, count: int) -> tuple[int, int]:
    """Part `index` of `count` of `items`, as first and one past the last; sizes differ by one at most."""
    return items * index // count, items * (index + 1) // count


def put(*fields: object) -> None:
    """Write fields, each ended by a NUL, which no argument of a program can hold."""
    print(*fields, sep="\0", end="\0")


def put_jobs(some: Iterable[jobs.Job]) -> None:
    """Of every job eight fields, the number of its own arguments, and these."""
    for job in some:
        after = ",".join(job.after) or "-"
        put(job.name, job.script, job.width, after, job.indices or "-", job.count, job.place, job.settings)
        put(len(job.overrides), *job.overrides)


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    command, *rest = arguments
    if (
        command == "ready"
    ):  # ready SCRIPT later|'' CONFIG…: complete; or make, two marks, and indices and size of the array
        script, later, path, *overrides = rest
        put(*jobs.ready_job(script, load_config(path, overrides), later=bool(later)))
    elif command == "plan":  # plan CACHE_TASKS CONFIG…: the jobs of `tnr run` that are left
        tasks, path, *overrides = rest
        put_jobs(jobs.remaining_jobs(load_config(path, overrides), int(tasks)))
    elif command == "levels":  # levels STUDY LARGEST_ARRAY CONFIG…: the jobs of `tnr reproduce` that are left
        study, largest, path, *overrides = rest
        put_jobs(jobs.remaining_study_jobs(study, load_config(path, overrides), int(largest)))
    elif command == "prepare":  # prepare CONFIG…
        pipeline.ensure_data(load_config(rest[0], rest[1:]))
    elif command == "teachers":  # teachers INDEX COUNT CONFIG…: the teachers of one task of an array
        index, count, path, *overrides = rest
        config = load_config(path, overrides)
        if config.finetune.teacher >= 0:
            print(*[config.finetune.teacher][int(index) :: int(count)])
        else:
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
        print(one_line(f"tnr: {error}"), file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if not (said := os_error_advice(error)):
            raise
        print(one_line(f"tnr: {said}"), file=sys.stderr)
        raise SystemExit(2) from None
