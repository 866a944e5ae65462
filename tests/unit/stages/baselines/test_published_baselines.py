"""TinyBERT and NewsBERT as the first release of the published code has them, against plain computations on single titles."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.unit.stages.baseline_scene import by_slots, history_of, layer_losses, one_text
from tnr_dist.stages.baselines.newsbert import NewsBERTModule
from tnr_dist.stages.baselines.tinybert_joint import JointModule
from tnr_dist.stages.parts.start_models import freeze


def vectors(news_encoder, encoder, titles, news):
    """[U, D] of titles encoded one by one by `encoder`, below the pooling and dense layer of `news_encoder`."""
    texts = [one_text(titles, one) for one in news]
    pooled = [news_encoder.pooling.forward_packed(encoder(text), text) for text in texts]
    return news_encoder.dense(torch.cat(pooled))


def sample_by_sample(inputs, models):
    """For each sample: its weight, then (user vector, scores of its candidates) of each (model, news vectors)."""
    for b, weight in enumerate(inputs.weights.tolist()):
        found = []
        for model, news in models:
            clicked = news[history_of(inputs, b)][None]
            user = model.encode_users(clicked, torch.ones(clicked.shape[:2], dtype=torch.bool))[0]
            found.append((user, news[inputs.candidates[b][inputs.candidate_mask[b]]] @ user))
        yield weight, *found


def soft_labels(teacher, student):
    return -(teacher.softmax(0) * student.log_softmax(0)).sum().item()


@pytest.mark.parametrize(
    ("layers", "trainable", "mapping"),
    [(1, 2, [(1, 3)]), (2, 1, [(2, 3)]), (2, 2, [(1, 2), (2, 3)]), (2, -1, [(1, 2), (2, 3)])],
)
def test_tinybert_joint(scene, layers, trainable, mapping):
    """The student's last layers learn from the teacher's last ones, with soft labels and clicks in the same step."""
    student, teacher, train, titles, inputs, *_ = scene(
        "tinybert.joint", layers, trainable, "tinybert.joint.temperature=2", "tinybert.joint.target_weight=0.3"
    )
    encoder, other = student.news_encoder.encoder, teacher.news_encoder.encoder
    module = JointModule(student, teacher, train)
    module.prepare(titles, "teacher")
    found = module(inputs)
    with torch.no_grad():
        # No loss on embeddings, whatever learns.
        between = by_slots(inputs, lambda news: layer_losses(encoder, other, titles, news, mapping, 0))[1:]
        models = [(m, vectors(m.news_encoder, m.news_encoder.encoder, titles, inputs.news)) for m in (student, teacher)]
        distill = target = 0.0
        for weight, (_, scores), (_, theirs) in sample_by_sample(inputs, models):
            distill += weight * soft_labels(theirs / 2, scores / 2) / inputs.count
            target -= weight * scores.log_softmax(0)[0].item() / inputs.count
    parts = [found[f"loss_{name}"].item() for name in ("hidden", "attention", "distill", "target")]
    np.testing.assert_allclose(parts, [*between, distill, target], rtol=2e-4)
    assert found["loss"].item() == pytest.approx(np.dot(parts, [1, 1, 1, 0.3]), rel=1e-6)
    found["loss"].backward()
    assert all((p.grad is not None) == p.requires_grad for p in module.parameters())
    assert any(p.requires_grad for p in encoder.parameters())
    assert all(p.grad is None for p in teacher.parameters()) and not teacher.training
    assert not any("teacher" in name for name in module.state_dict())


@pytest.mark.parametrize("layers", [1, 2])
def test_newsbert_with_vectors(scene, layers):
    """News and user vectors are matched in place of pooled texts; the rest is as in the other form."""
    student, teacher, train, titles, inputs, engine, _ = scene(
        "newsbert", layers, 2, "newsbert.match=vectors", "newsbert.target_weight=0.1"
    )
    freeze(teacher.news_encoder, train, engine)
    encoder, other, top = student.news_encoder.encoder, teacher.news_encoder.encoder, student.news_encoder
    module = NewsBERTModule(student, other, train)
    found = module(inputs)
    with torch.no_grad():
        own, theirs = (vectors(top, one, titles, inputs.news) for one in (encoder, other))
        rows = {int(news): i for i, news in enumerate(inputs.news)}
        news = by_slots(inputs, lambda one: F.mse_loss(own[rows[int(one)]], theirs[rows[int(one)]]).item())
        user = distill = 0.0
        for weight, (one, scores), (another, labels) in sample_by_sample(inputs, [(student, own), (student, theirs)]):
            user += weight * F.mse_loss(one, another).item() / inputs.count
            distill += weight * soft_labels(labels, scores) / inputs.count
    np.testing.assert_allclose(
        [found[f"loss_{name}"].item() for name in ("news", "user", "distill")], [news, user, distill], rtol=2e-4
    )
    parts = [found[f"loss_{name}"].item() for name in ("hidden", "news", "user", "distill", "target", "teacher")]
    assert found["loss"].item() == pytest.approx(np.dot(parts, [1, 1, 1, 1, 0.1, 1]), rel=1e-6)
    assert "loss_pooled" not in found
    train.match = "pooled"
    pooled = NewsBERTModule(student, other, train)(inputs)
    for name in ("loss_hidden", "loss_distill", "loss_target", "loss_teacher"):
        torch.testing.assert_close(found[name], pooled[name])


def test_newsberts_teacher_learns_nothing_from_vectors(scene):
    student, teacher, train, _, inputs, engine, _ = scene("newsbert", 1, 2, "newsbert.match=vectors")
    freeze(teacher.news_encoder, train, engine)
    parts = NewsBERTModule(student, teacher.news_encoder.encoder, train)(inputs)
    learning = [p for p in teacher.news_encoder.encoder.parameters() if p.requires_grad]
    for name in ("loss_news", "loss_user"):
        grads = torch.autograd.grad(parts[name], learning, retain_graph=True, allow_unused=True)
        assert all(g is None or not g.any() for g in grads), name
