"""`configs/paper/first_release.yaml` and `later_release.yaml`: their losses on real batches of a small chain, beside values
computed from each release's own equations: float64, every slot encoded by itself and padded, no code of the package."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tnr_dist.data.dataset import DataSet
from tnr_dist.data.teacher_cache import TeacherCache
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.recommender import load_recommender
from tnr_dist.runs.folder import in_order
from tnr_dist.stages import cache, stage1, stage2
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts.start_models import kept_model
from tnr_dist.stages.registry import make

CONFIGS = Path(__file__).parents[3] / "configs" / "paper"
RELEASES = ("first_release", "later_release")
L, D, HEADS = 30, 16, 4
SMALL = [
    "ranks=1", "threads=1", "student.layers=3", "model.news_dim=16", "model.query_dim=8", "data.history=30",
    "data.title_tokens=24", "data.body_tokens=40", "log.checkpoint_every=0", "rows=[]", "finetune.teachers=2",
    "finetune.batch_size=32", "finetune.max_steps=10", "finetune.lr=1e-2", "stage2.batch_size=32", "stage2.max_steps=2",
    *(f"{stage}.{setting}" for stage in ("post_train", "stage1") for setting in (
        "batch_size=16", "max_steps=6", "negatives=3", "body_tokens=40", "lr=1e-3", "head_lr=1e-2")),
]  # fmt: skip
FEWER = {
    "first_release": [],
    "later_release": ["post_train.keep_models=2", "post_train.keep_models_every=2", "stage1.teachers=2"],
}


@pytest.fixture(scope="module", params=RELEASES)
def run(request, prepared, tiny_plm, tmp_path_factory):
    """A release's configuration at a small size, and its chain up to stage 2."""
    output = tmp_path_factory.mktemp(request.param)
    paths = [f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}"]
    config = load_config(CONFIGS / f"{request.param}.yaml", [*SMALL, *FEWER[request.param], *paths])
    for place in in_order([stage2.run_folder(config, DataSet.open(config))]):
        make(place, DDPEngine("cpu", 1))
    return request.param, config, output


# The equations -----------------------------------------------------------------------------------------------------------


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in model.state_dict().items()}


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)


def norm(x, state, name):
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * state[f"{name}.weight"]
        + state[f"{name}.bias"]
    )


def pooled(x, keep, state, name):
    """sum_t softmax_t(q^T tanh(W x_t + b)) x_t over the places to keep."""
    logits = linear(torch.tanh(linear(x, state, f"{name}.project")), state, f"{name}.query").squeeze(-1)
    return (logits.masked_fill(~keep, -torch.inf).softmax(-1).unsqueeze(-1) * x).sum(-2)


def news_vectors(state, table, rows, length):
    """News vectors of texts, each padded to `length` tokens: rows [...] of a token table -> [..., D]."""
    starts, stops = table.offsets[:-1][rows], table.offsets[1:][rows]
    lengths = np.minimum(stops - starts, length)
    place = np.arange(length)
    keep = torch.from_numpy(place < lengths[..., None])
    ids = table.values[np.minimum(starts[..., None] + place, len(table.values) - 1)].astype(np.int64)
    encoder = "news_encoder.encoder."
    x = state[f"{encoder}words.weight"][torch.from_numpy(ids)] + state[f"{encoder}positions.weight"][:length]
    x = norm(x + state[f"{encoder}types.weight"][0], state, f"{encoder}embedding_norm")
    padding = torch.where(keep, 0.0, -10000.0).double()[..., None, None, :]
    layers = {int(name.split(".")[3]) for name in state if name.startswith(f"{encoder}layers.")}
    for number in sorted(layers):
        layer = f"{encoder}layers.{number}."
        q, k, v = linear(x, state, f"{layer}qkv").unflatten(-1, (3, HEADS, -1)).transpose(-4, -2).unbind(-3)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + padding
        attended = (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2)
        x = norm(x + linear(attended, state, f"{layer}attention_out"), state, f"{layer}attention_norm")
        inner = linear(x, state, f"{layer}ffn_in")
        inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
        x = norm(x + linear(inner, state, f"{layer}ffn_out"), state, f"{layer}ffn_norm")
    return linear(pooled(x, keep, state, "news_encoder.pooling"), state, "news_encoder.dense")


def user_vectors(state, history, known, learned_padding=True):
    """User vectors [B, D] of histories [B, L, D], in whose empty slots the learned vector stands."""
    if not learned_padding:
        return pooled(history, known, state, "user_encoder.pooling").nan_to_num()
    history = torch.where(known.unsqueeze(-1), history, state["user_encoder.padding"])
    return pooled(history, torch.ones_like(known), state, "user_encoder.pooling")


def cross_entropy(target, scores):
    return -(target * scores.log_softmax(-1)).sum(-1)


def first(scores):
    """The click, or a body's own title, stands at index 0."""
    return torch.nn.functional.one_hot(torch.zeros(len(scores), dtype=torch.int64), scores.shape[-1]).double()


def stage2_parts(student, teachers, projection, batch, table, omega, teachers_padding=True):
    """The parts of a release's L^(2), means over the samples: every title slot is encoded by the student and each teacher.

    `projection`: one weight [D, D] and bias [D] per teacher, for news and users alike.
    """
    ids = np.concatenate([batch["history"], batch["candidates"]], 1)
    known = torch.from_numpy(ids >= 0)

    def of(state, learned_padding=True):
        news = news_vectors(state, table, np.maximum(ids, 0), 24)
        users = user_vectors(state, news[:, :L], known[:, :L], learned_padding)
        return news, users, (news[:, L:] @ users.unsqueeze(-1)).squeeze(-1)

    news, users, scores = of(student)
    per_teacher = [of(state, teachers_padding) for state in teachers]
    ce = torch.stack([cross_entropy(first(theirs), theirs) for _, _, theirs in per_teacher], 1)
    w = torch.softmax(-ce * omega, 1)
    blend = sum(w[:, i : i + 1] * theirs for i, (_, _, theirs) in enumerate(per_teacher))
    emb_news = emb_user = 0.0
    for i, (their_news, their_users, _) in enumerate(per_teacher):
        weight, bias = projection[0][i], projection[1][i]
        slots = (their_news @ weight + bias - news).square().mean(-1) * known
        emb_news += w[:, i] * slots.sum(1) / known.sum(1)
        emb_user += w[:, i] * (their_users @ weight + bias - users).square().mean(-1)
    parts = {
        "loss_distill": cross_entropy(blend.softmax(-1), scores),
        "loss_emb_news": emb_news,
        "loss_emb_user": emb_user,
        "loss_target": cross_entropy(first(scores), scores),
    }
    return {name: float(value.mean()) for name, value in parts.items()}, w


def stage1_parts(student, teachers, projection, batch, loader):
    """The parts of a release's L^(1): one teacher in the first, in the later one M, weighted by softmax(-CE)."""

    def of(state):
        bodies = news_vectors(state, loader.bodies, batch["body"], 40)
        titles = news_vectors(state, loader.titles, batch["titles"], 24)
        return bodies, titles, (titles @ bodies.unsqueeze(-1)).squeeze(-1)

    bodies, titles, scores = of(student)
    per_teacher = [of(state) for state in teachers]
    w = torch.softmax(torch.stack([-cross_entropy(first(theirs), theirs) for _, _, theirs in per_teacher], 1), 1)
    blend = sum(w[:, i : i + 1] * theirs for i, (_, _, theirs) in enumerate(per_teacher))
    embedding = 0.0
    for i, (their_bodies, their_titles, _) in enumerate(per_teacher):
        weight, bias = projection[0][i], projection[1][i]
        errors = (their_titles @ weight + bias - titles).square().mean((1, 2))
        embedding += w[:, i] * (errors + (their_bodies @ weight + bias - bodies).square().mean(-1))
    parts = {
        "loss_distill": cross_entropy(blend.softmax(-1), scores),
        "loss_emb": embedding,
        "loss_target": cross_entropy(first(scores), scores),
    }
    return {name: float(value.mean()) for name, value in parts.items()}, w


# The stages beside them ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def moved(projection):
    """Its weight and bias, after they have left their start, as float64."""
    torch.manual_seed(3)
    for parameter in (projection.weight, projection.bias):
        parameter += 0.1 * torch.randn_like(parameter)
    return projection.weight.detach().double(), projection.bias.detach().double()


OF_THE_RELEASE = {  # beta2, and the omega at which the losses are compared: only a free one can be negative
    "first_release": (0.1, -0.4),
    "later_release": (0.2, 1.0),
}


def test_stage2s_loss_is_the_releases(run):
    release, config, output = run
    engine = DDPEngine("cpu", 1)
    data = DataSet.open(config)
    task = stage2.build(stage2.run_folder(config, data), data, engine)
    module, beta2 = task.module, OF_THE_RELEASE[release][0]
    omega = OF_THE_RELEASE[release][1]
    assert module.user_projection is module.news_projection
    assert module.omega.raw.requires_grad == (release == "first_release") and float(
        module.omega().detach()
    ) == pytest.approx(1)
    if release == "first_release":
        module.omega.raw.data.fill_(omega)
    projection = moved(module.news_projection)
    task.begin(engine)
    module.train()  # the learned padding acts while training only; there is no dropout
    batch = next(task.loader.epoch(0))
    assert (batch["history"] < 0).any() and (batch["weights"] == 1).all()
    with torch.no_grad():
        found = {name: value.tolist() for name, value in module(task.to_device(batch)).items()}
    teachers = [weights_of(load_recommender(output / f"teacher-{n}" / "model.safetensors")[0]) for n in range(2)]
    table = DataSet.open(config).news_tokens(config.data)
    student = weights_of(module.student)
    parts, w = stage2_parts(student, teachers, projection, batch, table, omega)
    assert (w - 0.5).abs().max() > 0.02  # the teachers do not agree
    assert {name: found[name] for name in parts} == pytest.approx(parts, rel=1e-5)
    total = parts["loss_distill"] + parts["loss_emb_news"] + parts["loss_emb_user"] + beta2 * parts["loss_target"]
    assert found["loss"] == pytest.approx(total, rel=1e-5)
    # Without the padding vector in the teachers' histories it would be another loss.
    masked, _ = stage2_parts(student, teachers, projection, batch, table, omega, teachers_padding=False)
    for name, least in (("loss_distill", 1e-4), ("loss_emb_user", 1e-2)):
        assert abs(masked[name] / parts[name] - 1) > least


def test_stage1s_loss_is_the_releases(run):
    release, config, output = run
    engine, several = DDPEngine("cpu", 1), release == "later_release"
    data = DataSet.open(config)
    task = stage1.build(stage1.run_folder(config, data), data, engine)
    projection = moved(task.module.projection)
    assert len(projection[0]) == (2 if several else 1)
    task.begin(engine)
    task.module.eval()
    batch = next(task.loader.epoch(0))
    inputs = task.to_device(batch)
    with torch.no_grad():
        found = {name: value.tolist() for name, value in task.module(inputs).items()}
    kept = [kept_model(output / "post-train", number) for number in range(1 + several)]
    teachers = [weights_of(load_recommender(file)[0]) for file in kept]
    parts, _ = stage1_parts(weights_of(task.recommender), teachers, projection, batch, task.loader)
    assert {name: found[name] for name in parts} == pytest.approx(parts, rel=1e-5)
    assert found["loss"] == pytest.approx(sum(parts.values()), rel=1e-5)
    # Dropout acts in all layers of the matching stages, those that do not train among them.
    task.module.train()
    bodies = inputs.batch.bodies
    encoder = task.recommender.news_encoder.encoder
    assert encoder.frozen_layers == 1 and encoder.config.dropout == 0.1
    assert not torch.equal(encoder(bodies, last=1), encoder(bodies, last=1))


def test_dropout_is_of_the_stage(run):
    """On the matching task the PLM's 0.1, in all layers; none on clicks."""
    _, config, output = run
    for name, dropout in (("post-train", 0.1), ("stage1-3", 0.1), ("teacher-1", 0.0), ("stage2-3", 0.0)):
        encoder = load_recommender(output / name / "model.safetensors")[1].encoder
        assert (encoder.dropout, encoder.attention_dropout) == (dropout, dropout), name
    assert (config.post_train.dropout_in, config.stage1.dropout_in) == ("all", "all")


def test_the_teachers_histories_are_padded_in_the_cache(run):
    _, config, output = run
    facts = TeacherCache(output / "cache", cache.expected(config, DataSet.open(config))).facts
    assert (facts["history_padding"], facts["dtype"]) == ("learned", "fp32")
    assert facts["users"]["max_rounding_error"] == 0
