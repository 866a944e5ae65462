"""The jobs of a chain and of a study: which are left, and what they wait for."""

import shutil

import pytest

from tnr_dist.reproduce import jobs
from tnr_dist.stages import outlook
from tnr_dist.stages.methods import load_config


@pytest.fixture
def prepared_so(monkeypatch):
    """The tests' data set has smaller blocks than `tnr run` would make."""
    monkeypatch.setattr(outlook, "data_state", lambda config: "prepared")


def remaining_jobs(path, *overrides):
    return {job.name: job for job in jobs.remaining_jobs(load_config(path, overrides), 2)}


def test_spans():
    assert jobs.spans([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8" and jobs.spans([]) == "" and jobs.spans([3]) == "3"


def test_of_what_is_complete_nothing_is_left_but_the_table(prepared_so, finished, chain_yaml):
    assert list(remaining_jobs(chain_yaml, f"output={finished}")) == ["report"]


def test_what_is_missing_is_left_with_what_needs_it(prepared_so, copy, chain_yaml):
    shutil.rmtree(copy / "seed-0" / "teacher-1")
    found = remaining_jobs(chain_yaml, f"output={copy}")
    assert (found["finetune"].indices, found["finetune"].count, found["finetune"].after) == ("1", 2, [])
    assert found["cache"].after == ["finetune"] and found["cache-complete"].after == ["finetune", "cache?"]
    assert not {"prepare", "post-train", "stage1-1", "finetune-plain-1"} & set(found)


def test_other_settings_go_beside_what_is_there(prepared_so, copy, chain_yaml, capsys):
    found = remaining_jobs(chain_yaml, f"output={copy}", "stage2.beta2=0.5")
    assert list(found) == ["stage2-1", "evaluate-1", "report"]
    assert found["stage2-1"].overrides[-1] == "folders=hashed" and "folders=hashed" not in found["evaluate-1"].overrides
    assert "stage2-1: kept, it is of other settings; the new run goes to stage2-1-" in capsys.readouterr().err


def test_a_study_in_arrays_that_are_not_too_long(chain_yaml, tmp_path):
    config = load_config(
        chain_yaml, [f"data.dir={tmp_path}/none", f"output={tmp_path}/o", "seeds=3", "reproduce.size=1"]
    )
    found = jobs.remaining_study_jobs("fig4", config, 2)
    assert [job.indices for job in found if job.name.startswith("fig4-0")] == ["0-1"] * 3
    assert found[0].name == "fig4-prepare" and all(job.after[0] == "fig4-prepare" for job in found[1:])
    assert found[2].overrides == ["fig4", "0+2"]
