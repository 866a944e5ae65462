import pytest

from tnr_dist.engines.environment import detect
from tnr_dist.errors import InputError


def test_alone():
    place = detect({})
    assert (place.rank, place.world_size, place.launcher) == (0, 1, "none")


def test_torchrun():
    env = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "n",
        "MASTER_PORT": "5",
    }
    place = detect(env)
    assert (place.rank, place.local_rank, place.master_addr, place.master_port, place.launcher) == (
        3,
        1,
        "n",
        5,
        "torchrun",
    )


def test_srun_but_not_sbatch():
    env = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "2"}
    assert detect(env).launcher == "none"
    assert detect({**env, "SLURM_STEP_ID": "0"}).rank == 1


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "not below"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "not a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, "MASTER_ADDR"),
    ],
)
def test_contradictions(env, says):
    with pytest.raises(InputError, match=says):
        detect(env)
