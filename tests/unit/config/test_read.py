import json

import pytest

from tnr_dist.config.schema import to_dict, to_yaml
from tnr_dist.stages.methods import Tree, load_config
from tnr_dist.util.errors import InputError


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_yaml_then_overrides(tmp_path):
    config = load_config(
        write(tmp_path, "seed: 3\nstage2: {lr: 1e-3, betas: [0.5, 0.6]}\n"), ["seed=5", "stage2.beta2=1"]
    )
    assert (config.seed, config.stage2.lr, config.stage2.betas, config.stage2.beta2) == (5, 1e-3, [0.5, 0.6], 1.0)


def test_defaults_are_the_papers():
    config = Tree()
    assert (config.model.news_dim, config.model.query_dim, config.data.history, config.data.negatives) == (
        256,
        200,
        50,
        4,
    )
    assert (config.post_train.negatives, config.post_train.batch_size, config.post_train.lr) == (9, 32, 1e-6)
    assert (config.finetune.lr, config.finetune.batch_size, config.finetune.teachers) == (5e-5, 128, 4)
    assert (config.stage2.lr, config.stage2.batch_size) == (5e-5, 128)
    assert (config.stage1.temperature, config.stage1.beta1, config.stage2.temperature, config.stage2.beta2) == (
        1,
        1,
        1,
        0.1,
    )
    assert (config.post_train.trainable_layers, config.finetune.trainable_layers, config.stage2.omega) == (3, 2, 1)


def test_resolved_yaml_reads_back(tmp_path):
    config = load_config(write(tmp_path, "rows: [{name: A, layers: 2}]\n"), ["data.dir=x: y", "finetune.lr=1e-7"])
    assert to_dict(load_config(write(tmp_path, to_yaml(config)))) == to_dict(config)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stage2.ler=1", "did you mean 'stage2.lr'"),
        ("sed=1", "did you mean 'seed'"),
        ("lr=1", "did you mean 'post_train.lr'"),
        ("data.lr=1", "did you mean"),
        ("stage2.learning_rate=1", "did you mean 'stage2.lr'"),  # what its comment says
        ("stage2.head_learning_rate=1", "did you mean 'stage2.head_lr'"),
        ("finetune.batch=1", "did you mean 'finetune.batch_size'"),  # a part of its name
        ("stage2.temp=1", "did you mean 'stage2.temperature'"),
        ("stage1.num_epochs=1", "did you mean 'stage1.epochs'"),  # what others call it
        ("stage2.max_grad_norm=1", "did you mean 'stage2.clip_norm'"),
        ("learning_rate=1", "did you mean 'post_train.lr'"),
        ("student.num_layers=1", "did you mean 'student.layers'"),
        ("stage2.lr=fast", "command line: stage2.lr='fast': expected a number"),
        ("seed=1.5", "seed=1.5: expected a whole number"),
        ("seed=true", "expected a whole number"),
        ("stage2.learn_omega=1", "expected true or false"),
        ("stage2=1", "group of keys"),
        ("seed", "expected key=value"),
        ("engine=mpi", "one of ddp"),
        ("stage2.lr=.nan", "finite number"),
        ("stage2.lr=-1", "must be greater than 0"),
        ("ranks=0", "must be greater than 0"),
        ("finetune.betas=[1]", "two numbers"),
        ("model.dropout=1", "below 1"),
        ("finetune.dropout=1", "finetune.dropout=1.0: at least 0 and below 1, or -1"),
        ("stage1.dropout=-0.1", "stage1.dropout=-0.1"),
        ("stage2.dropout_in=all", "unknown key 'stage2.dropout_in'"),  # its frozen layers' states are kept
        ("stage2.omega_form=exp", "one of softplus, free"),
        ("cache.history_padding=learned", "set model.history_padding=learned too"),
        ("seed=[", "not valid YAML"),
        ("evaluate.split=valid", "one of train, dev, test"),
    ],
)
def test_bad_overrides(override, says):
    with pytest.raises(InputError) as error:
        load_config(None, [override])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("model: {query_dim: 0}", [], "{file}: model.query_dim=0: must be greater than 0"),
        ("model: {query_dim: 0}", ["stage2.lr=1"], "{file}: model.query_dim=0: must be greater than 0"),
        ("cache: {history_padding: learned}", [], "{file}: cache.history_padding"),
        ("rows: [{name: x, set: [stage2.lr=-1]}]", [], "{file}: row 'x': "),
        ("seed: 1", ["model.query_dim=0"], "model.query_dim=0: must be greater than 0"),
        ("model: {query_dim: 4}", ["model.query_dim=0"], "model.query_dim=0: must be greater than 0"),
    ],
)
def test_a_value_out_of_range_names_the_file_it_stands_in(tmp_path, text, overrides, says):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        load_config(path, overrides)
    assert str(error.value).startswith(says.format(file=path))


def test_an_override_mends_a_value_out_of_range(tmp_path):
    path = write(tmp_path, "model: {query_dim: 0}")
    assert load_config(path, ["model.query_dim=4"]).model.query_dim == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stage_2: {lr: 1}", "did you mean 'stage2'"),
        ("stage2: 3", "expected a group of keys"),
        ("rows: [{nam: x}]", "did you mean"),
        ("seed: 1\nseed: 2", "duplicate key"),
        ("[1, 2]", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("1: 2", "is not text"),
    ],
)
def test_bad_files(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert says in str(error.value) and "c.yaml" in str(error.value)


@pytest.mark.parametrize("sign", ["\n", "\t", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028"])
@pytest.mark.parametrize("key", ["output", "plm.name", "wandb.tags", "rows.name", "rows.set"])
def test_control_characters_are_refused(tmp_path, key, sign):
    """They would begin a line, a field or a command of their own wherever a setting is put into a text."""
    text = json.dumps(f"a{sign}b")  # YAML reads it, too
    values = {
        "rows.name": f"[{{name: {text}}}]",
        "rows.set": f"[{{name: a, set: [{text}]}}]",
        "wandb.tags": f"[{text}]",
    }
    section, _, name = key.rpartition(".")
    part = values.get(key, text)
    written = (
        f"rows: {part}" if section == "rows" else f"{section}: {{{name}: {part}}}" if section else f"{name}: {part}"
    )
    for path, overrides in ((write(tmp_path, written), []), (None, [f"{key}=a{sign}b"])):
        if overrides and key not in ("output", "plm.name"):
            continue
        with pytest.raises(InputError, match="without control characters") as error:
            load_config(path, overrides)
        assert sign not in str(error.value) and repr(sign) in str(error.value)


def test_other_letters_are_text(tmp_path):
    config = load_config(write(tmp_path, 'output: "läufe/新闻 – 1"'), ["wandb.tags=[a b, é]"])
    assert config.output == "läufe/新闻 – 1" and config.wandb.tags == ["a b", "é"]


def test_anchors_and_merges(tmp_path):
    config = load_config(write(tmp_path, "post_train: &m {lr: 1e-3, negatives: 3}\nstage1: {<<: *m, lr: 2e-3}\n"))
    assert (config.stage1.lr, config.stage1.negatives, config.post_train.lr) == (2e-3, 3, 1e-3)


def test_rows_need_names(tmp_path):
    with pytest.raises(InputError, match="a name of its own"):
        load_config(write(tmp_path, "rows: [{name: x}, {name: x}]"))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such configuration file"):
        load_config(tmp_path / "none.yaml")
