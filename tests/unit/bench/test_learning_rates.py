"""`benchmarks/learning_rates.py`: one grid for all methods, the best point of each, runs that are made once."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tnr_dist.config.schema import get
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.targets import row_config
from tnr_dist.util.errors import InputError

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks" / "learning_rates.py"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        spec = importlib.util.spec_from_file_location("learning_rates", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look there
        spec.loader.exec_module(module)
    yield module
    del sys.modules["learning_rates"], sys.modules["common"]


def test_every_training_on_clicks_of_a_method_gets_the_rate_and_nothing_else_changes(script):
    config = load_config(ROOT / "benchmarks" / "quality.yaml")
    trainings = ("finetune", "stage2", "newsbert", "tinybert.general", "tinybert.intermediate", "tinybert.prediction")
    expected = {
        "finetune": {"finetune"},
        "teacher": {"finetune"},
        "tinybert": {"tinybert.intermediate", "tinybert.prediction"},
        "newsbert": {"newsbert"},
        "tiny-newsrec": {"stage2"},
    }
    tried = script.methods(config, 2)
    assert [one.name for one in tried] == [
        *("PLM-NR-6 (FT)", "PLM-NR-6 (DP)", "PLM-NR-2 (FT)", "TinyBERT-2", "NewsBERT-2", "Tiny-NewsRec-2")
    ]
    for method in tried:
        one = row_config(config, script.point(method, 7e-4, 10.0))
        changed = {name for name in trainings if get(one, name) != get(config, name)}
        assert changed == expected[method.method]
        assert all((get(one, f"{name}.lr"), get(one, f"{name}.head_lr")) == (7e-4, 7e-3) for name in changed)
        assert one.student.layers == (method.layers or config.student.layers)
    config.tinybert.form = "joint"
    assert script.methods(config, 2)[3].sections == ("tinybert.joint",)


def test_the_best_is_the_highest_mean_of_the_points_with_all_seeds(script):
    def one(method, rate, *auc):
        return {"method": method, "lr": rate, "head_lr": 10 * rate, "auc": list(auc), "seeds": list(range(len(auc)))}

    points = [
        one("A", 1e-4, 0.5, 0.6), one("A", 2e-4, 0.7, 0.5), one("A", 4e-4, 0.9),
        one("B", 1e-4, 0.5, 0.5), one("B", 2e-4, 0.6, 0.6), one("B", 4e-4, 0.7, 0.7),
        one("C", 1e-4), one("C", 2e-4), one("C", 4e-4),
    ]  # fmt: skip
    grid = [1e-4, 2e-4, 4e-4]
    found = script.best(points, grid)
    assert [(top["method"], top["lr"], top["at_an_end_of_the_grid"]) for top in found] == [
        ("A", 2e-4, False),
        ("B", 4e-4, True),
    ]
    assert [top["auc"] for top in found] == pytest.approx([0.6, 0.7])
    facts = {"date": "", "commit": "", "cpu": "", "command": "x", "split": "dev", "seeds": 2, "head_ratio": 10.0}
    facts |= {"grid": grid, "points": points, "best": found, "failed": {"runs/x": "FloatingPointError"}}
    text = script.page(facts)
    assert "| A | 55.00 | **60.00** | 90.00 | 0.0002 |" in text
    assert "| B | 50.00 | 60.00 | **70.00** | 0.0004 (an end of the grid) |" in text
    assert "| C | failed | failed | failed | - |" in text and "- runs/x: FloatingPointError" in text


@pytest.mark.parametrize("text", ["1e-4", "1e-4,", "0,1e-4", "fast,slow", "1e-4,nan", "1e-4,2"])
def test_a_grid_is_two_or_more_rates(script, text):
    with pytest.raises(InputError, match="--grid"):
        script.rates(text)
    assert script.rates("8e-4,1e-4,8e-4") == [1e-4, 8e-4]


def test_a_size_that_is_no_students_is_refused(script):
    config = load_config(ROOT / "benchmarks" / "quality.yaml")
    for size in (0, 6):
        with pytest.raises(InputError, match=f"--size {size}: a student of 1 to 5 layers"):
            script.methods(config, size)


TINY = """
output: {root}/runs
threads: 1
precision: fp32
synth: {{news: 200, users: 150, impressions: 400, dev_impressions: 100, test_impressions: 20, bodies: true, body_words: 30}}
data: {{dir: {root}/data, title_tokens: 16, body_tokens: 24, history: 10}}
plm: {{name: {plm}}}
model: {{news_dim: 16, query_dim: 8}}
post_train: &matching {{batch_size: 16, max_steps: 2, negatives: 3, lr: 1e-3, title_tokens: 16, body_tokens: 24}}
stage1: *matching
finetune: {{teachers: 2, <<: &clicks {{batch_size: 32, max_steps: 2, lr: 1e-3, head_lr: 1e-3}}}}
newsbert: *clicks
tinybert:
  general: {{batch_size: 16, max_steps: 2, title_tokens: 16, body_tokens: 24}}
  intermediate: *clicks
  prediction: *clicks
stage2: *clicks
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute on two idle cores
def test_a_sweep_is_made_once_and_grows(tiny_plm, tmp_path):
    """Tiny models: the grid is trained and scored, a second sweep trains nothing but the point that it adds."""
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.format(root=tmp_path, plm=tiny_plm))
    command = [sys.executable, str(SCRIPT), "--config", str(config), "--size", "1", "--out", str(tmp_path), "--json"]

    def sweep(grid):
        done = subprocess.run([*command, "--grid", grid], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = sweep("1e-3,3e-3")
    assert len(first["points"]) == 12 and len(first["best"]) == 6 and first["failed"] == {}
    assert all(len(one["auc"]) == 1 and 0 < one["auc"][0] < 1 for one in first["points"])
    assert json.loads((tmp_path / "learning-rates.json").read_text()) == first
    assert "| Tiny-NewsRec-1 |" in (tmp_path / "learning-rates.md").read_text()
    marks = {path: path.read_text() for path in (tmp_path / "runs").rglob("complete.json")}
    second = sweep("1e-3,3e-3,9e-3")
    assert [one for one in second["points"] if one["lr"] < 5e-3] == first["points"]
    again = {path: path.read_text() for path in (tmp_path / "runs").rglob("complete.json")}
    assert {path: again[path] for path in marks} == marks and len(again) == len(marks) + 7  # TinyBERT's two trainings
