"""Samples grouped by user or scattered, on one rank or two: the loss of each sample is that of the sample alone."""

import numpy as np
import pytest
import torch

from tests.ranks import on_ranks
from tests.unit.stages.baseline_scene import build_scene
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.stages.baselines.bert_pkd import make_module
from tnr_dist.stages.baselines.newsbert import NewsBERTModule
from tnr_dist.stages.baselines.tinybert import IntermediateModule, PredictionModule
from tnr_dist.stages.baselines.tinybert_joint import JointModule
from tnr_dist.stages.finetune import ClickModule
from tnr_dist.stages.stage2 import Stage2Module

M, D, B = 2, 16, 24


def _stage2(student, teacher, train, titles):
    return Stage2Module(student, torch.randn(len(titles.titles), M, D), train, D)


# Every module that trains on clicks: its settings, and itself of student, teacher, settings and titles.
MODULES = {
    "finetune": ("finetune", (), lambda student, *_: ClickModule(student)),
    "finetune nrms": ("finetune", ("model.user_encoder=nrms", "model.user_heads=4"), lambda student, *_: ClickModule(student)),
    "finetune learned padding": ("finetune", ("model.history_padding=learned",), lambda student, *_: ClickModule(student)),
    "stage2": ("stage2", ("stage2.beta2=0.5",), _stage2),
    "newsbert": ("newsbert", (), lambda s, t, train, _: NewsBERTModule(s, t.news_encoder.encoder, train)),
    "newsbert vectors": (
        "newsbert", ("newsbert.match=vectors",), lambda s, t, train, _: NewsBERTModule(s, t.news_encoder.encoder, train)
    ),
    "tinybert between layers": (
        "tinybert.intermediate", (), lambda s, t, *_: IntermediateModule(s.news_encoder.encoder, t.news_encoder.encoder, 0)
    ),
    "tinybert prediction": ("tinybert.prediction", (), lambda s, t, *_: PredictionModule(s, t, 1.5)),
    "tinybert joint": ("tinybert.joint", (), lambda s, t, train, _: JointModule(s, t, train)),
    "bert-pkd": ("bert_pkd", (), lambda s, t, train, _: make_module(s, t, train)),
}  # fmt: skip


def _samples(loader):
    """B samples of the loader's first grouped batches, with what teachers might say of each."""
    batches = loader.epoch(0)
    found = [next(batches) for _ in range(B // 12)]
    batch = {name: np.concatenate([part[name] for part in found]) for name in found[0] if name != "count"}
    rng = np.random.default_rng(0)
    batch["teacher_users"] = rng.standard_normal((B, M, D)).astype(np.float32)
    batch["teacher_logits"] = rng.standard_normal((*batch["candidates"].shape, M)).astype(np.float32)
    return batch


def _losses(titles, module, batch, chosen):
    """The loss of each of the samples `chosen`, in one batch. It is linear in their weights, so its gradient by them."""
    part = {name: values[chosen] for name, values in batch.items()}
    inputs = titles.inputs({**part, "count": np.array(1.0, np.float32)})
    inputs.weights.requires_grad_()
    (losses,) = torch.autograd.grad(module(inputs)["loss"], inputs.weights)
    return losses.numpy(), len(inputs.history)


def _work(prepared, tiny_plm, folder, shared):
    """For every module what `_module_losses` finds."""
    engine = DDPEngine("cpu", 1)
    found = {name: _module_losses(engine, prepared, tiny_plm, folder, name, shared) for name in MODULES}
    engine.close()
    return found


def _module_losses(engine, prepared, tiny_plm, folder, name, shared):
    """This rank's losses of the samples: in two batches grouped, in two batches scattered and, not `shared`, each alone;
    and how many distinct histories there were."""
    section, overrides, make = MODULES[name]
    overrides = (*overrides, f"{section}.dedupe={'global' if shared else 'local'}", "data.group=user", "data.streams=2")
    scene = build_scene(prepared, tiny_plm, folder, section, 2, 1, *overrides, engine=engine)
    student, teacher, train, titles, _, loader = scene
    rank, world = engine.environment.rank, engine.environment.world_size
    loader = type(loader)(loader.index, loader.source, loader.options, workers=0)  # all ranks look at the same samples
    torch.manual_seed(0)
    module = make(student, teacher, train, titles).train()
    titles.prepare("frozen layers")
    if hasattr(module, "prepare"):
        module.prepare(titles, "teacher")
    batch = _samples(loader)
    found, distinct = {}, {}
    for order, samples in {"grouped": np.arange(B), "scattered": np.random.default_rng(1).permutation(B)}.items():
        for half in np.split(samples, 2):
            mine = np.array_split(half, world)[rank]
            losses, histories = _losses(titles, module, batch, mine)
            distinct[order] = distinct.get(order, 0) + histories
            for sample, loss in zip(mine.tolist(), losses, strict=True):
                found[order, sample] = float(loss)
    if not shared:
        for sample in range(B):
            found["alone", sample] = float(_losses(titles, module, batch, [sample])[0][0])
    return found, distinct


@pytest.fixture(scope="module")
def found(prepared, tiny_plm, tmp_path_factory):
    """What one rank finds, then what two find."""
    places = prepared, tiny_plm, tmp_path_factory.mktemp("grouped")
    return [*on_ranks(1, _work, *places, False), *on_ranks(2, _work, *places, True)]


@pytest.mark.parametrize("name", MODULES)
def test_each_sample_s_loss_is_that_of_the_sample_alone(found, name):
    (alone, distinct), *two = (of_rank[name] for of_rank in found)
    wanted = np.array([alone["alone", sample] for sample in range(B)])
    assert len(set(wanted)) == B and distinct["grouped"] < distinct["scattered"] <= B
    for losses_of in (alone, {key: loss for part, _ in two for key, loss in part.items()}):
        for order in ("grouped", "scattered"):
            losses = np.array([losses_of[order, sample] for sample in range(B)])
            np.testing.assert_allclose(losses, wanted, rtol=1e-5, atol=1e-5, err_msg=f"{name}, {order}")
