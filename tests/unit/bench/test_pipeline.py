"""`tnr bench pipeline`: every second of a run belongs to a stage, and what is scaled is scaled by its items."""

import json
import os

import numpy as np
import pytest

from tnr_dist.bench import pipeline
from tnr_dist.bench.random_plm import write_random_plm
from tnr_dist.bench.work import Shape, click_step, matching_epoch
from tnr_dist.models.plm import load_plm
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.util.errors import InputError


def _mark(path, at, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    os.utime(path, (at, at))


def test_every_second_of_a_run_belongs_to_a_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "open_table", lambda folder, name: np.zeros(50))
    out, data = tmp_path / "out", tmp_path / "data"
    _mark(data / "manifest.json", 1010, {})
    _mark(out / "post-train" / "complete.json", 1030, {"stage": "post-train", "samples": 200, "seconds": 15.0})
    _mark(out / "teacher-1" / "complete.json", 1040, {"stage": "finetune", "samples": 300, "seconds": 8.0})
    _mark(out / "teacher-2" / "complete.json", 1060, {"stage": "finetune", "samples": 300, "seconds": 12.0})
    _mark(out / "cache" / "complete.json", 1065, {"stage": "cache", "made_from": {"teachers": ["a", "b"]}})
    _mark(out / "stage2-4" / "complete.json", 1080, {"stage": "stage2", "samples": 300, "seconds": 9.0})
    _mark(out / "stage2-4" / "results.json", 1090, {})
    stages = {one.name: one for one in pipeline._timeline(out, data, 1000.0, 1100.0)}
    assert {name: one.seconds for name, one in stages.items()} == {
        "prepare": 10, "post-train": 20, "finetune": 30, "cache": 5, "stage2": 15, "evaluate": 10,
        "yardsticks, report": 10,
    }  # fmt: skip
    assert (stages["finetune"].runs, stages["finetune"].items, stages["finetune"].training) == (2, 600, 20.0)
    # 16 trainings on MIND's 3,383,656 samples at the rate of the training alone; nothing is said of what is not scaled.
    assert stages["finetune"].mind_seconds() == pytest.approx(20 / 600 * 16 * 3_383_656)
    assert stages["prepare"].mind_seconds() is None


def test_a_floor_counts_what_a_batch_holds():
    shape = Shape(4, 2, 384)
    small, large = (click_step(shape, 128, titles, 16, 40).flops for titles in (500, 1000))
    assert 1.8 < large / small < 2.0  # the user encoder's part stays
    one, ten = (matching_epoch(shape, 100, 32, titles, 16, 96).flops for titles in (1, 10))
    assert ten > one


def test_a_student_as_deep_as_its_teacher_is_refused():
    with pytest.raises(InputError, match="layers=6: a student has fewer layers than"):
        pipeline.run(impressions=300, news=300, articles=60, layers=6)


@pytest.mark.slow
def test_a_whole_run_is_timed():
    found = pipeline.run(impressions=240, news=300, articles=60, body_tokens=24, teachers=1, layers=1)
    names = [row["stage"] for row in found["rows"]]
    assert names == ["prepare", "post-train", "stage1", "finetune", "cache", "stage2", "evaluate", "yardsticks, report"]
    assert sum(row["seconds"] for row in found["rows"]) == pytest.approx(found["seconds"], rel=1e-3)
    assert all(0 < row["floor_share"] < 1 for row in found["rows"] if row["floor_s"] is not None)
    assert all(row["published_s"] > 0 for row in found["rows"][1:-1])
    assert found["rows"][3]["items"] == found["rows"][5]["items"] == found["samples"]


@pytest.mark.parametrize("form", ["", ":unilm"])
def test_a_random_plm_loads_and_knows_the_words_of_its_texts(tmp_path, form):
    text = tmp_path / "news.tsv"
    text.write_text("N1\tnews\tThe markets fell sharply\n")
    write_random_plm(f"random:2x64{form}", tmp_path / "plm", [text])
    encoder, _ = load_plm(str(tmp_path / "plm"))
    assert (encoder.config.layers, encoder.config.hidden, encoder.config.relative_buckets) == (2, 64, 32 if form else 0)
    tokenizer = load_tokenizer(str(tmp_path / "plm"))
    assert len(set(tokenizer.encode_batch(["markets fell"], 10)[0])) == 4  # [CLS], two words, [SEP]


def test_a_random_plm_of_an_odd_width_is_refused(tmp_path):
    with pytest.raises(InputError, match="random:2x70: expected random:LAYERSxWIDTH"):
        write_random_plm("random:2x70", tmp_path / "plm", [])
