"""What slurm/pipeline.sh would submit; needs no Slurm."""

import shlex
import subprocess
from pathlib import Path

import pytest

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


def test_arguments_with_spaces_and_quotes_survive():
    odd = "output=/tmp/a b/$HOME 'x'"
    found = jobs(pipeline("configs/demo.yaml", odd, "rows=[]", "seeds=2"))
    assert found["prepare"][1][-3:] == [odd, "rows=[]", "seeds=2"]
    assert "output=/tmp/a b/$HOME 'x'/seed-1" in found["stage2-4-s1"][1]


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
    sorted(p for p in (ROOT / "slurm").glob("*.sh") if p.name not in ("env.sh", "common.sh")),
    ids=lambda p: p.stem,
)
def test_help(script: Path):
    done = subprocess.run([script, "--help"], env=clean_environment(), text=True, capture_output=True, timeout=60)
    assert done.returncode == 0 and f"slurm/{script.name} CONFIG" in done.stdout and "SBATCH" not in done.stdout
