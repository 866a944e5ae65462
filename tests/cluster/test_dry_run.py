"""What slurm/pipeline.sh would submit; needs no Slurm."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.harness import ROOT, clean_environment


def pipeline(*arguments, **settings):
    command = [ROOT / "slurm" / "pipeline.sh", *map(str, arguments), "--dry-run"]
    environment = clean_environment(**{f"TNR_{name.upper()}": value for name, value in settings.items()})
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120)


def jobs(done):
    """Name -> (options, script and arguments)."""
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        words = shlex.split(line)
        options = dict(word.lstrip("-").partition("=")[::2] for word in words[1:] if word.startswith("--"))
        found[options["job-name"].removeprefix("tnr-")] = (
            options,
            [word for word in words[1:] if not word.startswith("--")],
        )
    return found


def test_the_demo_as_a_chain():
    found = jobs(pipeline("configs/demo.yaml", nodes=2, gpus_per_node=4, account="news", time="3:00:00", cache_tasks=8))
    assert list(found)[:4] == ["prepare", "post-train", "finetune", "cache"]
    after = {name: options.get("dependency", "") for name, (options, _) in found.items()}
    assert after["cache-complete"] == "afterok:ID_of_finetune,afterany:ID_of_cache"
    assert after["stage2-2"] == "afterok:ID_of_stage1-2:ID_of_cache-complete"
    assert after["stage1-1"] == after["finetune"] == "afterok:ID_of_post-train"
    assert found["finetune"][0]["array"] == "0-1" and found["cache"][0]["array"] == "0-7"
    for name, (options, _) in found.items():
        assert options["account"] == "news" and options["time"] == "3:00:00"
        if name == "prepare":
            assert "nodes" not in options and "gpus-per-node" not in options
            continue
        assert (options["nodes"], options["ntasks-per-node"], options["gpus-per-node"]) == ("2", "4", "4")
        assert options["kill-on-invalid-dep"] == "yes"
    assert found["stage2-1"][1][1:] == ["configs/demo.yaml", "output=runs/demo/seed-0", "seed=0", "student.layers=1"]


def test_rows_without_jobs_of_their_own_wait_for_the_data(tmp_path):
    config = tmp_path / "rows.yaml"
    config.write_text("rows: [{name: TinyBERT-2, method: tinybert, layers: 2}]")
    found = jobs(pipeline(config))
    assert list(found) == ["prepare", "report"]
    assert found["report"][0]["dependency"] == "afterok:ID_of_prepare"


def test_arguments_with_spaces_and_quotes_survive():
    odd = "output=/tmp/a b/$HOME 'x'"
    found = jobs(pipeline("configs/demo.yaml", odd, "rows=[]", "seeds=2"))
    assert found["prepare"][1][-3:] == [odd, "rows=[]", "seeds=2"]
    assert "output=/tmp/a b/$HOME 'x'/seed-1" in found["stage2-4-s1"][1]


@pytest.mark.parametrize("sign", ["\n", "\t", "\r"])
def test_a_setting_cannot_begin_a_job_or_an_override_of_its_own(tmp_path, sign):
    """What follows it was once the size of an array, which the shell computes, or one more setting."""
    odd = f"{tmp_path}/run{sign}x\tevaluate\t-\ta[$(touch {tmp_path}/executed)]\tstage2.lr=1"
    config = tmp_path / "odd.yaml"
    config.write_text(yaml.safe_dump({"output": odd}))
    for arguments in ((config,), ("configs/demo.yaml", f"output={odd}")):
        done = pipeline(*arguments)
        assert done.returncode == 2 and done.stdout == "", done.stdout
        assert "without control characters" in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["odd.yaml"]


def test_what_a_shell_would_compute_is_a_name():
    odd = "output=runs/a[$(touch executed)]`id`;x,y|*"
    found = jobs(pipeline("configs/demo.yaml", odd))
    assert found["finetune"][0]["array"] == "0-1"
    assert found["stage2-2"][1][-3:] == [f"{odd}/seed-0", "seed=0", "student.layers=2"]


def test_preflight_comes_before_everything_that_trains():
    done = subprocess.run(
        [ROOT / "slurm" / "pipeline.sh", "configs/demo.yaml", "--dry-run", "--preflight"],
        cwd=ROOT, env=clean_environment(), text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    found = jobs(done)
    assert found["doctor"][0]["dependency"] == "afterok:ID_of_prepare"
    assert found["post-train"][0]["dependency"] == "afterok:ID_of_doctor"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.yaml"], "no such configuration file"),
        (["configs/demo.yaml", "stage2.lrr=1"], "did you mean 'stage2.lr'"),
        (["configs/demo.yaml", "--dryrun"], "unknown option"),
        ([], "usage"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, says):
    done = pipeline(*arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "script",
    sorted(p for p in (ROOT / "slurm").glob("*.sh") if p.read_text().startswith("#!")),
    ids=lambda p: p.stem,
)
def test_help(script: Path):
    done = subprocess.run([script, "--help"], env=clean_environment(), text=True, capture_output=True, timeout=60)
    assert done.returncode == 0 and "SBATCH" not in done.stdout
    assert re.search(rf"slurm/{re.escape(script.name)} (STUDY |LEVEL )*CONFIG", done.stdout)


def test_a_study_is_an_array_for_each_level():
    script = ROOT / "slurm" / "reproduce.sh"
    arguments = ["fig3", ROOT / "configs" / "demo.yaml", "reproduce.teachers=[1, 2]", "seeds=3", "--dry-run"]
    done = subprocess.run([script, *arguments], env=clean_environment(), text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    jobs = [shlex.split(line) for line in done.stdout.splitlines()]
    names = [next(word for word in job if word.startswith("--job-name=")).partition("=")[2] for job in jobs]
    assert names == ["tnr-fig3-prepare", *(f"tnr-fig3-{level}" for level in range(4)), "tnr-fig3-report"]
    # Three seeds: post-training; two teachers and stage 1; a cache of one and of two teachers; a student of each.
    arrays = [word for job in jobs for word in job if word.startswith("--array=")]
    assert arrays == ["--array=0-2", "--array=0-8", "--array=0-5", "--array=0-5"]
    depends = [word.partition("=")[2] for job in jobs for word in job if word.startswith("--dependency=")]
    # A failed run ends those that need it, not its whole level.
    assert depends[:3] == [
        f"afterok:ID_of_fig3-prepare{more}" for more in ("", *(f",afterany:ID_of_fig3-{n}" for n in (0, 1)))
    ]
    assert depends[-1] == "afterok:ID_of_fig3-prepare,afterany:ID_of_fig3-3"
