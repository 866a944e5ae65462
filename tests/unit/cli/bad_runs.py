"""Damaged weights, run folders, teacher caches and predictions."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.unit.cli.bad_data import Executed
from tests.unit.cli.bad_table import Place, add, case, edit_json
from tnr_dist.models.weights import read_safetensors

# The PLM --------------------------------------------------------------------------------------------------------------


def _convert(place: Place, plm: Path) -> list[Any]:
    return ["plm", "convert", plm, "--output", place.path / "converted"]


def _as_bin(place: Place, content: bytes) -> Path:
    plm = place.model()
    (plm / "model.safetensors").unlink()
    (plm / "pytorch_model.bin").write_bytes(content)
    return plm


@case("pytorch_model.bin", "refused")
def weights_with_a_pickled_call(place: Place) -> list[Any]:
    return _convert(place, _as_bin(place, pickle.dumps({"a": Executed(place.path / "executed")})))


@case("pytorch_model.bin", "refused")
def weights_of_torch_with_a_pickled_call(place: Place) -> list[Any]:
    torch.save({"a": torch.zeros(2), "b": Executed(place.path / "executed")}, place.path / "x.bin")
    return _convert(place, _as_bin(place, (place.path / "x.bin").read_bytes()))


@case("pytorch_model.bin", "not a tensor")
def weights_of_numbers(place: Place) -> list[Any]:
    torch.save({"a": 3}, place.path / "x.bin")
    return _convert(place, _as_bin(place, (place.path / "x.bin").read_bytes()))


add("weights_bin_empty", lambda place: _convert(place, _as_bin(place, b"")), "pytorch_model.bin")
add("weights_bin_of_text", lambda place: _convert(place, _as_bin(place, b"<html>404</html>")), "pytorch_model.bin")


def _safetensors(place: Place, change: Callable[[Path], None]) -> list[Any]:
    plm = place.model()
    change(plm / "model.safetensors")
    return ["finetune", place.config(), "finetune.init=plm", f"plm.name={plm}"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _header_too_long(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])


def _header_of_noise(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 64) + b"{" * 64)


def _nan(path: Path) -> None:
    weights = load_file(path)
    weights["encoder.layer.1.output.dense.weight"][3, 5] = float("nan")
    save_file(weights, path)


def _other_shape(path: Path) -> None:
    weights = load_file(path)
    weights["embeddings.word_embeddings.weight"] = torch.zeros(7, 32)
    save_file(weights, path)


def _without_a_key(path: Path) -> None:
    weights = load_file(path)
    weights.pop("encoder.layer.0.output.dense.bias")
    save_file(weights, path)


for _name, _change, _says in (
    ("truncated", _cut, "not a readable safetensors"),
    ("with_a_header_too_long", _header_too_long, "not a readable safetensors"),
    ("with_a_header_of_noise", _header_of_noise, "not a readable safetensors"),
    ("of_nan", _nan, "not finite"),
    ("of_another_shape", _other_shape, "word_embeddings.weight has shape [7, 32]"),
    ("without_a_key", _without_a_key, "output.dense.bias is missing"),
):
    add(
        f"weights_{_name}",
        lambda place, change=_change: _safetensors(place, change),
        "model.safetensors",
        _says,
    )


def _plm_config(place: Place, **changes: Any) -> list[Any]:
    plm = place.model()
    edit_json(plm / "config.json", lambda config: config.update(changes))
    return _convert(place, plm)


for _key, _value in {
    "num_attention_heads": 5,
    "num_hidden_layers": -1,
    "hidden_size": 0,
    "vocab_size": "many",
    "hidden_act": "magic",
    "model_type": "gpt2",
    "hidden_dropout_prob": "a lot",
}.items():
    add(
        f"plm_config_{_key}",
        lambda place, key=_key, value=_value: _plm_config(place, **{key: value}),
        "config.json",
    )


@case("config.json", "not a JSON")
def plm_config_not_json(place: Place) -> list[Any]:
    plm = place.model()
    (plm / "config.json").write_text("<html>")
    return _convert(place, plm)


@case("tokenizer_config.json")
def plm_tokenizer_config_is_a_list(place: Place) -> list[Any]:
    plm = place.model()
    (plm / "tokenizer_config.json").write_text("[]")
    return place.prepare("--plm", plm, input=place.raw())


@case("vocab.txt")
def plm_vocabulary_in_utf16(place: Place) -> list[Any]:
    plm = place.model()
    words = (plm / "vocab.txt").read_text()
    (plm / "vocab.txt").write_text(words, encoding="utf-16")
    return place.prepare("--plm", plm, input=place.raw())


@case("tokenizer.json")
def plm_tokenizer_not_json(place: Place) -> list[Any]:
    plm = place.model()
    (plm / "tokenizer.json").write_text("{}")
    return place.prepare("--plm", plm, input=place.raw())


@case("converted", "exists and is not")
def convert_into_a_folder_of_others(place: Place) -> list[Any]:
    (place.path / "converted").mkdir()
    (place.path / "converted" / "thesis.tex").write_text("mine")
    return _convert(place, place.plm)


# Run folders ----------------------------------------------------------------------------------------------------------


@case("post-train is not finished")
def stage_before_its_input(place: Place) -> list[Any]:
    return ["stage1", place.config()]


@case("not finished")
def baseline_before_its_input(place: Place) -> list[Any]:
    return ["baseline", "tinybert", place.config()]


@case("teacher-0", "finetune.lr", "choose another output")
def run_made_otherwise(place: Place) -> list[Any]:
    place.finished()
    return ["finetune", place.config(), "finetune.lr=0.5"]


@case("stage1-1", "exists and is not a run of")
def run_folder_of_others(place: Place) -> list[Any]:
    run = place.finished()
    for path in (run / "stage1-1").iterdir():
        path.unlink() if path.is_file() else None
    (run / "stage1-1" / "thesis.tex").write_text("mine")
    return ["stage1", place.config()]


@case("run", "post-train")
def run_folder_is_a_file(place: Place) -> list[Any]:
    (place.path / "run").mkdir()
    (place.path / "run" / "post-train").write_text("mine")
    return ["post-train", place.config()]


@case("run")
def output_is_a_file(place: Place) -> list[Any]:
    (place.path / "run").write_text("mine")
    return ["post-train", place.config()]


def _damaged(name: str, content: str | None, *command: str) -> Callable[[Place], list[Any]]:
    """A file of the finished runs with other content; None leaves half of it."""

    def arguments(place: Place) -> list[Any]:
        path = place.finished() / name
        if content is None:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            path.write_text(content)
        given = {"CONFIG": place.config(), "STUDENT": place.path / "run" / "stage2-1", "OUT": place.path / "exported"}
        return [given.get(one, one) for one in command]

    return arguments


_EVALUATE, _STAGE2 = ("evaluate", "CONFIG"), ("stage2", "CONFIG")
_EXPORT = ("export", "STUDENT", "--to", "hf", "--output", "OUT")
for _name, _file, _content, _command, _says in (
    ("complete_not_json", "stage2-1/complete.json", "{", _EVALUATE, "complete.json: not a JSON"),
    ("complete_is_a_list", "stage2-1/complete.json", "[]", _EVALUATE, "complete.json: not a completion mark"),
    ("complete_is_a_list_again", "stage2-1/complete.json", "[]", _STAGE2, "complete.json: holds a list"),
    ("complete_without_settings", "stage2-1/complete.json", '{"id": "x", "settings": 3}', _STAGE2, "complete.json"),
    ("results_not_json", "stage2-1/results.json", "NaN,", _EVALUATE, "results.json: not a JSON"),
    ("results_is_a_list", "stage2-1/results.json", "[]", _EVALUATE, "results.json"),
    ("model_truncated", "stage2-1/model.safetensors", None, _EVALUATE, "model.safetensors: not a readable"),
    ("model_truncated_for_predict", "stage2-1/model.safetensors", None, ("predict", "CONFIG"), "model.safetensors"),
    ("model_truncated_for_export", "stage2-1/model.safetensors", None, _EXPORT, "model.safetensors: not a readable"),
    ("run_config_not_yaml", "stage2-1/config.yaml", "a: [", _EXPORT, "config.yaml, line"),
    ("run_config_of_another_version", "stage2-1/config.yaml", "newer: 3", _EVALUATE, "config.yaml: unknown key"),
    ("complete_not_json_for_report", "stage2-1/complete.json", "{", ("report", "STUDENT"), "complete.json: not a JSON"),
):
    add(f"run_{_name}", _damaged(_file, _content, *_command), _says)


def _model(change: Callable[[dict[str, torch.Tensor], dict[str, str]], Any]) -> Callable[[Place], list[Any]]:
    def arguments(place: Place) -> list[Any]:
        path = place.finished() / "stage2-1" / "model.safetensors"
        weights, metadata = read_safetensors(path)
        change(weights, metadata)
        save_file(weights, path, metadata=metadata)
        return ["evaluate", place.config()]

    return arguments


for _name, _edit, _says in (
    ("of_nan", lambda weights, _: weights["news_encoder.dense.weight"].fill_(float("nan")), "not finite"),
    ("without_a_key", lambda weights, _: weights.pop("news_encoder.dense.weight"), "dense.weight is missing"),
    ("without_architecture", lambda _, metadata: metadata.pop("architecture"), "no architecture"),
    ("with_architecture_of_a_list", lambda _, metadata: metadata.update(architecture="[]"), "architecture is no object"),
    ("with_architecture_of_text", lambda _, metadata: metadata.update(architecture="bert"), "architecture"),
    (
        "of_negative_size",
        lambda _, metadata: metadata.update(architecture=metadata["architecture"].replace('"news_dim": 16', '"news_dim": -16')),
        "news_dim",
    ),
):  # fmt: skip
    add(f"model_{_name}", _model(_edit), "stage2-1/model.safetensors", _says)


@case("stage2-1", "not finished")
def evaluate_of_an_unfinished_run(place: Place) -> list[Any]:
    (place.finished() / "stage2-1" / "complete.json").unlink()
    return ["evaluate", place.config()]


@case("no labels")
def evaluate_without_labels(place: Place) -> list[Any]:
    place.finished()
    return ["evaluate", place.config(), "evaluate.split=test"]


@case("prepared with the news inputs title")
def finetune_on_other_inputs(place: Place) -> list[Any]:
    return ["finetune", place.config(), "finetune.init=plm", "data.news_inputs=[title,category]"]


@case("stage2-1", "not a run itself", "stage2-1")
def export_of_a_seed(place: Place) -> list[Any]:
    return ["export", place.finished(), "--to", "hf"]


@case("/proc/ex: this folder cannot be made", "--output takes another folder")
def export_into_proc(place: Place) -> list[Any]:
    return ["export", place.finished() / "stage2-1", "--to", "hf", "--output", "/proc/ex"]


@case("mine/x: lies under a file", "--output takes another folder")
def export_under_a_file(place: Place) -> list[Any]:
    (place.path / "mine").write_text("mine")
    return ["export", place.finished() / "stage2-1", "--to", "hf", "--output", place.path / "mine" / "x"]


@case("hf", "exists and is not this export")
def export_over_others(place: Place) -> list[Any]:
    run = place.finished() / "stage2-1"
    (run / "export" / "hf").mkdir(parents=True)
    (run / "export" / "hf" / "thesis.tex").write_text("mine")
    return ["export", run, "--to", "hf"]


@case("no run there")
def report_of_a_folder_without_runs(place: Place) -> list[Any]:
    (place.path / "empty").mkdir()
    return ["report", place.path / "empty"]


# The teacher cache ----------------------------------------------------------------------------------------------------


def _cache(place: Place, change: Callable[[Path], Any]) -> list[Any]:
    run = place.finished()
    change(run / "cache")
    (run / "stage2-1").rename(place.path / "before")
    return ["stage2", place.config()]


def _side_shard(folder: Path) -> Path:
    return sorted((folder / "train").glob("*.tar"))[0]


for _name, _damage, _says in (
    ("missing", lambda cache: (cache / "cache.json").unlink(), "no teacher cache"),
    ("not_json", lambda cache: (cache / "cache.json").write_text("{"), "cache.json: not a JSON"),
    ("of_another_version", lambda cache: edit_json(cache / "cache.json", lambda c: c.update(format_version=9)), "format 1"),
    ("of_other_data", lambda cache: edit_json(cache / "cache.json", lambda c: c.update(data="0" * 64)), "other data"),
    ("without_splits", lambda cache: edit_json(cache / "cache.json", lambda c: c.pop("splits")), "cache.json"),
    ("with_news_of_noise", lambda cache: (cache / "news.safetensors").write_bytes(b"x" * 99), "news.safetensors"),
    ("with_an_empty_side_shard", lambda cache: _side_shard(cache).write_bytes(b""), "shard-000000.tar: damaged"),
    ("without_a_side_shard", lambda cache: _side_shard(cache).unlink(), "shard-000000.tar: cannot be read"),
):  # fmt: skip
    add(f"cache_{_name}", lambda place, damage=_damage: _cache(place, damage), "cache", _says, working=True, begun=True)


# Predictions ----------------------------------------------------------------------------------------------------------


def _prediction(place: Place, content: str | bytes, member: str = "prediction.txt") -> list[Any]:
    with zipfile.ZipFile(place.path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return ["predict", "--check", place.path / "p.zip"]


for _name, _content, _says in (
    ("empty", "", "empty"),
    ("of_nan", "1 [1,nan]\n", "'1 [1,nan]'"),
    ("of_rank_0", "1 [0,1]\n", "'1 [0,1]'"),
    ("of_negative_ranks", "1 [-1,2]\n", "'1 [-1,2]'"),
    ("of_equal_ranks", "1 [1,1]\n", "occurs twice"),
    ("of_a_rank_too_high", "1 [1,3]\n", "rank 3"),
    ("of_a_repeated_impression", "1 [1]\n1 [1]\n", "has a line already"),
    ("in_utf16", "1 [1]\n".encode("utf-16"), "line 1"),
    ("of_a_line_of_10_mb", b"1" * 10_000_000, "a line of more than"),
    ("of_a_huge_number", "1 [1,99999999999999999999]\n", "line 1"),
):
    add(f"prediction_{_name}", lambda place, content=_content: _prediction(place, content), "p.zip", _says)

add("prediction_missing", lambda place: ["predict", "--check", place.path / "p.zip"], "p.zip: no such file")
add("prediction_is_a_folder", lambda place: ["predict", "--check", place.path], "a folder")
add(
    "prediction_with_an_escaping_member",
    lambda place: _prediction(place, "1 [1]\n", "../prediction.txt"),
    "'../prediction.txt'",
)


@case("p.zip", "impression 999999")
def prediction_of_another_split(place: Place) -> list[Any]:
    return ["predict", place.config(), *_prediction(place, "999999 [1]\n")[1:]]
