"""Arguments, options and closing words that several commands share, and how a command's configuration is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tnr_dist.config.schema import Config

ConfigArgument = Annotated[Path, typer.Argument(help="Configuration file (YAML), for example configs/demo.yaml.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, for example stage2.lr=1e-4.")
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print every setting with its value and meaning, and exit.")
]

# What stands below the options of every command that trains or scores.
_KEYS = (
    "Every key with its meaning and value: --print-config. Ranks: ranks=N starts N on this machine; the same "
    "command also runs under launch/local.sh, torchrun, srun or mpirun (docs/clusters.md)."
)
_CODES = (
    "Exit codes: 0 done, or complete before; 1 failed; 2 bad input or configuration, one line says what to do; 69 a rank was "
    "lost or did not start, the same command resumes"
)
STOPS = f"{_KEYS}\n\n{_CODES}; 75 stopped after a checkpoint, the same command resumes."
SCORES = f"{_KEYS}\n\n{_CODES}."


def configure(path: Path, overrides: list[str] | None, print_config: bool) -> Config:
    """The configuration that a command was given; with `print_config` print it and end.

    Raises:
        InputError: a bad file, key or value.
    """
    from tnr_dist.config.explain import explained_yaml
    from tnr_dist.runs.owned import is_run_config
    from tnr_dist.runs.wandb import chosen_mode
    from tnr_dist.stages.methods import Tree, load_config

    if is_run_config(path):  # what it names may have been moved with the run folder
        from tnr_dist.runs.places import run_config

        config = run_config(Tree, path.parent, overrides or [])
    else:
        config = load_config(path, overrides or [])
    if print_config:
        print(explained_yaml(config), end="")
        raise typer.Exit
    chosen_mode(config.wandb)  # a bad WANDB_MODE is an error before anything is read or written
    return config
