"""The software of the scripts: modules, a file to source, containers; with stand-ins, and in jobs of a real Slurm."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.harness import ROOT, clean_environment

SETTINGS = "synth: {news: 200, users: 60, impressions: 200, dev_impressions: 50, test_impressions: 50}\n"


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Site:
    """A checkout without .venv, on a machine whose Python is reached by `module load`, by a file to source, or in a container."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "checkout"
        for name in ("slurm", "launch", "configs", "tnr_dist"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__", "env.local.sh"))
        self.config = folder / "c.yaml"
        self.config.write_text(f"output: {folder}/runs\ndata: {{dir: {folder}/data}}\n{SETTINGS}")
        python = f'#!/bin/sh\nPYTHONPATH="{self.root}" exec {sys.executable}'
        executable(folder / "python" / "python", f'{python} "$@"\n')
        executable(folder / "python" / "tnr", f'{python} -m tnr_dist.cli.app "$@"\n')
        # Defines the function, as the start file of Environment Modules and of Lmod does; `$1` is not ours to be seen.
        executable(
            folder / "modules" / "init" / "bash",
            f"""[ $# = 0 ] || echo "the start file was given $*" >&2
            : "$ONE_THAT_IS_NOT_SET"
            false
            module() {{ if [ "$2" = Python/3.11 ]; then PATH={folder}/python:$PATH; else echo "no module $2" >&2; return 1; fi; }}
            """,
        )
        # Everything of the machine's own programs but Python.
        (folder / "bin").mkdir()
        for place in ("/usr/sbin", "/usr/bin", "/bin"):
            for program in Path(place).iterdir():
                link = folder / "bin" / program.name
                if "python" not in program.name and not link.is_symlink():
                    link.symlink_to(program)

    def environment(self, **settings: object) -> dict[str, str]:
        environment = clean_environment(MODULESHOME=self.folder / "modules", TNR_LOGS=self.folder / "logs", **settings)
        environment.pop("PYTHONPATH", None)
        return environment | {"PATH": str(self.folder / "bin")}

    def script(self, name: str, *arguments: object, **settings: object) -> "subprocess.CompletedProcess[str]":
        command = [str(self.root / "slurm" / name), *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.root, env=self.environment(**settings), text=True, capture_output=True, timeout=120
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("site"))


def one_line(done):
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("script", ["pipeline.sh", "stage2.sh", "prepare.sh"])
def test_without_an_environment_one_line_says_what_to_set(site, script):
    executable(site.folder / "slurm" / "sbatch", "#!/bin/sh\necho submitted\n")
    done = site.script(script, site.config, *(["--dry-run"] if script == "pipeline.sh" else []))
    assert "there is no python here; set TNR_MODULES, TNR_SETUP or TNR_CONTAINER" in one_line(done)
    assert done.stdout == ""


def test_inside_a_job_too(site):
    job = {"SLURM_JOB_ID": 7, "SLURM_JOB_NAME": "tnr-stage2", "SLURM_JOB_NODELIST": "node1"}
    assert "there is no python here" in one_line(site.script("stage2.sh", site.config, **job))


def test_a_python_without_the_program_is_named(site, tmp_path):
    executable(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (tmp_path / "setup").write_text(f"PATH={tmp_path}:$PATH\n")
    said = one_line(site.script("pipeline.sh", site.config, "--dry-run", TNR_SETUP=tmp_path / "setup"))
    assert "has no tnr_dist; set TNR_MODULES" in said


def test_modules_come_first_where_the_shell_has_no_module_yet(site):
    done = site.script("pipeline.sh", site.config, "--dry-run", TNR_MODULES="Python/3.11")
    assert done.returncode == 0 and done.stdout.count("sbatch") > 5 and done.stderr == "", done.stderr


def test_a_module_that_there_is_not(site):
    done = site.script("pipeline.sh", site.config, "--dry-run", TNR_MODULES="Python/2.7")
    assert done.returncode == 2 and "module load Python/2.7 failed" in done.stderr and done.stdout == ""


def test_a_file_to_source_needs_not_follow_our_shell_options(site, tmp_path):
    (tmp_path / "setup").write_text(
        f'[ $# = 0 ] || exit 9\n: $NOT_SET\nfalse\nfalse | true\nexport PATH="{site.folder}/python:$PATH"\nfalse\n'
    )
    done = site.script("pipeline.sh", site.config, "--dry-run", TNR_SETUP=tmp_path / "setup")
    assert done.returncode == 0 and "tnr-report" in done.stdout, done.stderr
    missing = site.script("pipeline.sh", site.config, "--dry-run", TNR_SETUP=tmp_path / "none")
    assert "no such file" in one_line(missing)


def test_a_container_answers_the_questions(site):
    executable(
        site.folder / "bin" / "apptainer",
        f'#!/bin/sh\n[ "$1 $2 $3" = "exec --nv tnr.sif" ] || exit 1\nshift 3\nPATH={site.folder}/python:$PATH exec "$@"\n',
    )
    done = site.script("pipeline.sh", site.config, "--dry-run", TNR_CONTAINER="tnr.sif")
    assert done.returncode == 0 and "tnr-report" in done.stdout, done.stderr
    (site.folder / "bin" / "apptainer").unlink()
    assert "no apptainer here" in one_line(site.script("pipeline.sh", site.config, "--dry-run", TNR_CONTAINER="a.sif"))


@pytest.fixture
def srun_container(site):
    """Pyxis: there is no Python outside of srun, which starts the container. Yields what srun was given."""
    calls = site.folder / "calls"
    executable(
        site.folder / "bin2" / "srun",
        f"""#!/bin/bash
        echo "$*" >>{calls}
        while [[ $1 = --* ]]; do shift; done
        PATH={site.folder}/python:$PATH exec "$@"
        """,
    )
    executable(site.folder / "bin2" / "scontrol", "#!/bin/sh\necho node1\n")
    own = site.root / "slurm" / "env.local.sh"
    own.write_text('srun_options=(--container-image=tnr.sqsh)\nPATH="${0%/checkout/*}/bin2:$PATH"\n')
    yield calls
    own.unlink()


def test_questions_are_asked_in_the_container_that_srun_starts(site, srun_container):
    job = {"SLURM_JOB_ID": 7, "SLURM_JOB_NAME": "tnr-finetune", "SLURM_JOB_NODELIST": "node1"}
    done = site.script("finetune.sh", site.config, "finetune.teacher=1", **job)
    calls = [line for line in srun_container.read_text().splitlines() if line.startswith("--")]
    assert all("--container-image=tnr.sqsh" in call for call in calls) and len(calls) == 3, done.stderr
    assert "steps.py teachers 0 1" in calls[1] and "--nodes=1 --ntasks=1" in calls[1]
    assert "tnr finetune" in calls[2] and calls[2].endswith("finetune.teacher=1")


def test_where_one_submits_the_container_may_start_otherwise(site, srun_container, tmp_path):
    assert "there is no python here" in one_line(site.script("pipeline.sh", site.config, "--dry-run"))
    own = site.root / "slurm" / "env.local.sh"
    own.write_text(own.read_text() + f"login=({site.folder}/bin2/srun --immediate)\n")
    done = site.script("pipeline.sh", site.config, "--dry-run")
    assert done.returncode == 0 and "tnr-report" in done.stdout, done.stderr


def test_settings_of_ones_own_file_and_of_the_environment(site, tmp_path):
    own = site.root / "slurm" / "env.local.sh"
    own.write_text("TNR_MODULES=Python/3.11\nTNR_PARTITION=gpu\nTNR_GRACE=60\nsbatch_options=(--exclusive)\n")
    other = tmp_path / "other cluster.sh"
    other.write_text("TNR_MODULES=Python/3.11\nTNR_PARTITION=other\n")
    try:
        for settings, wanted in (
            ({}, ["--partition=gpu", "@60", "--exclusive"]),
            ({"TNR_PARTITION": "mine"}, ["--partition=mine", "@60"]),
            ({"TNR_PARTITION": ""}, ["@60"]),
            ({"TNR_ENV": other}, ["--partition=other", "@120"]),
        ):
            done = site.script("pipeline.sh", site.config, "--dry-run", **settings)
            assert done.returncode == 0 and all(one in done.stdout for one in wanted), (settings, done.stderr)
        assert "--partition" not in site.script("pipeline.sh", site.config, "--dry-run", TNR_PARTITION="").stdout
    finally:
        own.unlink()


def shell(text, **environment):
    """The last line of a piece of bash that has sourced common.sh."""
    command = f'cd "{ROOT}/slurm"; . ./common.sh; {text}'
    done = subprocess.run(
        ["bash", "-c", command, "x.sh"],
        env=clean_environment(**environment),
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "address"),
    [({}, "node1"), ({"TNR_MASTER_SUFFIX": "i"}, "node1i"), ({"MASTER_ADDR": "10.0.0.7", "TNR_MASTER_SUFFIX": "i"}, "10.0.0.7")],
)  # fmt: skip
def test_where_the_ranks_meet_is_the_users_to_say(environment, address):
    text = 'scontrol() { echo node1; }; SLURM_JOB_NODELIST=node1; set_meeting_point; bash -c "echo \\$MASTER_ADDR"'
    assert shell(text, **environment) == address


def test_a_job_without_an_environment_passes_on_what_it_has():
    text = "unset HOME; export -n PATH; SLURM_JOB_ID=1; apply_environment; env | grep -cE '^(HOME|PATH|SLURM_EXPORT_ENV=ALL$)'"
    assert shell(text, SLURM_EXPORT_ENV="NONE") == "3"


def submit(cluster, site, *command, **settings):
    """Run a script of the site on the cluster's login node."""
    environment = site.environment(**settings)
    full = [str(cluster.folder / "in"), *map(str, command)]
    return subprocess.run(full, cwd=site.root, env=environment, text=True, capture_output=True, timeout=120)


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize("export", ["", "NONE"])
def test_a_job_whose_python_comes_from_a_module(cluster, export):
    """Nothing but TNR_MODULES says where Python is, on the login node and in the job, with the caller's environment and without."""
    site = Site(cluster.work / f"site{export}")
    own = site.root / "slurm" / "env.local.sh"
    # What a site's profile sets in every shell.
    own.write_text(f"MODULESHOME={site.folder}/modules\nTNR_LOGS={site.folder}/logs\nTNR_TIME=5\n")
    settings = {"TNR_MODULES": "Python/3.11", **({"SBATCH_EXPORT": export} if export else {})}
    done = submit(cluster, site, "slurm/prepare.sh", site.config, **settings)
    assert done.returncode == 0 and re.fullmatch(r"\d+\n", done.stdout), done.stderr
    records = cluster.wait(int(done.stdout))
    log = "\n".join(path.read_text() for path in sorted((site.folder / "logs").rglob("*")) if path.is_file())
    assert records[0]["JobState"] == "COMPLETED", log
    assert (site.folder / "data" / "manifest.json").is_file()
    done = submit(cluster, site, "slurm/doctor.sh", site.config, TNR_NODES=2, **settings)
    assert cluster.wait(int(done.stdout))[0]["JobState"] == "COMPLETED", log
    # The plain form, with an environment that has nothing of this.
    plain = (
        "sbatch",
        "--parsable",
        "--time=5",
        "--export=NONE",
        f"--output={site.folder}/logs/plain.out",
        "slurm/doctor.sh",
    )
    own.write_text(own.read_text() + "TNR_MODULES=Python/3.11\nTNR_PARTITION=gpu\n")
    done = submit(cluster, site, *plain, site.config)
    record = cluster.wait(int(done.stdout))[0]
    said = (site.folder / "logs" / "plain.out").read_text()
    assert record["JobState"] == "COMPLETED", said
    assert "these settings are not used: TNR_PARTITION=gpu (the job: main)" in said
