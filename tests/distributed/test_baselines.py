"""In float32 the baselines' curves and models are the same on any number of ranks, however the work is cut, under any engine."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from tests.lanes import missing
from tests.ranks import on_ranks
from tnr_dist.config.schema import DeepSpeedConfig, HorovodConfig, RowConfig
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.horovod.start import load_horovod
from tnr_dist.engines.make import make_engine
from tnr_dist.models.recommender import load_recommender
from tnr_dist.runs.folder import in_order
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import make
from tnr_dist.stages.targets import row_folder
from tnr_dist.util.errors import InputError

SECTIONS = {
    "further-pretrain": "further_pretrain",
    "tinybert-general": "tinybert.general",
    "tinybert-intermediate": "tinybert.intermediate",
    "tinybert": "tinybert.prediction",
    "tinybert-joint": "tinybert.joint",
    "newsbert": "newsbert",
    "bert-pkd": "bert_pkd",
}
ROWS = [
    RowConfig("FP", "further-pretrain"),
    RowConfig("T", "tinybert", 1),
    RowConfig("J", "tinybert", 1, ["tinybert.form=joint"]),
    RowConfig("N", "newsbert", 1),
    RowConfig("P", "bert-pkd", 2),  # its first layer learns patiently, the second has the soft labels alone
]


def settings(prepared, tiny_plm, output, *overrides):
    common = [
        f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1", "precision=fp32", "model.dropout=0",
        "model.news_dim=16", "model.query_dim=8", "data.history=10", "data.title_tokens=24", "log.every=1",
        "post_train.max_steps=2", "post_train.negatives=3", "post_train.body_tokens=40", "finetune.max_steps=2",
        "finetune.batch_size=16", "further_pretrain.body_tokens=40", "tinybert.general.body_tokens=40",
        *(f"{name}.max_steps=4" for name in SECTIONS.values()), *(f"{name}.lr=1e-3" for name in SECTIONS.values()),
        "further_pretrain.batch_size=15", "tinybert.general.batch_size=15", "tinybert.intermediate.batch_size=37",
        "tinybert.prediction.batch_size=37", "tinybert.joint.batch_size=37", "newsbert.batch_size=37",
        "bert_pkd.batch_size=37",
    ]  # fmt: skip
    return load_config(None, [*common, *overrides])


def places(config):
    data = DataSet.open(config)
    return {one.stage: one for one in in_order(row_folder(config, data, row) for row in ROWS)}


def run(stage, config, kind="ddp", zero_stage=-1):
    engine = make_engine(kind, "cpu", 1, DeepSpeedConfig(zero_stage=zero_stage), HorovodConfig())
    make(places(config)[stage], engine)
    engine.close()


@pytest.fixture(scope="module")
def one(prepared, tiny_plm, tmp_path_factory):
    """Everything on one rank: its folder."""
    output = tmp_path_factory.mktemp("baselines") / "one"
    config = settings(prepared, tiny_plm, output)
    data = DataSet.open(config)
    engine = make_engine("ddp", "cpu", 1)
    for place in in_order(row_folder(config, data, row) for row in ROWS):
        make(place, engine)
    return output


def curve(folder):
    return np.array([r["train/loss"] for r in read_metrics(folder / "metrics.jsonl") if "train/loss" in r])


def compare(one, output, prepared, tiny_plm, stage, ranks, overrides, *engine):
    """Run one stage again on its own, from the same inputs, and hold it against the run on one rank."""
    shutil.copytree(one, output)
    config = settings(prepared, tiny_plm, output, *(f"{SECTIONS[stage]}.{setting}" for setting in overrides))
    name = places(config)[stage].name
    shutil.rmtree(output / name)
    on_ranks(ranks, run, stage, config, *engine)
    np.testing.assert_allclose(curve(output / name), curve(one / name), atol=1e-5)
    assert len(curve(output / name)) == 4
    models = [load_recommender(folder / name / "model.safetensors")[0] for folder in (one, output)]
    for (key, a), b in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        torch.testing.assert_close(a, b[1], atol=5e-4, rtol=1e-3, msg=key)


@pytest.mark.parametrize("stage", ["further-pretrain", "tinybert-joint", "newsbert", "bert-pkd"])
def test_two_ranks(one, prepared, tiny_plm, tmp_path, stage):
    compare(one, tmp_path / "two", prepared, tiny_plm, stage, 2, [])


VECTORS = ["match=vectors", "target_weight=0.1"]


@pytest.fixture(scope="module")
def with_vectors(one, prepared, tiny_plm, tmp_path_factory):
    """The same with NewsBERT's other form, on one rank."""
    output = tmp_path_factory.mktemp("vectors") / "one"
    shutil.copytree(one, output)
    shutil.rmtree(output / "newsbert-1")
    run("newsbert", settings(prepared, tiny_plm, output, *(f"newsbert.{setting}" for setting in VECTORS)))
    assert (curve(output / "newsbert-1") != curve(one / "newsbert-1")).all()
    return output


def test_newsbert_with_vectors_on_two_ranks(with_vectors, prepared, tiny_plm, tmp_path):
    compare(with_vectors, tmp_path / "two", prepared, tiny_plm, "newsbert", 2, VECTORS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "ranks", "overrides"),
    [
        ("further-pretrain", 4, ["accumulate=3"]),
        ("further-pretrain", 1, ["token_budget=300"]),
        ("tinybert-general", 2, []),
        ("tinybert-general", 4, ["accumulate=3", "token_budget=200"]),
        ("tinybert-intermediate", 2, []),
        ("tinybert-intermediate", 2, ["dedupe=local", "accumulate=3"]),
        ("tinybert", 2, []),
        ("tinybert", 4, ["dedupe=local", "accumulate=2"]),
        ("tinybert-joint", 2, ["dedupe=local", "accumulate=3", "frozen_cache=none"]),
        ("tinybert-joint", 4, ["token_budget=200", "frozen_cache=disk"]),
        ("newsbert", 2, ["dedupe=local", "accumulate=3", "frozen_cache=none"]),
        ("newsbert", 4, ["token_budget=200", "frozen_cache=disk"]),
        ("bert-pkd", 2, ["dedupe=local", "accumulate=3", "frozen_cache=none"]),
        ("bert-pkd", 4, ["token_budget=200", "frozen_cache=disk"]),
    ],
)
def test_however_the_work_is_cut(one, prepared, tiny_plm, tmp_path, stage, ranks, overrides):
    compare(one, tmp_path / "many", prepared, tiny_plm, stage, ranks, overrides)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "overrides"), [(2, ["dedupe=local", "accumulate=3"]), (4, ["token_budget=200"])])
def test_however_the_work_of_newsbert_with_vectors_is_cut(with_vectors, prepared, tiny_plm, tmp_path, ranks, overrides):
    compare(with_vectors, tmp_path / "many", prepared, tiny_plm, "newsbert", ranks, [*VECTORS, *overrides])


@pytest.mark.slow
@pytest.mark.parametrize("engine", [("deepspeed", 0), ("deepspeed", 1), ("deepspeed", 2), ("horovod", -1)])
def test_newsberts_gradients_are_mixed_alike_under_every_engine(one, prepared, tiny_plm, tmp_path, engine):
    try:
        if engine[0] == "horovod":
            load_horovod()
        else:
            import deepspeed  # noqa: F401
    except (ImportError, InputError) as error:
        missing(str(error))
    compare(one, tmp_path / "two", prepared, tiny_plm, "newsbert", 2, ["accumulate=2"], *engine)


def test_newsbert_under_zero_3_is_refused(one, prepared, tiny_plm):
    engine = make_engine("ddp", "cpu", 1)
    engine.stage = 3
    config = settings(prepared, tiny_plm, one)
    place = dataclasses.replace(places(config)["newsbert"], extra={"another": 1})  # one that is not made yet
    with pytest.raises(InputError, match="zero_stage=3"):
        make(place, engine, replace=True)
