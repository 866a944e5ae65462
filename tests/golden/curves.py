"""Train the golden set-up (`stages.yaml` on `inputs.py`) under an engine, read its curves, and compare two sets of them.

A curve is the loss and the gradient norm of every step of one training. Its name is the run folder's, with ", dropout"
where there is dropout. Dropout draws by rank, so those curves are kept for each number of ranks; the others are the same
for all.

Float32 is not the same everywhere: sums over ranks, and kernels for other instruction sets, add in another order. Over the
30 steps the largest relative differences seen were 7e-6 of a loss and 2e-4 of a gradient norm (of TinyBERT's prediction
layer, a small difference of large terms), among 1 and 2 ranks, the engines, and AVX2, AVX and SSE 4 kernels. The bounds
leave a factor of three. Adam's eps is above its default in the set-up: the gradient of attention's key biases is 0 but for
rounding, and with 1e-8 they would move by that rounding's sign.

bf16 rounds scores of 10 to 0.03, so single steps of 12 samples are several percent apart, on another number of ranks too.
Means over ten steps are compared instead, with bounds of their own.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.golden.inputs import write_inputs
from tests.ranks import on_ranks

HERE = Path(__file__).parent
SETUP = HERE / "stages.yaml"
GOLDEN = HERE / "stages.json"
RECORD = "python -m tests.golden.record"
Curves = dict[str, dict[str, list[float]]]  # curve -> loss, grad_norm -> a value each step

#: Largest relative difference: of any step in float32, of the mean of ten steps in bf16.
FLOAT32 = {"loss": 2e-5, "grad_norm": 5e-4}
BF16 = {"loss": 0.03, "grad_norm": 0.5}


@dataclass(frozen=True)
class Lane:
    """How the set-up is trained."""

    engine: str = "ddp"
    ranks: int = 1
    precision: str = "fp32"
    zero_stage: int = -1

    def __str__(self) -> str:
        stage = f"-{self.zero_stage}" if self.engine == "deepspeed" else ""
        return f"{self.engine}{stage}-{self.ranks}-{self.precision}"


@dataclass(frozen=True)
class Difference:
    """The largest relative difference of a curve from another one, the step (from 1) it is at, and what is allowed."""

    curve: str
    quantity: str
    largest: float
    step: int
    bound: float

    @property
    def above(self) -> bool:
        """Whether it is larger than allowed, or not a number."""
        return not self.largest <= self.bound


def prepare_inputs(folder: Path) -> list[str]:
    """Write the inputs into a folder and prepare them; the configuration's overrides that name them."""
    from tnr_dist.stages import pipeline
    from tnr_dist.stages.methods import load_config

    write_inputs(folder)
    overrides = [*input_overrides(folder), f"data.dir={folder / 'data'}"]
    pipeline.ensure_data(load_config(SETUP, overrides))
    return overrides


def input_overrides(folder: Path) -> list[str]:
    """What tells `tnr run` of the inputs in a folder."""
    return [f"data.input={folder / 'mind'}", f"data.corpus={folder / 'corpus.tsv'}", f"plm.name={folder / 'plm'}"]


def digest(folder: Path) -> str:
    """Of the inputs' texts."""
    files = [*sorted(folder.glob("mind/*/*.tsv")), folder / "corpus.tsv"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def train(lane: Lane, inputs: list[str], output: Path) -> Curves:
    """Every training of the set-up, on forked ranks."""
    how = [f"engine={lane.engine}", f"deepspeed.zero_stage={lane.zero_stage}", f"precision={lane.precision}"]
    on_ranks(lane.ranks, _train, [*inputs, *how, f"output={output}"], timeout=1800)
    return read_curves(output)


def _train(overrides: list[str]) -> None:
    from tnr_dist.data.dataset import DataSet
    from tnr_dist.engines.make import make_engine
    from tnr_dist.runs.folder import in_order
    from tnr_dist.stages.methods import load_config
    from tnr_dist.stages.registry import make
    from tnr_dist.stages.targets import row_folder, rows_of

    config = load_config(SETUP, overrides)
    if config.deepspeed.zero_stage == 3:  # which NewsBERT refuses
        config.rows = [row for row in config.rows if row.method != "newsbert"]
    engine = make_engine(config.engine, "cpu", 1, config.deepspeed, config.horovod)
    data = DataSet.open(config)
    for place in in_order(row_folder(config, data, row) for row in rows_of(config)):
        make(place, engine)
    engine.close()


def read_curves(output: Path) -> Curves:
    """The curves of all run folders in `output`, in the order in which they were begun; one step is no curve."""
    import yaml

    found: Curves = {}
    for file in sorted(output.rglob("config.yaml"), key=lambda file: file.stat().st_mtime_ns):
        metrics = file.with_name("metrics.jsonl")
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
        steps = [record for record in map(json.loads, lines) if "train/loss" in record]
        if len(steps) > 1:
            name = re.sub(r"-[0-9a-f]{10}$", "", file.parent.name)  # without the mark of its settings
            dropout = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["dropout"]
            found[f"{name}, dropout" if dropout else name] = {
                "loss": [record["train/loss"] for record in steps],
                "grad_norm": [record["optim/grad_norm"] for record in steps],
            }
    return found


def recorded() -> dict[str, Any]:
    """stages.json: the inputs' digest, torch's version, the curves, those with dropout by the number of ranks."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def golden(ranks: int) -> Curves:
    """The recorded curves of that many ranks."""
    found = recorded()
    return found["curves"] | found["dropout"][str(ranks)]


def means(curves: Curves, steps: int = 10) -> Curves:
    """The mean of each `steps` steps."""
    return {
        name: {
            quantity: [sum(values[i : i + steps]) / steps for i in range(0, len(values), steps)]
            for quantity, values in curve.items()
        }
        for name, curve in curves.items()
    }


def compare(found: Curves, wanted: Curves, bounds: dict[str, float] = FLOAT32) -> list[Difference]:
    """The difference of every curve; infinite for one that either lacks, or that has another number of steps."""
    return [
        _difference(
            name, quantity, found.get(name, {}).get(quantity, []), wanted.get(name, {}).get(quantity, []), bounds
        )
        for name in dict.fromkeys([*wanted, *found])
        for quantity in FLOAT32
    ]


def _difference(
    curve: str, quantity: str, found: list[float], wanted: list[float], bounds: dict[str, float]
) -> Difference:
    bound = bounds[quantity]
    if len(found) != len(wanted):
        return Difference(curve, quantity, math.inf, min(len(found), len(wanted)) + 1, bound)
    apart = [abs(a - b) / abs(b) if b else abs(a) for a, b in zip(found, wanted, strict=True)]
    step = max(range(len(apart)), key=lambda i: (math.isnan(apart[i]), apart[i]))
    return Difference(curve, quantity, apart[step], step + 1, bound)


def table(differences: list[Difference]) -> str:
    """A line for each curve and quantity; those above their bound are marked."""
    width = max(len(one.curve) for one in differences)
    lines = [f"{'curve':{width}}  {'quantity':9}  largest relative difference"]
    for one in differences:
        mark = f"  above {one.bound:.1e}" if one.above else ""
        lines.append(f"{one.curve:{width}}  {one.quantity:9}  {one.largest:.1e} at step {one.step}{mark}")
    return "\n".join(lines)
