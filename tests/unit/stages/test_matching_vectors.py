"""Stage 1 from kept vectors of the teacher and with the teacher beside it; the pass that keeps them is killed and damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts import matching_vectors
from tnr_dist.stages.parts.matching_vectors import TeacherVectors
from tnr_dist.stages.post_train import matching_loader
from tnr_dist.stages.registry import run_command
from tnr_dist.stages.stage1_settings import Stage1Config
from tnr_dist.util import preemption
from tnr_dist.util.errors import InputError, Preempted


def settings(prepared, tiny_plm, output, *overrides):
    common = [
        f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1", "precision=fp32",
        "model.news_dim=16", "model.query_dim=8", "model.dropout=0.1", "log.every=1", "post_train.batch_size=16",
        "post_train.max_steps=3", "post_train.negatives=3", "post_train.body_tokens=40", "post_train.keep_models=2",
        "stage1.batch_size=16", "stage1.max_steps=4", "stage1.negatives=3", "stage1.body_tokens=40",
        "stage1.lr=1e-3", "student.layers=1",
    ]  # fmt: skip
    return load_config(None, [*common, *overrides])


def work(command, config):
    engine = DDPEngine("cpu", 1)
    run_command(command, config, engine)
    engine.close()


@pytest.fixture(scope="module")
def post_trained(prepared, tiny_plm, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("post-trained")
    work("post-train", settings(prepared, tiny_plm, output))
    return output


@pytest.fixture
def fresh(post_trained, tmp_path) -> Path:
    return Path(shutil.copytree(post_trained, tmp_path / "run"))


@pytest.fixture
def find(prepared, tiny_plm, fresh, monkeypatch):
    """Find or make the vectors, in parts of 100 texts; counts the parts that are made."""
    monkeypatch.setattr(matching_vectors, "_PART", {"titles": 100, "bodies": 70})
    write = matching_vectors._Cache._write

    def counted(*arguments):
        call.made += 1
        if call.made == call.fails_at:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(matching_vectors._Cache, "_write", counted)

    def call(*overrides) -> TeacherVectors:
        call.made = 0
        config, engine = settings(prepared, tiny_plm, fresh, *overrides), DDPEngine("cpu", 1)
        engine.use_precision(config.precision)
        data, train = DataSet.open(config), Stage1Config.of(config)
        loader = matching_loader(config, data, train, engine)
        return TeacherVectors.find(fresh / "post-train", train.teachers, loader, train, engine, data)

    call.fails_at = 0
    return call


def losses(output: Path) -> np.ndarray:
    records = read_metrics(output / "stage1-1" / "metrics.jsonl")
    names = ("loss", "loss_distill", "loss_emb", "loss_target")
    return np.array([[r[f"train/{name}"] for name in names] for r in records if "train/loss" in r])


@pytest.mark.parametrize(
    ("precision", "tolerance", "more"),
    [
        ("fp32", 1e-5, []),
        ("fp32", 1e-5, ["stage1.teachers=2"]),
        ("fp32", 1e-5, ["stage1.accumulate=3", "stage1.dropout_in=all"]),
        ("bf16", 2e-2, []),  # a sum in bf16 depends on what else is in the batch
    ],
)
def test_kept_vectors_give_the_losses_of_a_teacher_in_every_step(
    post_trained, prepared, tiny_plm, tmp_path, precision, tolerance, more
):
    found = []
    for cached in ("true", "false"):
        output = Path(shutil.copytree(post_trained, tmp_path / cached))
        # The precision of post-training stays: its run is found by it.
        mark = output / "post-train"
        config = settings(prepared, tiny_plm, output, f"stage1.teacher_cache={cached}", *more)
        if precision == "bf16":
            shutil.rmtree(mark)
            config = settings(prepared, tiny_plm, output, f"stage1.teacher_cache={cached}", "precision=bf16", *more)
            work("post-train", config)
        work("stage1", config)
        assert (mark / "matching").exists() == (cached == "true")
        found.append(losses(output))
    assert found[0].shape == (4, 4)
    np.testing.assert_allclose(*found, rtol=tolerance, atol=tolerance)


def test_a_killed_pass_goes_on(find, fresh):
    find.fails_at = 4
    with pytest.raises(KeyboardInterrupt):
        find()
    find.fails_at = 0
    whole = find()
    parts = sum(-(-len(table[0]) // size) for table, size in ((whole.titles, 100), (whole.bodies, 70)))
    assert find.made == parts - 3 > 3
    (folder,) = (fresh / "post-train" / "matching").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["bodies.npy", "cache.json", "complete.json", "titles.npy"]
    again = find()
    assert find.made == 0 and np.array_equal(again.bodies[0], whole.bodies[0])
    shutil.rmtree(folder)
    find()
    assert find.made == parts
    assert np.array_equal(np.load(folder / "titles.npy"), whole.titles[0])


def test_told_to_stop_it_ends_as_preempted(find):
    preemption._requested.set()
    with pytest.raises(Preempted, match="run it again"):
        find()
    assert find.made == 0 and len(find().bodies) == 1


def test_other_settings_are_kept_beside_and_a_manifest_of_another_is_refused(find, fresh):
    first = find()
    other = find("stage1.body_tokens=20")
    assert not np.array_equal(first.bodies[0], other.bodies[0]) and np.array_equal(first.titles[0], other.titles[0])
    folders = sorted((fresh / "post-train" / "matching").iterdir())
    assert len(folders) == 2
    assert len({json.loads((one / "cache.json").read_text())["tokens"]["bodies"] for one in folders}) == 2
    shutil.rmtree(folders[0])
    shutil.copytree(folders[1], folders[0])
    with pytest.raises(
        InputError, match=r"cache\.json: tokens is .*, this stage needs .*; delete .* and run stage1 again"
    ):
        [find(), find("stage1.body_tokens=20")]


@pytest.mark.parametrize("name", ["titles.npy", "bodies.npy"])
def test_a_damaged_file_is_made_again(find, fresh, capsys, name):
    whole = [np.array(table[0]) for table in (find().titles, find().bodies)]
    (path,) = (fresh / "post-train" / "matching").rglob(name)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = find()
    assert find.made > 0 and "made again" in capsys.readouterr().err
    assert all(np.array_equal(a, b[0]) for a, b in zip(whole, (again.titles, again.bodies), strict=True))
