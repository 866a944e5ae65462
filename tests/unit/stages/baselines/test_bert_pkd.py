"""BERT-PKD against plain computations on single titles, and from its row to the report."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.unit.stages.baseline_scene import by_slots, one_text, settings
from tests.unit.stages.baselines.test_published_baselines import sample_by_sample, soft_labels, vectors
from tnr_dist.cli.app import app
from tnr_dist.config.schema import RowConfig
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.report.group_by_seed import group_runs
from tnr_dist.report.read_runs import find_runs
from tnr_dist.stages import outlook, pipeline
from tnr_dist.stages.baselines.bert_pkd import make_module
from tnr_dist.stages.registry import run_command
from tnr_dist.util.errors import InputError


def patient(student, teacher, titles, news, mapping):
    """L_PT of one title, from the states of its first token."""
    text = one_text(titles, news)
    own, other = (encoder.forward_all(text)[0] for encoder in (student, teacher))
    return sum(
        (F.normalize(own[m][0], dim=0) - F.normalize(other[g][0], dim=0)).square().sum().item() for m, g in mapping
    )


@pytest.mark.parametrize(
    ("layers", "trainable", "strategy", "mapping"),
    [
        (3, -1, "skip", [(1, 1), (2, 2)]),
        (2, 2, "skip", [(1, 1)]),
        (2, 2, "last", [(1, 2)]),
        (3, 2, "last", [(2, 2)]),
        (2, 1, "skip", []),  # the one layer that learns is the last
        (1, 2, "last", []),
    ],
)
def test_the_loss(scene, layers, trainable, strategy, mapping):
    student, teacher, train, titles, inputs, *_ = scene(
        "bert_pkd", layers, trainable, f"bert_pkd.strategy={strategy}",
        "bert_pkd.temperature=2", "bert_pkd.alpha=0.3", "bert_pkd.beta=0.7",
    )  # fmt: skip
    encoder, other = student.news_encoder.encoder, teacher.news_encoder.encoder
    module = make_module(student, teacher, train)
    module.prepare(titles, "teacher")
    found = module(inputs)
    with torch.no_grad():
        between = by_slots(inputs, lambda news: patient(encoder, other, titles, news, mapping))
        models = [(m, vectors(m.news_encoder, m.news_encoder.encoder, titles, inputs.news)) for m in (student, teacher)]
        distill = target = 0.0
        for weight, (_, scores), (_, theirs) in sample_by_sample(inputs, models):
            distill += weight * soft_labels(theirs / 2, scores / 2) / inputs.count
            target -= weight * scores.log_softmax(0)[0].item() / inputs.count
    parts = [found[f"loss_{name}"].item() for name in ("patient", "distill", "target")]
    np.testing.assert_allclose(parts, [between, distill, target], rtol=2e-4, atol=1e-7)
    assert found["loss"].item() == pytest.approx(np.dot(parts, [0.7, 0.3 * 4, 0.7]), rel=1e-6)
    found["loss"].backward()
    assert all((p.grad is not None) == p.requires_grad for p in module.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert not any("teacher" in name for name in module.state_dict())


def test_from_the_row_to_the_report(prepared, raw_mind, tiny_plm, tmp_path, capsys):
    config = settings(prepared, tiny_plm, tmp_path / "run", "finetune.teachers=1", f"data.input={raw_mind}")
    config.rows = [RowConfig("BERT-PKD-2", "bert-pkd", 2)]
    names = [step.run.plain.name for step in outlook.steps(config, replace=False)]
    assert names == ["post-train", "teacher-0", "bert-pkd-2"]
    pipeline.run_chain(config, DDPEngine("cpu", 1))
    folder = tmp_path / "run" / "seed-0" / "bert-pkd-2"
    results = json.loads((folder / "results.json").read_text())
    assert results["stage"] == "bert-pkd" and results["model"]["layers"] == 2
    assert pipeline.is_complete(config)
    group = group_runs(find_runs([tmp_path / "run"]))[-1]
    assert (group.label, group.row, group.stage) == ("BERT-PKD-2", 0, "bert-pkd")
    assert {"finetune.lr", "post_train.lr", "bert_pkd.beta"} <= set(group.settings)
    # The command of the same name finds it.
    config.output, config.student.layers = str(folder.parent), 2
    run_command("bert-pkd", config, DDPEngine("cpu", 1))
    assert "bert-pkd-2: complete, skipped" in capsys.readouterr().err
    assert "bert-pkd" in {command.name for command in app.registered_commands}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("bert_pkd.alpha=2", "bert_pkd.alpha=2.0: a share between 0 and 1"),
        ("bert_pkd.beta=-1", "bert_pkd.beta=-1.0: must not be negative"),
        ("bert_pkd.strategy=all", "expected one of skip, last"),
        ("bert_pkd.trainable_layers=0", "its layers are what learns"),
    ],
)
def test_bad_settings(prepared, tiny_plm, tmp_path, override, says):
    with pytest.raises(InputError, match=says):
        settings(prepared, tiny_plm, tmp_path, override)
