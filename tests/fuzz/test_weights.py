"""Weights, models, checkpoints and predictions: any bytes are read or refused, nothing in them is executed."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from safetensors.torch import save

from tests.fuzz.damage import anything, damaged, fuzzed, sound_or_refused
from tnr_dist.data.prepare.raw import find_splits, read_news
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.evaluation.submission import check_prediction
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.plm import load_plm
from tnr_dist.models.recommender import ModelSpec, build_recommender, load_recommender, save_recommender
from tnr_dist.models.weights import read_safetensors, read_weights
from tnr_dist.train.checkpoint import Checkpoints

pytestmark = pytest.mark.fuzz

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
SAFETENSORS = save(WEIGHTS, {"architecture": "{}"})


class Executed:
    """What unpickles into a call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def as_bin(content: object, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@fuzzed
@given(anything(SAFETENSORS))
@example(b"\xff" * 8 + SAFETENSORS[8:])
def test_safetensors(folder, data):
    (folder / "x.safetensors").write_bytes(data)
    sound_or_refused(lambda: read_safetensors(folder / "x.safetensors"))


@pytest.mark.parametrize("zipped", [True, False])
def test_bin(tmp_path, zipped):
    @fuzzed
    @given(anything(as_bin(WEIGHTS, zipped)))
    def check(data):
        (tmp_path / "pytorch_model.bin").write_bytes(data)
        sound_or_refused(lambda: read_weights(tmp_path))

    check()


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_bin_that_wants_to_run(tmp_path, form):
    marker = tmp_path / "executed"
    content = {"a": torch.zeros(2), "b": Executed(marker)}
    seed = pickle.dumps({"b": Executed(marker)}, 2) if form == "pickle" else as_bin(content, form == "zip")
    (tmp_path / "weights").mkdir()

    @fuzzed
    @given(anything(seed))
    @example(seed)
    def check(data):
        (tmp_path / "weights" / "pytorch_model.bin").write_bytes(data)
        sound_or_refused(lambda: read_weights(tmp_path / "weights"))
        assert not marker.exists()

    check()


def test_plm_folder(tmp_path, tiny_plm):
    sound = (tiny_plm / "config.json").read_bytes()
    words = (tiny_plm / "vocab.txt").read_bytes()
    plm = shutil.copytree(tiny_plm, tmp_path / "plm")

    @fuzzed
    @given(anything(sound))
    def check_config(data):
        (plm / "config.json").write_bytes(data)
        sound_or_refused(lambda: load_plm(str(plm)))

    @fuzzed
    @given(anything(words))
    def check_words(data):
        from tnr_dist.models.tokenizer import load_tokenizer

        (plm / "vocab.txt").write_bytes(data)
        sound_or_refused(lambda: load_tokenizer(str(plm)).encode_batch(["a b", ""], 5))

    check_config()
    (plm / "config.json").write_bytes(sound)
    check_words()


def small_model() -> tuple[torch.nn.Module, ModelSpec]:
    spec = ModelSpec(EncoderConfig(11, 8, 1, 2, 8, 10), news_dim=4, query_dim=3)
    return build_recommender(spec), spec


def test_model(tmp_path):
    path = save_recommender(*small_model(), tmp_path / "model.safetensors")
    sound = path.read_bytes()

    @fuzzed
    @given(damaged(sound[:2500]))
    def check(head):
        path.write_bytes(head + sound[2500:])
        loaded = sound_or_refused(lambda: load_recommender(path))
        if loaded is not None:
            assert all(torch.isfinite(p).all() for p in loaded[0].parameters())

    check()


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_checkpoint(tmp_path, name):
    """A damaged checkpoint is never loaded: what training goes on from is the one before, or the beginning."""
    model = torch.nn.Linear(3, 2)
    engine = DDPEngine("cpu", 1)
    engine.setup(model, lambda m: torch.optim.Adam(m.parameters()), precision="fp32", clip_norm=0.0, batch_size=1)
    checkpoints = Checkpoints(tmp_path, engine, 2)
    for step in (1, 2):
        model(torch.ones(1, 3)).sum().backward()
        engine.step()
        checkpoints.save(step, {"fingerprint": "f", "samples": 0.0, "seconds": 0.0})
    checkpoints.wait(must=True)
    sound = (tmp_path / "2" / name).read_bytes()

    @fuzzed
    @given(anything(sound))
    def check(data):
        (tmp_path / "2" / name).write_bytes(data)
        state = sound_or_refused(lambda: checkpoints.load_newest("f"))
        assert state is not None and state["step"] == (2 if data == sound else 1)

    check()
    checkpoints.close()


def archive(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return buffer.getvalue()


LINES = b"".join(b"%d [2,1,3]\n" % i for i in range(20))


@fuzzed
@given(anything(archive("prediction.txt", LINES)))
def test_prediction_archive(folder, data):
    (folder / "p.zip").write_bytes(data)
    sound_or_refused(lambda: check_prediction(folder / "p.zip"))


@fuzzed
@given(anything(LINES))
@example(b"1 []\n")
@example(b"[1]\n")
@example(b"\n")
def test_prediction_text(folder, data):
    (folder / "p.zip").write_bytes(archive("prediction.txt", data))
    sound_or_refused(lambda: check_prediction(folder / "p.zip"))


def test_raw_archive(tmp_path):
    news = b"N1\tnews\tx\tA title\tAn abstract\tu\t[]\t[]\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("news.tsv", news * 1)
        file.writestr("behaviors.tsv", b"1\tU1\t11/15/2019 8:55:22 AM\tN1\tN1-0\n")

    @fuzzed
    @given(anything(buffer.getvalue()))
    def check(data):
        (tmp_path / "train.zip").write_bytes(data)
        sound_or_refused(lambda: [read_news(split.news) for split in find_splits(tmp_path).values()])

    check()
