"""What the training step relies on between ranks."""

import numpy as np
import torch

from tests import engine_task as task
from tests.ranks import on_ranks
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.packed import Packed


def _gather_rows(sizes):
    engine = DDPEngine("cpu", 1)
    rank = engine.environment.rank
    torch.manual_seed(0)
    everything = torch.randn(sum(sizes), 3, dtype=torch.float64)
    start = sum(sizes[:rank])
    mine = everything[start : start + sizes[rank]].clone().requires_grad_()
    gathered = engine.all_gather_rows(mine, sizes)
    # Every rank asks something else of the rows; the gradient is the sum of what all ask.
    weight = torch.arange(1.0, gathered.numel() + 1, dtype=torch.float64).reshape(gathered.shape) * (rank + 1)
    (gathered * weight).sum().backward()
    return torch.equal(gathered, everything), mine.grad.numpy(), start


def test_gather_rows_and_its_gradient():
    for sizes in ([2, 3], [4, 0], [1, 1, 5]):
        total = sum(range(1, len(sizes) + 1))
        expected = np.arange(1.0, sum(sizes) * 3 + 1).reshape(-1, 3) * total
        for rank, (equal, grad, start) in enumerate(on_ranks(len(sizes), _gather_rows, sizes)):
            assert equal
            np.testing.assert_allclose(grad, expected[start : start + sizes[rank]])


def _more_ranks_than_titles():
    engine = DDPEngine("cpu", 1)
    sizes = [2, 0]  # titles that each rank encodes
    task.setup(engine)
    model = engine.module.model

    def forward(titles):
        news = engine.all_gather_rows(model.encode_news(titles).float(), sizes)
        users = model.encode_users(news[None], torch.ones(1, 2, dtype=torch.bool))
        return {"loss": (engine.module.omega() * model.score(users, news[None])).sum() / len(sizes)}

    engine.module.forward = forward
    lengths = [3, 4] if engine.environment.rank == 0 else []
    titles = Packed.pack(range(sum(lengths)), lengths)
    losses = []
    for _ in range(3):
        loss = engine.forward(titles)["loss"]
        engine.backward(loss)
        engine.step()
        losses.append(float(loss.detach()))
    return losses, task.weights(engine)


def test_a_rank_without_titles_trains_along():
    """The last batch of an epoch may hold one sample with five titles, for eight ranks to encode."""
    (losses, weights), (others, other_weights) = on_ranks(2, _more_ranks_than_titles)
    assert losses == others and len(set(losses)) == 3
    for name, value in weights.items():
        np.testing.assert_array_equal(value, other_weights[name])


def _gather_arrays():
    engine = DDPEngine("cpu", 1)
    rank = engine.environment.rank
    return engine.gather(np.arange(rank * 2, dtype=np.int64)), engine.gather(np.full((rank, 2), rank, np.float32))


def test_gather_arrays_of_any_length():
    for flat, matrix in on_ranks(3, _gather_arrays):
        assert [part.tolist() for part in flat] == [[], [0, 1], [0, 1, 2, 3]]
        assert [part.shape for part in matrix] == [(0, 2), (1, 2), (2, 2)]


def _gather_beside_the_device():
    engine = DDPEngine("cpu", 1)
    engine.device = torch.device("meta")  # no value can be brought back from it
    rank = engine.environment.rank
    engine.any_rank(rank == 1)  # its vote is on the way meanwhile
    gathered = engine.gather(np.arange(rank + 1))
    return [part.tolist() for part in gathered], engine.any_rank(False)


def test_arrays_travel_from_host_to_host():
    for gathered, answer in on_ranks(2, _gather_beside_the_device):
        assert gathered == [[0], [0, 1]] and answer


def _no_meeting():
    import os

    from tnr_dist.engines import core
    from tnr_dist.util.errors import RankLost

    os.environ["RANK"] = os.environ["LOCAL_RANK"] = "1"  # nobody is rank 0
    core.TIMEOUT_SECONDS = 1.0
    try:
        DDPEngine("cpu", 1)
    except RankLost as error:
        return str(error)


def test_ranks_that_do_not_meet_say_so():
    for message in on_ranks(2, _no_meeting):
        assert "did not meet" in message
