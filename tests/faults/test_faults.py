"""Every fault once, at a moment that its seed chooses. `make faults` tries many."""

from collections.abc import Iterator

import pytest

from tests.cluster.harness import NoCluster, running_cluster
from tests.faults import harness, impolite, injections, slurm
from tests.faults.world import World
from tests.lanes import missing

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def slurm_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    try:
        with running_cluster() as cluster:
            yield World(tmp_path_factory.mktemp("slurm-faults"), cluster)
    except NoCluster as reason:
        missing(str(reason))


def check(world: World, fault: str) -> None:
    outcome = harness.run_seed(world, 100 + list(harness.FAULTS).index(fault), fault)
    assert outcome.end != "lost", outcome
    assert outcome.end == "recovered" or outcome.note


@pytest.mark.slow
@pytest.mark.parametrize("fault", injections.FAULTS | impolite.FAULTS)
def test_recovers_or_says_why_not(world: World, fault: str) -> None:
    check(world, fault)


@pytest.mark.cluster
@pytest.mark.parametrize("fault", slurm.FAULTS)
def test_a_slurm_job_recovers(slurm_world: World, fault: str) -> None:
    check(slurm_world, fault)
