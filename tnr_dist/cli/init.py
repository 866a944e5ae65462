"""`tnr init`: configurations and job scripts for a user who has no checkout."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into; created if it is missing.")],
    force: Annotated[bool, typer.Option("--force", help="Replace files whose content differs.")] = False,
) -> None:
    """Write configs/, launch/ and slurm/ into a folder: configurations to start from, launchers and Slurm jobs.

    Existing files are kept. If one has other content, nothing is written (exit code 2). Put your cluster's settings into
    slurm/env.local.sh, which tnr never writes.
    """
    from tnr_dist.launch.scripts import write_scripts
    from tnr_dist.util.progress import say

    written = write_scripts(folder, force=force)
    say(f"{folder}: {len(written)} files written" if written else f"{folder}: all files exist already")
    print(f"On this machine: cd {shlex.quote(str(folder))}; tnr run configs/demo.yaml")
    print("On Slurm: put account, partition and GPUs into slurm/env.local.sh; then slurm/pipeline.sh CONFIG --dry-run")
