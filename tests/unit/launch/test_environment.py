import pytest

from tnr_dist.launch.environment import detect, tasks_per_node
from tnr_dist.util.errors import InputError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "n",
            "MASTER_PORT": "5", "TORCHELASTIC_RUN_ID": "none"}  # fmt: skip
SRUN = {"SLURM_JOB_ID": "70012", "SLURM_STEP_ID": "0", "SLURM_PROCID": "4", "SLURM_NTASKS": "5", "SLURM_LOCALID": "0",
        "SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_STEP_NODELIST": "gpu[07-08,11]"}  # fmt: skip
MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
       "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}  # fmt: skip
HOROVODRUN = {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "0", "HOROVOD_LOCAL_SIZE": "1",
              "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.7"}  # fmt: skip


def place(env):
    found = detect(env)
    return found.launcher, found.rank, found.world_size, found.local_rank, found.local_world_size


def test_alone():
    assert place({}) == ("none", 0, 1, 0, 1)
    assert place({"WORLD_SIZE": "1"}) == ("none", 0, 1, 0, 1)
    assert "one process" in detect({}).describe()


def test_torchrun():
    assert place(TORCHRUN) == ("torchrun", 3, 4, 1, 2)
    assert detect(TORCHRUN).describe() == "torchrun: rank 3 of 4, local rank 1 of 2, meeting at n:5"


def test_set_by_hand():
    assert place({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == ("environment", 1, 2, 1, 2)


def test_deepspeed_names_the_local_size_otherwise():
    env = {k: v for k, v in TORCHRUN.items() if k not in ("LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID")}
    assert place({**env, "LOCAL_SIZE": "2", "CROSS_SIZE": "2", "CROSS_RANK": "1"}) == ("deepspeed", 3, 4, 1, 2)


def test_openmpi_mpich_and_horovodrun():
    assert place(MPI) == ("openmpi", 1, 2, 1, 2)
    assert place({"PMI_RANK": "1", "PMI_SIZE": "2"}) == ("mpich", 1, 2, 1, 2)
    assert place(HOROVODRUN) == ("horovodrun", 1, 2, 0, 1)
    assert detect(HOROVODRUN).master_addr == "10.0.0.7"


def test_srun_knows_its_nodes():
    assert place(SRUN) == ("slurm", 4, 5, 0, 1)
    assert detect(SRUN).master_addr == "gpu07"
    assert detect({**SRUN, "MASTER_ADDR": "x", "MASTER_PORT": "7"}).describe().endswith("meeting at x:7")
    first = {**SRUN, "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}
    assert place(first) == ("slurm", 1, 5, 1, 2)


def port(env):
    return detect(env).master_port


def test_each_step_and_each_start_of_a_launcher_has_a_port_of_its_own():
    jobs = [
        {**SRUN, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)} for job in (70012, 70013) for step in range(90)
    ]
    ports = [port(env) for env in jobs]
    assert len(set(ports)) == len(ports) and min(ports) >= 20000 and max(ports) < 30000
    mpi = [{**MPI, "PMIX_NAMESPACE": name} for name in ("prterun-a-1@1", "prterun-a-2@1")]
    mpi += [{**MPI, "OMPI_MCA_ess_base_jobid": "77"}, {**HOROVODRUN, "HOROVOD_GLOO_RENDEZVOUS_PORT": "77"}]
    ports = [port(env) for env in mpi]
    assert len(set(ports)) == 4 and min(ports) >= 20000 and max(ports) < 30000
    assert port({**mpi[0], "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}) == ports[0]


def test_all_ranks_of_a_step_have_one_port_and_the_users_own_goes_first():
    first = {**SRUN, "SLURM_PROCID": "0", "SLURM_NODEID": "0"}
    assert port(first) == port(SRUN)
    for env in (SRUN, {**MPI, "PMIX_NAMESPACE": "a"}, HOROVODRUN, {"RANK": "0", "WORLD_SIZE": "2"}):
        assert port({**env, "MASTER_PORT": "1234", "MASTER_ADDR": "n"}) == 1234


@pytest.mark.parametrize(
    ("nodes", "first"), [("n1", "n1"), ("n[3,5-9],m2", "n3"), ("a-b,c", "a-b"), ("r[1-2]n[04-07]", "r1n04")]
)
def test_first_node_of_a_host_list(nodes, first):
    assert detect({**SRUN, "SLURM_STEP_NODELIST": nodes}).master_addr == first


def test_srun_but_not_sbatch():
    env = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_NTASKS_PER_NODE": "2"}
    assert detect(env).launcher == "none"
    for step in ("4294967291", "4294967290"):  # the batch script, salloc's shell
        assert detect({**env, "SLURM_STEP_ID": step}).launcher == "none"
    assert place({**env, "SLURM_STEP_ID": "0"}) == ("slurm", 0, 2, 0, 2)


def test_tasks_per_node():
    assert tasks_per_node("2(x2),1") == [2, 2, 1]
    assert tasks_per_node("4") == [4]


def test_the_innermost_launcher_counts():
    one_a_node = {
        **SRUN,
        "SLURM_PROCID": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NODEID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    }
    assert place({**one_a_node, **TORCHRUN}) == ("torchrun", 3, 4, 1, 2)
    # One srun task that starts all ranks, and Horovod's variables set from those of another launcher.
    assert place({**TORCHRUN, **SRUN, "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_NODEID": "0",
                  "SLURM_STEP_TASKS_PER_NODE": "1"})[0] == "torchrun"  # fmt: skip
    assert place({**TORCHRUN, "HOROVOD_RANK": "3", "HOROVOD_SIZE": "4", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2"}
                 )[0] == "torchrun"  # fmt: skip


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not"),
        ({"WORLD_SIZE": "4"}, "RANK is not"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=2 is not below WORLD_SIZE=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "not below"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "not a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, "MASTER_ADDR"),
        ({**TORCHRUN, "LOCAL_RANK": "2"}, "LOCAL_RANK=2 is not below"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "8"}, "is more than"),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, "not a port"),
        ({"RANK": "0", "WORLD_SIZE": "2", **MPI}, "disagree"),
        ({**HOROVODRUN, **MPI, "OMPI_COMM_WORLD_SIZE": "4"}, "disagree"),
        ({"RANK": "0", "WORLD_SIZE": "2", **SRUN}, r"RANK=0 .* SLURM_PROCID=4 .* disagree"),
        ({**TORCHRUN, **SRUN}, "disagree"),  # 4 ranks of 5 tasks
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "4", **MPI, "OMPI_COMM_WORLD_RANK": "0"}, "do not know of each other"),
        ({**SRUN, "SLURM_NTASKS": "8"}, "makes 5 tasks, SLURM_NTASKS is 8"),
        ({**SRUN, "SLURM_NODEID": "3"}, "of 3 nodes"),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "2(2)"}, "expected counts"),
        ({**SRUN, "SLURM_PROCID": "5"}, "SLURM_PROCID=5 is not below SLURM_NTASKS=5"),
    ],
)
def test_contradictions(env, says):
    with pytest.raises(InputError, match=says):
        detect(env)
