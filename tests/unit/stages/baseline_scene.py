"""What the tests of the baselines share: a small student and teacher with a batch, and losses of one text at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tnr_dist.data.dataset import DataSet
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.packed import Packed
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts.click_data import click_loader
from tnr_dist.stages.parts.click_task import ClickTitles
from tnr_dist.stages.parts.start_models import freeze, fresh_model

TRAININGS = (
    *("further_pretrain", "tinybert.general", "tinybert.intermediate", "tinybert.prediction", "tinybert.joint"),
    *("newsbert", "bert_pkd"),
)


def settings(prepared, tiny_plm, output, *overrides):
    common = [
        f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1", "precision=fp32",
        "model.news_dim=16", "model.query_dim=8", "data.history=10", "data.title_tokens=24", "log.every=1",
        "log.checkpoint_every=2", "post_train.max_steps=2", "post_train.negatives=3", "post_train.body_tokens=40",
        "finetune.max_steps=2", "finetune.batch_size=16", "further_pretrain.body_tokens=40",
        "tinybert.general.body_tokens=40", *(f"{name}.max_steps=4" for name in TRAININGS),
        *(f"{name}.batch_size=16" for name in TRAININGS), *(f"{name}.lr=1e-3" for name in TRAININGS),
        "newsbert.fit_scale=false",
    ]  # fmt: skip
    return load_config(None, [*common, *overrides])


@pytest.fixture
def scene(prepared, tiny_plm, tmp_path):
    """See `build_scene`; and one batch."""

    def build(section, layers, trainable, *overrides):
        *parts, engine, loader = build_scene(prepared, tiny_plm, tmp_path, section, layers, trainable, *overrides)
        batch = next(loader.epoch(0))
        return *parts, parts[-1].inputs(batch), engine, batch

    return build


def build_scene(prepared, tiny_plm, folder, section, layers, trainable, *overrides, engine=None):
    """What a click module is made of, for a student of `layers` layers of which `trainable` learn, without dropout."""
    config = settings(
        prepared, tiny_plm, folder, "model.dropout=0", f"{section}.trainable_layers={trainable}", *overrides
    )
    train = config
    for part in section.split("."):
        train = getattr(train, part)
    engine, data = engine or DDPEngine("cpu", 1), DataSet.open(config)
    student, _ = fresh_model(config, data, layers, 0, "finetune")
    teacher, _ = fresh_model(config, data, 0, 1, "finetune")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in teacher.news_encoder.encoder.parameters():  # else its lower layers are the student's
            parameter.add_(torch.randn_like(parameter) * 0.05)
    freeze(student.news_encoder, train, engine)
    titles = ClickTitles(cut(data.news_tokens(config.data)), 24, student.news_encoder, train, engine, folder)
    loader, _ = click_loader(config, data, replace(config.stage2, batch_size=12), 0, engine)
    return student, teacher, train, titles, engine, loader


def cut(table):
    """Titles of 3 to 24 tokens: the tiny vocabulary makes all of them longer than that."""
    lengths = np.random.default_rng(0).integers(3, 25, len(table))
    rows = [table.values[start : start + n] for start, n in zip(table.offsets, lengths, strict=False)]
    return RaggedTable(np.concatenate(rows), np.concatenate([[0], np.cumsum(lengths)]))


def one_text(titles, news):
    return Packed.gather(titles.titles.values, titles.titles.offsets, np.array([int(news)]))


def history_of(inputs, sample):
    """Rows of the news that a sample's user clicked."""
    user = inputs.users[sample]
    return inputs.history[user][inputs.history_mask[user]]


def by_slots(inputs, loss_of):
    """Mean over a sample's news, then over samples, one slot after another; `loss_of` is called once a news."""
    known = {i: loss_of(news) for i, news in enumerate(inputs.news)}
    total = 0.0
    for b in range(len(inputs.weights)):
        slots = [*history_of(inputs, b), *inputs.candidates[b][inputs.candidate_mask[b]]]
        total += float(inputs.weights[b]) * np.mean([known[int(slot)] for slot in slots], axis=0) / inputs.count
    return total


def layer_losses(student, teacher, titles, news, mapping, first):
    """TinyBERT's three losses of one title: plain means over matrices."""
    text = one_text(titles, news)
    own, other = (encoder.forward_all(text, scores=True) for encoder in (student, teacher))
    embedding = F.mse_loss(own[0][0], other[0][0]).item() if not first else 0.0
    hidden = sum(F.mse_loss(own[0][m], other[0][g]).item() for m, g in mapping if m > first)
    scores = sum(F.mse_loss(own[1][m - 1], other[1][g - 1]).item() for m, g in mapping if m > first)
    return np.array([embedding, hidden, scores])
