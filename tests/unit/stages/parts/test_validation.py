"""Training that is scored on held-out impressions: the score, the model that is kept, and a resume in between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tnr_dist.data.dataset import DataSet
from tnr_dist.data.held_out import hold_out_last
from tnr_dist.data.shards import read_index
from tnr_dist.data.source import ShardSource
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.evaluation.metrics import impression_metrics
from tnr_dist.evaluation.scoring import encode_table, recommender_scorer
from tnr_dist.models.recommender import load_recommender
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command
from tnr_dist.util import preemption
from tnr_dist.util.errors import InputError, Preempted


def settings(chain_yaml: Path, output: Path, *overrides: str):
    return load_config(
        chain_yaml,
        [
            f"output={output}",
            "finetune.init=plm",
            "finetune.layers=1",
            "finetune.validate=0.2",
            "finetune.lr=0.01",
            "finetune.max_steps=6",
            "finetune.validate_every=2",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def validated(chain_yaml, tmp_path_factory):
    config = settings(chain_yaml, tmp_path_factory.mktemp("validated"), "log.checkpoint_every=0")
    run_command("finetune", config, DDPEngine("cpu", 1))
    return config, Path(config.output) / "finetune-1"


def scores(run: Path) -> dict[int, float]:
    return {r["step"]: r["valid/auc"] for r in read_metrics(run / "metrics.jsonl") if "valid/auc" in r}


def test_the_best_model_is_the_result(validated):
    run = validated[1]
    found, done = scores(run), json.loads((run / "complete.json").read_text())
    assert list(found) == [2, 4, 6]
    assert done["valid_auc"] == max(found.values()) == found[done["best_step"]]
    assert done["steps"] == 6


def test_the_score_is_the_auc_of_an_evaluation(validated):
    """Of the saved model, from all of its layers, over the impressions that `hold_out_last` keeps apart."""
    config, run = validated
    data, engine = DataSet.open(config), DDPEngine("cpu", 1)
    engine.use_precision("fp32")
    model, _ = load_recommender(run / "model.safetensors")
    news = encode_table(model.news_encoder, data.news_tokens(config.data), config.data.news_tokens, engine)
    index = read_index(data.folder, "train")
    held = hold_out_last(index, ShardSource.of(data.folder / "train", index), 0.2)
    scorer = recommender_scorer(model, news, config.data.history)
    auc = np.concatenate(
        [
            impression_metrics(scorer(block), block["candidate_clicked"], block["candidate_offsets"]).auc
            for block in held.blocks
        ]
    )
    assert len(auc) > 50
    assert json.loads((run / "complete.json").read_text())["valid_auc"] == pytest.approx(auc.mean(), abs=1e-6)


@pytest.mark.parametrize("stop_at", [3, 5])
def test_a_resumed_run_keeps_the_best_of_both_parts(validated, chain_yaml, tmp_path, stop_at, monkeypatch):
    config = settings(chain_yaml, tmp_path, "log.checkpoint_every=0")
    requested = iter([False] * (stop_at - 1) + [True] * 10)
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "stop_requested", lambda: next(requested))
        with pytest.raises(Preempted):
            run_command("finetune", config, DDPEngine("cpu", 1))
    checkpoint = tmp_path / "finetune-1" / "checkpoints" / str(stop_at)
    assert (checkpoint / "best.safetensors").is_file()
    run_command("finetune", config, DDPEngine("cpu", 1))
    one, other = validated[1], tmp_path / "finetune-1"
    assert scores(one) == scores(other)
    states = [load_recommender(run / "model.safetensors")[0].state_dict() for run in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_a_kept_model_is_not_the_last_one_when_that_is_worse(validated, chain_yaml, tmp_path, monkeypatch):
    """The scores are replaced, so that the first is the best: the result is the model after 2 steps."""
    from tnr_dist.stages.parts.validation import Validation

    given = iter([0.9, 0.2, 0.3])
    monkeypatch.setattr(Validation, "score", lambda self, engine: next(given))
    config = settings(chain_yaml, tmp_path / "long", "log.checkpoint_every=0")
    run_command("finetune", config, DDPEngine("cpu", 1))
    monkeypatch.setattr(Validation, "score", lambda self, engine: 0.5)
    short = settings(chain_yaml, tmp_path / "short", "log.checkpoint_every=0", "finetune.max_steps=2")
    run_command("finetune", short, DDPEngine("cpu", 1))
    states = [
        load_recommender(tmp_path / name / "finetune-1" / "model.safetensors")[0].state_dict()
        for name in ("long", "short")
    ]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


@pytest.mark.parametrize("value", ["1", "-0.1"])
def test_a_share_out_of_range_is_refused(chain_yaml, tmp_path, value):
    with pytest.raises(InputError, match=r"finetune\.validate="):
        settings(chain_yaml, tmp_path, f"finetune.validate={value}")
