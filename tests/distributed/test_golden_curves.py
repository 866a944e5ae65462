"""The loss and gradient norm of every step of the real stages, as recorded in tests/golden/stages.json.

One machine's float32 is another's to the bounds that tests/golden/curves.py gives; bf16 has a wider one, of its own.
"""

import math

import pytest
import torch

from tests.golden import curves
from tests.golden.curves import BF16, FLOAT32, Lane, compare, golden, means, recorded, table
from tests.lanes import missing, reason_against

FAST = [Lane(ranks=1), Lane(ranks=2)]
SLOW = [
    *(Lane("deepspeed", 2, zero_stage=stage) for stage in (0, 1, 2, 3)),
    Lane("deepspeed", 1, zero_stage=2),
    Lane("horovod", 1),
    Lane("horovod", 2),
]
HALF = [
    Lane(precision="bf16"),
    Lane(ranks=2, precision="bf16"),
    Lane("deepspeed", 2, "bf16", zero_stage=1),
    Lane("horovod", 2, "bf16"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "inputs"
    overrides = curves.prepare_inputs(folder)
    assert curves.digest(folder) == recorded()["inputs"], "NumPy draws other inputs: no curve can be compared"
    return overrides


def check(lane, inputs, output):
    """Train, and fail unless every curve is within its bound of the recorded one; the curves found and recorded."""
    if reason_against(lane.engine):
        missing(reason_against(lane.engine))
    found, wanted = curves.train(lane, inputs, output), golden(lane.ranks)
    if lane.zero_stage == 3:  # which NewsBERT refuses
        del wanted["newsbert-2"]
    differences = compare(found, wanted) if lane.precision == "fp32" else compare(means(found), means(wanted), BF16)
    verdict(differences, str(lane))
    return found, wanted


def verdict(differences, lane):
    """Fail when a curve has moved, and say what to do."""
    if any(one.above for one in differences):
        pytest.fail(
            f"{lane}: curves moved (recorded with torch {recorded()['torch']}, this is {torch.__version__})\n"
            f"{table(differences)}\n"
            f"A change that moves a curve must say so in CHANGELOG.md; record again with `{curves.RECORD}`.",
            pytrace=False,
        )


@pytest.mark.parametrize("lane", FAST, ids=str)
def test_float32(lane, inputs, tmp_path):
    check(lane, inputs, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lane", SLOW, ids=str)
def test_float32_under_every_engine(lane, inputs, tmp_path):
    check(lane, inputs, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lane", HALF, ids=str)
def test_bf16_is_near_float32(lane, inputs, tmp_path):
    """Within bounds of its own, and not float32 itself."""
    losses = [one for one in compare(*check(lane, inputs, tmp_path)) if one.quantity == "loss"]
    assert all(one.above for one in losses), table(losses)


STAGES = {
    "post-train", "stage1-2", "teacher-0", "teacher-1", "stage2-2", "tinybert-general-2", "tinybert-intermediate-2",
    "tinybert-2", "newsbert-2", "further-pretrain-all", "post-train, dropout", "teacher-0, dropout",
}  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
def test_30_steps_of_every_stage_are_recorded(ranks):
    lengths = {name: {len(values) for values in curve.values()} for name, curve in golden(ranks).items()}
    assert lengths == {name: {30} for name in STAGES}


@pytest.mark.parametrize(
    ("quantity", "step", "factor"), [("loss", 17, 1 + 3e-5), ("grad_norm", 3, 1 - 6e-4), ("loss", 30, math.nan)]
)
def test_a_moved_curve_is_named(quantity, step, factor):
    found = golden(1)
    verdict(compare(found, golden(1)), "nothing moved")
    found["stage2-2"][quantity][step - 1] *= factor
    with pytest.raises(pytest.fail.Exception) as failure:
        verdict(compare(found, golden(1)), "test")
    marked = [line.split() for line in str(failure.value).splitlines() if " above " in line]
    assert [(line[0], line[1], line[5]) for line in marked] == [("stage2-2", quantity, str(step))]
    assert "must say so in CHANGELOG.md; record again with `python -m tests.golden.record`" in str(failure.value)


def test_a_curve_that_one_side_lacks_or_that_is_shorter_is_no_agreement():
    found = golden(1)
    found["new"] = found.pop("stage1-2")
    found["teacher-0"]["loss"].pop()
    apart = {(one.curve, one.quantity) for one in compare(found, golden(1)) if one.above}
    assert apart == {
        *((name, quantity) for name in ("new", "stage1-2") for quantity in FLOAT32),
        ("teacher-0", "loss"),
    }
