import numpy as np
import pytest

from tnr_dist.data.batches.masking import MaskedLoader, Masking
from tnr_dist.data.tokens import TableWriter

CLS, SEP, MASK, VOCABULARY = 1, 2, 3, 1000


def texts(count: int, seed: int = 0, longest: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, longest, count)
    rows = [np.concatenate([[CLS], rng.integers(10, VOCABULARY, n - 2), [SEP]]) for n in lengths]
    return np.concatenate(rows), lengths


RULE = Masking(0.15, MASK, VOCABULARY, seed=5)


def test_statistics() -> None:
    tokens, lengths = texts(4000)
    seen, positions = RULE.mask(tokens, lengths, np.arange(4000), 0)
    inner = np.maximum(lengths - 2, 0).sum()
    assert len(positions) / inner == pytest.approx(0.15, abs=0.005)
    after, before = seen[positions], tokens[positions]
    share = len(positions)
    assert (after == MASK).sum() / share == pytest.approx(0.8, abs=0.01)
    assert (after == before).sum() / share == pytest.approx(0.1, abs=0.01)
    words = after[(after != MASK) & (after != before)]
    assert len(words) / share == pytest.approx(0.1, abs=0.01)
    assert words.min() < 20 and words.max() > VOCABULARY - 20  # the whole vocabulary
    # Every place of a text is as likely as any other.
    tokens, lengths = np.tile(np.arange(10, 22), 3000), np.full(3000, 12)
    _, positions = RULE.mask(tokens, lengths, np.arange(3000), 0)
    places = np.bincount(positions % 12, minlength=12)
    assert places[0] == places[11] == 0
    np.testing.assert_allclose(places[1:11] / places.sum(), 0.1, atol=0.015)


def test_special_tokens_and_unchosen_ones_stay() -> None:
    tokens, lengths = texts(500)
    seen, positions = RULE.mask(tokens, lengths, np.arange(500), 0)
    starts = np.cumsum(lengths) - lengths
    assert not np.isin(positions, np.concatenate([starts, starts + lengths - 1])).any()
    others = np.setdiff1d(np.arange(len(tokens)), positions)
    assert (seen[others] == tokens[others]).all()
    assert (np.diff(positions) > 0).all()


def test_counts_are_known_without_drawing() -> None:
    tokens, lengths = texts(300)
    _, positions = RULE.mask(tokens, lengths, np.arange(300), 0)
    owner = np.repeat(np.arange(300), lengths)[positions]
    np.testing.assert_array_equal(np.bincount(owner, minlength=300), RULE.counts(lengths))
    assert RULE.counts(np.array([0, 2, 3, 5, 12, 22, 512])).tolist() == [0, 0, 1, 1, 2, 3, 76]


def test_a_text_is_masked_alike_in_any_company_and_anew_every_epoch() -> None:
    tokens, lengths = texts(20)
    starts = np.cumsum(lengths) - lengths
    seen, _ = RULE.mask(tokens, lengths, np.arange(20), 3)
    for text in (0, 7, 19):
        part = slice(starts[text], starts[text] + lengths[text])
        alone, _ = RULE.mask(tokens[part], lengths[text : text + 1], np.array([text]), 3)
        np.testing.assert_array_equal(alone, seen[part])
    assert (RULE.mask(tokens, lengths, np.arange(20), 4)[0] != seen).any()
    assert (Masking(0.15, MASK, VOCABULARY, seed=6).mask(tokens, lengths, np.arange(20), 3)[0] != seen).any()
    assert (RULE.mask(tokens, lengths, np.arange(20) + 20, 3)[0] != seen).any()


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "tokens").mkdir()
    for name, longest in (("body", 60), ("corpus_title", 20)):
        tokens, lengths = texts(23, longest=longest)
        with TableWriter(tmp_path / "tokens" / name, np.dtype(np.uint16)) as writer:
            writer.append(tokens.astype(np.uint16), np.concatenate([[0], np.cumsum(lengths)]))
    return tmp_path


def test_all_ranks_know_the_masked_tokens_of_the_global_batch(corpus) -> None:
    loaders = [MaskedLoader(corpus, 6, RULE, 10, 40, rank, 2) for rank in range(2)]
    for epoch in range(2):
        whole = list(MaskedLoader(corpus, 6, RULE, 10, 40).epoch(epoch))
        assert len(whole) == 4
        assert sorted(np.concatenate([batch["body"] for batch in whole])) == list(range(23))
        for batch, *shares in zip(whole, *(loader.epoch(epoch) for loader in loaders), strict=True):
            lengths = (loaders[0].bodies.lengths[batch["body"]], loaders[0].titles.lengths[batch["body"]])
            expected = RULE.counts(np.minimum(lengths[0], 40)).sum() + RULE.counts(np.minimum(lengths[1], 10)).sum()
            assert {float(part["masked"]) for part in (batch, *shares)} == {float(expected)}
            assert {int(part["epoch"]) for part in (batch, *shares)} == {epoch}
            np.testing.assert_array_equal(np.concatenate([part["body"] for part in shares]), batch["body"])


def test_resuming_gives_the_same_batches(corpus) -> None:
    loader = MaskedLoader(corpus, 6, RULE, 10, 40)
    whole, rest = list(loader.epoch(1)), list(loader.epoch(1, 2))
    assert len(rest) == 2
    for a, b in zip(whole[2:], rest, strict=True):
        assert all(np.array_equal(a[key], b[key]) for key in a)
