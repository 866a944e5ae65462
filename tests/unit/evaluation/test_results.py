"""results.json and baselines.json: every value of its kind, or one line."""

import pytest

from tnr_dist.evaluation.results import read_baselines, read_results
from tnr_dist.util.digests import write_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json, write_json

SOUND = {
    "stage": "stage2", "split": "dev", "auc": 0.5, "mrr": 0, "impressions": 3, "tied": 0.0, "seed": 0, "seconds": 1.5,
    "model": {"layers": 2, "parameters": 10, "more": "of a later version"}, "news_per_s": None,
    "made_from": {"run": "a", "data": "b", "history": 50}, "more": ["of a later version"],
}  # fmt: skip


def test_sound_files_are_read(tmp_path):
    write_json(tmp_path / "results.json", SOUND)
    assert read_results(tmp_path / "results.json") == SOUND
    rows = {"random": {"auc": 0.5, "impressions": 3}}
    write_sealed(tmp_path / "baselines.json", {"made_from": {}, "rows": rows})
    assert read_baselines(tmp_path / "baselines.json") == rows


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("auc", "0.5", r"auc='0\.5': not a number"),
        ("auc", float("nan"), "auc='nan': not a number"),
        ("auc", 10**400, "auc='1000.*': not a number"),
        ("seed", True, "seed='True': not a whole number"),
        ("impressions", 3.5, "impressions='3.5': not a whole number"),
        ("model", [2], r"model='\[2\]': not an object"),
        ("model", {"layers": [2]}, r"model\.layers='\[2\]': not a whole number"),
        ("made_from", {"run": 7}, r"made_from\.run='7': not text"),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path, key, value, says):
    import json

    (tmp_path / "results.json").write_text(json.dumps({**SOUND, key: value}))
    with pytest.raises(InputError, match=rf"results\.json: {says}"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize("rows", [None, [], {"random": 3}, {"random": {"auc": "x"}}])
def test_damaged_baselines_are_named(tmp_path, rows):
    write_json(tmp_path / "baselines.json", {"rows": rows})
    with pytest.raises(InputError, match=r"baselines\.json: rows"):
        read_baselines(tmp_path / "baselines.json")


def test_an_edited_figure_is_noticed(tmp_path):
    path = tmp_path / "results.json"
    write_sealed(path, SOUND)
    text = path.read_text()
    path.write_text(text.replace('"auc": 0.5', '"auc": 0.6'))
    assert read_json(path)["auc"] == 0.6
    with pytest.raises(InputError, match="its own digest differs"):
        read_results(path)
