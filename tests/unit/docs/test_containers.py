"""The recipes of containers/ install what constraints.txt says, from files that exist, and agree with each other."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "containers" / "Dockerfile").read_text(encoding="utf-8")
DEFINITION = (ROOT / "containers" / "tnr.def").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def copied() -> list[str]:
    """What the Dockerfile takes from the checkout."""
    return [name for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.M) for name in line.split()[:-1]]


def section(name: str) -> str:
    return DEFINITION.partition(f"\n%{name}\n")[2].partition("\n%")[0]


def test_what_is_copied_exists_and_is_not_ignored():
    assert "constraints.txt" in copied() and "tnr_dist" in copied()
    for name in copied():
        assert (ROOT / name).exists() and f"!{name}" in IGNORED
    assert IGNORED[1] == "*"  # settings of a cluster, runs, data and the history stay outside


def test_both_copy_the_same():
    taken = dict(line.split() for line in section("files").splitlines() if line.strip())
    assert sorted(taken) == sorted(copied())
    assert all(target == f"/opt/tnr/{name}" for name, target in taken.items())


def test_every_installation_is_held_to_the_constraints():
    for recipe in (DOCKERFILE.replace("\\\n", " "), section("post")):
        commands = re.findall(r"pip install ([^&\n]*)", recipe)
        assert len(commands) >= 3
        # The project itself, of which all dependencies are there already.
        named = [one for one in commands if "--force-reinstall /opt/tnr" not in one]
        assert all("-c /opt/tnr/constraints.txt" in one for one in named), named


def test_both_install_the_same_packages():
    packages = re.search(r"apt-get install .*?--no-install-recommends\s+(?:\\\n)?\s*([^&\n]*)", DOCKERFILE, re.S)
    also = re.search(r"apt-get install .*?--no-install-recommends\s+(?:\\\n)?\s*([^&\n]*)", section("post"), re.S)
    assert packages and also and packages[1].rstrip(" \\").split() == also[1].split()
    extras = re.findall(r"/opt/tnr\[([\w,]+)\]", DOCKERFILE + DEFINITION)
    assert len(extras) == 2 and extras[0] == extras[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras[0].split(",")) <= set(project["optional-dependencies"])


def test_the_image_runs_as_another_user_than_root():
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.M)[-1] == "1000:1000"


def test_no_recipe_holds_a_key():
    for recipe in (DOCKERFILE, DEFINITION):
        assert not re.search(r"(?i)token|api_?key|secret|password", recipe)
