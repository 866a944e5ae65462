"""The whole chain on one rank with a tiny PLM: complete runs are skipped, changed inputs redo what follows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tnr_dist.cli.app import main
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.shards import read_index, read_shard
from tnr_dist.data.teacher_cache import TeacherCache
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.recommender import load_recommender
from tnr_dist.stages import cache, pipeline
from tnr_dist.stages import evaluate as evaluate_module
from tnr_dist.stages.evaluate import evaluate, scored, write_impressions
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command
from tnr_dist.util import preemption
from tnr_dist.util.errors import InputError, Preempted


def chain(path: Path, *overrides: str) -> None:
    config = load_config(path, overrides)
    engine = DDPEngine("cpu", 1)
    pipeline.run_chain(config, engine)


def ids(output: Path) -> dict[str, str]:
    return {p.parent.name: json.loads(p.read_text())["id"] for p in (output / "seed-0").glob("*/complete.json")}


def test_run_folders_keep_the_contract(finished):
    run = finished / "seed-0" / "stage2-1"
    results = json.loads((run / "results.json").read_text())
    for key in ("stage", "split", "auc", "mrr", "ndcg5", "ndcg10", "impressions", "model", "seed", "seconds"):
        assert key in results
    assert results["stage"] == "stage2" and 0 <= results["auc"] <= 1 and results["model"]["layers"] == 1
    model, _ = load_recommender(run / "model.safetensors")
    assert results["model"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert load_config(run / "config.yaml").student.layers == 1
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records.pop()["eval/auc"] == results["auc"]  # added by the evaluation
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    for key in ("train/loss", "train/loss_distill", "train/loss_emb_news", "train/loss_emb_user", "train/loss_target",
                "train/omega", "train/teacher_weight_0", "train/teacher_weight_1", "train/teacher_entropy", "optim/lr",
                "optim/grad_norm", "perf/samples_per_s", "perf/data_wait_pct"):  # fmt: skip
        assert key in records[-1]
    assert (run / "checkpoints" / "2" / "state.json").is_file()
    weights = records[-1]["train/teacher_weight_0"] + records[-1]["train/teacher_weight_1"]
    assert weights == pytest.approx(1, abs=1e-5)
    assert (
        records[0]["train/omega"] == pytest.approx(1, abs=1e-5)
        and records[-1]["train/omega"] != records[0]["train/omega"]
    )


@pytest.mark.parametrize("name", ["teacher-1", "finetune-1"])
def test_a_finetuned_model_s_configuration_is_its_own(finished, name, capsys):
    config = load_config(finished / "seed-0" / name / "config.yaml")
    run_command("finetune", config, DDPEngine("cpu", 1))
    said = capsys.readouterr().err
    assert f"{name}: complete, skipped" in said and said.count("complete") == 1


@pytest.mark.parametrize(("setting", "value"), [("title_tokens", 4), ("history", 2)])
def test_an_evaluation_of_other_settings_is_another_one(copy, chain_yaml, capsys, setting, value):
    config = load_config(chain_yaml, [f"output={copy / 'seed-0'}", "student.layers=1"])
    run = copy / "seed-0" / "stage2-1"
    config.evaluate.run, engine = str(run), DDPEngine("cpu", 1)
    first = evaluate(config, engine)
    assert "results.json: complete, skipped" in capsys.readouterr().err
    setattr(config.data, setting, value)
    cut = evaluate(config, engine)
    assert "settings; replaced" in capsys.readouterr().err
    assert cut["auc"] != first["auc"] and json.loads((run / "results.json").read_text()) == cut
    # A table does not take it for the row's: `tnr run` scores the run again as it was trained.
    assert not pipeline.is_complete(load_config(chain_yaml, [f"output={copy}"]))
    chain(chain_yaml, f"output={copy}")
    assert json.loads((run / "results.json").read_text())["auc"] == first["auc"]


def test_an_evaluation_says_what_it_skipped():
    results = {"impressions": 1900, "skipped": 0, "split": "dev"}
    assert scored(results) == "1,900 impressions of dev"
    said = scored(results | {"skipped": 100})
    assert said == "1,900 impressions of dev; 100 (5.0 %) are skipped: all or none of their candidates were clicked"


def test_baselines_of_another_split_are_not_the_chain_s(copy, chain_yaml):
    config = load_config(chain_yaml, [f"output={copy}"])
    data, file = DataSet.open(config), copy / "baselines.json"
    own = json.loads(file.read_text())
    pipeline.baselines(load_config(chain_yaml, [f"output={copy}", "evaluate.split=train"]), data, DDPEngine("cpu", 1))
    assert json.loads(file.read_text())["rows"] != own["rows"]
    assert not pipeline.is_complete(config)
    pipeline.run_chain(config, DDPEngine("cpu", 1))
    assert json.loads(file.read_text()) == own and pipeline.is_complete(config)


def test_told_to_stop_the_chain_evaluates_no_further_model(copy, chain_yaml, monkeypatch):
    config, left = load_config(chain_yaml, [f"output={copy}"]), sorted((copy / "seed-0").glob("*/results.json"))
    for file in left:
        file.unlink()
    scored = []

    def told_meanwhile(*arguments):
        preemption._requested.set()
        scored.append(1)
        return write_impressions(*arguments)

    monkeypatch.setattr(evaluate_module, "write_impressions", told_meanwhile)
    with pytest.raises(Preempted, match="evaluate dev: stopped"):
        pipeline.run_chain(config, DDPEngine("cpu", 1))
    assert len(scored) == 1 and len(left) == 3
    monkeypatch.undo()
    pipeline.run_chain(config, DDPEngine("cpu", 1))
    assert pipeline.is_complete(config)


def test_a_split_without_labels_is_refused_before_anything_is_trained(chain_yaml, tmp_path):
    with pytest.raises(InputError, match="the test split has no labels"):
        chain(chain_yaml, f"output={tmp_path / 'run'}", "evaluate.split=test")
    assert not (tmp_path / "run").exists()


def test_generated_data_can_be_scored_on_train(chain_yaml, raw_mind, tmp_path, monkeypatch):
    """The generator keeps no true probabilities of it: there is no oracle."""
    monkeypatch.setattr(pipeline, "raw_folder", lambda config: raw_mind)
    rows = {}
    for split in ("dev", "train"):
        config = load_config(chain_yaml, ["data.input=", f"output={tmp_path}", f"evaluate.split={split}"])
        pipeline.baselines(config, DataSet.open(config), DDPEngine("cpu", 1))
        rows[split] = set(json.loads((tmp_path / "baselines.json").read_text())["rows"])
    assert rows["dev"] - rows["train"] == {"oracle"}


def test_only_the_last_layers_train(finished):
    states = [
        load_recommender(finished / "seed-0" / name / "model.safetensors")[0].state_dict()
        for name in ("post-train", "teacher-0")
    ]
    encoder = "news_encoder.encoder."
    moved = {key for key in states[0] if key.startswith(encoder) and not torch.equal(states[0][key], states[1][key])}
    layers = {key.removeprefix(encoder).split(".")[1] for key in moved}
    assert layers == {"1", "2"}  # finetune trains the last 2 of 3; embeddings and layer 0 stay


def test_second_run_does_nothing(copy, chain_yaml, capsys):
    before = ids(copy)
    chain(chain_yaml, f"output={copy}")
    assert ids(copy) == before
    assert pipeline.is_complete(load_config(chain_yaml, [f"output={copy}"]))
    assert "complete, skipped" in capsys.readouterr().err


def snapshot(output: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of the runs: what it holds and when it was written."""
    files = [path for path in sorted((output / "seed-0").rglob("*")) if path.is_file()]
    return {str(path.relative_to(output)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("deleted", ["teacher-1", "stage1-1", "finetune-1", "post-train"])
def test_a_deleted_stage_is_made_again_and_what_follows_stays(copy, chain_yaml, deleted):
    """It comes out the same, so that nothing that was made from it is in doubt."""
    before = snapshot(copy)
    shutil.rmtree(copy / "seed-0" / deleted)
    assert not pipeline.is_complete(load_config(chain_yaml, [f"output={copy}"]))
    chain(chain_yaml, f"output={copy}")
    after = snapshot(copy)
    for name, file in before.items():
        if name.split("/")[1] != deleted:
            assert file == after[name], name
        elif Path(name).name == "model.safetensors":
            assert file[0] == after[name][0], name
    assert pipeline.is_complete(load_config(chain_yaml, [f"output={copy}"]))


def test_the_same_seed_gives_the_same_model(copy, chain_yaml):
    model = copy / "seed-0" / "stage2-1" / "model.safetensors"
    before = load_recommender(model)[0].state_dict()
    shutil.rmtree(copy / "seed-0" / "stage2-1")
    chain(chain_yaml, f"output={copy}")
    after = load_recommender(model)[0].state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_a_changed_setting_is_refused_by_the_stage_and_named(copy, chain_yaml):
    config = load_config(chain_yaml, [f"output={copy / 'seed-0'}", "student.layers=1", "stage2.beta2=0.5"])
    with pytest.raises(InputError, match=r"with other settings \(.*stage2"):
        run_command("stage2", config, DDPEngine("cpu", 1))


def seed_config(output: Path, chain_yaml: Path, *overrides: str):
    return load_config(chain_yaml, [f"output={output / 'seed-0'}", "student.layers=1", *overrides])


def test_cache_holds_what_the_teachers_say(finished, chain_yaml):
    config = seed_config(finished, chain_yaml)
    data = DataSet.open(config)
    stored = TeacherCache(finished / "seed-0" / "cache", cache.expected(config, data))
    news = stored.news_vectors().float()
    index = read_index(data.folder, "train")
    info = index.shards[0]
    blocks = read_shard(data.folder / "train" / info.name, info)
    columns = stored.columns("train", info)
    _key, block = next(iter(blocks.items()))
    titles = data.news_tokens(config.data)
    for number in range(2):
        model, _ = load_recommender(finished / "seed-0" / f"teacher-{number}" / "model.safetensors")
        model.eval()
        from tnr_dist.models.packed import Packed

        with torch.no_grad():
            exact = model.encode_news(Packed.gather(titles.values, titles.offsets, np.arange(len(titles))))
        assert (news[number] - exact).abs().max() <= stored.facts["news"]["max_rounding_error"] + 1e-5
        # One impression by hand, from the stored vectors.
        i = len(block["row"]) // 2
        h = block["impression_history"][i]
        clicked = block["history_news"][block["history_offsets"][h] : block["history_offsets"][h + 1]][-10:]
        low, high = block["candidate_offsets"][i], block["candidate_offsets"][i + 1]
        with torch.no_grad():
            if len(clicked):
                rows = news[number][clicked.astype(int)].unsqueeze(0)
                user = model.encode_users(rows, torch.ones(rows.shape[:2], dtype=torch.bool))[0]
            else:
                user = torch.zeros(16)
            logits = news[number][block["candidate_news"][low:high].astype(int)] @ user
        np.testing.assert_allclose(columns.logits[low:high, number], logits, rtol=1e-4, atol=1e-5)
        from tnr_dist.util.transfer import from_stored

        rounded = stored.facts["users"]["max_rounding_error"]
        np.testing.assert_allclose(from_stored(columns.users)[h, number].float(), user, atol=rounded + 1e-5, rtol=0)


@pytest.mark.parametrize("damage", ["other teacher", "other data", "side shard", "news", "no cache", "not json"])
def test_a_wrong_cache_is_refused(copy, chain_yaml, damage, monkeypatch):
    folder = copy / "seed-0" / "cache"
    shutil.rmtree(copy / "seed-0" / "stage2-1")
    facts = json.loads((folder / "cache.json").read_text())
    if damage == "other teacher":
        facts["teachers"][1]["sha256"] = "0" * 64
    if damage == "other data":
        facts["data"] = "0" * 64
    (folder / "cache.json").write_text(json.dumps(facts) if damage != "not json" else "{")
    if damage == "side shard":
        shard = next((folder / "train").glob("*.tar"))
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(bytes(data))
    if damage == "news":
        (folder / "news.safetensors").write_bytes(b"x" * 100)
    if damage == "no cache":
        (folder / "cache.json").unlink()
    says = {"other teacher": "other teachers", "other data": "other data", "side shard": "damaged", "news": "damaged",
            "no cache": "no teacher cache", "not json": "not a JSON"}  # fmt: skip
    with pytest.raises(InputError, match=says[damage]) as error:
        run_command("stage2", seed_config(copy, chain_yaml), DDPEngine("cpu", 1))
    assert "\n" not in str(error.value)
    assert not (copy / "seed-0" / "stage2-1" / "complete.json").exists()


def test_predict_writes_a_valid_submission(copy, chain_yaml, capsys, monkeypatch):
    def tnr(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["tnr", *arguments])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    out = f"output={copy / 'seed-0'}"
    common = (str(chain_yaml), out, "student.layers=1", "evaluate.split=test")
    assert tnr("predict", *common) == 0
    archive = copy / "seed-0" / "stage2-1" / "prediction.zip"
    assert tnr("predict", *common, "--check", str(archive)) == 0
    assert "valid, 50 impressions" in capsys.readouterr().out
    assert tnr("predict", str(chain_yaml), "evaluate.split=dev", "--check", str(archive)) == 2
    assert tnr("evaluate", *common) == 2  # test has no labels
    assert "no labels" in capsys.readouterr().err


def test_a_model_of_another_shape_is_not_continued(copy, chain_yaml):
    shutil.rmtree(copy / "seed-0" / "stage2-1")
    config = seed_config(copy, chain_yaml)
    config.model.dropout = 0.3  # may differ: it is no part of the shape
    from tnr_dist.stages.parts.start_models import continued_model

    model, spec = continued_model(config, copy / "seed-0" / "stage1-1", "stage1")
    assert spec.encoder.dropout == 0.3 and model.news_encoder.encoder.layers[0].dropout == 0.3
    config.model.news_dim = 8
    with pytest.raises(InputError, match=r"model\.news_dim=8: .* was made with 16; run stage1 again"):
        continued_model(config, copy / "seed-0" / "stage1-1", "stage1")
