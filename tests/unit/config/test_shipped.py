"""Every shipped configuration loads, says what it is for, and those of the paper hold the paper's numbers."""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tnr_dist.cli.app import app
from tnr_dist.config.schema import Config, get, to_dict
from tnr_dist.reproduce.paper import TABLE2
from tnr_dist.stages.methods import Tree, load_config
from tnr_dist.stages.targets import row_config

CONFIGS = Path(__file__).parents[3] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
PAPER = [path for path in FILES if path.parent.name == "paper"]


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def test_they_are_found():
    assert {name(path) for path in FILES} >= {
        "demo.yaml", "feeds.yaml", "mind_large.yaml", "mind_small.yaml", "paper/table2.yaml", "paper/feeds_table2.yaml",
        "paper/first_release.yaml", "paper/later_release.yaml", "paper/table2_authors_baselines.yaml",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_shipped_configuration_loads_and_prints(path, tmp_path):
    config = load_config(path)
    printed = CliRunner().invoke(app, ["run", str(path), "--print-config"])
    assert printed.exit_code == 0, printed.output
    again = tmp_path / "again.yaml"
    again.write_text(printed.output)
    assert to_dict(load_config(again)) == to_dict(config)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_its_header_says_how_to_run_it_and_what_to_expect(path):
    lines = path.read_text().splitlines()
    header = "\n".join(line for line in lines[: next(i for i, x in enumerate(lines) if not x.startswith("#"))])
    for word in ("Command:", "Hardware:"):
        assert word in header
    assert re.search(r"\d GiB", header), "memory, where hardware is stated"
    assert f"configs/{name(path)}" in header
    assert "Time:" in header or "took" in header or "paper used" in header
    assert "Expected:" in header or "Result:" in header


# Table 3 of the paper, and its appendix for lengths and layers.
TABLE3 = {
    "model.query_dim": 200,
    "model.news_dim": 256,
    "post_train.betas": [0.9, 0.999],
    "finetune.betas": [0.9, 0.999],
    "stage2.betas": [0.9, 0.999],
    "post_train.eps": 1e-8,
    "finetune.eps": 1e-8,
    "stage2.eps": 1e-8,
    "post_train.negatives": 9,
    "stage1.negatives": 9,
    "post_train.batch_size": 32,
    "post_train.lr": 1e-6,
    "post_train.title_tokens": 24,
    "post_train.body_tokens": 512,
    "post_train.trainable_layers": 3,
    "data.negatives": 4,
    "data.history": 50,
    "data.title_tokens": 30,
    "data.news_inputs": ["title"],
    "finetune.batch_size": 32 * 4,
    "finetune.lr": 5e-5,
    "finetune.trainable_layers": 2,
    "finetune.teachers": 4,
    "stage1.trainable_layers": 2,
    "stage1.temperature": 1.0,
    "stage1.beta1": 1.0,
    "stage2.trainable_layers": 2,
    "stage2.temperature": 1.0,
    "stage2.omega": 1.0,
}
THE_PAPERS_FORM = {
    "seeds": 5,
    "stage2.lr": 5e-5,
    "finetune.teachers_by": "seeds",
    "stage1.teachers": 1,
    "stage2.beta2": 0.1,
    "stage2.learn_omega": True,
    "stage2.share_projection": False,
    "stage2.init": "stage1",
    "model.history_padding": "mask",
    "finetune.amsgrad": False,
}


@pytest.mark.parametrize("path", PAPER, ids=name)
def test_the_papers_table3(path):
    config = load_config(path)
    expected = TABLE3 if path.stem in RELEASES else TABLE3 | THE_PAPERS_FORM
    assert {key: get(config, key) for key in expected} == expected


@pytest.mark.parametrize(("file", "data"), [("table2", "mind"), ("feeds_table2", "feeds")])
def test_all_rows_of_table2(file, data):
    config = load_config(CONFIGS / "paper" / f"{file}.yaml")
    assert [row.name for row in config.rows] == list(TABLE2[data]) and config.reproduce.paper == data
    for row in config.rows:
        size = int(row.name.split("-")[-1].split()[0])
        assert row.layers == (0 if size == 12 else size)


COMPARED = [
    *(CONFIGS / "paper" / f"{name}.yaml" for name in ("table2", "feeds_table2", "table2_authors_baselines")),
    *(CONFIGS / "demo_table2.yaml", CONFIGS.parent / "benchmarks" / "quality.yaml"),
]


def test_by_default_all_methods_make_as_many_passes_over_the_clicks():
    assert_equal_passes(load_config(None))


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_what_is_compared_trains_alike_on_clicks(path):
    config = load_config(path)
    assert_equal_passes(config)
    methods = {row.method for row in config.rows} or {"tiny-newsrec"}
    trainings = ["newsbert", "tinybert.intermediate", "tinybert.prediction"]
    trainings += ["stage2"] if "tiny-newsrec" in methods else []
    for section in trainings:
        for key in (
            *("batch_size", "lr", "head_lr", "schedule", "warmup", "clip_norm", "weight_decay"),
            *("trainable_layers", "dropout", "betas", "eps", "amsgrad"),
        ):
            assert get(config, f"{section}.{key}") == get(config, f"finetune.{key}"), (section, key)


def assert_equal_passes(config):
    """The passes over the clicks, and the bounds on steps, of each method beside finetuning's; TinyBERT's by its steps."""
    for key in ("epochs", "max_steps"):
        parts = [get(config, f"tinybert.{part}.{key}") for part in ("intermediate", "prediction")]
        made = {"TinyBERT": sum(parts), "NewsBERT": get(config, f"newsbert.{key}")}
        if config.rows == [] or any(row.method == "tiny-newsrec" for row in config.rows):
            made["stage 2"] = get(config, f"stage2.{key}")
        if any("tinybert.form=joint" in row.set for row in config.rows):
            made["joint"] = get(config, f"tinybert.joint.{key}")
        assert set(made.values()) == {get(config, f"finetune.{key}")}, (key, made)


def test_the_authors_baselines():
    config = load_config(CONFIGS / "paper" / "table2_authors_baselines.yaml")
    rows = {row.name: row_config(config, row) for row in config.rows}
    for size in (4, 2, 1):
        one, other = rows[f"TinyBERT-{size}"], rows[f"TinyBERT-{size} (joint)"]
        assert one.tinybert.form == "steps" and other.tinybert.form == "joint" and other.student.layers == size
        assert other.tinybert.joint.lr == 1e-4 and other.tinybert.joint.target_weight == 0.1
        one, other = rows[f"NewsBERT-{size}"], rows[f"NewsBERT-{size} (vectors)"]
        assert (one.newsbert.match, one.newsbert.target_weight) == ("pooled", 1.0)
        assert (other.newsbert.match, other.newsbert.target_weight) == ("vectors", 0.1)


# The two releases of the authors' code, and the page that has them side by side.
RELEASES = ("first_release", "later_release")
# Of a run here rather than of the method.
NOT_THE_METHODS = {"output", "ranks", "data.dir", "data.input", "plm.name", "rows"}


def release_table() -> list[list[str]]:
    """Cells of docs/method.md's table: what, default, first release, later release."""
    text = (CONFIGS.parent / "docs" / "method.md").read_text(encoding="utf-8")
    rows = text.partition("| what | default |")[2].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def settings_in(cell: str) -> list[str]:
    return re.findall(r"`([a-z0-9_.]+=\S+)`", cell)


@pytest.mark.parametrize("column", [1, 2, 3])
def test_the_page_says_what_each_release_sets(column):
    config = [Tree(), *(load_config(CONFIGS / "paper" / f"{release}.yaml") for release in RELEASES)][column - 1]
    for row in release_table():
        settings = settings_in(row[column])
        assert settings, row
        for setting in settings:
            key, _, value = setting.partition("=")
            wanted = yaml.safe_load(value)
            found = get(config, key)
            assert found == (float(wanted) if isinstance(found, float) else wanted), (row[0], setting)


@pytest.mark.parametrize("release", RELEASES)
def test_the_page_names_every_setting_that_a_release_changes(release):
    ours, theirs = flat(Tree()), flat(load_config(CONFIGS / "paper" / f"{release}.yaml"))
    changed = {key for key, value in theirs.items() if value != ours[key]} - NOT_THE_METHODS
    column = 2 + RELEASES.index(release)
    assert changed <= {setting.partition("=")[0] for row in release_table() for setting in settings_in(row[column])}


def flat(config: Config) -> dict[str, object]:
    def leaves(tree: dict, prefix: str = ""):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]

    return dict(leaves(to_dict(config)))
