"""The forms that `tnr bench teacher-pass` and `inference` compare are measured alike."""

from collections import Counter

import pytest

from tnr_dist.bench import inference, teacher_pass, titles
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.transformer import encoder_from_config


@pytest.fixture
def passes(monkeypatch):
    """How often each form ran; a form counts itself and encodes nothing."""
    ran: Counter[str] = Counter()

    def form(name):
        return lambda: ran.update([name])

    def transformers_pass(encoder, table, *, bf16, sort, compiled=False, pad=30):
        return form("compiled" if compiled else "sorted" if sort else "padded")

    tiny = encoder_from_config(EncoderConfig(30522, 8, 1, 1, 8, 40))
    for module in (teacher_pass, inference):
        monkeypatch.setattr(module, "packed_pass", lambda *_: form("ours"))
        monkeypatch.setattr(module, "transformers_pass", transformers_pass)
        monkeypatch.setattr(module, "matmul_tflops", lambda: 1.0)
        monkeypatch.setattr(module, "encoder_of", lambda width, layers: tiny)
    return ran


def test_every_form_of_the_teacher_pass_runs_as_often(passes):
    teacher_pass.run(news=16, repeats=4)
    assert passes.keys() == {"ours", "sorted", "padded"} and len(set(passes.values())) == 1
    assert passes["ours"] == 1 + 40  # such short ones are timed ten times as often


def test_every_form_of_encoding_runs_as_often(passes):
    found = inference.run(news=16, repeats=3, compiled=False)
    assert passes == dict.fromkeys(("ours", "sorted", "padded"), 31 * len(found["rows"] + found["bodies"]))


def test_forms_take_turns_and_the_shortest_call_counts(monkeypatch):
    clock, calls = [0.0], []
    took = {"a": iter([9.0, 3.0, 1.0, 2.0]), "b": iter([9.0, 5.0, 6.0, 4.0])}
    monkeypatch.setattr(titles.time, "perf_counter", lambda: clock[0])

    def form(name):
        def work():
            calls.append(name)
            clock[0] += next(took[name])

        return work

    assert titles.best_seconds({name: form(name) for name in took}, 3) == {"a": 1.0, "b": 4.0}
    assert "".join(calls) == "abababab"
