"""Stage 2 with its titles shared among ranks: on 1, 2 and 4 ranks the loss and the gradients of one that shares nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.click_batches import WORDS, random_batch, random_titles
from tests.ranks import on_ranks
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.parts import shared_table
from tnr_dist.stages.parts.click_task import ClickTitles
from tnr_dist.stages.parts.frozen import frozen_states
from tnr_dist.stages.stage2 import Stage2Module
from tnr_dist.stages.stage2_settings import Stage2Config

M, D, B, L, C, NEWS = 2, 8, 11, 6, 4, 25


def _step(dedupe, cache):
    """Loss and gradients of the global batch, and how many titles this rank encoded."""
    engine = DDPEngine("cpu", 1)
    rank, world = engine.environment.rank, engine.environment.world_size
    torch.manual_seed(0)
    titles = random_titles(np.random.default_rng(1), NEWS, 11)
    encoder = encoder_from_config(EncoderConfig(WORDS, 16, 2, 2, 32, 16)).set_dropout(0.0)
    encoder.freeze_below(1)
    student = Recommender(NewsEncoder(encoder, D), AttentionUserEncoder(D))
    settings = Stage2Config(dedupe=dedupe, frozen_cache=cache, temperature=1.5, beta2=0.3)
    click_titles = ClickTitles(titles, 12, student.news_encoder, settings, engine, Path("unused"))
    module = Stage2Module(student, torch.randn(NEWS, M, D), settings, D).train()
    engine.setup(module, lambda m: torch.optim.SGD(m.parameters(), 0.0), precision="fp32", clip_norm=0.0)
    click_titles.prepare("frozen layers")
    mine = np.array_split(np.arange(B), world)[rank]
    batch = random_batch(np.random.default_rng(0), B, L, C, NEWS, M, D)
    part = {name: values[mine] if values.ndim else values for name, values in batch.items()}
    inputs = click_titles.inputs(part)
    loss = engine.forward(inputs)["loss"]
    engine.backward(loss)
    # The engine averages over ranks the gradients of a loss that it has multiplied by their number: a sum.
    gradients = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    total = float(engine.all_reduce(loss.detach().reshape(1)))
    engine.close()
    return total, gradients, len(inputs.titles)


@pytest.fixture(scope="module")
def alone():
    (found,) = on_ranks(1, _step, "local", "none")
    return found


@pytest.mark.parametrize(("ranks", "cache"), [(1, "device"), (2, "none"), (2, "device"), (4, "device")])
def test_loss_and_gradients_are_those_of_one_rank(alone, ranks, cache):
    loss, gradients, distinct = alone
    found = on_ranks(ranks, _step, "global", cache)
    assert {"omega.raw", "news_projection.weight", "student.news_encoder.dense.weight"} <= set(gradients)
    for total, theirs, _ in found:
        assert total == pytest.approx(loss, rel=1e-5)
        assert theirs.keys() == gradients.keys()
        for name, wanted in gradients.items():
            scale = max(np.abs(wanted).max(), 1e-2)  # some (the keys' biases) are nothing but rounding
            np.testing.assert_allclose(theirs[name], wanted, rtol=0, atol=1e-5 * scale, err_msg=name)
    encoded = [count for _, _, count in found]
    assert sum(encoded) == distinct and max(encoded) - min(encoded) <= 1


def test_titles_that_are_not_shared_are_encoded_by_every_rank_that_has_them(alone):
    found = on_ranks(2, _step, "local", "none")
    assert sum(count for _, _, count in found) > alone[2]


def _shared_states(together):
    """This rank's frozen states, and the inode of the file that they are mapped from."""
    engine = DDPEngine("cpu", 1)
    torch.manual_seed(0)
    titles = random_titles(np.random.default_rng(1), NEWS, 11)
    encoder = encoder_from_config(EncoderConfig(WORDS, 16, 2, 2, 32, 16)).freeze_below(1)
    if not together:  # as on two nodes
        shared_table._node = lambda: str(engine.environment.rank)
    found = frozen_states(encoder, titles, Stage2Config(frozen_cache="host"), engine, Path("unused"), "frozen")
    address = found.states.data_ptr()
    with Path("/proc/self/maps").open() as maps:
        areas = [line.split() for line in maps]
    inode = next(
        area[4] for area in areas if int(area[0].split("-")[0], 16) <= address < int(area[0].split("-")[1], 16)
    )
    engine.close()
    return found.states.numpy().copy(), inode


@pytest.mark.parametrize("together", [True, False])
def test_ranks_of_a_node_share_the_pages_of_frozen_states(together):
    expected, _ = _shared_states(True)
    found = on_ranks(3, _shared_states, together)
    for states, _ in found:
        np.testing.assert_allclose(states, expected, atol=1e-6)
    assert len({inode for _, inode in found}) == (1 if together else 3)
    assert not list(Path("/dev/shm").glob("tnr-*"))
