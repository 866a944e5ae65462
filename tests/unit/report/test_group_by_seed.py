"""Which runs are found, and which of them are one result over several seeds."""

import json
from pathlib import Path

import pytest

from tests.unit.report.run_folders import make_config, unfinish, write_experiment
from tnr_dist.config.schema import RowConfig
from tnr_dist.report.group_by_seed import differing, flat, group_runs
from tnr_dist.report.read_runs import find_runs, read_run
from tnr_dist.util.errors import InputError


def labels(*folders: Path) -> list[str]:
    return [group.label for group in group_runs(find_runs(folders))]


def test_runs_are_found_at_any_depth_and_once(tmp_path):
    write_experiment(make_config(tmp_path / "out"))
    (tmp_path / "out/seed-0/stage2-1/checkpoints/12").mkdir(parents=True)
    (tmp_path / "out/data").mkdir()
    (tmp_path / "out/data/manifest.json").write_text("{}")
    (tmp_path / "out/data/begun.json").write_text("{}")  # not looked into: a prepared data set
    (tmp_path / "out/data/begun.json").unlink()
    all_runs = find_runs([tmp_path])
    assert len(all_runs) == 2 * 6  # post-train, 2 teachers, stage 1, cache, stage 2, for each seed
    assert find_runs([tmp_path / "out/seed-0/stage2-1"])[0].stage == "stage2"
    twice = find_runs([tmp_path / "out", tmp_path / "out/seed-0/stage2-1"])
    assert len({run.path for run in twice}) == len(twice) == 12
    assert {run.base for run in all_runs} == {tmp_path / "out"}
    assert {run.seed for run in all_runs} == {0, 1}


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_nothing_to_show_is_one_clear_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name) as error:
        find_runs([tmp_path / name])
    assert "\n" not in str(error.value)


def test_results_of_an_earlier_model_do_not_count(tmp_path):
    write_experiment(make_config(tmp_path))
    run = tmp_path / "seed-0/stage2-1"
    assert read_run(run).results is not None
    done = json.loads((run / "complete.json").read_text())
    (run / "complete.json").write_text(json.dumps(done | {"id": "trained again"}))
    assert read_run(run).results is None


def test_an_unfinished_run_knows_how_far_it_is(tmp_path):
    write_experiment(make_config(tmp_path))
    run = tmp_path / "seed-1/stage2-1"
    unfinish(run, 3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')  # cut off by a crash
    found = read_run(run)
    assert found.complete is None and len(found.records) == 3
    assert found.total_steps == 12  # an epoch has 12 steps by the records, and one is asked for
    assert found.mean("train/loss") == pytest.approx(sum(found.column("train/loss")[1:]) / 2)  # without the first


def test_seeds_of_one_result_are_one_group_with_the_name_of_its_row(tmp_path):
    write_experiment(make_config(tmp_path))
    groups = {group.label: group for group in group_runs(find_runs([tmp_path]))}
    assert list(groups) == ["post-train", "stage1-1", "PLM-NR-3 (DP)", "teacher-1", "cache", "Tiny-NewsRec-1"]
    assert [run.seed for run in groups["Tiny-NewsRec-1"].runs] == [0, 1]
    assert groups["Tiny-NewsRec-1"].settings["post_train.lr"] == 1e-6  # of what it is made from


def test_what_a_run_is_made_from_tells_it_apart(tmp_path):
    rows = [
        RowConfig("beta1 = 1", "tiny-newsrec", 1),
        RowConfig("beta1 = 0.9", "tiny-newsrec", 1, ["stage1.beta1=0.9"]),
    ]
    write_experiment(make_config(tmp_path, rows))
    found = labels(tmp_path)
    assert found.count("post-train") == 1  # shared
    assert "beta1 = 1" in found and "beta1 = 0.9" in found  # stage 2, whose own settings are the same
    assert {"stage1-1 (stage1.beta1=0.9)", "stage1-1 (stage1.beta1=1.0)"} <= set(found)
    assert len(set(found)) == len(found)


def test_experiments_with_the_same_rows_are_told_apart_by_their_folders(tmp_path):
    for name, lr in (("a", 1e-4), ("b", 2e-4)):
        write_experiment(make_config(tmp_path / name, stage2__lr=lr))
    found = labels(tmp_path / "a", tmp_path / "b")
    assert "a: Tiny-NewsRec-1" in found and "b: Tiny-NewsRec-1" in found
    assert len(set(found)) == len(found) == 12


def test_a_configuration_of_another_version_still_shows(tmp_path):
    write_experiment(make_config(tmp_path))
    file = tmp_path / "seed-0/stage2-1/config.yaml"
    file.write_text(file.read_text() + "key_of_tomorrow: 1\n")
    assert "stage2-1" in labels(tmp_path / "seed-0/stage2-1")


def test_differing_settings():
    a, b = flat({"x": {"y": 1, "z": [1, 2]}, "same": None}), flat({"x": {"y": 1, "z": [1]}, "same": None, "more": True})
    assert differing([a, b]) == ["x.z", "more"]


def test_secrets_of_addresses_are_left_out(tmp_path):
    config = make_config(tmp_path)
    config.data.shards = "https://user:password@host/train?signature=abc"
    write_experiment(config)
    config_of_run = find_runs([tmp_path])[0].config
    assert config_of_run["data"]["shards"] == "https://host/train"
