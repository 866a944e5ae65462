"""The scale that a click model's vectors start with: the one of a grid under which the click loss is least."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tnr_dist.data.batches.clicks import ClickLoader
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.packed import Packed
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts.click_data import click_loader
from tnr_dist.stages.parts.start_models import fresh_model
from tnr_dist.stages.parts.start_scale import fit_start_scale


def setting(chain_yaml, tmp_path):
    config = load_config(chain_yaml, [f"output={tmp_path}", "plm.layers=1"])
    data, engine = DataSet.open(config), DDPEngine("cpu", 1)
    engine.use_precision("fp32")
    loader, _ = click_loader(config, data, config.finetune, 0, engine)
    return config, data, engine, loader


def loss_of(model, data, loader: ClickLoader, factor: float = 1.0) -> float:
    """The click loss of a pass over the train split, title by title as the loader gives them, scores times `factor`."""
    tokens = data.news_tokens(load_config(None, ["data.title_tokens=24"]).data)
    losses = []
    for batch in loader.epoch(0):
        ids = torch.from_numpy(batch["candidates"].astype("int64"))
        history = torch.from_numpy(batch["history"].astype("int64"))
        news, rows = torch.unique(torch.cat([history, ids], 1).clamp(min=0), return_inverse=True)
        vectors = model.encode_news(Packed.gather(tokens.values, tokens.offsets, news.numpy(), 24))
        users = model.encode_users(F.embedding(rows[:, : history.shape[1]], vectors), history >= 0)
        scores = model.score(users, F.embedding(rows[:, history.shape[1] :], vectors)) * factor
        losses.append(F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64), reduction="none"))
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("blown_up", [1.0, 30.0])
@torch.no_grad()
def test_vectors_of_any_length_start_where_clicks_want_them(chain_yaml, tmp_path, blown_up):
    config, data, engine, loader = setting(chain_yaml, tmp_path)
    model, _ = fresh_model(config, data, 1, 0, "finetune")
    dense = model.news_encoder.dense
    dense.weight.mul_(blown_up), dense.bias.mul_(blown_up)
    before = dense.weight.clone()
    scale = fit_start_scale(model, data.news_tokens(config.data), config.data.news_tokens, loader, engine)
    assert torch.equal(dense.weight, before * scale)
    found = loss_of(model, data, loader)
    assert found < 1.65  # ln 5 and a little: the scale is that of 128 samples, the loss that of all
    if blown_up > 1:
        assert scale < 0.2
        dense.weight.div_(scale), dense.bias.div_(scale)
        assert loss_of(model, data, loader) > 3


@torch.no_grad()
def test_any_batch_size_and_rank_finds_the_same(chain_yaml, tmp_path):
    config, data, engine, loader = setting(chain_yaml, tmp_path)
    scales = set()
    for size, rank, world in ((7, 0, 1), (64, 1, 2), (200, 3, 4)):
        options = type(loader.options)(**{**vars(loader.options), "global_batch": size})
        other = ClickLoader(loader.index, loader.source, options, rank=rank, world_size=world)
        model, _ = fresh_model(config, data, 1, 0, "finetune")
        model.news_encoder.dense.weight.mul_(11)
        scales.add(fit_start_scale(model, data.news_tokens(config.data), config.data.news_tokens, other, engine))
    assert len(scales) == 1


@torch.no_grad()
def test_a_model_that_knows_nothing_keeps_vectors_to_learn_from(chain_yaml, tmp_path):
    """Of vectors of length 0 the click loss would be least, ln 5, and its gradient 0."""
    config, data, engine, loader = setting(chain_yaml, tmp_path)
    model, _ = fresh_model(config, data, 1, 0, "finetune")
    assert fit_start_scale(model, data.news_tokens(config.data), config.data.news_tokens, loader, engine) >= 1
