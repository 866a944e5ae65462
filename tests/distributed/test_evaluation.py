"""Evaluation and prediction give the same figures, to the last bit, on any number of ranks."""

import hashlib
from pathlib import Path

import pytest

from tests.ranks import on_ranks
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.stages import evaluate
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command


@pytest.fixture(scope="module")
def trained(prepared, tiny_plm, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    config = load_config(None, [
        f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1", "precision=fp32",
        "model.news_dim=16", "model.query_dim=8", "data.history=10", "data.title_tokens=24", "finetune.init=plm",
        "finetune.layers=2", "finetune.batch_size=48", "finetune.max_steps=3", "finetune.lr=1e-3",
        f"evaluate.run={output / 'finetune-2'}",
    ])  # fmt: skip
    run_command("finetune", config, DDPEngine("cpu", 1))
    return config


def score(config):
    engine = DDPEngine("cpu", 1)
    results = Path(config.evaluate.run) / "results.json"
    if engine.environment.rank == 0:
        results.unlink(missing_ok=True)
    engine.barrier()
    config.evaluate.split = "dev"
    out = evaluate.evaluate(config, engine)
    config.evaluate.split = "test"
    archive = evaluate.predict(config, engine)
    engine.close()
    return {k: out[k] for k in ("auc", "mrr", "ndcg5", "ndcg10", "impressions")}, hashlib.sha256(
        archive.read_bytes()
    ).hexdigest()


def test_any_number_of_ranks(trained):
    alone = on_ranks(1, score, trained)[0]
    for ranks in (2, 3):
        assert all(result == alone for result in on_ranks(ranks, score, trained))
