"""What the documentation names exists: commands, options, keys, functions, files, links."""

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tnr_dist.config.read import with_overrides
from tnr_dist.stages.methods import Tree
from tnr_dist.util.errors import InputError

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WRITTEN = [page for page in PAGES if page.name != "log.md"]  # the log speaks of what was
FOLDERS = ("benchmarks", "configs", "docs", "launch", "slurm", "tests", "tnr_dist")


def load(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATE, TUTORIAL = load("generate"), load("run_tutorial")


def code_of(page: Path) -> list[str]:
    """Lines of bash blocks (continued ones joined, comments cut off) and inline code."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^\s*```(?:bash)?\n(.*?)^\s*```$", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [*lines, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))]


def tnr_commands() -> list[tuple[str, str]]:
    found = []
    for page in [*WRITTEN, ROOT / "README.md", ROOT / "SECURITY.md"]:
        for line in code_of(page):
            if command := re.search(r"(?:^|\s)tnr ([a-z].*)", line.split(" #")[0].split(" -> ")[0]):
                found.append((page.name, command[1].strip().rstrip("…. ")))
    return found


@pytest.mark.parametrize(("page", "command"), tnr_commands())
def test_every_command_exists(page: str, command: str) -> None:
    words = shlex.split(command.replace("PATH…", "PATH"))
    known = GENERATE.all_commands()
    groups = {name.split()[0] for name in known if " " in name}
    # `tnr data prepare, stats`: several in one.
    if any(word.endswith(",") for word in words[:3]):
        return
    if words[0] in ("NAME", "STAGE", "COMMAND") or (words[0] in groups and len(words) == 1):
        return
    name = " ".join(words[:2]) if words[0] in groups else words[0]
    assert name in known, f"{page}: tnr {command}"
    options = {option for one in GENERATE.parameters_of(known[name]) if one.option for option in one.name.split(", ")}
    rest = words[name.count(" ") + 1 :]
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in {*options, "--help"}, f"{page}: tnr {command}"
    if any(one.name == "[KEY=VALUE]..." for one in GENERATE.parameters_of(known[name])) and name != "bench":
        for word in rest:
            if re.fullmatch(r"[a-z_0-9.]+=\S*", word):
                check_key(page, word)


def check_key(page: str, setting: str) -> None:
    key, _, value = setting.partition("=")
    assert key in KEYS, f"{page}: {setting}"
    if value and not re.search(r"[A-Z]{2}|\.\.\.|…|^[a-z]$|\|", value):
        try:
            with_overrides(Tree(), [setting])
        except InputError as error:
            # A value that only makes sense with another key is no fault of the page.
            assert "expected" not in str(error), f"{page}: {error}"


KEYS = {key.name for key in GENERATE.all_keys()}


def test_every_key_in_code_exists() -> None:
    groups = {key.partition(".")[0] for key in KEYS if "." in key} - {"rows[]"}
    wrong = []
    for page in [*WRITTEN, ROOT / "SECURITY.md"]:
        for code in code_of(page):
            for found in re.finditer(r"(?<![\w./-])([a-z_0-9]+(?:\.[a-z_0-9]+)+)(?==|$|,|\s)", code):
                key = found[1]
                a_file = re.search(r"\.(py|sh|safetensors|md|json|yaml|tsv|zip)$", key)
                if key.split(".")[0] in groups and not a_file and key not in KEYS:
                    wrong.append((page.name, key))
    assert not wrong


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_function_named_exists(page: Path) -> None:
    for code in re.findall(r"`(tnr_dist(?:\.\w+)+)`", page.read_text(encoding="utf-8")):
        module, _, name = code.rpartition(".")
        try:
            importlib.import_module(code)
            continue
        except ImportError:
            pass
        owner: object
        try:
            owner = importlib.import_module(module)
        except ImportError:
            outer, _, inner = module.rpartition(".")
            owner = getattr(importlib.import_module(outer), inner)
        assert hasattr(owner, name), f"{page.name}: {code}"


@pytest.mark.parametrize("page", [*WRITTEN, ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_every_file_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]*[\w/])", text)
    own = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()  # files that a user makes
    missing = [name for name in named if not (ROOT / name).exists() and name not in own]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    assert listed == {page.name for page in PAGES}


def test_the_page_of_plms_has_every_kind_that_loads() -> None:
    from tnr_dist.models.plm import KINDS

    table = GENERATE.on_page_markdown((DOCS / "plms.md").read_text(encoding="utf-8"))
    rows = [line for line in table.splitlines() if line.startswith("| `") and "`model_type`" not in line]
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(row.split("|")[1] for row in rows))) == sorted(KINDS)
    assert all(row.count("|") == 6 for row in rows) and "generated" not in table


def test_the_configuration_page_has_every_key_with_its_default() -> None:
    page = GENERATE.configuration()
    for key in GENERATE.all_keys():
        group, _, leaf = key.name.rpartition(".")
        section = page.partition(f"## {group or 'General'}\n")[2].partition("\n## ")[0]
        assert f"| `{key.name}` |" in section or f"`{leaf}`" in section, key.name
    assert "| `stage2.lr` | number | `5e-05` |" in page
    assert "| `log.keep` | whole number | `2` | rolling checkpoints kept" in page


def test_every_key_has_a_meaning() -> None:
    assert not [key.name for key in GENERATE.all_keys() if not key.meaning.strip()]


def test_the_declared_meaning_of_a_key_or_its_bases_is_shown() -> None:
    meanings = {key.name: key.meaning for key in GENERATE.all_keys()}
    assert "the last L clicked news" in meanings["data.history"]
    assert "activations a rank keeps at a time; beyond" in meanings["stage2.token_budget"]
    assert "both releases of the authors' code" in meanings["stage2.projection_init"]


def test_the_commands_page_has_every_command_and_option() -> None:
    page = GENERATE.commands()
    for name in ("data prepare", "post-train", "stage2", "predict", "bench"):
        assert f"## tnr {name}\n" in page
    assert "| `--title-tokens N` | `30` |" in page
    assert "| `--output PATH` | required |" in page


def test_equations_become_mathml() -> None:
    pytest.importorskip("latex2mathml")
    html = GENERATE.on_page_content(r'<p><span class="arithmatex">\(a &lt; \beta_1\)</span></p>')
    assert "<math" in html and "arithmatex" not in html and "\\" not in html
    block = GENERATE.on_page_content('<div class="arithmatex">\\[\n\\frac{1}{2}\n\\]</div>')
    assert block.startswith('<div class="math"') and "<mfrac>" in block
    with pytest.raises(ValueError, match="nosuch"):
        GENERATE.on_page_content(r'<p><span class="arithmatex">\(\nosuch x\)</span></p>')


def test_every_equation_can_be_converted() -> None:
    pytest.importorskip("latex2mathml")
    for page in WRITTEN:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        blocks = re.findall(r"\$\$(.*?)\$\$", text, re.S)
        for latex in [*blocks, *re.findall(r"\$([^$\n]+)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.S))]:
            GENERATE.on_page_content(rf'<span class="arithmatex">\({latex}\)</span>')
        # A bar inside an equation would end the cell that it stands in.
        cells = [cell for row in text.splitlines() if row.startswith("|") for cell in row.split("|")]
        assert not [cell for cell in cells if cell.count("$") % 2], page.name


def test_links_out_of_the_site_become_words() -> None:
    assert GENERATE.on_page_markdown("see [`results/`](../benchmarks/results) and [log](log.md)") == (
        "see `results/` and [log](log.md)"
    )


def test_tutorial_blocks_are_found_in_order() -> None:
    page = 'a\n```bash\necho 1\n```\n\n```text title="output"\n1\n```\n```yaml title="x.yaml"\na: 1\n```\n'
    blocks = TUTORIAL.blocks_of(page)
    assert [(one.kind, one.title, one.text, one.line) for one in blocks] == [
        ("bash", "", "echo 1\n", 2),
        ("text", "output", "1\n", 6),
        ("yaml", "x.yaml", "a: 1\n", 9),
    ]


@pytest.mark.parametrize(
    ("expected", "printed", "missing"),
    [
        ("a … c\n", "x\na  b  c\n", None),
        ("a\nb\n", "b\na\n", "b"),
        ("(1) *\n", "(1) *\n", None),
        ("rows: …\n", "row: 5\n", "rows: …"),
    ],
)
def test_output_is_compared_loosely(expected: str, printed: str, missing: str | None) -> None:
    assert TUTORIAL.missing_line(expected, printed) == missing


def test_the_tutorial_runs_a_page_and_names_the_line_that_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('```yaml title="f"\nx\n```\n```bash\ncat f\n```\n```text title="output"\nx\n```\n')
    TUTORIAL.run(page, tmp_path)
    page.write_text('```bash\necho 1\n```\n```text title="output"\n2\n```\n')
    with pytest.raises(RuntimeError, match="line 4"):
        TUTORIAL.run(page, tmp_path)
    page.write_text("```bash\nfalse | true\n```\n")
    with pytest.raises(RuntimeError, match="line 1: exit code 1"):
        TUTORIAL.run(page, tmp_path)


def test_python_of_the_pages_parses() -> None:
    for page in WRITTEN:
        for block in TUTORIAL.blocks_of(page.read_text(encoding="utf-8")):
            if block.kind == "python":
                ast.parse(block.text)
