"""Finished work stays: other settings are other runs, and what is replaced goes only when the new run is complete."""

import contextlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tnr_dist.cli.app import main
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.prepare.existing import check_options
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.runs.owned import recorded
from tnr_dist.stages import pipeline, stage2
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.outlook import GO_ON, MAKE, REFUSE, REPLACE, SKIP, steps
from tnr_dist.util.digests import write_sealed
from tnr_dist.util.errors import InputError

OTHER = "stage2.beta2=0.5"


def chain(path: Path, output: Path, *overrides: str, replace: bool = False) -> None:
    pipeline.run_chain(load_config(path, [f"output={output}", *overrides]), DDPEngine("cpu", 1), replace=replace)


def is_complete(path: Path, output: Path, *overrides: str) -> bool:
    return pipeline.is_complete(load_config(path, [f"output={output}", *overrides]))


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file: what it holds and when it was written."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def names(output: Path) -> set[str]:
    return {path.name for path in (output / "seed-0").iterdir()}


def with_notes(copy: Path) -> Path:
    """The finished student, in which its user keeps things of his own."""
    run = copy / "seed-0" / "stage2-1"
    (run / "notes.txt").write_text("mine")
    (run / "export" / "hf").mkdir(parents=True)
    (run / "export" / "hf" / "README.md").write_text("exported")
    return run


def test_a_changed_setting_is_another_run_beside_the_finished_one(copy, chain_yaml, capsys):
    with_notes(copy)
    before = files(copy / "seed-0")
    chain(chain_yaml, copy, OTHER)
    after = files(copy / "seed-0")
    assert {name: after[name] for name in before} == before
    new = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert len(new) == 1 and next(iter(new)).startswith("stage2-1-")
    assert "stage2-1: kept, it has other settings (stage2.beta2)" in capsys.readouterr().err
    assert is_complete(chain_yaml, copy) and is_complete(chain_yaml, copy, OTHER)
    # Whichever settings are asked for again, their run is there.
    chain(chain_yaml, copy, OTHER)
    chain(chain_yaml, copy)
    assert files(copy / "seed-0") == after


def test_a_table_of_other_runs_is_not_replaced_without_a_word(copy, chain_yaml, capsys):
    chain(chain_yaml, copy, OTHER)
    said = []
    for overrides in ([], [], [OTHER], []):
        capsys.readouterr()
        pipeline.report(load_config(chain_yaml, [f"output={copy}", *overrides]))
        said.append("table.md: replaced, it was of other runs or results" in capsys.readouterr().err)
    assert said == [False, False, True, True]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(copy, chain_yaml, capsys, monkeypatch):
    shutil.rmtree(copy / "seed-0" / "finetune-1")
    (copy / "seed-0" / "teacher-1" / "complete.json").unlink()
    before = files(copy)

    def dry_run(*arguments: str) -> str:
        monkeypatch.setattr(
            "sys.argv", ["tnr", "run", str(chain_yaml), f"output={copy}", "data.input=", "--dry-run", *arguments]
        )
        main()
        assert files(copy) == before
        return capsys.readouterr().out

    said = dry_run()
    assert "teacher-1   resumed: from step 2, about " in said and "finetune-1  made: about " in said
    assert "cache       skipped: complete, unless its inputs change" in said
    assert "data: " in said and ": prepared" in said
    assert "7 runs: 1 made, 1 resumed, 5 skipped, about " in said
    own = steps(load_config(chain_yaml, [f"output={copy}"]), replace=False)
    assert [step.what for step in own] == [SKIP, SKIP, SKIP, GO_ON, SKIP, SKIP, MAKE]
    other = steps(load_config(chain_yaml, [f"output={copy}", OTHER]), replace=False)[-2]
    assert (other.what, other.run.path.name[:9], other.run.path.exists()) == (MAKE, "stage2-1-", False)
    assert "made: stage2-1 is kept, it has other settings (stage2.beta2), about " in dry_run(OTHER)
    instead = steps(load_config(chain_yaml, [f"output={copy}", OTHER]), replace=True)[-2]
    assert (instead.what, instead.run.path.name) == (REPLACE, "stage2-1")
    assert "stage2-1    replaced: " in dry_run(OTHER, "--replace")
    fresh = steps(load_config(chain_yaml, [f"output={copy.parent / 'elsewhere'}"]), replace=False)
    assert {step.what for step in fresh} == {MAKE} and {step.seconds for step in fresh} == {None}
    plain = steps(load_config(chain_yaml, [f"output={copy}", OTHER, "folders=plain"]), replace=False)[-2]
    assert plain.what == REFUSE


def test_the_replaced_run_stays_until_the_new_one_is_complete(copy, chain_yaml, monkeypatch):
    old = with_notes(copy)
    before = files(old)

    def fails(*arguments, **facts):
        raise FloatingPointError("stage2: loss is nan at step 1")

    with monkeypatch.context() as broken, pytest.raises(FloatingPointError):
        broken.setattr("tnr_dist.stages.run.train", fails)
        chain(chain_yaml, copy, OTHER, replace=True)
    aside = [path for path in (copy / "seed-0").iterdir() if path.name.startswith("stage2-1-")]
    assert len(aside) == 1 and files(aside[0]) == before
    assert is_complete(chain_yaml, copy)  # under its own settings it is found where it is
    # A run that goes on without --replace takes nothing away.
    shutil.copytree(copy, copy.with_name("without"))
    chain(chain_yaml, copy.with_name("without"), OTHER)
    assert files(copy.with_name("without") / "seed-0" / aside[0].name) == before
    chain(chain_yaml, copy, OTHER, replace=True)
    assert recorded(old, "settings")["stage2.beta2"] == 0.5 and (old / "results.json").is_file()
    assert set(files(aside[0])) == {"notes.txt", "export/hf/README.md"}  # what is not the run's own
    assert is_complete(chain_yaml, copy, OTHER) and not is_complete(chain_yaml, copy)


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_no_run_of_ours_is_never_taken_away(copy, chain_yaml, tmp_path, replace):
    precious, seed = tmp_path / "precious", copy / "seed-0"
    precious.mkdir()
    (precious / "thesis.tex").write_text("mine")
    for name in ("stage2-1", "finetune-1"):
        shutil.rmtree(seed / name)
    (seed / "stage2-1").symlink_to(precious)
    (seed / "finetune-1").mkdir()
    (seed / "finetune-1" / "thesis.tex").write_text("mine")
    chain(chain_yaml, copy, replace=replace)
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]
    assert [path.name for path in (seed / "finetune-1").iterdir()] == ["thesis.tex"]
    assert (seed / "stage2-1").is_symlink() and is_complete(chain_yaml, copy)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(("mark", "text"), [("begun.json", "{}"), ("begun.json", '{"stage": 1}'), ("complete.json", "{}"),
                                            ("begun.json", "mine"), ("complete.json", "[1]")])  # fmt: skip
def test_a_file_of_a_mark_s_name_makes_no_run_of_a_folder(copy, chain_yaml, mark, text, replace):
    place = copy / "seed-0" / "cache"
    shutil.rmtree(place)
    place.mkdir()
    (place / mark).write_text(text)
    (place / "config.yaml").write_text("mine")
    before = files(place)
    with contextlib.suppress(InputError):
        chain(chain_yaml, copy, replace=replace)
    assert files(place) == before


def test_nothing_is_replaced_through_a_link(copy, chain_yaml, tmp_path):
    """A finished run of other settings that was moved to another disk, a link in its place."""
    run, moved = copy / "seed-0" / "stage2-1", tmp_path / "large"
    run.rename(moved)
    run.symlink_to(moved)
    assert is_complete(chain_yaml, copy)
    before = files(moved)
    with pytest.raises(InputError, match="stage2-1: a symbolic link; nothing is replaced through one"):
        chain(chain_yaml, copy, OTHER, replace=True)
    assert files(moved) == before
    chain(chain_yaml, copy, OTHER)
    assert files(moved) == before and is_complete(chain_yaml, copy, OTHER)


def test_a_row_of_its_own_settings_shares_what_is_the_same(copy, chain_yaml):
    before = files(copy / "seed-0")
    rows = [
        "{name: teacher, method: teacher}",
        "{name: Tiny-1, method: tiny-newsrec, layers: 1}",
        f"{{name: beta2 = 0.5, method: tiny-newsrec, layers: 1, set: [{OTHER}]}}",
    ]
    wanted = f"rows=[{', '.join(rows)}]"
    found = steps(load_config(chain_yaml, [f"output={copy}", wanted]), replace=False)
    assert [step.run.name for step in found if step.what == MAKE] == ["stage2-1"]
    chain(chain_yaml, copy, wanted)
    after = files(copy / "seed-0")
    assert {name: after[name] for name in before} == before
    assert len(names(copy)) == len({name.split("/")[0] for name in before}) + 1


def test_rows_that_would_share_a_plain_folder_are_refused(chain_yaml, tmp_path):
    rows = "rows=[{name: a, layers: 1}, {name: b, layers: 1, set: [stage2.beta2=0.5]}]"
    with pytest.raises(InputError, match="two rows' runs would lie there; with folders=auto"):
        chain(chain_yaml, tmp_path / "run", rows, "folders=plain")
    assert not (tmp_path / "run").exists()


def test_the_plm_counts_by_its_content(copy, chain_yaml, prepared, tiny_plm, tmp_path, monkeypatch):
    plm = Path(shutil.copytree(tiny_plm, tmp_path / "plms" / "tiny"))
    monkeypatch.chdir(tmp_path)
    spelled = ["plms/tiny", "./plms/tiny/", "plms/../plms/tiny", str(plm)]
    for name in spelled:
        assert is_complete(chain_yaml, copy, f"plm.name={name}"), name
        options = replace(pipeline.prepare_options(load_config(chain_yaml, [f"plm.name={name}"])), block_size=64)
        check_options(options, prepared)  # nor is the data another
    weights = load_file(plm / "model.safetensors")
    weights["encoder.layer.2.output.dense.weight"][0, 0] += 1.0
    save_file(weights, plm / "model.safetensors", {"format": "pt"})
    found = steps(load_config(chain_yaml, [f"output={copy}", "plm.name=plms/tiny"]), replace=False)
    assert {step.what for step in found} == {MAKE}
    assert all("has other settings" in step.why for step in found if step.run.stage != "cache")


def test_a_dry_run_refuses_what_is_damaged(copy, chain_yaml):
    path = copy / "seed-0" / "teacher-1" / "model.safetensors"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    found = steps(load_config(chain_yaml, [f"output={copy}"]), replace=False)
    assert [step.run.name for step in found if step.what == REFUSE] == ["teacher-1"]
    assert all(f"{path}: damaged" in step.why for step in found if step.what == REFUSE)


def test_an_input_that_was_made_again_otherwise_is_not_mixed_with_what_was_made_before(copy, chain_yaml):
    """Another number of ranks, say, gives other weights in the last bits."""
    run = copy / "seed-0" / "stage1-1"
    done = json.loads((run / "complete.json").read_text())
    write_sealed(run / "complete.json", done | {"id": "another"})
    before = files(copy / "seed-0")
    assert not is_complete(chain_yaml, copy)
    with pytest.raises(InputError, match=r"stage2-1: made from stage1 as it was before .* `tnr run --replace`"):
        chain(chain_yaml, copy)
    assert files(copy / "seed-0") == before
    what = {step.run.name: step.what for step in steps(load_config(chain_yaml, [f"output={copy}"]), replace=False)}
    assert what["stage2-1"] == REFUSE and what["cache"] == SKIP
    chain(chain_yaml, copy, replace=True)
    assert is_complete(chain_yaml, copy) and names(copy) == {name.split("/")[0] for name in before}


def test_a_run_that_had_computed_nothing_leaves_its_place(chain_yaml, tmp_path):
    config = load_config(chain_yaml, [f"output={tmp_path}", "student.layers=1"])
    run = stage2.run_folder(config, DataSet.open(config))
    run.plain.mkdir()
    begun = {"stage": "stage2", "settings": {}, "extra": {}, "inputs": {}, "key": "of other settings"}
    write_sealed(run.plain / "begun.json", begun)
    (run.plain / "metrics.jsonl").write_text("")
    assert pipeline.in_order([run])[-1].path == run.plain
    (run.plain / "checkpoints" / "2").mkdir(parents=True)
    assert pipeline.in_order([run])[-1].path == run.marked
    shutil.rmtree(run.plain / "checkpoints")
    (run.plain / "notes.txt").write_text("mine")
    assert pipeline.in_order([run])[-1].path == run.marked


def test_the_same_run_twice_is_the_same_to_the_byte_and_has_the_users_permissions(copy, chain_yaml, tmp_path):
    seed = copy / "seed-0"
    for name in ("post-train", "stage1-1"):
        shutil.rmtree(seed / name)
    before = os.umask(0o027)
    try:
        chain(chain_yaml, copy)
    finally:
        os.umask(before)
    first = Path(load_config(chain_yaml).output) / "seed-0"
    folders = [seed / name for name in ("post-train", "stage1-1")]
    again = [path for one in folders for kind in ("*.safetensors", "*.npy") for path in one.rglob(kind)]
    assert len(again) == 8  # models, checkpoints with optimisers, the teacher's vectors
    for path in again:
        assert path.read_bytes() == (first / path.relative_to(seed)).read_bytes(), path
    written = [path for name in ("post-train", "stage1-1") for path in (seed / name).rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in written} == {0o640}


def test_a_run_says_by_what_and_when_it_was_made(finished):
    for name in ("teacher-0", "cache"):
        found = json.loads((finished / "seed-0" / name / "environment.json").read_text())
        assert found["command"] and found["host"] and found["started"][0][:2] == "20"
        assert {"commit", "clean", "torch", "device", "ranks"} <= found.keys()
        assert json.loads((finished / "seed-0" / name / "complete.json").read_text())["seconds"] >= 0
