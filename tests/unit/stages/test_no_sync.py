"""Between two logging steps nothing waits for the device: no operation whose result the host needs."""

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from tnr_dist.config_file import load_config
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.stages import finetune, post_train, stage1, stage2
from tnr_dist.stages.baselines import further_pretrain, newsbert
from tnr_dist.stages.common import DataSet

# What makes the host wait on a GPU: a number that is read, or an output whose size depends on values.
WAITS = ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal")
STAGES = {
    "post-train": post_train,
    "stage1": stage1,
    "finetune": finetune,
    "stage2": stage2,
    "further-pretrain": further_pretrain,
    "newsbert": newsbert,
}
SECTION = {stage: stage.replace("-", "_") for stage in STAGES}


class CountWaits(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype.is_floating_point is False and str(i.dtype) == "torch.bool" for i in args[1])  # fmt: skip
        self.count += name in WAITS or by_mask
        return func(*args, **(kwargs or {}))


def waits(stage, path, output, steps):
    overrides = [
        f"output={output}",
        f"{SECTION[stage]}.max_steps={steps}",
        "log.every=1000",
        "log.checkpoint_every=0",
        "student.layers=1",
    ]
    config = load_config(path, overrides)
    config.output = str(output / "seed-0")
    counter = CountWaits()
    with counter:
        place = STAGES[stage].run_folder(config, DataSet.open(config))
        STAGES[stage].make(place, DDPEngine("cpu", 1), redo=True)
    return counter.count


@pytest.mark.parametrize("stage", ["post-train", "stage1", "stage2", "further-pretrain", "newsbert"])
def test_no_step_waits_for_the_device(stage, chain_yaml, copy):
    few, many = (waits(stage, chain_yaml, copy, steps) for steps in (2, 6))
    assert few > 0  # the counter sees what the last, logged step reads
    assert many == few


def test_the_counter_sees_what_waits():
    import torch

    counter = CountWaits()
    with counter:
        x = torch.arange(4)
        float(x[0])
        x[x > 1]
        x.unique()
    assert counter.count >= 3
