"""Between two logging steps nothing waits for the device: no operation whose result the host needs."""

import contextlib
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.stages import finetune, further_pretrain, post_train, stage1, stage2
from tnr_dist.stages.baselines import newsbert, tinybert_joint
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import make

# What makes the host wait on a GPU: a number that is read, or an output whose size depends on values.
WAITS = ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal")
STAGES = {
    "post-train": post_train,
    "stage1": stage1,
    "finetune": finetune,
    "stage2": stage2,
    "further-pretrain": further_pretrain,
    "newsbert": newsbert,
    "tinybert-joint": tinybert_joint,
}
SECTION = {stage: stage.replace("-", "_") for stage in STAGES} | {"tinybert-joint": "tinybert.joint"}
READS = ("tolist", "numpy", "cpu", "__array__")  # nothing is dispatched for these, or nothing that tells them apart


class CountWaits(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0
        self._plain = contextlib.ExitStack()

    def __enter__(self):
        patch = self._plain.enter_context(pytest.MonkeyPatch.context())
        for name in READS:
            patch.setattr(torch.Tensor, name, self._counting(getattr(torch.Tensor, name)))
        return super().__enter__()

    def __exit__(self, *error):
        self._plain.close()
        return super().__exit__(*error)

    def _counting(self, read):
        def counting(tensor, *args, **kwargs):
            # The thread that lays batches out ahead works on the host, and may.
            self.count += threading.current_thread() is threading.main_thread()
            return read(tensor, *args, **kwargs)

        return counting

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
        data = DataSet.open(config)
        place = (
            finetune.teacher_folder(config, data, 0) if stage == "finetune" else STAGES[stage].run_folder(config, data)
        )
        make(place, DDPEngine("cpu", 1), replace=True)
    return counter.count


@pytest.mark.parametrize("stage", STAGES)
def test_no_step_waits_for_the_device(stage, chain_yaml, copy):
    few, many = (waits(stage, chain_yaml, copy, steps) for steps in (2, 6))
    assert few > 0  # the counter sees what the last, logged step reads
    assert many == few


def test_the_counter_sees_what_waits():
    counter = CountWaits()
    x = torch.arange(4)
    for wait in (
        lambda: float(x[0]), lambda: x[x > 1], lambda: x.unique(), lambda: x.nonzero(), lambda: bool(x.any()),
        lambda: x.tolist(), lambda: x.numpy(), lambda: x.cpu(),
    ):  # fmt: skip
        before = counter.count
        with counter:
            wait()
        assert counter.count > before
    before = counter.count
    with counter:
        x + x
    assert counter.count == before
