"""What an engine holds between two stages of one process."""

import weakref

import pytest

from tests import engine_task as task
from tests.ranks import on_ranks
from tnr_dist.engines.ddp import DDPEngine


def two_stages():
    engine = DDPEngine("cpu", 1)
    task.setup(engine)
    task.steps(engine, 0, 2)
    engine.finish()
    kept = len(engine.optimizer.state)
    earlier, alive = weakref.ref(engine.module), []

    class Next(task.TinyModule):
        def _apply(self, fn, recurse=True):
            alive.append(earlier() is not None)
            return super()._apply(fn, recurse)

    engine.setup(Next(), task.optimizer, precision="fp32", clip_norm=0.0)
    losses, _ = task.steps(engine, 0, 2)
    engine.close()
    return kept, alive[0], len(losses)


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_earlier_stage_is_gone_before_the_next_comes_to_the_device(ranks):
    """Each may have gigabytes of tables and frozen states there."""
    assert on_ranks(ranks, two_stages) == [(0, False, 2)] * ranks
