"""Learning rates of every step, the parameter groups, and Adam's arithmetic against float64 written out by hand."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from tnr_dist.config.schema import Config, LogConfig, WandbConfig
from tnr_dist.config.training import TrainConfig
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.losses.common import Omega
from tnr_dist.models.projection import Projection
from tnr_dist.runs.folder import RunFolder
from tnr_dist.runs.tracker import Tracker
from tnr_dist.train.loop import learning_rate, make_optimizer, train

# Far from the defaults and from each other, so that none can stand for another. eps is as large as the gradients.
UNUSUAL = {"betas": [0.6, 0.95], "eps": 0.03}


class Model(nn.Module):
    """Every kind of parameter: a 'PLM' of a layer and its norm, a head, a projection and omega; the loss is linear in all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.plm = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
        self.head = nn.Linear(3, 4)
        self.projection = Projection(2, 3, "identity")
        self.omega = Omega()

    def forward(self, gradients):
        """A loss whose gradient is `gradients`."""
        pairs = zip(self.parameters(), gradients, strict=True)
        return {"loss": sum((p * g).sum() for p, g in pairs if p.requires_grad)}


DECAYED = {"plm.0.weight", "head.weight"}


@dataclass
class Steps:
    """A loader and a task in one: `steps` global batches of one sample (`train.loop.Loader` and `Task`)."""

    train: TrainConfig
    steps: int = 10
    module: Model = field(default_factory=Model)
    title: str = "test"
    seed: int = 0
    prefetch: bool = False
    text_columns: tuple[str, ...] = ()

    @property
    def loader(self):
        return self

    def fingerprint(self):
        return "x"

    def epoch(self, epoch, start=0):
        one = np.ones(1, np.float32)
        yield from ({"weights": one, "count": np.float32(1)} for _ in range(start, self.steps))

    def begin(self, engine):
        pass

    def to_device(self, batch):
        return [torch.ones_like(p) for p in self.module.parameters()]

    def skipped(self, batch):
        return 0

    def texts(self, inputs):
        return []

    def plm_parameters(self):
        return set(self.module.plm.parameters())

    def validation(self):
        return None

    def validate(self, engine):
        return {}


# Schedule -----------------------------------------------------------------------------------------------------------

RATES = {  # (schedule, warmup): rates of 10 steps in hundredths of the base rate
    ("constant", 0.0): [100] * 10,
    ("linear", 0.0): [100, 90, 80, 70, 60, 50, 40, 30, 20, 10],
    ("constant", 0.4): [25, 50, 75, 100, 100, 100, 100, 100, 100, 100],
    ("linear", 0.5): [20, 40, 60, 80, 100, 100, 80, 60, 40, 20],
    ("constant", 0.19): [100] * 10,  # 1.9 steps are one, which has the whole rate already
    ("linear", 1.0): [10, 20, 30, 40, 50, 60, 70, 80, 90, 100],
}


@pytest.mark.parametrize(("schedule", "warmup"), RATES)
def test_rates_of_every_step(schedule, warmup):
    settings = TrainConfig(schedule=schedule, warmup=warmup)
    rates = [learning_rate(step, 10, settings, 0.02) for step in range(10)]
    assert rates == pytest.approx([0.0002 * share for share in RATES[schedule, warmup]], rel=1e-12)


def test_after_the_last_step_a_linear_rate_stays_0():
    settings = TrainConfig(schedule="linear")
    assert [learning_rate(step, 4, settings, 1.0) for step in (4, 5, 9)] == [0, 0, 0]


@pytest.mark.parametrize(("steps", "epochs", "max_steps"), [(10, 1, 0), (5, 2, 0), (4, 9, 10)])
def test_the_loop_gives_each_group_its_rate_of_each_step(prepared, tmp_path, steps, epochs, max_steps):
    """The rates a step was made with, over epochs and when cut short: the schedule is over all steps of the run."""
    settings = TrainConfig(
        lr=1e-3, head_lr=5e-2, schedule="linear", warmup=0.5, epochs=epochs, max_steps=max_steps, batch_size=1
    )
    task, engine = Steps(settings, steps), DDPEngine("cpu", 1)
    config = Config(output=str(tmp_path), log=LogConfig(every=1), wandb=WandbConfig(mode="disabled"), precision="fp32")
    config.data.dir = str(prepared)
    run = RunFolder("run", "test", config, (), {}, {})
    run.begin(redo=False)
    plm, rest = [set() for _ in range(10)], [set() for _ in range(10)]

    def after_step(step, total):
        assert total == 10
        rates = {p: group["lr"] for group in engine.optimizer.param_groups for p in group["params"]}
        for name, p in task.module.named_parameters():
            (plm if name.startswith("plm.") else rest)[step - 1].add(rates[p])

    before = [p.detach().clone() for p in task.module.parameters()]
    with Tracker(run, engine) as tracker:
        train(engine, task, run, config, tracker, after_step)
    shares = RATES["linear", 0.5]
    assert [rate for step in plm for rate in step] == pytest.approx([1e-5 * share for share in shares], rel=1e-12)
    assert [rate for step in rest for rate in step] == pytest.approx([5e-4 * share for share in shares], rel=1e-12)
    # The gradient is 1 everywhere and always, so Adam goes down by the rate at each step.
    for (name, p), start in zip(task.module.named_parameters(), before, strict=True):
        rate = 1e-3 if name.startswith("plm.") else 5e-2
        torch.testing.assert_close(start - p, torch.full_like(p, rate * sum(shares) / 100), rtol=1e-4, atol=1e-6)


# Groups -------------------------------------------------------------------------------------------------------------


def groups_of(settings, module=None):
    """Every trained parameter's name -> its group; each parameter is in one group only."""
    task = Steps(settings, module=module or Model())
    optimizer = make_optimizer(task, task.module)
    names = {p: name for name, p in task.module.named_parameters()}
    found = [(names[p], group) for group in optimizer.param_groups for p in group["params"]]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_the_plm_learns_at_lr_and_the_rest_at_head_lr(weight_decay):
    module = Model()
    groups = groups_of(TrainConfig(lr=1e-4, head_lr=3e-3, weight_decay=weight_decay), module)
    expected = {name: 1e-4 if name.startswith("plm.") else 3e-3 for name, _ in module.named_parameters()}
    assert {name: group["lr"] for name, group in groups.items()} == expected
    assert {name: group["base_lr"] for name, group in groups.items()} == expected


def test_without_head_lr_all_learn_at_lr():
    assert {group["base_lr"] for group in groups_of(TrainConfig(lr=1e-4)).values()} == {1e-4}


def test_what_is_frozen_is_in_no_group():
    module = Model()
    module.plm[0].requires_grad_(False)
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert (
        set(groups_of(TrainConfig(), module))
        == trained
        == {*dict(Model().named_parameters())}
        - {
            "plm.0.weight",
            "plm.0.bias",
        }
    )
    module.plm.requires_grad_(False)
    assert not any(name.startswith("plm.") for name in groups_of(TrainConfig(lr=1e-4, head_lr=3e-3), module))


def test_biases_norms_omega_and_projections_do_not_decay():
    """They start as ones or identities, or mean something as they are."""
    decays = {name: group["weight_decay"] for name, group in groups_of(TrainConfig(weight_decay=0.3)).items()}
    assert decays == {name: 0.3 if name in DECAYED else 0.0 for name, _ in Model().named_parameters()}


# Adam ---------------------------------------------------------------------------------------------------------------


def adam(value, gradients, lr, weight_decay, settings):
    """Kingma & Ba's Adam in float64; `amsgrad` as Reddi et al., decay as Loshchilov & Hutter (outside the moments)."""
    beta1, beta2 = settings.betas
    value = value.astype(np.float64)
    first, second, largest = np.zeros_like(value), np.zeros_like(value), np.zeros_like(value)
    for step, gradient in enumerate(gradients, 1):
        value = value - lr * weight_decay * value
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        largest = np.maximum(largest, second)
        size = np.sqrt((largest if settings.amsgrad else second) / (1 - beta2**step)) + settings.eps
        value = value - lr * first / (1 - beta1**step) / size
    return value


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_steps_of_adam(weight_decay, amsgrad):
    settings = TrainConfig(lr=0.01, head_lr=0.05, weight_decay=weight_decay, amsgrad=amsgrad, **UNUSUAL)
    module, rng = Model(), np.random.default_rng(0)
    for p in module.parameters():  # a projection and a norm of 0 and 1 would hide what pulls at them
        nn.init.normal_(p, 0.5)
    shapes = [p.shape for p in module.parameters()]
    # The gradients get smaller, so that the largest second moment so far is not the last one.
    gradients = [[rng.normal(size=shape) * scale for shape in shapes] for scale in (0.3, 0.1, 0.01, 0.01)]
    engine = DDPEngine("cpu", 1)
    task = Steps(settings, module=module)
    expected = {}
    for (name, p), of_one in zip(module.named_parameters(), zip(*gradients, strict=True), strict=True):
        rate = 0.01 if name.startswith("plm.") else 0.05
        expected[name] = adam(p.detach().numpy(), of_one, rate, weight_decay * (name in DECAYED), settings)
    engine.setup(module, lambda module: make_optimizer(task, module), precision="fp32", clip_norm=0.0)
    for of_step in gradients:
        engine.backward(engine.forward([torch.from_numpy(g).float() for g in of_step])["loss"])
        engine.step()
    for name, p in module.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=0, atol=1e-6, err_msg=name)
