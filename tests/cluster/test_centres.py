"""The examples of docs/centres.md: what they set exists, and slurm/pipeline.sh makes of it the options that they say."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cluster.harness import ROOT, clean_environment

PAGE = (ROOT / "docs" / "centres.md").read_text(encoding="utf-8")
FILES = re.findall(r'^```bash title="([^"]+)"\n(.*?)^```$', PAGE, re.M | re.S)
EXAMPLES = [text for name, text in FILES if name == "slurm/env.local.sh"]
SETUPS = {name: text for name, text in FILES if name != "slurm/env.local.sh"}
OPTIONS = {
    "ACCOUNT": "account",
    "PARTITION": "partition",
    "QOS": "qos",
    "CONSTRAINT": "constraint",
    "NODES": "nodes",
    "GPUS_PER_NODE": "gpus-per-node",
    "GRES": "gres",
    "RANKS_PER_NODE": "ntasks-per-node",
    "CPUS_PER_RANK": "cpus-per-task",
    "MEM": "mem",
    "TIME": "time",
}
# Programs of a centre that this machine lacks. A container command is everything before `python`.
CONTAINER = '#!/bin/bash\nwhile [ "$1" != python ]; do shift; done\nexec "$@"\n'
CONDA = '#!/bin/bash\n[ "$*" = "info --base" ] && echo "${0%/bin/conda}"\n'


def settings(text: str) -> dict[str, str]:
    """The TNR variables that an example sets, without the prefix."""
    found = re.findall(r"^TNR_(\w+)=(.*)$", text, re.M)
    return {name: shlex.split(value)[0] if value else "" for name, value in found}


@pytest.fixture
def centre(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder for an example, and the environment of a login node with modules, conda and containers."""
    programs = tmp_path / "bin"
    (tmp_path / "etc" / "profile.d").mkdir(parents=True)
    (tmp_path / "etc" / "profile.d" / "conda.sh").write_text("conda() { :; }\n")
    programs.mkdir()
    for name, text in {"shifter": CONTAINER, "podman-hpc": CONTAINER, "conda": CONDA}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = clean_environment(HOME=tmp_path, USER="me", PYTHONPATH=ROOT)
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    environment["BASH_FUNC_module%%"] = "() { :; }"
    return tmp_path, environment


def name_of(example: str) -> str:
    """The heading that an example stands under."""
    before = PAGE[: PAGE.index(example)]
    return re.findall(r"^##+ (.*)$", before, re.M)[-1]


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_an_example_gives_the_options_that_it_says(example, centre):
    folder, environment = centre
    for name, text in SETUPS.items():
        path = folder / Path(name).name
        path.write_text(text.replace("/shared/news", str(folder)).replace("/tmp/", f"{folder}/"))
    file = folder / "centre.sh"
    file.write_text(re.sub(r"^TNR_SETUP=.*/", f"TNR_SETUP={folder}/", example, flags=re.M))
    environment["TNR_ENV"] = str(file)
    command = [ROOT / "slurm" / "pipeline.sh", ROOT / "configs" / "demo.yaml", "--dry-run"]
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    jobs = {}
    for line in done.stdout.splitlines():
        words = shlex.split(line)
        if words and words[0] == "sbatch":
            options = dict(word.lstrip("-").partition("=")[::2] for word in words if word.startswith("--"))
            jobs[options["job-name"].removeprefix("tnr-")] = (options, words)
    assert {"prepare", "stage2-2", "evaluate-2"} <= set(jobs)
    asked, kinds = settings(example), {"prepare": "prepare", "evaluate": "evaluate-2"}
    for name, option in OPTIONS.items():
        if name in asked:
            assert jobs["stage2-2"][0][option] == asked[name], option
        for kind, job in kinds.items():
            if f"{name}_{kind}" in asked:
                assert jobs[job][0][option] == asked[f"{name}_{kind}"], (option, job)
    for further in re.findall(r"^sbatch_options=\((.*)\)$", example, re.M):
        image = re.findall(r"^image=(.*)$", example, re.M)
        for word in shlex.split(further.replace("$image", *image) if image else further):
            assert word in jobs["stage2-2"][1]


def test_every_variable_of_the_page_exists():
    known = set(re.findall(r"^(TNR_\w+)=", (ROOT / "slurm" / "env.sh").read_text(), re.M)) | {"TNR_ENV"}
    named = set(re.findall(r"\bTNR_\w+", PAGE)) - {"TNR_"}
    kinds = "|".join(path.stem for path in (ROOT / "slurm").glob("*.sh"))
    unknown = {name for name in named if name not in known and re.sub(rf"_({kinds})$", "", name) not in known}
    assert not unknown


def test_the_shell_of_the_page_parses():
    for name, text in FILES:
        done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
        assert done.returncode == 0, (name, done.stderr)
    for text in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S):
        done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
        assert done.returncode == 0, (text, done.stderr)


def test_the_setup_file_links_to_the_shared_data_where_there_is_no_job(tmp_path):
    text = SETUPS["/shared/news/scratch.setup.sh"].replace("/tmp/", f"{tmp_path}/")
    subprocess.run(["bash", "-euc", text], env=clean_environment(USER="me"), check=True, timeout=60)
    assert (tmp_path / "mind-me").readlink() == Path("/shared/news/mind_large/data")


def test_the_setup_file_copies_the_data_to_the_nodes_disk_in_a_job(tmp_path):
    shared, disk, programs = tmp_path / "shared", tmp_path / "disk", tmp_path / "bin"
    for folder in (shared / "mind_large" / "data" / "train", disk, programs):
        folder.mkdir(parents=True)
    (shared / "mind_large" / "data" / "train" / "shard").write_text("clicks")
    srun = programs / "srun"
    srun.write_text('#!/bin/bash\nwhile [[ $1 = --* ]]; do shift; done\nexec "$@"\n')
    srun.chmod(0o755)
    text = SETUPS["/shared/news/scratch.setup.sh"].replace("/tmp/", f"{tmp_path}/").replace("/shared/news", str(shared))
    environment = clean_environment(USER="me", SLURM_JOB_ID=1, SLURM_JOB_NUM_NODES=1, TMPDIR=disk)
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    for _ in range(2):  # a job that is requeued to the same node copies again
        subprocess.run(["bash", "-euc", text], env=environment, check=True, timeout=60)
    assert (tmp_path / "mind-me").readlink() == disk / "mind"
    assert (tmp_path / "mind-me" / "train" / "shard").read_text() == "clicks"
    (shared / "mind_large").rename(shared / "gone")
    done = subprocess.run(["bash", "-euc", f"{text}\ntrue"], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 2  # a job goes no further without its data
