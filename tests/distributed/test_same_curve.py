"""In float32 the same configuration gives the same loss curve and model on 1, 2 and 4 ranks, titles shared or not."""

import os
import shutil

import numpy as np
import pytest
import torch

from tests.ranks import on_ranks
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.recommender import load_recommender
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts.matching_vectors import _Cache
from tnr_dist.stages.registry import run_command


def settings(prepared, tiny_plm, output, *overrides):
    common = [
        f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1", "precision=fp32", "model.dropout=0",
        "model.news_dim=16", "model.query_dim=8", "data.history=10", "data.title_tokens=24", "log.every=1",
        "finetune.init=plm", "finetune.layers=2", "finetune.batch_size=37", "finetune.max_steps=4", "finetune.lr=1e-3",
        "finetune.trainable_layers=1", "post_train.batch_size=15", "post_train.max_steps=3", "post_train.negatives=3",
        "post_train.lr=1e-3", "post_train.body_tokens=40", "stage1.body_tokens=40", "stage1.batch_size=15",
        "stage1.max_steps=3", "stage1.negatives=3", "stage1.lr=1e-3", "student.layers=1", "post_train.held_out=0.1",
    ]  # fmt: skip
    return load_config(None, [*common, *overrides])


def run(stage, config):
    engine = DDPEngine("cpu", 1)
    run_command(stage, config, engine)
    engine.close()


def curve(output, name):
    records = read_metrics(output / name / "metrics.jsonl")
    return np.array([r["train/loss"] for r in records if "train/loss" in r]), records


@pytest.mark.parametrize(
    ("ranks", "dedupe", "cache", "accumulate", "budget"),
    [
        (2, "local", "none", 1, 0),
        (2, "global", "none", 1, 0),
        (2, "global", "device", 3, 0),
        (4, "global", "disk", 1, 64),
        (1, "global", "device", 1, 0),
        (1, "local", "disk", 20, 200),
        (2, "local", "host", 20, 64),
    ],
)
def test_finetune(prepared, tiny_plm, tmp_path, ranks, dedupe, cache, accumulate, budget):
    run(
        "finetune",
        settings(prepared, tiny_plm, tmp_path / "one", "finetune.dedupe=local", "finetune.frozen_cache=none"),
    )
    config = settings(
        prepared, tiny_plm, tmp_path / "many", f"finetune.dedupe={dedupe}", f"finetune.frozen_cache={cache}",
        f"finetune.accumulate={accumulate}", f"finetune.token_budget={budget}",
    )  # fmt: skip
    on_ranks(ranks, run, "finetune", config)
    one, many = curve(tmp_path / "one", "finetune-2")[0], curve(tmp_path / "many", "finetune-2")[0]
    np.testing.assert_allclose(one, many, atol=1e-5)
    assert len(one) == 4
    models = [load_recommender(tmp_path / name / "finetune-2" / "model.safetensors")[0] for name in ("one", "many")]
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3, msg=name)


def test_matching_stages(prepared, tiny_plm, tmp_path):
    for ranks, name in ((1, "one"), (2, "two")):
        config = settings(prepared, tiny_plm, tmp_path / name)
        on_ranks(ranks, run, "post-train", config)
        on_ranks(ranks, run, "stage1", config)
    for stage in ("post-train", "stage1-1"):
        (one, records), (two, again) = curve(tmp_path / "one", stage), curve(tmp_path / "two", stage)
        np.testing.assert_allclose(one, two, atol=1e-5)
        assert records[-1]["eval/matching_accuracy"] == pytest.approx(again[-1]["eval/matching_accuracy"], abs=0.05)


def _rank_0_looks_first(config):
    if os.environ["RANK"] == "0":
        # It saw no vectors: another student's job completes them just now.
        looks, is_complete = iter([False]), _Cache._is_complete
        _Cache._is_complete = lambda cache: next(looks, True) and is_complete(cache)
    run("stage1", config)


def test_teacher_vectors_that_appear_between_two_ranks_looks(prepared, tiny_plm, tmp_path):
    run("post-train", settings(prepared, tiny_plm, tmp_path))
    run("stage1", settings(prepared, tiny_plm, tmp_path))

    def files():
        return {path: path.read_bytes() for path in (tmp_path / "post-train" / "matching").rglob("*.*")}

    made = files()
    on_ranks(2, _rank_0_looks_first, settings(prepared, tiny_plm, tmp_path, "student.layers=2"))
    assert (tmp_path / "stage1-2" / "complete.json").is_file()
    assert len(made) == 4 and files() == made


def test_ranks_make_the_same_teacher_vectors(prepared, tiny_plm, tmp_path):
    run("post-train", settings(prepared, tiny_plm, tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for ranks, name in ((1, "one"), (2, "two")):
        on_ranks(ranks, run, "stage1", settings(prepared, tiny_plm, tmp_path / name))
    one, two = (sorted((tmp_path / name / "post-train" / "matching").rglob("*.npy")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] and len(one) == 2
