"""Every shipped configuration loads, says what it is for, and those of the paper hold the paper's numbers."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tnr_dist.cli import app
from tnr_dist.config import get, to_dict
from tnr_dist.config_file import load_config
from tnr_dist.reproduce.paper import TABLE2

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
PAPER = [path for path in FILES if path.parent.name == "paper"]


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def test_they_are_found():
    assert {name(path) for path in FILES} >= {
        "demo.yaml", "feeds.yaml", "mind_large.yaml", "mind_small.yaml", "paper/table2.yaml", "paper/feeds_table2.yaml",
        "paper/published_code.yaml",
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
    expected = TABLE3 if path.stem == "published_code" else TABLE3 | THE_PAPERS_FORM
    assert {key: get(config, key) for key in expected} == expected


@pytest.mark.parametrize(("file", "data"), [("table2", "mind"), ("feeds_table2", "feeds")])
def test_all_rows_of_table2(file, data):
    config = load_config(CONFIGS / "paper" / f"{file}.yaml")
    assert [row.name for row in config.rows] == list(TABLE2[data]) and config.reproduce.paper == data
    for row in config.rows:
        size = int(row.name.split("-")[-1].split()[0])
        assert row.layers == (0 if size == 12 else size)
    # Equal training on clicks for all that is compared.
    for section in ("finetune", "stage2", "newsbert", "tinybert.prediction"):
        for key in ("batch_size", "epochs", "max_steps", "trainable_layers"):
            assert get(config, f"{section}.{key}") == get(config, f"finetune.{key}"), (section, key)


def test_the_published_codes_form():
    config = load_config(CONFIGS / "paper" / "published_code.yaml")
    assert config.post_train.keep_models == config.stage1.teachers == config.finetune.teachers == 4
    assert config.finetune.teachers_by == "checkpoints" and config.model.history_padding == "learned"
    assert config.stage2.share_projection and not config.stage2.learn_omega and config.stage2.beta2 == 0.2
