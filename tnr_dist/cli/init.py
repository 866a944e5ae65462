"""`tnr init`: configurations and job scripts for a user who has no checkout."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that gets them; it is made if need be.")],
    force: Annotated[bool, typer.Option("--force", help="Replace files whose content differs.")] = False,
) -> None:
    """Write configs/, launch/ and slurm/ into a folder: configurations to start from, launchers and Slurm jobs.

    Files that are there already stay; where one has other content, nothing is written (exit code 2). Your own settings of a
    cluster belong into slurm/env.local.sh, which no version of tnr writes.
    """
    from tnr_dist.launch.scripts import write_scripts
    from tnr_dist.util.progress import say

    written = write_scripts(folder, force=force)
    say(f"{folder}: {len(written)} files written" if written else f"{folder}: all files are there already")
    print(f"On this machine: cd {shlex.quote(str(folder))}; tnr run configs/demo.yaml")
    print("On Slurm: account, partition and GPUs into slurm/env.local.sh; then slurm/pipeline.sh CONFIG --dry-run")
