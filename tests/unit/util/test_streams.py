"""Named random streams are independent of each other and of what was drawn before."""

import torch

from tnr_dist.util.streams import drawn_from, stream_seed


def test_a_stream_depends_on_its_name_and_seed_only():
    with drawn_from(3, "stage1", "model"):
        first = torch.randn(4)
    torch.randn(7)
    with drawn_from(3, "stage1", "model"):
        assert torch.equal(torch.randn(4), first)
    seeds = {stream_seed(seed, *names) for seed in (0, 1) for names in (("a", "b"), ("ab",), ("a",), ("b", "a"))}
    assert len(seeds) == 8


def test_what_is_drawn_outside_goes_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(5)
    wanted = torch.randn(3), torch.randn(3)
    torch.manual_seed(5)
    found = [torch.randn(3)]
    with drawn_from(0, "x"):
        torch.randn(9)
    found.append(torch.randn(3))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
