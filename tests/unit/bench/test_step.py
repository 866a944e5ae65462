"""`tnr bench step` on a tiny PLM: four forms with one loss, and what our step keeps for its backward pass."""

import pytest
import torch

from tnr_dist.bench import step, stock
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.transformer import encoder_from_config


@pytest.fixture
def found(monkeypatch):
    def tiny(width, layers):
        return encoder_from_config(EncoderConfig(30_522, width, layers, 2, 4 * width, 64))

    kept = []
    plain = step.activation_mib
    monkeypatch.setattr(step, "activation_mib", lambda *given: kept.append(given) or plain(*given))
    monkeypatch.setattr(step, "encoder_of", tiny)
    monkeypatch.setattr(step, "matmul_tflops", lambda: 1.0)
    # One thread and two samples at a time: (a) and (b) are cut into micro-batches of any size.
    monkeypatch.setattr(stock, "_MICRO", 2)
    return step.run(samples=4, layers=2, width=16, trainable=1, repeats=1, compile=False), kept[0]


def test_all_forms_have_one_loss(found):
    figures, _ = found
    assert figures["max_loss_difference"] < 0.02 * figures["loss"]
    assert figures["ratio_paper"] == pytest.approx(figures["samples_per_s"] / figures["paper_form_samples_per_s"])
    assert figures["ratio_stock"] == pytest.approx(figures["samples_per_s"] / figures["stock_form_samples_per_s"])
    assert set(figures["shares"]) == {
        "distinct titles", "frozen layers cached", "packed tokens", "bf16", "fused Adam", "batches laid out ahead",
        "fused kernels",
    }  # fmt: skip
    assert all(share > 0 for share in figures["shares"].values())
    assert figures["slots"] == 4 * 55 >= figures["filled_slots"] >= figures["distinct_titles"] > 0


def test_activations_are_those_of_the_trained_layer(found):
    figures, (module, engine, inputs) = found
    tokens = len(inputs.titles.tokens)
    layer = 2 * 16 * tokens / 2**20  # MiB of one state [T, 16] in bf16
    assert 5 * layer < figures["activation_mib"] < 60 * layer + 1
    with torch.no_grad():
        assert step.activation_mib(module, engine, inputs) == 0


def test_the_batch_of_every_slot_is_the_same_batch(monkeypatch):
    """Its loss is the same, though no title occurs twice in it."""
    monkeypatch.setattr(
        step, "encoder_of", lambda width, layers: encoder_from_config(EncoderConfig(30_522, width, layers, 2, 64, 64))
    )
    scene = step.Scene.of(4, 2, 16, 1)
    losses = []
    for form in (scene, scene.every_slot()):
        ours = form.ours("fp32")
        inputs = ours.titles.inputs(form.batch)
        losses.append(ours.module(inputs)["loss"].detach())
    assert len(inputs.news) == len(step._slots(scene.batch)) > len(scene.titles)
    torch.testing.assert_close(*losses)
