"""The variants behind the paper's figures and its authors' releases: each trains, and does what sets it apart."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tnr_dist.config.schema import RowConfig
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.data.shards import read_index, read_shard
from tnr_dist.data.teacher_cache import TeacherCache
from tnr_dist.data.tokens import read_table
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.losses.stage1 import stage1_loss
from tnr_dist.models.packed import Packed
from tnr_dist.models.plm import load_plm
from tnr_dist.models.recommender import Matcher, load_recommender
from tnr_dist.runs.checkpoint_files import sorted_steps
from tnr_dist.runs.folder import in_order
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages import cache, finetune, pipeline, post_train, stage1, stage2
from tnr_dist.stages.evaluate import evaluate, predict
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts.matching_vectors import TeacherVectors
from tnr_dist.stages.parts.start_models import continued_model, fresh_model, kept_model
from tnr_dist.stages.registry import make, run_command
from tnr_dist.stages.table_rows import evaluate_run
from tnr_dist.stages.targets import row_folder
from tnr_dist.util.errors import InputError
from tnr_dist.util.transfer import from_stored

ENCODER = "news_encoder.encoder."


def engine():
    return DDPEngine("cpu", 1)


def settings(chain_yaml: Path, output: Path, *overrides: str):
    return load_config(chain_yaml, [f"output={output}", "student.layers=1", "log.checkpoint_every=0", *overrides])


def seed0(copy: Path, chain_yaml: Path, *overrides: str):
    """Settings over the finished chain, whose runs are taken as they are."""
    return settings(chain_yaml, copy / "seed-0", "log.checkpoint_every=2", *overrides)


def make_all(config, *places):
    for place in in_order(places):
        make(place, engine())


def state(file: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    model, _ = load_recommender(file)
    return {name: value for name, value in model.state_dict().items() if name.startswith(prefix)}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# What a model starts from ----------------------------------------------------------------------------------------------


def test_no_two_stages_start_from_one_head(chain_yaml, tmp_path):
    """The student's pooling and dense layers are its own (Fig. 2a), not those that its teacher started from."""
    config = settings(chain_yaml, tmp_path)
    data = DataSet.open(config)
    heads = {
        stage: fresh_model(config, data, 1, config.seed, stage)[0].news_encoder
        for stage in ("post-train", "stage1", "finetune")
    }
    heads["student"] = stage1.first_layers(config, data, "plm", "stage1")[0].news_encoder
    for name in ("pooling.project.weight", "dense.weight"):
        flat = {stage: head.get_parameter(name).flatten() for stage, head in heads.items()}
        assert torch.equal(flat["student"], flat["stage1"])
        for one, other in (("post-train", "stage1"), ("post-train", "finetune"), ("stage1", "finetune")):
            assert abs(torch.cosine_similarity(flat[one], flat[other], 0)) < 0.2


# Without a stage (Fig. 4) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["plm", "post-train"])
def test_without_stage1_the_student_starts_from_first_layers(copy, chain_yaml, tiny_plm, init):
    config = seed0(copy, chain_yaml, f"stage2.init={init}", "student.layers=2")
    data = DataSet.open(config)
    place = stage2.run_folder(config, data)
    assert place.path.name == f"{init}-stage2-2"
    assert set(place.inputs) == {"data", "cache"} | ({"post-train"} if init == "post-train" else set())
    assert not any(run.stage == "stage1" for run in in_order([place]))
    student, spec = stage2.start_of_student(config, data)
    assert spec.encoder.layers == len(student.news_encoder.encoder.layers) == 2
    started = student.news_encoder.encoder.state_dict()
    if init == "plm":
        source = load_plm(str(tiny_plm), 2)[0].state_dict()
    else:
        teacher = state(copy / "seed-0" / "post-train" / "model.safetensors")
        source = {name: teacher[ENCODER + name] for name in started}
        head = {name: value for name, value in student.news_encoder.state_dict().items() if "encoder." not in name}
        assert_same(head, {name: teacher[f"news_encoder.{name}"] for name in head})
    assert_same(started, source)
    shutil.rmtree(copy / "seed-0" / "stage1-1")  # it must not be looked at
    make_all(config, place)
    trained = state(place.path / "model.safetensors", ENCODER)
    moved = {name for name in started if not torch.equal(trained[ENCODER + name], started[name])}
    assert {name.split(".")[0] for name in moved} == {"layers"}  # both layers train; embeddings are still the source's


def test_without_stage2_the_student_is_finetuned(copy, chain_yaml):
    config = seed0(copy, chain_yaml, "finetune.trainable_layers=0")
    data = DataSet.open(config)
    place = row_folder(config, data, RowConfig("without stage 2", "stage1", 1))
    assert place.path.name == "stage1-finetune-1"
    assert [run.path.name for run in in_order([place])] == ["post-train", "stage1-1", "stage1-finetune-1"]
    make_all(config, place)
    # Nothing of the PLM trains here, so it must be that of stage 1; what stands on top has been trained on clicks.
    before, after = (state(run.path / "model.safetensors") for run in in_order([place])[1:])
    assert_same(*({n: v for n, v in one.items() if n.startswith(ENCODER)} for one in (before, after)))
    for part in ("news_encoder.dense", "user_encoder"):
        assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith(part))
    assert evaluate_run(place, engine())["model"]["layers"] == 1
    # `tnr finetune` comes to the same run.
    config.finetune.init = "stage1"
    assert finetune.student_folder(config, data).key == place.key
    run_command("finetune", config, engine())


def test_rows_share_what_they_do_not_change(chain_yaml, tmp_path):
    config = settings(chain_yaml, tmp_path, "folders=hashed")
    data = DataSet.open(config)

    def runs(*rows: tuple[str, ...]) -> list[str]:
        places = [row_folder(config, data, RowConfig(str(row), "tiny-newsrec", 1, list(row))) for row in rows]
        return [run.name for run in in_order(places)]

    once = ["post-train", "stage1-1", "teacher-0", "teacher-1", "cache"]
    assert runs(("stage2.beta2=0",), ("stage2.beta2=0.3",)) == [*once, "stage2-1", "stage2-1"]
    assert runs((), ("stage2.use_target=false",), ("stage2.learn_omega=false",)) == [*once, *["stage2-1"] * 3]
    assert runs((), ("stage2.init=plm",)) == [*once, "stage2-1", "plm-stage2-1"]
    beta1 = runs((), ("stage1.beta1=0.7",))
    assert sorted(beta1) == sorted([*once, "stage1-1", "stage2-1", "stage2-1"])
    several = runs(("finetune.teachers=1",), (), ("finetune.teachers=3",))  # Fig. 3: teacher 0 is one run for all
    assert [several.count(f"teacher-{n}") for n in range(3)] == [1, 1, 1] and several.count("cache") == 3
    kept = ["post_train.keep_models=2"]  # both ways to several teachers have the same first one
    assert runs((*kept,), (*kept, "finetune.teachers_by=checkpoints")).count("teacher-0") == 1


# Teachers that are checkpoints of post-training (the authors' later release) --------------------------------------------


@pytest.fixture(scope="module")
def code_runs(chain_yaml, tmp_path_factory) -> Path:
    """A chain in the later release's form, its PLMs frozen while they are finetuned so that their origin can be seen."""
    output = tmp_path_factory.mktemp("code")
    config = settings(chain_yaml, output, *CODE, "finetune.trainable_layers=0")
    make_all(config, stage2.run_folder(config, DataSet.open(config)))
    return output


CODE = [
    "post_train.keep_models=2", "post_train.max_steps=5", "stage1.teachers=2", "stage1.projection_init=xavier",
    "finetune.teachers_by=checkpoints", "finetune.amsgrad=true", "stage2.amsgrad=true", "stage2.learn_omega=false",
    "stage2.share_projection=true", "stage2.projection_init=xavier", "stage2.beta2=0.2", "model.history_padding=learned",
]  # fmt: skip


def test_kept_models_are_those_of_their_step(code_runs, chain_yaml, tmp_path):
    config = settings(chain_yaml, tmp_path, *CODE, "post_train.keep_models=1", "stage1.teachers=1",
                      "finetune.teachers_by=seeds", "post_train.max_steps=3")  # fmt: skip
    run_command("post-train", config, engine())
    # 5 steps in intervals of 2: the model kept is that after step 3, as one trained for 3 steps is.
    kept = kept_model(code_runs / "post-train", 1)
    assert_same(state(kept), state(tmp_path / "post-train" / "model.safetensors"))
    final = state(code_runs / "post-train" / "model.safetensors")
    assert not torch.equal(final["news_encoder.dense.weight"], state(kept)["news_encoder.dense.weight"])


def test_a_resumed_run_keeps_the_same_models(code_runs, chain_yaml, tmp_path):
    overrides = [*CODE, "log.checkpoint_every=1", "log.keep=9"]
    config = settings(chain_yaml, tmp_path, *overrides)
    run_command("post-train", config, engine())
    run = tmp_path / "post-train"
    for step in sorted_steps(run / "checkpoints")[1:]:
        shutil.rmtree(run / "checkpoints" / str(step))
    shutil.rmtree(run / "models")
    for name in ("complete.json", "model.safetensors"):
        (run / name).unlink()
    run_command("post-train", config, engine())
    for number in range(2):
        assert_same(state(kept_model(run, number)), state(kept_model(code_runs / "post-train", number)))


def test_teachers_are_the_finetuned_checkpoints(code_runs):
    for number in range(2):
        source = state(kept_model(code_runs / "post-train", number), ENCODER)
        assert_same(state(code_runs / f"teacher-{number}" / "model.safetensors", ENCODER), source)
    users = [state(code_runs / f"teacher-{n}" / "model.safetensors")["user_encoder.padding"] for n in range(2)]
    assert not torch.equal(*users)


@pytest.fixture(scope="module")
def matching(code_runs, chain_yaml):
    """A student without dropout, and a matching batch with what the two teachers say of it."""
    config = settings(chain_yaml, code_runs, *CODE, "model.dropout=0")
    data, device = DataSet.open(config), engine()
    loader = post_train.matching_loader(config, data, config.stage1, device)
    vectors = TeacherVectors.find(code_runs / "post-train", 2, loader, config.stage1, device, data)
    task = stage1.Stage1Task(
        None, None, loader, config.stage1, 0, "", lambda: vectors, torch.device("cpu")  # type: ignore[arg-type]
    )  # fmt: skip
    task.begin(device)
    inputs = task.to_device(next(loader.epoch(0)))
    return config.stage1, stage1.first_layers(config, data, "plm", "stage1")[0], inputs


def test_stage1s_teachers_are_the_checkpoints(code_runs, matching):
    _, _, inputs = matching
    batch = inputs.batch
    for number in range(2):
        teacher, _ = load_recommender(kept_model(code_runs / "post-train", number))
        with torch.no_grad():
            bodies, titles = (teacher.eval().news_encoder(texts) for texts in (batch.bodies, batch.titles))
        torch.testing.assert_close(inputs.teachers.bodies[:, number], bodies, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(inputs.teachers.titles[:, number], titles[batch.candidates], rtol=1e-4, atol=1e-5)
    assert (inputs.teachers.bodies[:, 0] - inputs.teachers.bodies[:, 1]).abs().max() > 1e-3


def test_teacher_vectors_are_of_the_stages_own_precision(code_runs, chain_yaml, tmp_path):
    """Whatever another student's stage 1 has left beside the post-trained model."""
    found = []
    for order in (["bf16", "fp32"], ["fp32"]):
        without = shutil.ignore_patterns("matching")
        run = Path(shutil.copytree(code_runs / "post-train", tmp_path / "-".join(order), ignore=without))
        for precision in order:
            config, device = settings(chain_yaml, code_runs, *CODE), engine()
            device.use_precision(precision)
            data = DataSet.open(config)
            loader = post_train.matching_loader(config, data, config.stage1, device)
            vectors = TeacherVectors.find(run, 2, loader, config.stage1, device, data)
        found.append(vectors.bodies[0])
    assert np.array_equal(*found)


def test_the_seed_alone_draws_the_projections_of_stage1(code_runs, chain_yaml, tmp_path):
    models = []
    for drawn_before in (1, 2):  # by the stages that ran in the same process
        output = Path(shutil.copytree(code_runs, tmp_path / str(drawn_before)))
        shutil.rmtree(output / "stage1-1")
        torch.manual_seed(drawn_before)
        run_command("stage1", settings(chain_yaml, output, *CODE, "student.init=post-train"), engine())
        models.append(state(output / "stage1-1" / "model.safetensors"))
    assert_same(*models)


def test_stage1_weighs_several_teachers_on_each_sample(matching):
    settings, student, inputs = matching
    batch = inputs.batch
    # After a few steps the teachers still agree; these do not.
    theirs = torch.tensor([3.0, -5.0])
    told = stage1.Teachers(inputs.teachers.bodies * theirs.view(1, 2, 1), inputs.teachers.titles * 2)
    module = stage1.Stage1Module(Matcher(student.news_encoder), settings)
    with torch.no_grad():
        got = {name: float(value) for name, value in module(stage1.Stage1Inputs(batch, told)).items()}
        bodies, titles = student.news_encoder(batch.bodies), student.news_encoder(batch.titles)
        expected = {"loss_distill": 0.0, "loss_emb": 0.0, "loss_target": 0.0}
        weights = []
        for b, row in enumerate(batch.candidates):
            scores = titles[row] @ bodies[b]
            says = [told.titles[b, i] @ told.bodies[b, i] for i in range(2)]
            weight = torch.softmax(torch.stack([s.log_softmax(0)[0] for s in says]), 0)
            weights.append(weight)
            blend = weight[0] * says[0] + weight[1] * says[1]
            expected["loss_distill"] -= float(blend.softmax(0) @ scores.log_softmax(0)) / batch.count
            expected["loss_target"] -= float(scores.log_softmax(0)[0]) / batch.count
            for i in range(2):
                matrix, bias = module.projection.weight[i], module.projection.bias[i]
                error = ((told.titles[b, i] @ matrix + bias - titles[row]) ** 2).mean()
                error += ((told.bodies[b, i] @ matrix + bias - bodies[b]) ** 2).mean()
                expected["loss_emb"] += float(weight[i] * error) / batch.count
    assert (torch.stack(weights) - 0.5).abs().max() > 0.05
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=2e-4)
    assert got["loss"] == pytest.approx(sum(expected.values()), rel=2e-4)


def test_stage1_imitates_one_teacher_as_it_is(matching):
    settings, student, inputs = matching
    module = stage1.Stage1Module(Matcher(student.news_encoder), replace(settings, teachers=1))
    assert module.projection is None
    batch, (bodies, titles) = inputs.batch, (inputs.teachers.bodies[:, 0], inputs.teachers.titles[:, 0])
    with torch.no_grad():
        got = module(stage1.Stage1Inputs(batch, stage1.Teachers(bodies.unsqueeze(1), titles.unsqueeze(1))))
        ours, theirs = student.news_encoder(batch.bodies), student.news_encoder(batch.titles)[batch.candidates]
        paper = stage1_loss(
            teacher_scores=(titles @ bodies.unsqueeze(-1)).squeeze(-1), teacher_titles=titles, teacher_bodies=bodies,
            student_scores=(theirs @ ours.unsqueeze(-1)).squeeze(-1), student_titles=theirs, student_bodies=ours,
            weights=batch.weights, count=batch.count,
        )  # fmt: skip
    assert float(got["loss"]) == pytest.approx(float(paper.total), rel=2e-4)


def test_the_later_releases_keys_work_together(code_runs, chain_yaml):
    config = settings(chain_yaml, code_runs, *CODE, "finetune.trainable_layers=0")
    data = DataSet.open(config)
    assert stage2.run_folder(config, data).is_complete()
    records = read_metrics(code_runs / "stage2-1" / "metrics.jsonl")
    omegas = [record["train/omega"] for record in records if "train/omega" in record]
    assert len(omegas) == 4 and omegas == pytest.approx([1.0] * 4, abs=1e-6)
    student, spec = load_recommender(code_runs / "stage2-1" / "model.safetensors")
    assert spec.history_padding == "learned" and student.user_encoder.padding is not None
    config.evaluate.run = str(code_runs / "stage2-1")
    assert 0 < evaluate(config, engine())["auc"] < 1


def test_too_few_steps_for_the_models_to_keep(chain_yaml, tmp_path):
    config = settings(chain_yaml, tmp_path, "post_train.keep_models=3", "post_train.keep_models_every=2")
    with pytest.raises(InputError, match="training has 3 steps, too few to keep 3 models 2 steps apart"):
        run_command("post-train", config, engine())


@pytest.mark.parametrize("overrides", [["stage1.teachers=2"], ["finetune.teachers_by=checkpoints"]])
def test_checkpoints_must_be_kept(chain_yaml, tmp_path, overrides):
    with pytest.raises(InputError, match=r"=2: so many checkpoints .* post_train\.keep_models=1; set it to 2 or more"):
        settings(chain_yaml, tmp_path, *overrides)


# Another user encoder, other inputs ---------------------------------------------------------------------------------------


def news_by_hand(config, data, run: Path) -> torch.Tensor:
    """News vectors [news, D] of a run's model from the rows that its configuration reads."""
    model, _ = load_recommender(run / "model.safetensors")
    table = data.news_tokens(config.data)
    with torch.no_grad():
        return model.eval().encode_news(Packed.gather(table.values, table.offsets, np.arange(len(table))))


def first_histories(data, count: int):
    """Clicked news of the first block's histories, and the teachers' columns of its shard."""
    index = read_index(data.folder, "train")
    info = index.shards[0]
    _, block = next(iter(read_shard(data.folder / "train" / info.name, info).items()))
    offsets = block["history_offsets"]
    return info, [block["history_news"][offsets[i] : offsets[i + 1]].astype(np.int64)[-10:] for i in range(count)]


def test_nrms_user_encoder_in_every_stage(chain_yaml, tmp_path):
    config = settings(chain_yaml, tmp_path, "model.user_encoder=nrms", "model.user_heads=4", "finetune.max_steps=2",
                      "stage2.max_steps=2")  # fmt: skip
    data = DataSet.open(config)
    targets = [stage2.run_folder(config, data), finetune.plain_folder(config, data, 1),
               finetune.student_folder(config, data)]  # fmt: skip
    make_all(config, *targets)
    for run in in_order(targets):
        assert run.is_complete()
        if run.stage != "cache":
            assert load_recommender(run.path / "model.safetensors")[1].user_encoder == "nrms"
    assert 0 < evaluate_run(targets[0], engine())["auc"] < 1
    other = replace(config, model=replace(config.model, user_heads=2))
    with pytest.raises(InputError, match=r"model\.user_heads=2: .* was made with 4"):
        continued_model(other, tmp_path / "post-train", "post-train")
    # The cached user vectors are NRMS's, of its own padded and masked histories.
    stored = TeacherCache(tmp_path / "cache", cache.expected(config, data))
    info, histories = first_histories(data, 5)
    cached = from_stored(stored.columns("train", info).users).float()
    news = stored.news_vectors().float()
    for number in range(2):
        model, _ = load_recommender(tmp_path / f"teacher-{number}" / "model.safetensors")
        for row, clicked in enumerate(histories):
            padded = torch.zeros(1, 10, 16)
            padded[0, : len(clicked)] = news[number][clicked]
            mask = (torch.arange(10) < len(clicked)).unsqueeze(0)
            with torch.no_grad():
                expected = model.eval().encode_users(padded, mask)[0]
            np.testing.assert_allclose(cached[row, number], expected, atol=0.02, rtol=0.02)


def test_category_and_abstract_as_inputs(chain_yaml, raw_mind, tiny_plm, tmp_path):
    folder = tmp_path / "data"
    inputs = ["data.news_inputs=[title, category, abstract]", "data.category_tokens=6", "data.abstract_tokens=20"]
    config = settings(chain_yaml, tmp_path / "run", f"data.dir={folder}", *inputs, "finetune.max_steps=2")
    options = pipeline.prepare_options(config)
    assert options.news_lengths == {"title": 24, "category": 6, "abstract": 20}
    prepare(options, folder, processes=1)
    data = DataSet.open(config)
    table = read_table(folder / "tokens" / "news")
    assert table.lengths.max() > 30 and table.lengths.max() <= config.data.news_tokens == 50
    place = stage2.run_folder(config, data)
    make_all(config, place)
    evaluate_run(place, engine())
    # Teachers have read the joined rows: what is cached is not what the title alone gives.
    stored = TeacherCache(tmp_path / "run" / "cache", cache.expected(config, data))
    exact = news_by_hand(config, data, tmp_path / "run" / "teacher-1")
    error = stored.facts["news"]["max_rounding_error"] + 1e-5
    assert (stored.news_vectors()[1].float() - exact).abs().max() <= error
    titles = settings(chain_yaml, tmp_path / "run", f"data.dir={folder}")
    assert (news_by_hand(titles, data, tmp_path / "run" / "teacher-1") - exact).abs().max() > 10 * error
    # A run is part of the inputs it was trained on: other inputs are other runs, and are not evaluated by mistake.
    assert finetune.teacher_folder(titles, data, 0).key != finetune.teacher_folder(config, data, 0).key
    assert post_train.run_folder(titles, data).key == post_train.run_folder(config, data).key
    titles.evaluate.run = str(place.path)
    titles.evaluate.split = "test"
    with pytest.raises(InputError, match=r"data\.news_inputs=\['title'\]: .* was trained on \['title', 'category'"):
        predict(titles, engine())


def test_data_without_the_inputs_is_refused(chain_yaml, prepared, tmp_path):
    config = settings(chain_yaml, tmp_path, "data.news_inputs=[title, abstract]", "finetune.init=plm")
    with pytest.raises(
        InputError, match=r"prepared with the news inputs title \(24 tokens\), .* prepare the data again"
    ):
        run_command("finetune", config, engine())
    assert PrepareOptions().news_inputs == ("title",)
