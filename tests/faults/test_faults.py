"""Every fault once, at a moment that its seed chooses. `make faults` tries many."""

import pytest

from tests.faults import harness
from tests.faults.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("fault", harness.FAULTS)
def test_recovers_or_says_why_not(world: World, fault: str) -> None:
    outcome = harness.run_seed(world, 100 + list(harness.FAULTS).index(fault), fault)
    assert outcome.end != "lost", outcome
    assert outcome.end == "recovered" or outcome.note
