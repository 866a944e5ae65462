"""Further pre-training, TinyBERT and NewsBERT: their modules against plain computations, and a few steps of each."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.unit.stages.baseline_scene import by_slots, history_of, layer_losses, one_text, settings
from tnr_dist.config.schema import RowConfig
from tnr_dist.data.batches.masking import Masking
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.kernels.dispatch import use_kernels
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import load_recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.runs.folder import in_order
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages import further_pretrain
from tnr_dist.stages.baselines import tinybert
from tnr_dist.stages.baselines.newsbert import NewsBERTModule
from tnr_dist.stages.baselines.tinybert import GeneralModule, IntermediateModule, PredictionModule
from tnr_dist.stages.baselines.tinybert_joint import JointModule
from tnr_dist.stages.further_pretrain import MLMHead, MLMInputs, MLMModule
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts.start_models import freeze, fresh_model
from tnr_dist.stages.registry import make, run_command
from tnr_dist.stages.table_rows import evaluate_run, is_evaluated
from tnr_dist.stages.targets import row_folder
from tnr_dist.util.errors import InputError

ROWS = {
    "further-pretrain": RowConfig("PLM-NR-3 (FP)", "further-pretrain"),
    "tinybert": RowConfig("TinyBERT-1", "tinybert", 1),
    "tinybert-joint": RowConfig("TinyBERT-1 (joint)", "tinybert", 1, ["tinybert.form=joint"]),
    "newsbert": RowConfig("NewsBERT-1", "newsbert", 1),
}


# --- the modules, against plain computations on one text at a time ---


@pytest.mark.parametrize(("layers", "trainable", "mapping"), [(2, -1, [(1, 1), (2, 3)]), (2, 1, [(1, 1), (2, 3)])])
def test_tinybert_between_layers(scene, layers, trainable, mapping):
    student, teacher, _, titles, inputs, *_ = scene("tinybert.intermediate", layers, trainable)
    encoder, other = student.news_encoder.encoder, teacher.news_encoder.encoder
    found = IntermediateModule(encoder, other, 0)(inputs)
    with torch.no_grad():
        first = encoder.frozen_layers
        expected = by_slots(inputs, lambda news: layer_losses(encoder, other, titles, news, mapping, first))
    assert expected[0] == 0 if trainable == 1 else expected[0] > 1e-6
    np.testing.assert_allclose([float(found[name].detach()) for name in tinybert.PARTS], expected, rtol=2e-4)
    assert float(found["loss"].detach()) == pytest.approx(expected.sum(), rel=2e-4)
    found["loss"].backward()
    assert all((p.grad is not None) == p.requires_grad for p in encoder.parameters())
    assert all(p.grad is None for p in other.parameters())


def test_tinybert_learns_projections_where_widths_differ(scene):
    _, teacher, _, _, inputs, *_ = scene("tinybert.intermediate", 2, -1)
    other = teacher.news_encoder.encoder
    narrow = EncoderConfig(
        other.config.vocab_size, 16, 2, other.config.heads, 32, 64, dropout=0.0, attention_dropout=0.0
    )
    student = encoder_from_config(narrow)
    module = IntermediateModule(student, other, 0)
    with torch.no_grad():
        per_text = module.losses(inputs.titles)
        own, theirs = student.forward_all(inputs.titles)[0], other.forward_all(inputs.titles)[0]
        starts = inputs.titles.offsets
        for u in (0, len(inputs.titles) - 1):
            part = slice(starts[u], starts[u + 1])
            embedding = F.mse_loss(own[0][part] @ module.project_embeddings, theirs[0][part])
            hidden = sum(F.mse_loss(own[m][part] @ module.project_states, theirs[g][part]) for m, g in ((1, 1), (2, 3)))
            torch.testing.assert_close(per_text[u, :2], torch.stack([embedding, hidden]), rtol=1e-4, atol=1e-7)
    module(inputs)["loss"].backward()
    for projection in (module.project_states, module.project_embeddings):
        assert projection.shape == (16, 32) and projection.grad.abs().max() > 0


def test_tinybert_general_counts_a_news_once(scene):
    student, teacher, _, titles, inputs, *_ = scene("tinybert.intermediate", 1, -1)
    module = GeneralModule(student.news_encoder.encoder, teacher.news_encoder.encoder, 0)
    texts, weights = inputs.titles, torch.tensor([1.0, 1.0, 0.0])
    texts = Packed.gather(titles.titles.values, titles.titles.offsets, np.arange(6))  # 3 bodies, 3 titles
    found = module(tinybert.CorpusInputs(texts, weights.repeat(2), 5.0))
    with torch.no_grad():
        encoders = student.news_encoder.encoder, teacher.news_encoder.encoder
        each = [layer_losses(*encoders, titles, news, [(1, 3)], 0) for news in range(6)]
    expected = sum((each[i] + each[i + 3]) / 2 / 5 for i in range(2))
    np.testing.assert_allclose([float(found[name].detach()) for name in tinybert.PARTS], expected, rtol=2e-4)


def test_tinybert_prediction_is_the_teachers_soft_labels(scene):
    student, teacher, _, titles, inputs, *_ = scene("tinybert.prediction", 2, 1)
    module = PredictionModule(student, teacher, 2.0)
    module.prepare(titles, "teacher")
    found = module(inputs)["loss"]
    expected = 0.0
    with torch.no_grad():
        vectors = [
            torch.cat([m.encode_news(one_text(titles, news)) for news in inputs.news]) for m in (student, teacher)
        ]
        for b in range(len(inputs.weights)):
            scores = []
            for model, news in zip((student, teacher), vectors, strict=True):
                clicked = news[history_of(inputs, b)][None]
                user = model.encode_users(clicked, torch.ones(clicked.shape[:2], dtype=torch.bool))[0]
                scores.append(news[inputs.candidates[b][inputs.candidate_mask[b]]] @ user / 2.0)
            soft = -(scores[1].softmax(0) * scores[0].log_softmax(0)).sum()
            expected += float(inputs.weights[b] * soft) / inputs.count
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert all(p.grad is None for p in teacher.parameters()) and not teacher.training
    assert not any("teacher" in name for name in module.state_dict())


@pytest.mark.parametrize(
    ("layers", "trainable", "blocks"), [(1, 2, [[1, 2]]), (2, 2, [[1], [2]]), (2, -1, [[0], [1, 2]])]
)
def test_newsbert(scene, layers, trainable, blocks):
    """Its losses by plain means over single titles, and its gradients mixed by hand."""
    student, teacher, train, titles, inputs, engine, _ = scene("newsbert", layers, trainable, "newsbert.beta=0.3", "newsbert.target_weight=0.5")  # fmt: skip
    freeze(teacher.news_encoder, train, engine)
    encoder, other, top = student.news_encoder.encoder, teacher.news_encoder.encoder, student.news_encoder
    module = NewsBERTModule(student, other, train)
    assert [list(block) for block in module.blocks] == blocks
    first = encoder.frozen_layers
    matched = [(first + i + 1, block[-1] + 1) for i, block in enumerate(blocks)]

    def hidden_of(news):
        text = one_text(titles, news)
        states = [e.forward_all(text)[0] for e in (encoder, other)]
        pooled = [top.pooling.forward_packed(s[-1], text) for s in states]
        embedding = F.mse_loss(states[0][0], states[1][0]).item() if trainable < 0 else 0.0
        hidden = sum(F.mse_loss(states[0][m], states[1][g]).item() for m, g in matched)
        return np.array([embedding + hidden, F.mse_loss(*pooled).item()])

    found = module(inputs)
    with torch.no_grad():
        expected = by_slots(inputs, hidden_of)
    np.testing.assert_allclose([found[key].item() for key in ("loss_hidden", "loss_pooled")], expected, rtol=2e-4)
    parts = [found[f"loss_{name}"].item() for name in ("hidden", "pooled", "distill", "target", "teacher")]
    assert found["loss"].item() == pytest.approx(np.dot(parts, [1, 1, 1, 0.5, 1]), rel=1e-6)

    def gradients(beta):
        module.settings.beta = beta
        module.zero_grad()
        module(inputs)["loss"].backward()
        return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}

    plain, mixed = gradients(0.0), gradients(0.3)
    assert set(plain) == {name for name, p in module.named_parameters() if p.requires_grad}
    prefix = "student.news_encoder.encoder.layers."
    for name, gradient in mixed.items():
        expected = plain[name]
        if name.startswith(prefix):
            layer, _, rest = name.removeprefix(prefix).partition(".")
            block = blocks[int(layer) - first]
            average = sum(plain[f"teacher.layers.{number}.{rest}"] for number in block) / len(block)
            expected = 0.3 * average + 0.7 * plain[name]
            assert average.abs().max() > 1e-6 or rest == "qkv.bias"
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7, msg=name)


def test_newsberts_teacher_learns_from_labels_alone(scene):
    student, teacher, train, _, inputs, engine, _ = scene("newsbert", 1, 2)
    freeze(teacher.news_encoder, train, engine)
    module = NewsBERTModule(student, teacher.news_encoder.encoder, train)
    parts = module(inputs)
    learning = [p for p in teacher.news_encoder.encoder.parameters() if p.requires_grad]
    for name in ("loss_hidden", "loss_pooled", "loss_distill", "loss_target"):
        grads = torch.autograd.grad(parts[name], learning, retain_graph=True, allow_unused=True)
        assert all(g is None or not g.any() for g in grads), name
    assert all(g.any() for g in torch.autograd.grad(parts["loss_teacher"], learning[:1]))


@pytest.mark.parametrize("which", ["mlm", "intermediate", "joint", "newsbert", "vectors"])
def test_a_token_budget_changes_nothing(scene, which):
    section = {"newsbert": "newsbert", "vectors": "newsbert", "joint": "tinybert.joint"}.get(
        which, "tinybert.intermediate"
    )
    student, teacher, train, titles, inputs, engine, _ = scene(section, 2, -1)
    freeze(teacher.news_encoder, train, engine)
    encoder, other = student.news_encoder.encoder, teacher.news_encoder.encoder

    def outcome(budget):
        torch.manual_seed(0)
        if which in ("newsbert", "vectors"):
            student.news_encoder.token_budget = budget
            train.match = "vectors" if which == "vectors" else "pooled"
            module, batch = NewsBERTModule(student, other, train), inputs
        elif which == "joint":
            student.news_encoder.token_budget = budget
            module, batch = JointModule(student, teacher, train), inputs
            module.prepare(titles, "teacher")
        elif which == "intermediate":
            module, batch = IntermediateModule(encoder, other, budget), inputs
        else:
            module, batch = MLMModule(encoder, budget), mlm_batch(titles)
        module.zero_grad()
        loss = module(batch)["loss"]
        loss.backward()
        return loss.item(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}

    (loss, plain), (same, parts) = outcome(0), outcome(200)
    assert loss == pytest.approx(same, rel=1e-5) and len(inputs.titles.tokens) > 400
    assert plain.keys() == parts.keys() and plain
    for name in plain:
        torch.testing.assert_close(plain[name], parts[name], rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("section", ["tinybert.intermediate", "tinybert.joint", "newsbert"])
def test_frozen_states_known_beforehand_change_nothing(scene, section, layers):
    student, teacher, train, titles, inputs, engine, batch = scene(section, layers, 1)
    freeze(teacher.news_encoder, train, engine)
    encoder, other = student.news_encoder.encoder, teacher.news_encoder.encoder
    if section == "newsbert":
        module = NewsBERTModule(student, other, train)
    elif section == "tinybert.joint":
        module = JointModule(student, teacher, train)
        module.prepare(titles, "teacher")
        titles.teacher_frozen = None
    else:
        module = IntermediateModule(encoder, other, 0)
    found = []
    for known in (False, True):
        if known:
            titles.prepare("student")
            module.prepare(titles, "teacher")
            inputs = titles.inputs(batch)
            assert (inputs.frozen is not None) == (layers == 2) and inputs.teacher_frozen is not None
        module.zero_grad()
        torch.manual_seed(0)
        loss = module(inputs)["loss"]
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]))
    for one, other in zip([found[0][0], *found[0][1]], [found[1][0], *found[1][1]], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("which", ["mlm", "intermediate", "joint", "newsbert"])
def test_operations_are_about_those_that_torch_counts(scene, which):
    """To within what is left out: losses, attention scores on their own, the user encoder."""
    section = {"newsbert": "newsbert", "joint": "tinybert.joint"}.get(which, "tinybert.intermediate")
    student, teacher, train, titles, _, engine, batch = scene(section, 2, 1)
    freeze(teacher.news_encoder, train, engine)
    encoder, other = student.news_encoder.encoder, teacher.news_encoder.encoder
    module, texts = MLMModule(encoder, 0), mlm_batch(titles)
    if which != "mlm":
        if which == "newsbert":
            module = NewsBERTModule(student, other, train)
        elif which == "joint":
            module = JointModule(student, teacher, train)
        else:
            module = IntermediateModule(encoder, other, 0)
        titles.prepare("student")
        module.prepare(titles, "teacher")
        texts = titles.inputs(batch)
    lengths, flops = module.encoded(texts)
    assert lengths is (texts.texts if which == "mlm" else texts.titles).lengths
    # oneDNN's fused products are not among those that the counter knows.
    with use_kernels("torch"), FlopCounterMode(display=False) as counter:
        module(texts)["loss"].backward()
    assert flops == pytest.approx(counter.get_total_flops(), rel=0.1)


def mlm_batch(titles):
    texts = Packed.gather(titles.titles.values, titles.titles.offsets, np.arange(40))  # not ordered by length
    assert (np.diff(texts.lengths) < 0).any()
    seen, positions = Masking(0.15, 4, 50, 0).mask(texts.tokens.numpy(), texts.lengths, np.arange(len(texts)), 0)
    labels = texts.tokens[positions]
    where = torch.from_numpy(positions)
    return MLMInputs(Packed(torch.from_numpy(seen), texts.lengths), where, labels, torch.ones(len(where)), len(where))


def test_mlm_head_is_berts(scene):
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLMPredictionHead

    encoder = scene("newsbert", 2, -1)[0].news_encoder.encoder
    head = MLMHead(encoder)
    torch.nn.init.normal_(head.bias)
    theirs = BertLMPredictionHead(BertConfig(vocab_size=encoder.config.vocab_size, hidden_size=32))
    theirs.transform.dense.load_state_dict(head.dense.state_dict())
    theirs.transform.LayerNorm.load_state_dict(head.norm.state_dict())
    theirs.decoder.weight, theirs.decoder.bias = encoder.words.weight, head.bias
    x = torch.randn(5, 32)
    torch.testing.assert_close(head(x, encoder.words.weight), theirs(x), rtol=1e-5, atol=1e-6)


def test_mlm_loss_is_of_masked_tokens_in_their_text(scene):
    student, _, _, titles, *_ = scene("newsbert", 2, -1)
    module = MLMModule(student.news_encoder.encoder, 0)
    batch = mlm_batch(titles)
    found = module(batch)
    starts, total, right = batch.texts.offsets, 0.0, 0
    with torch.no_grad():
        for position, label in zip(batch.positions.tolist(), batch.labels.tolist(), strict=True):
            u = int(np.searchsorted(starts, position, side="right")) - 1
            text = Packed(batch.texts.tokens[starts[u] : starts[u + 1]], batch.texts.lengths[u : u + 1])
            state = module.encoder(text)[position - starts[u]]
            logits = module.head(state[None], module.encoder.words.weight)[0]
            total -= logits.log_softmax(0)[label].item() / batch.count
            right += int(logits.argmax()) == label
    assert found["loss"].item() == pytest.approx(total, rel=1e-5)
    assert found["accuracy"].item() == pytest.approx(right / batch.count, abs=1e-6)
    found["loss"].backward()
    assert module.encoder.words.weight.grad.abs().sum(1).count_nonzero() == len(module.encoder.words.weight)  # tied


# --- a few steps of each, in run folders ---


@pytest.fixture(scope="module")
def made(prepared, tiny_plm, tmp_path_factory):
    """All baselines trained for 4 steps and evaluated: configuration, and the run of each row."""
    config = settings(prepared, tiny_plm, tmp_path_factory.mktemp("baselines") / "run")
    engine, data = DDPEngine("cpu", 1), DataSet.open(config)
    places = {name: row_folder(config, data, row) for name, row in ROWS.items()}
    for place in in_order(places.values()):
        make(place, engine)
    for place in places.values():
        evaluate_run(place, engine)
    return config, places


def test_all_are_complete_and_evaluated(made):
    _, places = made
    layers = {"further-pretrain": 3, "tinybert": 1, "tinybert-joint": 1, "newsbert": 1}
    for name, place in places.items():
        assert is_evaluated(place)
        assert all(one.state() == ("complete", "") for one in in_order([place]))
        results = json.loads((place.path / "results.json").read_text())
        assert results["model"]["layers"] == layers[name] and 0 <= results["auc"] <= 1
    names = {one.name for one in in_order(places.values())}
    assert names >= {"further-pretrain-all", "further-finetune-all", "tinybert-general-1", "tinybert-intermediate-1",
                     "tinybert-1", "tinybert-joint-1", "newsbert-1", "post-train", "teacher-0"}  # fmt: skip


def test_each_learns(made):
    config, places = made
    for place in in_order(places.values()):
        if place.name in ("post-train", "teacher-0"):
            continue
        losses = [r["train/loss"] for r in read_metrics(place.path / "metrics.jsonl") if "train/loss" in r]
        assert all(np.isfinite(losses)) and len(set(losses)) == len(losses)
    finetuned = load_recommender(places["further-pretrain"].path / "model.safetensors")[0]
    source = load_recommender(further_pretrain.run_folder(config, DataSet.open(config)).path / "model.safetensors")[0]
    fresh, _ = fresh_model(config, DataSet.open(config), 0, 0, "finetune")
    pairs = {
        name: torch.equal(p, q) for (name, p), q in zip(source.named_parameters(), fresh.parameters(), strict=True)
    }
    assert not pairs["news_encoder.encoder.layers.0.qkv.weight"]  # of 3 layers all train
    assert pairs["news_encoder.encoder.words.weight"] and pairs["news_encoder.dense.weight"]
    lower = "news_encoder.encoder.layers.0.qkv.weight"  # finetuning leaves it as further pre-training made it
    assert torch.equal(finetuned.get_parameter(lower), source.get_parameter(lower))


def test_newsbert_starts_from_the_post_trained_top(made):
    config, places = made
    post = load_recommender(places["newsbert"].inputs["post-train"].path / "model.safetensors")[0]
    student = load_recommender(places["newsbert"].path / "model.safetensors")[0]
    plm, _ = fresh_model(config, DataSet.open(config), 1, 0, "finetune")
    # 4 steps at 1e-3 move each weight by 0.004 at most.
    for name, source in (
        ("pooling.project.weight", post),
        ("dense.weight", post),
        ("encoder.layers.0.qkv.weight", plm),
    ):
        moved = (student.news_encoder.get_parameter(name) - source.news_encoder.get_parameter(name)).abs().max()
        assert 0 < moved < 0.01, name
    assert torch.equal(student.news_encoder.encoder.words.weight, plm.news_encoder.encoder.words.weight)


STAGES = ["further-pretrain", "tinybert-general", "tinybert-intermediate", "tinybert", "tinybert-joint", "newsbert"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_broken_off_run_is_taken_up_and_ends_the_same(made, stage, tmp_path, capsys):
    _, places = made
    place = next(one for one in in_order(places.values()) if one.stage == stage)
    kept = tmp_path / "kept"
    shutil.copytree(place.path, kept)
    try:
        for name in ("complete.json", "model.safetensors"):
            (place.path / name).unlink()
        assert (place.path / "checkpoints" / "2").is_dir()
        make(place, DDPEngine("cpu", 1))
        assert "resuming at step 2 of 4" in capsys.readouterr().err
        models = [load_recommender(folder / "model.safetensors")[0].state_dict() for folder in (kept, place.path)]
        assert [name for name in models[0] if not torch.equal(models[0][name], models[1][name])] == []
    finally:
        shutil.rmtree(place.path)
        shutil.copytree(kept, place.path)


def test_a_second_run_does_nothing(made, capsys):
    _, places = made
    for place in places.values():
        make(place, DDPEngine("cpu", 1))
    assert capsys.readouterr().err.count("complete, skipped") == len(places)


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("newsbert.beta=0.2", {"newsbert"}),
        ("newsbert.token_budget=99", set()),
        ("further_pretrain.mask=0.2", {"further-pretrain"}),
        ("tinybert.general.epochs=1", {"tinybert"}),
        ("tinybert.intermediate.lr=1e-5", {"tinybert"}),
        ("tinybert.prediction.temperature=2.0", {"tinybert"}),
        ("tinybert.joint.target_weight=1.0", {"tinybert-joint"}),
        ("newsbert.match=vectors", {"newsbert"}),
        ("student.init=post-train", {"tinybert", "tinybert-joint", "newsbert"}),
        ("post_train.lr=1e-5", {"tinybert", "tinybert-joint", "newsbert"}),
        ("finetune.lr=1e-5", {"further-pretrain", "tinybert", "tinybert-joint"}),
        ("stage2.lr=1e-5", set()),
    ],
)
def test_what_a_setting_changes(made, prepared, tiny_plm, setting, changed):
    config, places = made
    other = settings(prepared, tiny_plm, config.output, setting)
    data = DataSet.open(other)
    assert {name for name, row in ROWS.items() if row_folder(other, data, row).key != places[name].key} == changed


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("newsbert.beta=1.5", "newsbert.beta=1.5: a share between 0 and 1"),
        ("newsbert.trainable_layers=0", "newsbert.trainable_layers=0: its layers are what learns"),
        ("further_pretrain.mask=1.0", "further_pretrain.mask=1.0: a share"),
        ("tinybert.prediction.temperature=0", "tinybert.prediction.temperature=0.0: must be greater than 0"),
        ("tinybert.joint.target_weight=-1", "tinybert.joint.target_weight=-1.0: must not be negative"),
        ("tinybert.joint.trainable_layers=0", "tinybert.joint.trainable_layers=0: its layers are what learns"),
        ("tinybert.form=both", "expected one of steps, joint"),
        ("newsbert.match=all", "expected one of pooled, vectors"),
        ("tinybert.general.warmup=2", "tinybert.general.warmup=2.0: a share"),
        ("tinybert.lr=2", "did you mean"),
    ],
)
def test_bad_settings_are_named(setting, says):
    with pytest.raises(InputError, match=says):
        load_config(None, [setting])


def test_a_vocabulary_without_a_mask_is_refused(made, monkeypatch):
    config, _ = made
    monkeypatch.setattr("tnr_dist.models.tokenizer.Tokenizer.token_id", lambda self, token: None)
    place = further_pretrain.run_folder(config, DataSet.open(config), 1)
    with pytest.raises(InputError, match=r"no \[MASK\]"):
        make(place, DDPEngine("cpu", 1))


def test_commands(made, prepared, tiny_plm, capsys):
    """Each finds everything complete."""
    config, _ = made
    for command in ("tinybert", "newsbert", "further-pretrain"):
        run_command(command, settings(prepared, tiny_plm, config.output, "student.layers=1"), DDPEngine("cpu", 1))
    assert capsys.readouterr().err.count("complete, skipped") == 5
    run_command(
        "tinybert",
        settings(prepared, tiny_plm, config.output, "student.layers=1", "tinybert.form=joint"),
        DDPEngine("cpu", 1),
    )
    assert "tinybert-joint-1: complete, skipped" in capsys.readouterr().err
