"""A run folder works from any directory, and in a tree that was moved; `tnr run`'s runs are found by its configuration."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import yaml

from tnr_dist.cli.app import main
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.export.command import export
from tnr_dist.report.command import write_report
from tnr_dist.runs.places import run_config
from tnr_dist.stages import pipeline
from tnr_dist.stages.chosen import chosen_run
from tnr_dist.stages.evaluate import evaluate
from tnr_dist.stages.methods import Tree, load_config
from tnr_dist.util.digests import write_sealed
from tnr_dist.util.errors import InputError

ROWS = "rows: [{name: FT-1, method: finetune, layers: 1}]"


@pytest.fixture(scope="module")
def tree(chain_yaml, prepared, tiny_plm, tmp_path_factory) -> Path:
    """A folder with data, PLM and runs whose configuration names all of them by relative paths."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(prepared, root / "data")
    shutil.copytree(tiny_plm, root / "plms" / "tiny")
    config = yaml.safe_load(chain_yaml.read_text())
    config["data"] |= {"dir": "data", "input": "", "corpus": ""}
    config |= {"plm": {"name": "./plms/tiny"}, "output": "runs", "rows": yaml.safe_load(ROWS)["rows"]}
    (root / "c.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(pipeline, "oracle_scorer", lambda *_: pipeline.random_scorer())
        pipeline.run_chain(load_config("c.yaml"), DDPEngine("cpu", 1))
    return root


@pytest.fixture(params=["elsewhere", "moved"])
def run(tree, request, tmp_path, monkeypatch) -> Path:
    """Its run, seen from another directory; or in a copy of the tree, the first one gone."""
    monkeypatch.chdir(tmp_path)
    if request.param == "elsewhere":
        yield tree / "runs" / "seed-0" / "finetune-1"
        return
    shutil.copytree(tree, tmp_path / "new")
    tree.rename(tree.with_name("gone"))
    yield tmp_path / "new" / "runs" / "seed-0" / "finetune-1"
    tree.with_name("gone").rename(tree)


def test_a_run_s_data_and_plm_are_found_from_anywhere(run):
    root = run.parents[2]
    config = run_config(Tree, run)
    assert (config.data.dir, config.plm.name) == (str(root / "data"), str(root / "plms" / "tiny"))
    assert Path(load_config(run / "config.yaml").data.dir).is_absolute()


def test_exports_from_anywhere(run, tmp_path):
    (hf,) = export(run, ["hf"], tmp_path / "out", speed=False)
    card = (hf / "README.md").read_text()
    assert "Prepared data set `data`: 299 news" in card and "was not at hand" not in card
    if importlib.util.find_spec("faiss"):
        (vectors,) = export(run, ["vectors"], tmp_path / "out", speed=False)
        assert (vectors / "vectors.npy").is_file()


def test_a_report_from_anywhere(run, tmp_path):
    page, models = write_report([run.parents[1]], tmp_path / "report", now=0.0)
    text = page.with_name("report.md").read_text()
    assert [one.name for one in models] == ["FT-1"]  # known by its row
    assert "AUC by length of the history" in (tmp_path / "report" / "report.html").read_text()
    assert "Impressions of " in text and "is not there any more" not in text


def test_what_is_gone_is_said_with_where_it_was_looked_for(run, tmp_path, capsys):
    root, lonely = run.parents[2], tmp_path / "a" / "b" / "lonely"
    shutil.copytree(run, lonely)
    shutil.copytree(root / "plms", tmp_path / "plms")
    for name in ("data", "plms"):
        (root / name).rename(root / f"{name}-away")
    try:
        looked = rf"not at {tmp_path / 'data'} or .*data"
        with pytest.raises(InputError, match=f"{lonely}: the data set .* {looked}; name it with --data"):
            export(lonely, ["vectors" if importlib.util.find_spec("faiss") else "hf", "vectors"], speed=False)
        export(lonely, ["hf"], tmp_path / "out", speed=False)
        assert "the card does not describe it (--data names it)" in capsys.readouterr().err
        shutil.rmtree(tmp_path / "plms")
        with pytest.raises(
            InputError, match=rf"{lonely}: the tokenizer .* {tmp_path / 'plms' / 'tiny'} or .*tiny"
        ) as error:
            export(lonely, ["hf"], speed=False)
        assert "\n" not in str(error.value)
    finally:
        for name in ("data", "plms"):
            (root / f"{name}-away").rename(root / name)


def test_the_tokenizer_is_also_found_beside_the_data(run, tmp_path):
    root = run.parents[2]
    (root / "plms").rename(root / "plms-away")
    try:
        (hf,) = export(run, ["hf"], tmp_path / "out", speed=False)
        assert (hf / "tokenizer.json").is_file()
        config = load_config(None, ["threads=1", "precision=fp32", f"data.dir={root / 'data'}", "data.history=10",
                                    "data.title_tokens=24", f"evaluate.run={run}"])  # fmt: skip
        assert 0 < evaluate(config, DDPEngine("cpu", 1))["auc"] < 1
    finally:
        (root / "plms-away").rename(root / "plms")


# Found by the configuration ---------------------------------------------------------------------------------------------


def test_evaluate_predict_and_export_find_the_runs_of_tnr_run(finished, chain_yaml):
    config = load_config(chain_yaml, ["student.layers=1"])
    data = DataSet.open(config)
    student = finished / "seed-0" / "stage2-1"
    assert chosen_run(config, data) == student
    config.output = str(finished / "seed-0")  # as the stages themselves are given it
    assert chosen_run(config, data) == student
    config = load_config(chain_yaml, ["student.layers=3"])
    with pytest.raises(InputError, match=r"no student of 3 layers .*evaluate\.run=\S+/stage2-1 \(Tiny-1\)") as error:
        chosen_run(config, data)
    assert "\n" not in str(error.value) and "finetune-1 (FT-1)" in str(error.value)
    with pytest.raises(InputError, match=r"stage2-2 .* is not finished|no student of 2 layers"):
        evaluate(load_config(chain_yaml, ["student.layers=2"]), DDPEngine("cpu", 1))


@pytest.mark.parametrize("setting", ["stage2.beta2=0.5", "data.history=5", "precision=bf16"])
def test_a_run_of_other_settings_is_not_taken_for_the_one_asked_for(copy, chain_yaml, setting):
    for output in (copy, copy / "seed-0"):
        config = load_config(chain_yaml, [f"output={output}", "rows=[]", "student.layers=1", setting])
        student = copy / "seed-0" / "stage2-1"
        with pytest.raises(InputError, match=r"stage2-1: its run has other settings \((\S+, )*\S+\); ") as error:
            chosen_run(config, DataSet.open(config))
        assert setting.partition("=")[0] in str(error.value) and f"add evaluate.run={student}" in str(error.value)
        config.evaluate.run = str(student)
        assert chosen_run(config, DataSet.open(config)) == student


def test_a_run_folder_s_own_configuration_finds_what_was_moved_with_it(run, capsys, monkeypatch):
    monkeypatch.setattr("tnr_dist.util.preemption.listen", lambda: None)
    monkeypatch.setattr("sys.argv", ["tnr", "finetune", str(run / "config.yaml")])
    main()
    assert f"{run}: complete, skipped" in capsys.readouterr().err
    (run / "results.json").unlink()
    monkeypatch.setattr("sys.argv", ["tnr", "evaluate", str(run / "config.yaml"), f"evaluate.run={run}"])
    main()
    out = capsys.readouterr().out
    assert (run / "results.json").is_file() and "AUC" in out and "150 impressions of dev" in out


def test_of_several_seeds_one_has_to_be_named(copy, chain_yaml):
    config = load_config(chain_yaml, [f"output={copy}", "student.layers=1", "seeds=2"])
    data = DataSet.open(config)
    assert chosen_run(config, data) == copy / "seed-0" / "stage2-1"
    from tnr_dist.stages import stage2
    from tnr_dist.stages.targets import each_seed

    second = stage2.run_folder(list(each_seed(config))[1], data)
    second.path.mkdir(parents=True)
    write_sealed(second.path / "complete.json", {"id": "x", "key": second.key})
    with pytest.raises(
        InputError, match=r"a student of each seed; add evaluate\.run=\S+ \(seed 0\) or evaluate\.run=\S+ \(seed 1\)"
    ):
        chosen_run(config, data)


def test_export_takes_a_configuration(copy, chain_yaml, tmp_path, capsys, monkeypatch):
    def tnr(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["tnr", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    common = ("--to", "hf", "--no-speed", "--output", tmp_path / "out")
    assert tnr("export", chain_yaml, *common, f"output={copy}", "student.layers=1") == 0
    assert json.loads((tmp_path / "out" / "hf" / "recommender.json").read_text())["made_from"]["run"] == "stage2-1"
    assert tnr("export", chain_yaml, *common, f"output={copy}") == 2
    assert f"tnr export {copy / 'seed-0' / 'stage2-1'} (Tiny-1)" in capsys.readouterr().err
    assert tnr("export", copy / "seed-0" / "stage2-1", *common, "student.layers=1") == 2
    assert "a setting changes a configuration file" in capsys.readouterr().err
