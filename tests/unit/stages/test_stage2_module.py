"""The training step's loss equals the paper's, with every slot encoded, projected and compared by itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.click_batches import random_titles
from tnr_dist.bench.per_slot import news_embedding_loss_per_slot, project, user_embedding_loss_of_projected
from tnr_dist.data.teacher_cache import TableRows, TeacherTables
from tnr_dist.engines.ddp import DDPEngine, constants
from tnr_dist.losses.common import click_loss, teacher_cross_entropy, teacher_weights
from tnr_dist.losses.stage2 import distillation_loss
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender, count_parameters
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.parts.click_task import ClickTitles
from tnr_dist.stages.stage2 import Stage2Module
from tnr_dist.stages.stage2_settings import Stage2Config
from tnr_dist.train.checkpoint import trained_state

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
    module = Stage2Module(student, table, settings, D)
    with torch.no_grad():
        for parameter in [p for n, p in module.named_parameters() if "projection" in n]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module, click_titles.inputs(batch)


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
    parts = {
        "loss_distill": distillation_loss(logits, w, scores, settings.temperature, *share, exists),
        "loss_emb_news": news_embedding_loss_per_slot(projected, news, w, mask, *share),
        "loss_emb_user": user_embedding_loss_of_projected(projected_users, users, w, *share),
        "loss_target": click_loss(scores, *share, exists),
    }
    total = sum(parts.values()) + (settings.beta2 - 1) * parts["loss_target"]
    return {"loss": total, **parts}


def test_equals_the_paper_per_slot(parts):
    module, inputs = build(parts, Stage2Config(temperature=2.0, beta2=0.3))
    out = module(inputs)
    for name, value in per_slot_loss(module, inputs, parts[1], parts[3], parts[2]).items():
        torch.testing.assert_close(out[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_distinct_titles_give_the_gradients_of_every_slot_encoded(parts):
    module, inputs = build(parts, Stage2Config(temperature=1.5, beta2=0.3, trainable_layers=-1))
    assert len(inputs.news) < B * (L + C)
    _, titles, batch, table = parts
    found = []
    for loss in (module(inputs)["loss"], per_slot_loss(module, inputs, titles, table, batch)["loss"]):
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


def test_the_teachers_tables_are_the_module_s_and_nobody_else_s(parts):
    """They move with it, uncopied where they already are; they are not saved, trained, counted, or sent by DDP."""
    student, _, _, news = parts
    tables = TeacherTables(torch.randn(9, M, D).bfloat16(), torch.randn(20, M), TableRows({}))
    plain = Stage2Module(student, news, Stage2Config(), D)
    module = Stage2Module(student, news, Stage2Config(), D, tables)
    engine = DDPEngine("cpu", 1)
    engine.setup(module, lambda m: torch.optim.SGD(m.parameters(), 0.0), precision="bf16", clip_norm=0.0)
    held = {"teacher_news": news, "teacher_users": tables.users, "teacher_logits": tables.logits}
    for name, table in held.items():
        assert getattr(module, name).data_ptr() == table.data_ptr() and getattr(module, name).dtype == table.dtype
    assert trained_state(module).keys() == trained_state(plain).keys()
    assert count_parameters(module) == count_parameters(plain)
    assert set(constants(module)) == set(held) and constants(plain) == ["teacher_news"]
    module.register_buffer("kept", torch.ones(1))
    assert "kept" in trained_state(module) and "kept" not in constants(module)
    assert torch.empty(0, device="meta").device == module.to("meta").teacher_logits.device


def test_rows_of_the_tables_are_their_values(parts):
    student, titles, batch, news = parts
    tables = TeacherTables(torch.randn(9, M, D), torch.randn(20, M), TableRows({}))
    rng = np.random.default_rng(1)
    users, logits = rng.integers(0, 9, B), rng.integers(0, 20, (B, C))
    of_rows = {**batch, "teacher_users": users, "teacher_logits": logits}
    of_values = {**batch, "teacher_users": tables.users.numpy()[users], "teacher_logits": tables.logits.numpy()[logits]}
    engine, settings = DDPEngine("cpu", 1), Stage2Config()
    click_titles = ClickTitles(titles, 8, student.news_encoder, settings, engine, Path("unused"))
    losses = [
        Stage2Module(student.eval(), news, settings, D, held)(click_titles.inputs(one))["loss"].detach()
        for held, one in ((tables, of_rows), (None, of_values))
    ]
    torch.testing.assert_close(*losses)
