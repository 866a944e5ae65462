"""The training step's loss equals the paper's, as `losses.stage2.stage2_loss` and the per-slot form state it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.click_batches import random_titles
from tnr_dist.config import Stage2Config
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.losses.click import click_loss
from tnr_dist.losses.stage2 import (
    distillation_loss,
    news_embedding_loss_per_slot,
    project,
    stage2_loss,
    user_embedding_loss,
)
from tnr_dist.losses.weighting import teacher_cross_entropy, teacher_weights
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.models.transformer import EncoderConfig, encoder_from_config
from tnr_dist.stages.clicks import ClickTitles
from tnr_dist.stages.stage2 import Stage2Module

M, D, B, L, C, NEWS = 3, 8, 6, 5, 4, 40


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    titles = random_titles(rng, NEWS, 8)
    encoder = encoder_from_config(
        EncoderConfig(vocab_size=30, hidden=16, layers=2, heads=2, intermediate=32, max_positions=16)
    )
    student = Recommender(NewsEncoder(encoder.set_dropout(0.0), D), AttentionUserEncoder(D))
    history = rng.integers(0, NEWS, (B, L))
    history[np.arange(L) >= rng.integers(0, L + 1, B)[:, None]] = -1
    candidates = rng.integers(0, NEWS, (B, C))
    candidates[2, 3] = -1
    batch = {
        "history": history.astype(np.int32),
        "candidates": candidates.astype(np.int32),
        "weights": np.array([1, 1, 0, 1, 1, 1], np.float32),
        "count": np.array(7, np.float32),
        "teacher_users": rng.standard_normal((B, M, D)).astype(np.float32),
        "teacher_logits": rng.standard_normal((B, C, M)).astype(np.float32),
    }
    return student, titles, batch, torch.randn(NEWS, M, D)


def build(parts, settings):
    student, titles, batch, table = parts
    engine = DDPEngine("cpu", 1)
    click_titles = ClickTitles(titles, 8, student.news_encoder, settings, engine, Path("unused"))
    module = Stage2Module(student, click_titles, table, settings, D)
    with torch.no_grad():
        for parameter in [p for n, p in module.named_parameters() if "projection" in n]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module, click_titles.inputs(batch)


def reference(module, inputs, table, batch):
    student, settings = module.student, module.settings
    news = student.encode_news(inputs.titles)[inputs.vectors]
    users = student.encode_users(F.embedding(inputs.history, news), inputs.history_mask)
    scores = student.score(users, F.embedding(inputs.candidates, news))
    logits = torch.from_numpy(batch["teacher_logits"]).transpose(1, 2)
    loss = stage2_loss(
        teacher_logits=logits, omega=module.omega(), student_scores=scores, weights=inputs.weights, count=inputs.count,
        candidate_mask=inputs.candidate_mask, student_news=news, student_users=users,
        projected_news=project(module.news_projection.weight, module.news_projection.bias, table[inputs.news]),
        projected_users=project(module.user_projection.weight, module.user_projection.bias, torch.from_numpy(batch["teacher_users"])),
        slots=torch.cat([inputs.history, inputs.candidates], 1),
        slot_mask=torch.cat([inputs.history_mask, inputs.candidate_mask], 1), beta2=settings.beta2, temperature=settings.temperature,
    )  # fmt: skip
    return loss, news


def test_equals_the_losses_and_the_paper_per_slot(parts):
    module, inputs = build(parts, Stage2Config(temperature=2.0, beta2=0.3))
    out = module(inputs)
    loss, news = reference(module, inputs, parts[3], parts[2])
    for name, value in (("loss", loss.total), ("loss_distill", loss.distill), ("loss_emb_news", loss.emb_news),
                        ("loss_emb_user", loss.emb_user), ("loss_target", loss.target), ("teacher_entropy", loss.teacher_entropy)):  # fmt: skip
        torch.testing.assert_close(out[name], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out["teacher_weight"], loss.teacher_weights)
    logits = torch.from_numpy(parts[2]["teacher_logits"]).transpose(1, 2)
    w = teacher_weights(teacher_cross_entropy(logits, inputs.candidate_mask), module.omega())
    slots = torch.cat([inputs.history, inputs.candidates], 1)
    projected = project(module.news_projection.weight, module.news_projection.bias, parts[3][inputs.news])
    per_slot = news_embedding_loss_per_slot(
        projected[slots],
        news[slots],
        w,
        torch.cat([inputs.history_mask, inputs.candidate_mask], 1),
        inputs.weights,
        inputs.count,
    )
    torch.testing.assert_close(out["loss_emb_news"], per_slot, rtol=1e-5, atol=1e-6)


def test_gradients_equal(parts):
    module, inputs = build(parts, Stage2Config())
    module(inputs)["loss"].backward()
    ours = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    assert {"omega.raw", "news_projection.weight", "user_projection.bias"} <= set(ours)
    module.zero_grad()
    reference(module, inputs, parts[3], parts[2])[0].total.backward()
    for name, p in module.named_parameters():
        if name in ours:
            torch.testing.assert_close(ours[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)


def per_slot_loss(module, inputs, titles, table, batch):
    """The paper's form: the title of every slot encoded, its teachers' vectors projected, its error taken."""
    student, settings = module.student, module.settings
    ids = np.concatenate([batch["history"], batch["candidates"]], 1)
    rows = np.maximum(ids, 0)  # an empty slot is masked out of everything
    news = student.encode_news(Packed.gather(titles.values, titles.offsets, rows.ravel())).view(*ids.shape, D)
    mask = torch.from_numpy(ids >= 0)
    users = student.encode_users(news[:, :L], mask[:, :L])
    scores = student.score(users, news[:, L:])
    logits, exists = torch.from_numpy(batch["teacher_logits"]).transpose(1, 2), mask[:, L:]
    w = teacher_weights(teacher_cross_entropy(logits, exists), module.omega())
    share = inputs.weights, inputs.count
    for_news, for_users = module.news_projection, module.user_projection
    projected = project(for_news.weight, for_news.bias, table[torch.from_numpy(rows).flatten()]).view(*ids.shape, M, D)
    projected_users = project(for_users.weight, for_users.bias, torch.from_numpy(batch["teacher_users"]))
    return (
        distillation_loss(logits, w, scores, settings.temperature, *share, exists)
        + news_embedding_loss_per_slot(projected, news, w, mask, *share)
        + user_embedding_loss(projected_users, users, w, *share)
        + settings.beta2 * click_loss(scores, *share, exists)
    )


def test_distinct_titles_give_the_gradients_of_every_slot_encoded(parts):
    module, inputs = build(parts, Stage2Config(temperature=1.5, beta2=0.3, trainable_layers=-1))
    assert len(inputs.news) < B * (L + C)
    _, titles, batch, table = parts
    found = []
    for loss in (module(inputs)["loss"], per_slot_loss(module, inputs, titles, table, batch)):
        module.zero_grad()
        (0.7 * loss).backward()
        found.append([loss.detach(), *(p.grad.clone() for p in module.parameters())])
    for ours, wanted in zip(*found, strict=True):
        # Of a tensor's largest element; some gradients (the keys' biases) are nothing but rounding.
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5 * max(float(wanted.abs().max()), 1e-2))


@pytest.mark.parametrize("off", ["use_distill", "use_embedding", "use_target"])
def test_a_part_switched_off_is_zero(parts, off):
    module, inputs = build(parts, Stage2Config(**{off: False}))
    out = module(inputs)
    names = {
        "use_distill": ["loss_distill"],
        "use_embedding": ["loss_emb_news", "loss_emb_user"],
        "use_target": ["loss_target"],
    }
    assert all(out[name].item() == 0 for name in names[off])
    assert out["loss"].item() != 0
    out["loss"].backward()
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    assert all(p.grad is not None for name, p in module.named_parameters() if name in trained)
