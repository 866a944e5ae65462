"""User vectors and scores of blocks against the model and plain dot products."""

import numpy as np
import pytest
import torch

from tnr_dist.data.batches.sample_windows import last_clicked
from tnr_dist.evaluation.scoring import BlockRows, UserVectors, block_scores
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, NRMSUserEncoder, Recommender
from tnr_dist.models.transformer import encoder_from_config

NEWS, D = 50, 8


@pytest.fixture
def block():
    rng = np.random.default_rng(0)
    lengths, counts = np.array([3, 0, 12, 1]), rng.integers(1, 9, 20)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    candidates = rng.integers(0, NEWS, offsets[-1]).astype(np.int32)
    candidates[5] = -1
    return {
        "history_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "history_news": rng.integers(0, NEWS, lengths.sum()).astype(np.int32),
        "impression_history": rng.integers(0, 4, 20).astype(np.int32),
        "candidate_offsets": offsets,
        "candidate_news": candidates,
    }


CPU = torch.device("cpu")


def test_block_scores(block):
    torch.manual_seed(0)
    users, news = torch.randn(4, D), torch.randn(NEWS, D)
    scores = block_scores(users, news, BlockRows.of(block, 4, CPU)).numpy()
    owner = np.repeat(block["impression_history"], np.diff(block["candidate_offsets"]))
    for i, (who, what) in enumerate(zip(owner, block["candidate_news"], strict=True)):
        if what < 0:
            assert scores[i] == np.finfo(np.float32).min
        else:
            assert scores[i] == pytest.approx(float(users[who] @ news[what]), abs=1e-5)


def test_a_score_is_the_same_bits_whatever_else_the_block_holds(block):
    torch.manual_seed(0)
    users, news = torch.randn(4, D), torch.randn(NEWS, D)
    scores = block_scores(users, news, BlockRows.of(block, 4, CPU))
    for i in range(20):
        a, b = block["candidate_offsets"][i : i + 2]
        alone = {
            **block,
            "impression_history": block["impression_history"][i : i + 1],
            "candidate_offsets": np.array([0, b - a], np.int32),
            "candidate_news": block["candidate_news"][a:b],
        }
        assert torch.equal(block_scores(users, news, BlockRows.of(alone, 4, CPU)), scores[a:b])


def recommender(encoder):
    tiny = EncoderConfig(vocab_size=8, hidden=8, layers=1, heads=1, intermediate=8, max_positions=8)
    return Recommender(NewsEncoder(encoder_from_config(tiny), D), encoder).eval()


@pytest.mark.parametrize("kind", ["attention", "nrms"])
@pytest.mark.parametrize("history", [4, 20])
def test_user_vectors_equal_the_model(block, kind, history):
    torch.manual_seed(0)
    model = recommender(AttentionUserEncoder(D, 6) if kind == "attention" else NRMSUserEncoder(D, 2, 6))
    news = torch.randn(NEWS, D)
    found = UserVectors(model, news).of(BlockRows.of(block, history, CPU))
    for h in range(4):
        clicked = block["history_news"][block["history_offsets"][h] : block["history_offsets"][h + 1]][-history:]
        if len(clicked) == 0:
            assert torch.equal(found[h], torch.zeros(D))
            continue
        rows = news[clicked.astype(int)].unsqueeze(0)
        with torch.no_grad():
            expected = model.encode_users(rows, torch.ones(rows.shape[:2], dtype=torch.bool))[0]
        torch.testing.assert_close(found[h], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("history", [4, 20])
def test_user_vectors_with_learned_padding_equal_the_user_encoder_in_training(block, history):
    torch.manual_seed(0)
    model = recommender(AttentionUserEncoder(D, 6, "learned"))
    news = torch.randn(NEWS, D)
    found = UserVectors(model, news, "learned").of(BlockRows.of(block, history, CPU))
    clicked = last_clicked(block["history_news"], block["history_offsets"], history)
    rows = torch.from_numpy(clicked.astype(np.int64))
    with torch.no_grad():
        expected = model.user_encoder.train()(news[rows.clamp(min=0)], rows >= 0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[1], model.user_encoder.padding.detach())  # nothing was clicked
    masked = UserVectors(model, news).of(BlockRows.of(block, history, CPU))
    short = (rows < 0).any(1)
    assert ((found - masked).abs().amax(1) > 1e-3).tolist() == short.tolist()


def test_learned_padding_needs_a_model_that_has_it(block):
    for encoder in (AttentionUserEncoder(D, 6), NRMSUserEncoder(D, 2, 6)):
        with pytest.raises(ValueError, match="learned no padding"):
            UserVectors(recommender(encoder), torch.randn(NEWS, D), "learned")
