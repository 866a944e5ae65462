import dataclasses

import numpy as np
import pytest
import torch

from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import (
    Matcher,
    ModelSpec,
    NewsEncoder,
    NRMSUserEncoder,
    build_recommender,
    count_parameters,
    load_recommender,
    save_recommender,
)
from tnr_dist.models.weights import load_state, save_model
from tnr_dist.util.errors import InputError

ENCODER = EncoderConfig(50, 16, 2, 2, 32, 40)
KINDS = {
    "attention": {},
    "learned": {"history_padding": "learned"},
    "nrms": {"user_encoder": "nrms", "user_heads": 4},
}
MASK = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def spec(**changes) -> ModelSpec:
    return ModelSpec(ENCODER, news_dim=8, query_dim=5, **changes)


def titles(seed=0, lengths=(5, 3, 9, 5, 2)) -> Packed:
    return Packed.pack(np.random.default_rng(seed).integers(5, 50, sum(lengths)), lengths)


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_trained(kind):
    model, batch = build_recommender(spec(**KINDS[kind])).eval(), titles()
    history = torch.tensor([[4, 0, 2, 0], [0, 0, 0, 0], [3, 0, 0, 0]])
    candidates = torch.tensor([[0, 1], [2, 2], [4, 3]])
    news = model.encode_news(batch)
    users = model.encode_users(news[history], MASK)
    scores = model.score(users, news[candidates])
    torch.testing.assert_close(scores, torch.einsum("bd,bcd->bc", users, news[candidates]))
    assert (users[1] == 0).all()
    scores.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert name.endswith("user_encoder.padding") or parameter.grad.isfinite().all(), name


def test_news_vectors_are_in_the_order_of_the_batch():
    model, batch = build_recommender(spec()).eval(), titles()
    vectors = model.encode_news(batch)
    for u in range(len(batch)):
        row = batch.tokens[batch.offsets[u] : batch.offsets[u + 1]]
        alone = model.encode_news(Packed.pack(row, [len(row)]))
        torch.testing.assert_close(vectors[u], alone[0], atol=1e-5, rtol=1e-5)


def test_cached_lower_layers_give_the_same_vectors_and_gradients():
    model, batch = build_recommender(spec()), titles()
    encoder = model.news_encoder.encoder.freeze_below(1)
    model.eval()
    hidden = encoder(batch, last=1).detach()
    vectors = model.encode_news(batch)
    vectors.sum().backward()
    grad = encoder.layers[1].qkv.weight.grad.clone()
    model.zero_grad()
    cached = model.encode_news(batch, first=1, hidden=hidden)
    cached.sum().backward()
    torch.testing.assert_close(cached, vectors)
    torch.testing.assert_close(encoder.layers[1].qkv.weight.grad, grad)


@pytest.mark.parametrize("kind", ["attention", "nrms"])
def test_padded_slots_do_not_matter(kind):
    users = build_recommender(spec(**KINDS[kind])).user_encoder
    history = torch.randn(3, 4, 8)
    other = torch.where(MASK[..., None], history, torch.randn(3, 4, 8) * 10)
    for mode in (True, False):
        users.train(mode)
        torch.testing.assert_close(users(history, MASK), users(other, MASK))
    torch.testing.assert_close(users(history[:, :3], MASK[:, :3]), users(history, MASK), atol=1e-6, rtol=1e-5)


def test_nrms_attends_between_clicks():
    users = NRMSUserEncoder(8, 4, 5).eval()
    history = torch.randn(1, 3, 8)
    mask = torch.ones(1, 3, dtype=torch.bool)
    q, k, v = (x.reshape(3, 4, 2) for x in users.qkv(history[0]).chunk(3, -1))
    weights = (torch.einsum("qhd,khd->hqk", q, k) / 2**0.5).softmax(-1)
    mixed = torch.einsum("hqk,khd->qhd", weights, v).reshape(1, 3, 8)
    torch.testing.assert_close(users(history, mask), users.pooling(mixed, mask))
    with pytest.raises(InputError, match="not a multiple of heads 3"):
        NRMSUserEncoder(8, 3)


def test_learned_padding_takes_part_in_training_only():
    users = build_recommender(spec(history_padding="learned")).user_encoder
    plain = build_recommender(spec()).user_encoder
    plain.load_state_dict({k: v for k, v in users.state_dict().items() if k != "padding"})
    history = torch.randn(3, 4, 8)
    torch.testing.assert_close(users.eval()(history, MASK), plain(history, MASK))
    filled = torch.where(MASK[..., None], history, users.padding)
    out = users.train()(history, MASK)
    torch.testing.assert_close(out, plain(filled, torch.ones_like(MASK)))
    torch.testing.assert_close(out[1], users.padding)
    out.sum().backward()
    assert users.padding.grad.abs().sum() > 0
    assert plain.padding is None


def test_matcher_scores():
    matcher = Matcher(build_recommender(spec()).news_encoder).eval()
    bodies, batch = titles(1, (12, 30, 7)), titles()
    candidates = torch.tensor([[0, 1, 2], [3, 4, 0], [2, 1, 3]])
    scores, body, title = matcher(bodies, batch, candidates)
    torch.testing.assert_close(scores, torch.einsum("bd,bcd->bc", body, title[candidates]))
    torch.testing.assert_close(body, matcher.news_encoder(bodies))


@pytest.mark.parametrize("budget", [0, 40])
def test_bodies_and_titles_are_one_pass(budget, monkeypatch):
    """With the same vectors and gradients as two, also where a token budget cuts it."""
    encoder = build_recommender(spec()).news_encoder.train()
    encoder.encoder.set_dropout(0.0)
    bodies, batch, candidates = titles(1, (12, 30, 7)), titles(), torch.tensor([[0, 1, 2], [3, 4, 0], [2, 1, 3]])
    weights = list(encoder.parameters())
    apart = [encoder(bodies), encoder(batch)]
    wanted = torch.autograd.grad(sum(x.square().sum() for x in apart), weights)
    passes, forward = [], NewsEncoder.forward
    monkeypatch.setattr(NewsEncoder, "forward", lambda *inputs: passes.append(inputs) or forward(*inputs))
    encoder.token_budget = budget
    _, *together = Matcher(encoder)(bodies, batch, candidates)
    assert len(passes) == 1
    torch.testing.assert_close(together, apart)
    found = torch.autograd.grad(sum(x.square().sum() for x in together), weights)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(kind, tmp_path):
    saved = spec(**KINDS[kind])
    model = build_recommender(saved).eval()
    save_recommender(model, saved, tmp_path)
    again, loaded = load_recommender(tmp_path)
    assert loaded == saved
    torch.testing.assert_close(again.eval().encode_news(titles()), model.encode_news(titles()))


def test_a_wrong_file_is_named(tmp_path):
    saved = spec()
    model = build_recommender(saved)
    save_model(model, tmp_path, dataclasses.replace(saved, news_dim=9).to_dict())
    with pytest.raises(InputError, match=r"model.safetensors: key .* has shape"):
        load_recommender(tmp_path)
    save_model(model, tmp_path, {**saved.to_dict(), "width": 3})
    with pytest.raises(InputError, match=r"model.safetensors: .*width"):
        load_recommender(tmp_path)
    assert load_state(tmp_path)[1]["width"] == 3


def test_spec_errors():
    with pytest.raises(InputError, match="'lstm'"):
        spec(user_encoder="lstm")
    with pytest.raises(InputError, match="'zeros'"):
        spec(history_padding="zeros")
    with pytest.raises(InputError, match="goes with user_encoder 'attention'"):
        spec(user_encoder="nrms", history_padding="learned")
    with pytest.raises(InputError, match="differs from the specification"):
        build_recommender(
            ModelSpec(dataclasses.replace(ENCODER, layers=1)), build_recommender(spec()).news_encoder.encoder
        )


def test_count_parameters():
    model = build_recommender(spec())
    pooling = 16 * 5 + 5 + 5
    user = 8 * 5 + 5 + 5
    dense = 16 * 8 + 8
    assert count_parameters(model) - count_parameters(model.news_encoder.encoder) == pooling + user + dense
    model.news_encoder.encoder.freeze_below(0)
    assert count_parameters(model, trainable=True) == pooling + user + dense


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_users_of_a_table_are_those_of_its_rows(kind, training):
    """Each news' importance once: the same vectors and gradients as from the histories' own vectors, in float64."""
    torch.manual_seed(0)
    model = build_recommender(spec(**kind)).double().train(training)
    news = torch.randn(9, model.news_encoder.dense.out_features, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(9, (5, 7))
    mask = torch.rand(5, 7) < 0.6
    mask[0], mask[1] = False, True
    parameters = [news, *model.user_encoder.parameters()]
    found = []
    for users in (model.encode_users_of(news, rows, mask), model.encode_users(news[rows], mask)):
        factors = torch.linspace(0.5, 1.5, users.numel(), dtype=torch.float64).view(users.shape)
        found.append([users, *torch.autograd.grad(users, parameters, factors, allow_unused=True)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
