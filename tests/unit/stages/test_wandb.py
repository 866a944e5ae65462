"""The last links of the chain on the real wandb client, offline: keys, tables, and the lineage from data to student."""

import json
import os
import shutil

import pytest

from tests.wandb_files import read_offline
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.runs.wandb_tables import news_titles
from tnr_dist.stages import cache, stage2
from tnr_dist.stages.evaluate import evaluate
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command

TRAINING = {
    "train/loss", "train/loss_distill", "train/loss_emb_news", "train/loss_emb_user", "train/loss_target", "train/omega",
    "train/teacher_weight_0", "train/teacher_weight_1", "train/teacher_entropy", "optim/lr", "optim/grad_norm",
    "perf/samples_per_s", "perf/news_per_s", "perf/tokens_per_s", "perf/mfu", "perf/data_wait_pct", "perf/dedupe_ratio",
    "perf/ms_per_step", "memory/max_gib",
}  # fmt: skip


@pytest.fixture(scope="module")
def logged(finished, chain_yaml, tmp_path_factory):
    """Cache and stage 2 made again with the client on, and evaluated twice."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    output = tmp_path_factory.mktemp("logged") / "expériment"
    shutil.copytree(finished, output)
    settings = [f"output={output / 'seed-0'}", "student.layers=1"]
    config = load_config(chain_yaml, settings)
    for name in ("cache", "stage2-1"):
        shutil.rmtree(output / "seed-0" / name)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
            patch.delenv(name)
        patch.setenv("WANDB_MODE", "offline")
        engine = DDPEngine("cpu", 1)
        run_command("cache", config, engine)
        run_command("stage2", config, engine)
        results = evaluate(config, engine)
        (output / "seed-0" / "stage2-1" / "results.json").unlink()
        evaluate(load_config(chain_yaml, [*settings, "wandb.project=mine", "wandb.entity=me"]), engine)
    return config, results


def test_training_and_evaluation_are_one_run(logged):
    config, results = logged
    run = stage2.run_folder(config, DataSet.open(config)).path
    training, first, second = read_offline(run)
    assert training.run.run_id == first.run.run_id == second.run.run_id
    assert {part.run.job_type for part in (training, first, second)} == {"stage2"}
    assert {part.run.run_group for part in (training, first, second)} == {"expériment"}
    for logged_, record in zip(training.history, read_metrics(run / "metrics.jsonl"), strict=False):
        assert set(logged_) >= TRAINING
        assert {key: logged_[key] for key in record} == pytest.approx(record)
    # A step that never falls, or the server leaves the evaluation out.
    assert [one["_step"] for part in (training, first, second) for one in part.history] == [1, 2, 3, 4, 5, 6]
    (evaluation,) = first.history
    for name in ("auc", "mrr", "ndcg5", "ndcg10"):
        assert evaluation[f"eval/{name}"] == results[name]
    assert evaluation["samples"] == training.history[-1]["samples"]
    records = read_metrics(run / "metrics.jsonl")
    assert [one.get("eval/auc") for one in records] == [None] * 4 + [results["auc"]] * 2


def test_who_evaluates_decides_where_tables_go(logged):
    """Not the configuration of the run folder, which may be from elsewhere."""
    config, _ = logged
    training, first, second = read_offline(stage2.run_folder(config, DataSet.open(config)).path)
    assert training.run.project == first.run.project == config.wandb.project != "mine"
    assert (second.run.project, second.run.entity) == ("mine", "me")


def test_tables_name_news(logged):
    config, _ = logged
    data = DataSet.open(config)
    _, part, _ = read_offline(stage2.run_folder(config, data).path)
    titles = set(news_titles(data.folder))
    worst = part.tables["eval/worst_impressions"]
    assert len(worst["data"]) == 20
    columns = worst["columns"]
    for row in worst["data"]:
        values = dict(zip(columns, row, strict=True))
        for name in ("clicked", "ranked_first"):
            assert set(values[name].split("\n")) <= titles
    nearest = part.tables["eval/nearest_news"]
    assert nearest["columns"][:3] == ["news", "nearest_1", "cosine_1"] and len(nearest["data"]) == 30
    assert all(row[0] in titles and row[1] in titles for row in nearest["data"])


def test_lineage_leads_from_the_data_to_the_student(logged):
    config, _ = logged
    data = DataSet.open(config)
    used, made = {}, {}
    for run in (cache.run_folder(config, data), stage2.run_folder(config, data)):
        part = read_offline(run.path)[0]
        used[run.stage] = {one.name: one for one in part.artifacts if one.use_after_commit}
        made[run.stage] = {one.name: one for one in part.artifacts if not one.use_after_commit}
    dataset, prefix = f"data-{data.folder.name}", "exp_riment-seed-0"
    assert set(used["cache"]) == {dataset, f"{prefix}-teacher-0", f"{prefix}-teacher-1"}
    assert set(made["cache"]) == {f"{prefix}-cache"}
    assert set(used["stage2"]) == {dataset, f"{prefix}-stage1-1", f"{prefix}-cache"}
    assert set(made["stage2"]) == {f"{prefix}-stage2-1", f"{prefix}-stage2-1-checkpoints"}
    # What one run has made and another uses is the same version.
    assert made["cache"][f"{prefix}-cache"].digest == used["stage2"][f"{prefix}-cache"].digest
    model = made["stage2"][f"{prefix}-stage2-1"]
    assert model.type == "model" and used["stage2"][f"{prefix}-cache"].type == "teacher-cache"
    references = {entry.path: entry.ref for entry in model.manifest.contents}
    run = stage2.run_folder(config, data).path
    assert references == {name: (run / name).resolve().as_uri() for name in ("complete.json", "model.safetensors")}
    assert json.loads(model.metadata)["id"] == json.loads((run / "complete.json").read_text())["id"]
    steps = json.loads(made["stage2"][f"{prefix}-stage2-1-checkpoints"].metadata)["steps"]
    assert steps == [2]
