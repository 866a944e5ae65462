"""What is said and left out before a job is submitted, and what a job is submitted with."""

import re
import shlex
import shutil
import subprocess

import pytest

from tests.cluster.harness import ROOT, clean_environment
from tests.cluster.runs import LONG, assert_same_as, in_mid_epoch
from tests.cluster.test_dry_run import jobs

# The stand-in for sbatch writes down its arguments and environment; squeue says what the test wants.
PROGRAMS = {
    "sbatch": '#!/bin/bash\n{ printf "%q " "$@"; echo; } >>"$CALLS"; env | grep -aE "^TNR_(ARRAY|ROOT)" >>"$CALLS.env"; echo 4711\n',
    "squeue": '#!/bin/sh\nprintf "%s" "$QUEUE"\n',
    "scontrol": '#!/bin/sh\necho "MaxArraySize = $LARGEST"\n',
}


@pytest.fixture
def submit(tmp_path):
    """Run a script of slurm/ with stand-ins for Slurm; `calls()` is what sbatch was given."""
    for name, text in PROGRAMS.items():
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def run(script, *arguments, queue="", largest=1001, **settings):
        upper = {name if name.startswith("SBATCH_") else f"TNR_{name}": value for name, value in settings.items()}
        environment = clean_environment(
            CALLS=tmp_path / "calls", QUEUE=queue, LARGEST=largest, TNR_LOGS=tmp_path / "logs", **upper
        )
        environment["PATH"] = f"{tmp_path}/bin:{environment['PATH']}"
        command = [ROOT / "slurm" / script, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120)

    def calls():
        file = tmp_path / "calls"
        return [shlex.split(line) for line in file.read_text().splitlines()] if file.exists() else []

    run.calls = calls
    run.config = tmp_path / "c.yaml"
    run.config.write_text(f"output: {tmp_path}/runs\ndata: {{dir: {tmp_path}/data}}\n")
    return run


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("stage2.sh", ["stage2.lrr=1"], "did you mean 'stage2.lr'"),
        ("pipeline.sh", ["stage2.lrr=1"], "did you mean 'stage2.lr'"),
        ("stage2.sh", [], "not a prepared data set"),
        ("prepare.sh", ["data.input=nowhere"], "nowhere: no such folder"),
        ("pipeline.sh", ["data.input=nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_work_gets_no_job(submit, script, arguments, says):
    done = submit(script, submit.config, *arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
    assert submit.calls() == []


def test_unchecked_where_one_says_so(submit):
    done = submit("stage2.sh", submit.config, CHECK=0)
    assert (done.returncode, done.stdout) == (0, "4711\n") and len(submit.calls()) == 1, done.stderr


def options_of(call):
    return dict(word.lstrip("-").partition("=")[::2] for word in call if word.startswith("--"))


def test_settings_of_one_kind_and_of_one_job(submit):
    done = submit(
        "pipeline.sh", "configs/demo.yaml", "--dry-run", TIME="9:00", TIME_stage2="3:00", TIME_stage2_1="1:00",
        PARTITION="gpu", PARTITION_prepare="cpu", GPUS_PER_NODE=4, GPUS_PER_NODE_report="", NODES_stage2=2,
        GPUS_PER_NODE_evaluate="", GRES_evaluate="gpu:a100:2", ARRAY_LIMIT=1, GPUS_PER_NODE_post_train="h200:3",
    )  # fmt: skip
    found = {name: options for name, (options, _) in jobs(done).items()}
    assert [found[n]["time"] for n in ("post-train", "stage2-2", "stage2-1")] == ["9:00", "3:00", "1:00"]
    assert found["prepare"]["partition"] == "cpu" and "gpus-per-node" not in found["prepare"]
    assert "gpus-per-node" not in found["report"] and found["report"]["ntasks-per-node"] == "1"
    assert found["stage2-2"]["nodes"] == "2" and found["stage1-2"]["nodes"] == "1"
    assert (found["evaluate-1"]["gres"], found["evaluate-1"]["ntasks-per-node"]) == ("gpu:a100:2", "2")
    assert (found["post-train"]["gpus-per-node"], found["post-train"]["ntasks-per-node"]) == ("h200:3", "3")
    assert found["finetune"]["array"] == "0-1%1" and found["finetune"]["output"].endswith("%x-%A_%a.out")


def test_gpus_of_a_task_stay_visible_to_the_others(submit):
    done = submit("pipeline.sh", "configs/demo.yaml", "--dry-run", GPUS_PER_TASK=1, RANKS_PER_NODE=4, SIGNAL="USR1")
    options = jobs(done)["stage2-2"][0]
    assert (options["gpus-per-task"], options["gpu-bind"], options["ntasks-per-node"]) == ("1", "none", "4")
    assert options["signal"] == "B:USR1@120"


def test_arrays_keep_below_what_the_cluster_allows(submit):
    done = submit("pipeline.sh", "configs/demo.yaml", "--dry-run", largest=3, CACHE_TASKS=8)
    assert jobs(done)["cache"][0]["array"] == "0-2" and "allows arrays of 3 tasks" in done.stderr
    done = submit(
        "reproduce.sh", "fig3", "configs/demo.yaml", "seeds=4", "reproduce.teachers=[1]", "--dry-run", largest=3
    )
    found = {name: (options, words) for name, (options, words) in jobs(done).items()}
    assert [name for name in found if name.startswith("fig3-1")] == ["fig3-1", "fig3-1.3", "fig3-1.6"]
    assert [found[name][0]["array"] for name in ("fig3-1", "fig3-1.3", "fig3-1.6")] == ["0-2", "0-2", "0-1"]
    assert "1+3" in found["fig3-1.3"][1]
    waits_for = "afterok:ID_of_fig3-prepare,afterany:ID_of_fig3-1:ID_of_fig3-1.3:ID_of_fig3-1.6"
    assert found["fig3-2"][0]["dependency"] == waits_for


def test_without_an_environment_the_job_still_gets_the_settings(submit):
    submit("stage2.sh", submit.config, CHECK=0, NODES=2, SBATCH_EXPORT="NONE")
    names = options_of(submit.calls()[0])["export"].split(",")
    assert {"TNR_NODES", "TNR_ROOT", "TNR_LOGS", "TNR_SUBMITTED"} <= set(names) and "PATH" not in names


def queue_of(calls):
    """squeue's lines for jobs that were submitted."""
    marks = [options_of(call)["comment"] for call in calls]
    return "".join(f"{100 + number} PD {mark}\n" for number, mark in enumerate(marks))


def test_a_second_chain_takes_the_jobs_that_are_in_the_queue(submit):
    first = submit("pipeline.sh", submit.config)
    calls = submit.calls()
    assert first.returncode == 0 and len(calls) == first.stdout.count("\n") > 5, first.stderr
    again = submit("pipeline.sh", submit.config, queue=queue_of(calls))
    assert again.returncode == 0 and again.stdout.count("in the queue already") == len(calls), again.stderr
    assert "nothing submitted" in again.stderr and len(submit.calls()) == len(calls)
    # One that has gone is submitted again, behind those that are there.
    gone = [call for call in calls if "tnr-stage2" not in options_of(call)["job-name"]]
    submit("pipeline.sh", submit.config, queue=queue_of(gone))
    new = submit.calls()[len(calls) :]
    assert [options_of(call)["job-name"] for call in new] == ["tnr-stage2-4"]
    assert re.fullmatch(r"afterok:10\d:10\d", options_of(new[0])["dependency"])


def test_other_settings_in_the_same_folder_wait(submit):
    submit("pipeline.sh", submit.config)
    calls = submit.calls()
    done = submit("pipeline.sh", submit.config, "stage2.lr=1e-3", queue=queue_of(calls))
    assert done.returncode == 2 and "with other settings" in done.stderr and len(submit.calls()) == len(calls)


# On a real Slurm ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster_jobs(cluster):
    """How many jobs the cluster has seen."""
    return lambda: cluster.run("scontrol", "-o", "show", "jobs", check=False).stdout.count("JobId=")


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_second_chain_submits_nothing_that_is_complete(cluster, config, chain, cluster_jobs):
    before = cluster_jobs()
    done = cluster.run("slurm/pipeline.sh", config, nodes=2, ranks_per_node=1, time=5, cache_tasks=2)
    assert "complete: every job" in done.stderr and done.stdout == "" and cluster_jobs() == before
    for script in ("stage2.sh", "finetune.sh", "evaluate.sh", "prepare.sh"):
        done = cluster.run(f"slurm/{script}", config, f"output={cluster.work}/chain/seed-0")
        assert "complete: " in done.stderr and done.stdout == "" and cluster_jobs() == before
    bad = cluster.run("slurm/stage2.sh", config, "stage2.lrr=1", check=False)
    assert bad.returncode == 2 and "did you mean" in bad.stderr and cluster_jobs() == before


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_what_is_missing_of_an_array_is_made_and_named_as_printed(cluster, config, inputs):
    output = inputs("teachers")
    shutil.rmtree(output / "teacher-1")
    done = cluster.run("slurm/finetune.sh", config, f"output={output}", "device=cpu", nodes=1, time=7, gpus_per_node=2)
    job = int(done.stdout)
    records = cluster.wait(job)
    assert [one["JobState"] for one in records] == ["COMPLETED"], cluster.logs(int(records[0]["JobId"]))
    assert (records[0]["TimeLimit"], records[0]["NumTasks"], records[0]["TresPerNode"]) == (
        "00:07:00",
        "2",
        "gres:gpu:2",
    )
    assert (cluster.work / "logs" / f"tnr-finetune-{job}_1.out").is_file()
    assert (output / "teacher-1" / "complete.json").is_file()


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_changed_settings_go_beside_and_are_said_before(cluster, config, chain):
    done = cluster.run("slurm/pipeline.sh", config, "stage2.lr=0.5", "--dry-run", nodes=1)
    assert re.search(r"stage2-1: kept, it is of other settings; the new run goes to stage2-1-[0-9a-f]{10}", done.stderr)
    found = jobs(done)
    assert list(found) == ["stage2-1", "evaluate-1", "report"] and found["stage2-1"][1][-1] == "folders=hashed"


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_cluster_without_requeue_gets_the_job_again(cluster, config, uninterrupted, inputs):
    """What waits for the job waits for the one that goes on, too."""
    output = inputs("resubmit")
    done = cluster.run(
        "slurm/stage2.sh", config, f"output={output}", *LONG, nodes=2, ranks_per_node=1, time=10, resubmit=1
    )
    job = int(done.stdout)
    after = ("sbatch", "--parsable", f"--dependency=afterok:{job}", "--output=/dev/null", "--wrap", "true")
    waiting = int(cluster.run(*after).stdout)
    in_mid_epoch(cluster, job, output)
    cluster.run("scancel", "--signal=USR2", "--batch", job)
    record = cluster.succeed(job)
    assert record["Restarts"] == "0"
    log = cluster.logs(job)
    new = int(re.search(r"job (\d+) continues from its checkpoint", log)[1])
    assert f"{new}" in cluster.jobs(waiting)[0]["Dependency"] or cluster.jobs(waiting)[0]["JobState"] == "COMPLETED"
    again = cluster.succeed(new)
    assert (again["TimeLimit"], again["NumTasks"]) == ("00:10:00", "2")
    assert "resuming at step" in cluster.logs(new)
    cluster.succeed(waiting)
    assert_same_as(uninterrupted, output)
