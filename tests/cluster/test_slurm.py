"""The Slurm scripts on a real cluster of two nodes: the chain, the engines, and every way a job is interrupted."""

import json
import signal

import numpy as np
import pytest

from tests.cluster.runs import LONG, assert_same_as, curve, in_mid_epoch, signal_rank
from tests.lanes import missing, reason_against

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_preflight_on_two_nodes(cluster, config, chain):
    command = ("launch/srun.sh", "--nodes=2", "--ntasks-per-node=2", "--time=3", "--", "launch/preflight.sh", config)
    done = cluster.run(*command, f"output={cluster.work}/chain", seconds=120)
    assert "4 met, on node1, node2" in done.stdout and "GiB/s" in done.stdout
    assert "2 teachers" in done.stdout and "error" not in done.stdout


def test_one_task_per_node_starts_its_local_ranks(cluster):
    command = ("launch/srun.sh", "--per-node", 2, "--nodes=2", "--time=3", "--", "tnr", "doctor")
    done = cluster.run(*command, seconds=120)
    assert "4 met, on node1, node2" in done.stdout and "local: rank 0 of 4, local rank 0 of 2" in done.stdout


def test_the_chain_runs_to_its_end(cluster, chain):
    assert len(cluster.jobs(chain["finetune"])) == 2 and len(cluster.jobs(chain["cache"])) == 2
    results = json.loads((cluster.work / "chain" / "seed-0" / "stage2-1" / "results.json").read_text())
    assert results["split"] == "dev" and 0 < results["auc"] < 1
    table = json.loads((cluster.work / "chain" / "report" / "table.json").read_text())
    assert [row["model"] for row in table] == ["random", "most popular", "Tiny-NewsRec-1", "oracle"]
    logs = cluster.work / "logs" / f"tnr-stage2-1-{chain['stage2-1']}"
    assert "slurm: 2 ranks on 2 nodes" in (logs / "rank-0.log").read_text() and (logs / "rank-1.log").is_file()


def test_a_failed_job_cancels_what_depends_on_it(cluster, config, chain):
    # A GPU that is not there is an error of the first job that trains.
    changed = (config, "post_train.lr=0.5", "device=cuda")
    done = cluster.run("slurm/pipeline.sh", *changed, nodes=1, time=5, cache_tasks=1)
    assert "the new run goes to post-train-" in done.stderr
    ids = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    first = cluster.wait(ids["post-train"])[0]
    assert (first["JobState"], first["ExitCode"], first["Restarts"]) == ("FAILED", "2:0", "0")
    for name in ("finetune", "stage2-1", "report"):
        assert {one["JobState"] for one in cluster.wait(ids[name], 30)} == {"CANCELLED"}


@pytest.mark.parametrize("engine", ["ddp", "deepspeed", "horovod"])
def test_every_engine_ends_with_the_same_metrics(cluster, config, chain, inputs, engine):
    if reason_against(engine):
        missing(reason_against(engine))
    output = inputs(engine)
    cluster.succeed(cluster.sbatch("stage2", config, f"engine={engine}", f"output={output}"), 300)
    np.testing.assert_allclose(curve(output), curve(cluster.work / "chain" / "seed-0"), atol=1e-5)
    cluster.succeed(cluster.sbatch("evaluate", config, f"engine={engine}", f"output={output}"), 300)
    results = [
        json.loads((f / "stage2-1" / "results.json").read_text()) for f in (output, cluster.work / "chain" / "seed-0")
    ]
    for key in ("auc", "mrr", "ndcg5", "ndcg10"):
        assert results[0][key] == pytest.approx(results[1][key], abs=1e-4)


def test_requeue_in_mid_epoch(cluster, config, uninterrupted, inputs):
    output = inputs("requeue")
    job = cluster.sbatch("stage2", config, f"output={output}", *LONG)
    in_mid_epoch(cluster, job, output)
    cluster.run("scontrol", "requeue", job)
    assert cluster.succeed(job)["Restarts"] == "1"
    assert "resuming at step" in cluster.logs(job)
    assert_same_as(uninterrupted, output)


def test_preemption_by_a_higher_partition(cluster, config, uninterrupted, inputs):
    output = inputs("preempt")
    job = cluster.sbatch("stage2", config, f"output={output}", *LONG, options=("--exclusive",))
    in_mid_epoch(cluster, job, output)
    urgent = ("sbatch", "--parsable", "--partition=urgent", "--time=1", "--output=/dev/null", "--wrap", "true")
    assert cluster.succeed(int(cluster.run(*urgent).stdout))["Restarts"] == "0"
    assert cluster.succeed(job)["Restarts"] == "1"
    assert "resuming at step" in cluster.logs(job)
    assert_same_as(uninterrupted, output)


@pytest.mark.parametrize("target", ["batch script", "ranks"])
def test_a_warning_ends_with_75_and_a_requeue(cluster, config, uninterrupted, inputs, target):
    """USR1 to the batch script alone is what Slurm sends before the time limit; scancel's own default is the ranks."""
    output = inputs("usr1")
    job = cluster.sbatch("stage2", config, f"output={output}", *LONG)
    in_mid_epoch(cluster, job, output)
    cluster.run("scancel", "--signal=USR1", *(["--batch"] if target == "batch script" else []), job)
    assert cluster.succeed(job)["Restarts"] == "1"
    logs = cluster.logs(job)
    assert "exit code 75" in logs and "is requeued" in logs and "resuming at step" in logs
    assert_same_as(uninterrupted, output)


def test_a_killed_rank_is_a_requeue_too(cluster, config, uninterrupted, inputs):
    output = inputs("killed")
    job = cluster.sbatch("stage2", config, f"output={output}", *LONG, "log.checkpoint_every=5")
    in_mid_epoch(cluster, job, output)
    signal_rank(job, 1, signal.SIGKILL)
    assert cluster.succeed(job)["Restarts"] == "1"
    assert "the first to end: node2: task 1: Killed" in cluster.logs(job)
    assert_same_as(uninterrupted, output)


def test_a_node_that_dies(cluster, config, uninterrupted, inputs):
    output = inputs("node")
    job = cluster.sbatch("stage2", config, f"output={output}", *LONG, "log.checkpoint_every=5")
    in_mid_epoch(cluster, job, output)
    cluster.kill_node("node2", noticed=True)
    cluster.boot_node("node2", noticed=True)
    assert cluster.succeed(job, 300)["Restarts"] == "1"
    assert "resuming at step" in cluster.logs(job)
    assert_same_as(uninterrupted, output)


def test_bad_configuration_is_not_requeued(cluster, config, chain, inputs):
    job = cluster.sbatch("stage2", config, f"output={inputs('bad')}", "stage2.batch_sizes=3")
    record = cluster.wait(job)[0]
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "2:0", "0")
    out = (cluster.work / "logs" / f"stage2-{job}.out").read_text()
    assert "did you mean 'stage2.batch_size'" in out and "Traceback" not in cluster.logs(job)
