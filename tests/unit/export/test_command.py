"""`tnr export`: whole or not at all, nothing overwritten silently, one line for every mistake."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from tnr_dist.errors import InputError
from tnr_dist.export import huggingface, measure, runtimes
from tnr_dist.export.command import export
from tnr_dist.files import read_json, write_json

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
    write_json(other / "manifest.json", manifest)
    with pytest.raises(InputError, match="--data"):
        export(copy, ["vectors"], data=other)


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


def test_card(copy):
    (place,) = export(copy, ["hf"], speed=True)
    card = (place / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    assert "2 layers" in card and "D = 16" in card
    assert "| 70.21 |" in card and "150 impressions" in card
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
