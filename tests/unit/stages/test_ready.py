"""What is said of a stage before its job goes into a queue."""

import shutil

import pytest

from tnr_dist.stages import pipeline, ready
from tnr_dist.stages.methods import load_config
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_json


@pytest.mark.parametrize(
    "script", ["post_train", "stage1", "finetune", "finetune_plain", "cache", "stage2", "evaluate"]
)
def test_what_is_complete_is_known(finished, chain_yaml, script):
    config = load_config(chain_yaml, [f"output={finished / 'seed-0'}", "student.layers=1", "finetune.layers=1"])
    found = ready.check(script, config)
    assert found and all(done for _, done in found) and len(found) == (2 if script == "finetune" else 1)


def test_a_missing_input_is_named_unless_it_is_still_to_come(copy, chain_yaml):
    shutil.rmtree(copy / "seed-0" / "stage1-1")
    config = load_config(chain_yaml, [f"output={copy / 'seed-0'}", "student.layers=1"])
    with pytest.raises(InputError, match="stage1-1: stage1 is not finished there; run that stage first"):
        ready.check("stage2", config)
    assert [done for _, done in ready.check("stage2", config, later=True)] == [False]


def test_a_run_of_other_settings_is_in_the_way_of_a_stage(copy, chain_yaml):
    config = load_config(chain_yaml, [f"output={copy / 'seed-0'}", "student.layers=1", "stage2.lr=0.5"])
    with pytest.raises(InputError, match="holds a finished run with other settings"):
        ready.check("stage2", config)


def test_no_data_set(tmp_path, chain_yaml):
    config = load_config(chain_yaml, [f"data.dir={tmp_path}/none", "data.input="])
    with pytest.raises(InputError, match="not a prepared data set"):
        ready.check("stage2", config)
    assert ready.check("prepare", config) == [(f"{tmp_path}/none", False)] and not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no such folder"):
        ready.check("prepare", load_config(chain_yaml, [f"data.dir={tmp_path}/none", "data.input=nowhere"]))


def test_places_differ_and_settings_too(chain_yaml):
    config, other = load_config(chain_yaml), load_config(chain_yaml, ["stage2.lr=0.5"])
    places = [ready.place_of(script, config) for script in ("post_train", "stage1", "stage2", "cache", "prepare")]
    assert ready.place_of("doctor", config).endswith("/doctor")
    assert len(set(places)) == len(places) and places[2] == ready.place_of("stage2", other)
    mine, theirs = (ready.marks_of(places[2], one) for one in (config, other))
    assert mine[0] == theirs[0] and mine[1] != theirs[1] and all(len(mark) == 12 for mark in mine)


def test_teachers_of_one_chain_are_in_each_others_way(chain_yaml):
    def place(script, *overrides):
        return ready.place_of(script, load_config(chain_yaml, overrides))

    assert place("finetune", "finetune.teachers=2") == place("finetune", "finetune.teachers=4")
    assert place("finetune", "finetune.teacher=1") != place("finetune") != place("finetune_plain")
    assert place("stage2", "student.layers=1") != place("stage2", "student.layers=2")


def test_a_report_of_other_seeds_has_its_own_folder(tmp_path, chain_yaml):
    def folder(*overrides):
        return pipeline.report_folder(load_config(chain_yaml, [f"output={tmp_path}", *overrides])).name

    assert folder("seed=1") == "report"
    (tmp_path / "report").mkdir()
    write_json(tmp_path / "report" / "seeds.json", [0])
    assert folder() == "report" and folder("seeds=3") == "report"
    assert folder("seed=1") == "report-seed-1" and folder("seed=1", "seeds=2") == "report-seeds-1-2"
