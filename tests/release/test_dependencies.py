"""What the package imports is what pyproject.toml promises its users: none of it only comes with `make dev`."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
USERS_EXTRAS = ("webdataset", "deepspeed", "horovod", "wandb", "export")
BROUGHT = {"huggingface-hub": "transformers", "markupsafe": "jinja2", "triton": "torch"}  # triton: by its CUDA builds
# Where it is missing, the command that needs it says how to install it.
ASKED_FOR = {"tnr_dist/bench/metrics.py": "scikit-learn"}


def project_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")


def imported() -> dict[str, set[str]]:
    """Top-level name of another project's package -> the modules of tnr_dist that import it, at any place in them."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tnr_dist").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            # `_typeshed` is known to type checkers alone.
            for name in (
                {one.partition(".")[0] for one in names} - set(sys.stdlib_module_names) - {"tnr_dist", "_typeshed"}
            ):
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_import_is_a_dependency_or_of_an_extra_for_users():
    promised = {project_name(one) for one in PROJECT["dependencies"]}
    for extra in USERS_EXTRAS:
        promised |= {project_name(one) for one in PROJECT["optional-dependencies"][extra]}
    installed = packages_distributions()
    found = imported()
    assert {"torch", "numpy", "yaml"} <= set(found)
    for name, modules in found.items():
        projects = {BROUGHT.get(one, one) for one in map(project_name, installed.get(name, [name]))}
        for module in modules:
            assert projects & (promised | {ASKED_FOR.get(module)}), f"{module}: {name} ({', '.join(projects)})"


def test_every_dependency_is_imported():
    installed = packages_distributions()
    found = {project_name(one) for name in imported() for one in installed.get(name, [])}
    assert not {project_name(one) for one in PROJECT["dependencies"]} - found


def test_every_requirement_is_pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {project_name(line) for line in lines if line and not line.startswith("#")}
    wanted = list(PROJECT["dependencies"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        wanted += [] if extra == "horovod" else requirements
    assert not {project_name(one) for one in wanted} - pinned - {"tnr-dist"}


def test_the_short_lane_names_tests_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    named = re.search(r"^SHORT := (.*)$", makefile, re.M)
    assert named and len(named[1].split()) > 5
    assert not [name for name in named[1].split() if not (ROOT / name).exists()]
