"""The padded graph equals the packed model for every kind of PLM."""

import numpy as np
import pytest
import torch

from tnr_dist.export.measure import our_vectors
from tnr_dist.export.padded import PaddedNewsEncoder
from tnr_dist.export.runtimes import padded_batches

from .cases import CLOSE, KINDS, random_titles, source_of


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_packed_model(kind):
    source = source_of(kind)
    tokens, offsets = random_titles(source)
    expected = our_vectors(source, tokens, offsets)
    padded = PaddedNewsEncoder(source.model.news_encoder).eval()
    found = np.empty_like(expected)
    with torch.no_grad():
        for rows, ids, mask in padded_batches(tokens, offsets, source.pad_id, size=3):
            found[rows] = padded(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(found, expected, atol=CLOSE)


def test_a_text_without_tokens_is_finite():
    source = source_of("bert")
    padded = PaddedNewsEncoder(source.model.news_encoder).eval()
    with torch.no_grad():
        vectors = padded(torch.zeros(2, 4, dtype=torch.int64), torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0]]))
    assert vectors.isfinite().all()


def test_batches_are_padded_at_the_end_to_their_own_longest():
    tokens, offsets = np.arange(1, 11), np.array([0, 4, 5, 7, 10])
    batches = list(padded_batches(tokens, offsets, pad_id=99, size=2))
    assert [rows.tolist() for rows, _, _ in batches] == [[1, 2], [3, 0]]
    assert batches[0][1].tolist() == [[5, 99], [6, 7]]
    assert batches[1][1].tolist() == [[8, 9, 10, 99], [1, 2, 3, 4]]
    assert batches[1][2].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
