"""How the projections of several teachers start."""

import pytest
import torch

from tnr_dist.bench.per_slot import project
from tnr_dist.models.projection import Projection

M, D = 3, 64


def test_identity_changes_nothing():
    vectors = torch.randn(5, M, D)
    projection = Projection(M, D, "identity")
    assert torch.equal(project(projection.weight, projection.bias, vectors), vectors)


@pytest.mark.parametrize(("init", "bound"), [("random", D**-0.5), ("xavier", (3 / D) ** 0.5)])
def test_drawn_within_their_bounds(init, bound):
    torch.manual_seed(0)
    projection = Projection(M, D, init)
    weight = projection.weight.detach()
    assert weight.shape == (M, D, D) and 0.99 * bound < weight.abs().max() <= bound
    assert weight.var() == pytest.approx(bound**2 / 3, rel=0.05) and not torch.equal(weight[0], weight[1])
    # The authors' releases have `nn.init.xavier_uniform_` without a bias; `random` is `nn.Linear`'s own.
    assert bool(projection.bias.any()) is (init == "random")
