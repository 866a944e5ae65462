"""The forms that `tnr bench teacher-pass` and `inference` compare are measured alike."""

from collections import Counter

import pytest

from tnr_dist.bench import inference, teacher_pass
from tnr_dist.models.transformer import EncoderConfig, encoder_from_config


@pytest.fixture
def passes(monkeypatch):
    """How often each form was timed, the forms being words that nothing encodes."""
    timed: Counter[str] = Counter()

    def best_seconds(work, repeats=3, warm=1):
        timed[work] += repeats
        return 1.0

    def transformers_pass(encoder, table, *, bf16, sort, compiled=False):
        return "compiled" if compiled else "sorted" if sort else "padded"

    tiny = encoder_from_config(EncoderConfig(30522, 8, 1, 1, 8, 40))
    for module in (teacher_pass, inference):
        monkeypatch.setattr(module, "best_seconds", best_seconds)
        monkeypatch.setattr(module, "packed_pass", lambda *_: "ours")
        monkeypatch.setattr(module, "transformers_pass", transformers_pass)
        monkeypatch.setattr(module, "matmul_tflops", lambda: 1.0)
        monkeypatch.setattr(module, "encoder_of", lambda width, layers: tiny)
    return timed


def test_every_form_of_the_teacher_pass_is_timed_as_often(passes):
    found = teacher_pass.run(news=16, repeats=4)
    assert passes == {"ours": 4, "sorted": 4, "padded": 4}
    assert found["ratio_padded"] == found["ratio_sorted"] == 1.0


def test_every_form_of_encoding_is_timed_as_often(passes):
    rows = inference.run(news=16, repeats=3, compiled=False)["rows"]
    assert passes == {"ours": 3 * len(rows), "sorted": 3 * len(rows), "padded": 3 * len(rows)}
