"""Frozen states: the same wherever they are kept, keyed by what they depend on, found again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.click_batches import random_titles
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed, StatesInMemory, StatesOnDisk, TokenRows
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.finetune_settings import FinetuneConfig
from tnr_dist.stages.parts import frozen


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    config = EncoderConfig(vocab_size=30, hidden=16, layers=3, heads=2, intermediate=32, max_positions=16)
    return encoder_from_config(config).freeze_below(1)


@pytest.fixture
def titles():
    return random_titles(np.random.default_rng(0), 50, 8)


def states(encoder, titles, where, place, precision="fp32", gib=4.0):
    engine = DDPEngine("cpu", 1)
    engine.use_precision(precision)
    settings = FinetuneConfig(frozen_cache=where, frozen_cache_gib=gib)
    return frozen.frozen_states(encoder, titles, settings, engine, place, "frozen")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("where", ["device", "host", "disk"])
def test_rows_are_the_frozen_layers_output(encoder, titles, tmp_path, monkeypatch, where, precision):
    monkeypatch.setattr(frozen, "_SEGMENT", 7)
    found = states(encoder, titles, where, tmp_path, precision)
    chosen = np.array([49, 3, 3, 14, 0, 21])
    tokens = TokenRows(titles.offsets[chosen], titles.lengths[chosen], torch.device("cpu"))
    np.testing.assert_array_equal(tokens.on_host, tokens.on_device)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        expected = encoder.eval()(Packed.gather(titles.values, titles.offsets, chosen), 0, 2)
    rows = found.rows(tokens)
    assert rows.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    torch.testing.assert_close(rows.float(), expected.float(), atol=2e-2 if precision == "bf16" else 1e-5, rtol=1e-2)


def test_auto_goes_to_disk_beyond_the_budget(encoder, titles, tmp_path):
    assert isinstance(states(encoder, titles, "auto", tmp_path), StatesInMemory)
    assert not list(tmp_path.iterdir())
    assert isinstance(states(encoder, titles, "auto", tmp_path, gib=1e-9), StatesOnDisk)


def test_off_and_nothing_frozen(encoder, titles, tmp_path):
    assert states(encoder, titles, "none", tmp_path) is None
    assert states(encoder.freeze_below(3), titles, "disk", tmp_path) is None


def test_segments_are_found_again_and_other_weights_are_another_key(encoder, titles, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "_SEGMENT", 20)
    states(encoder, titles, "disk", tmp_path)
    files = sorted(tmp_path.rglob("*.npy"))
    assert len(files) == 3
    files[1].unlink()  # as an interrupted pass leaves it
    before = files[0].stat().st_mtime_ns
    states(encoder, titles, "disk", tmp_path)
    assert sorted(tmp_path.rglob("*.npy")) == files and files[0].stat().st_mtime_ns == before
    with torch.no_grad():
        encoder.layers[2].ffn_in.weight.add_(1)  # trains: not part of the key
    states(encoder, titles, "disk", tmp_path)
    assert len(list(Path(tmp_path).iterdir())) == 1
    with torch.no_grad():
        encoder.layers[1].ffn_in.weight.add_(1)
    states(encoder, titles, "disk", tmp_path)
    assert len(list(Path(tmp_path).iterdir())) == 2
