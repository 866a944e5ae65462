"""Train the golden set-up (`stages.yaml` on `inputs.py`) under an engine, read its curves, and compare two sets of them.

A curve is the loss and the gradient norm of every step of one training. Its name is the run folder's, with ", dropout"
where there is dropout.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.golden.inputs import write_inputs
from tests.ranks import on_ranks

HERE = Path(__file__).parent
SETUP = HERE / "stages.yaml"
GOLDEN = HERE / "stages.json"
RECORD = "python -m tests.golden.record"
QUANTITIES = ("loss", "grad_norm")
Curves = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Lane:
    """How the set-up is trained."""

    engine: str = "ddp"
    ranks: int = 1
    precision: str = "fp32"
    zero_stage: int = -1

    def __str__(self) -> str:
        stage = f"-{self.zero_stage}" if self.engine == "deepspeed" else ""
        return f"{self.engine}{stage}, {self.ranks} ranks, {self.precision}"

    @property
    def overrides(self) -> list[str]:
        """What it adds to the configuration."""
        return [f"engine={self.engine}", f"deepspeed.zero_stage={self.zero_stage}", f"precision={self.precision}"]


def inputs_of(folder: Path) -> list[str]:
    """Write the inputs into a folder and prepare them; the configuration's overrides that name them."""
    from tnr_dist.config_file import load_config
    from tnr_dist.stages import pipeline

    write_inputs(folder)
    overrides = [
        f"data.input={folder / 'mind'}",
        f"data.corpus={folder / 'corpus.tsv'}",
        f"data.dir={folder / 'data'}",
        f"plm.name={folder / 'plm'}",
    ]
    pipeline.ensure_data(load_config(SETUP, overrides))
    return overrides


def train(lane: Lane, inputs: list[str], output: Path) -> Curves:
    """Every training of the set-up, on forked ranks."""
    on_ranks(lane.ranks, _train, [*inputs, *lane.overrides, f"output={output}"], timeout=600)
    return read_curves(output)


def _train(overrides: list[str]) -> None:
    from tnr_dist.config_file import load_config
    from tnr_dist.engines.base import make_engine
    from tnr_dist.stages.common import DataSet
    from tnr_dist.stages.rows import make, row_folder, rows_of
    from tnr_dist.train.runfolder import in_order

    config = load_config(SETUP, overrides)
    if config.deepspeed.zero_stage == 3:  # which NewsBERT refuses
        config.rows = [row for row in config.rows if row.method != "newsbert"]
    engine = make_engine(config.engine, "cpu", 1, config.deepspeed, config.horovod)
    data = DataSet.open(config)
    for place in in_order(row_folder(config, data, row) for row in rows_of(config)):
        make(place, engine)
    engine.close()


def read_curves(output: Path) -> Curves:
    """The curves of all run folders in `output`."""
    import yaml

    found: Curves = {}
    for file in sorted(output.rglob("metrics.jsonl"), key=lambda file: file.stat().st_ctime):
        config = yaml.safe_load((file.parent / "config.yaml").read_text(encoding="utf-8"))
        name = re.sub(r"-[0-9a-f]{10}$", "", file.parent.name)
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        steps = [record for record in records if "train/loss" in record]
        if steps:
            found[name + (", dropout" if config["model"]["dropout"] else "")] = {
                "loss": [record["train/loss"] for record in steps],
                "grad_norm": [record["optim/grad_norm"] for record in steps],
            }
    return found
