"""Exit codes and one-line errors, as a user meets them."""

import hashlib
import json
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.signals import given_back
from tnr_dist.cli.app import main
from tnr_dist.config.schema import to_dict
from tnr_dist.stages.methods import load_config


@pytest.fixture
def tnr(monkeypatch, capsys):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["tnr", *map(str, arguments)])
        code = 0
        try:
            with given_back():
                main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture
def config(tmp_path, prepared, tiny_plm):
    path = tmp_path / "c.yaml"
    path.write_text(
        f"output: {tmp_path / 'run'}\nthreads: 1\nprecision: fp32\ndata: {{dir: {prepared}, history: 10, title_tokens: 24}}\n"
        f"plm: {{name: {tiny_plm}}}\nmodel: {{news_dim: 16, query_dim: 8}}\n"
        "finetune: {init: plm, layers: 1, batch_size: 32, max_steps: 2}\n"
        "post_train: {batch_size: 16, max_steps: 1, negatives: 3, body_tokens: 40}\n"
    )
    return path


def one_line(err):
    lines = [line for line in err.splitlines() if line.startswith("tnr:")]
    return len(lines) == 1 and "Traceback" not in err


def test_help_names_every_command(tnr):
    code, out, _ = tnr("--help")
    assert code == 0
    for name in (
        "data",
        "post-train",
        "stage1",
        "finetune",
        "cache",
        "stage2",
        "evaluate",
        "predict",
        "run",
        "report",
        "bench",
    ):
        assert name in out


@pytest.mark.parametrize(("arguments", "names"), [([], "stage2"), (["data"], "verify"), (["plm"], "convert")])
def test_without_a_command_the_help_is_shown_in_lines(tnr, arguments, names):
    code, out, err = tnr(*arguments)
    assert code == 2 and not out and "tnr:" not in err
    assert any(line.startswith(f"  {names}") for line in err.splitlines())


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize(
    "stage", ["post-train", "stage1", "finetune", "cache", "stage2", "baseline", "run", "reproduce"]
)
def test_the_help_of_a_stage_says_where_to_read_on(tnr, stage):
    code, out, _ = tnr(stage, "--help")
    assert code == 0
    for says in (
        "--print-config",
        "launch/local.sh, torchrun, srun or mpirun",
        "75 stopped after a checkpoint",
    ):
        assert says in words(out)
    assert stage in ("run", "reproduce") or "Reads the sections plm, model, data" in words(out)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_the_help_says_which_model_is_scored(tnr, command):
    _, out, _ = tnr(command, "--help")
    assert "the stage-2 student of student.layers layers" in words(out) and "evaluate.run=" in words(out)
    assert "75" not in out


def test_the_help_of_bench_lists_all_settings(tnr):
    _, out, _ = tnr("bench", "--help")
    for says in ("prepare scale=0.0625 [input=...]", "metrics impressions=376471 sample=4000", "serve layers=6,4,2,1"):
        assert says in words(out)


def test_bench_prints_before_it_saves_and_looks_first_whether_it_can(tnr, tmp_path, monkeypatch):
    from tnr_dist.bench import common

    measured = []
    monkeypatch.setattr(common, "run_benchmark", lambda name, values: measured.append(values) or {"x": 1.5})
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "x.json"):
        code, out, err = tnr("bench", "metrics", "sample=2", "--save", place)
        assert code == 2 and one_line(err) and not out and str(place) in err
    assert not measured
    code, out, _ = tnr("bench", "metrics", "sample=2", "--save", tmp_path / "new" / "x.json", "--json")
    assert code == 0 and json.loads(out) == {"x": 1.5} == json.loads((tmp_path / "new" / "x.json").read_text())
    assert measured == [{"sample": 2}]
    monkeypatch.setattr("tnr_dist.util.files.write_json", lambda *a: 1 / 0)
    code, out, _ = tnr("bench", "metrics", "--save", tmp_path / "y.json", "--json")
    assert code == 1 and json.loads(out) == {"x": 1.5}


@pytest.mark.parametrize("command", ["finetune", "run", "evaluate"])
def test_a_bad_wandb_mode_is_found_before_anything_is_written(tnr, command, config, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "foo")
    code, out, err = tnr(command, config)
    assert code == 2 and one_line(err) and "WANDB_MODE=foo" in err and not out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]


def test_print_config_is_the_resolved_tree(tnr, config):
    rows = "rows=[{name: A, method: finetune, layers: 2, set: ['stage2.lr=1e-3']}]"
    code, out, _ = tnr("stage2", config, "stage2.lr=0.5", rows, "--print-config")
    assert code == 0 and yaml.safe_load(out) == to_dict(load_config(config, ["stage2.lr=0.5", rows]))


def test_print_config_says_what_each_key_means(tnr, config):
    """Once for keys that several groups share, and of those that choose, what there is to choose from."""
    _, out, _ = tnr("stage2", config, "--print-config")
    lines = out.splitlines()
    above = lines.index("  history: 10") - 1
    assert lines[above] == "  # L: the last L clicked news."
    assert out.count("# passes over the training samples.") == 1
    assert "One of: attention, nrms." in lines[lines.index("  user_encoder: attention") - 1]
    assert lines[lines.index("synth:") - 1].startswith("# Generated data for `tnr run`")


def test_a_stage_runs_and_runs_again(tnr, config, tmp_path):
    assert tnr("finetune", config)[0] == 0
    code, _, err = tnr("finetune", config)
    assert code == 0 and "complete, skipped" in err
    code, out, _ = tnr("evaluate", config, f"evaluate.run={tmp_path / 'run' / 'finetune-1'}")
    assert code == 0 and out.startswith("AUC ")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["stage2"], ["data", "prepare"], ["stage2", "c.yaml", "--wrong"], ["bench", "x"]]
)
def test_usage_errors(tnr, arguments):
    code, out, err = tnr(*arguments)
    assert code == 2 and one_line(err) and not out


def malformed(case, tmp_path, config, prepared):
    """Arguments of a command that must fail, and what its one line must say."""
    raw = tmp_path / "raw"
    raw.mkdir()
    news = "N1\tnews\tx\tA title\tAn abstract\tu\t[]\t[]\nN2\tnews\tx\tOther title\t\tu\t[]\t[]\n"
    behaviors = "1\tU1\t11/15/2019 8:55:22 AM\tN1\tN1-0 N2-1\n"
    run = [
        "data",
        "prepare",
        "--input",
        raw,
        "--output",
        tmp_path / "out",
        "--plm",
        yaml.safe_load(config.read_text())["plm"]["name"],
    ]
    says = ""
    if case == "missing file":
        says = "behaviors.tsv"
        behaviors = None
    elif case == "truncated row":
        says, behaviors = "behaviors.tsv, line 2: 3 tab-separated columns", behaviors + "2\tU2\t11/15/2019 8:55:22 AM\n"
    elif case == "duplicate news id":
        says, news = "N1", news + "N1\tnews\tx\tAgain\t\tu\t[]\t[]\n"
    elif case == "empty split":
        says, behaviors = "empty", ""
    elif case == "unknown key":
        run, says = ["stage2", config, "stage2.ler=1"], "did you mean 'stage2.lr'"
    elif case == "wrong type":
        run, says = ["stage2", config, "stage2.lr=fast"], "expected a number"
    elif case == "corrupt tar":
        copy = shutil.copytree(prepared, tmp_path / "data")
        shard = sorted((copy / "train").glob("*.tar"))[0]
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(bytes(data))
        run, says = ["finetune", config, f"data.dir={copy}"], f"{shard.name}: damaged"
    elif case == "corrupt weights":
        plm = shutil.copytree(yaml.safe_load(config.read_text())["plm"]["name"], tmp_path / "plm")
        weights = plm / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        run, says = ["finetune", config, f"plm.name={plm}"], "model.safetensors"
    elif case == "wrong tokenizer":
        plm = shutil.copytree(yaml.safe_load(config.read_text())["plm"]["name"], tmp_path / "plm")
        words = (plm / "vocab.txt").read_text().split("\n")
        (plm / "vocab.txt").write_text("\n".join(words[:5] + words[:4:-1]))
        run, says = ["finetune", config, f"plm.name={plm}"], "prepared with the tokenizer of"
    elif case == "not prepared":
        run, says = ["finetune", config, f"data.dir={raw}"], "not a prepared data set"
    elif case == "stage before its input":
        run, says = ["stage2", config], "run that stage first"
    elif case == "no labels":
        run, says = ["evaluate", config, "evaluate.split=test", f"evaluate.run={tmp_path}"], "no labels"
    elif case == "ranks do not divide streams":
        run, says = ["finetune", config, "data.streams=0"], "data.streams"
    if news is not None:
        (raw / "news.tsv").write_text(news)
    if behaviors is not None:
        (raw / "behaviors.tsv").write_text(behaviors)
    return run, says


CASES = ["missing file", "truncated row", "duplicate news id", "empty split", "unknown key", "wrong type", "corrupt tar",
         "corrupt weights", "wrong tokenizer", "not prepared", "stage before its input", "no labels",
         "ranks do not divide streams"]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_malformed_input_is_one_line_and_leaves_nothing(case, tmp_path, config, prepared, tnr):
    arguments, says = malformed(case, tmp_path, config, prepared)
    code, _, err = tnr(*arguments)
    assert code == 2 and one_line(err) and says in err, err
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "run").rglob("complete.json"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_traceback_on_request(tnr, monkeypatch):
    from tnr_dist.cli import engine

    monkeypatch.setattr(engine, "configure", lambda *a: 1 / 0)
    code, _, err = tnr("stage2", "c.yaml")
    assert code == 1 and "ZeroDivisionError" in err and one_line(err)
    monkeypatch.setenv("TNR_TRACEBACK", "")  # so that what -v sets is undone after the test
    code, _, err = tnr("-v", "stage2", "c.yaml")
    assert code == 1 and "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("tnr: ZeroDivisionError: division by zero")


def test_data_commands(tnr, tmp_path, prepared):
    code, out, _ = tnr("data", "stats", prepared)
    assert code == 0 and "600" in out
    code, out, _ = tnr("data", "verify", prepared)
    assert code == 0 and "error" not in out
    code, _, _ = tnr("data", "synth", "--output", tmp_path / "s", "--news", 300, "--users", 50, "--impressions", 80)
    assert code == 0
    first = hashlib.sha256((tmp_path / "s" / "train" / "behaviors.tsv").read_bytes()).hexdigest()
    tnr("data", "synth", "--output", tmp_path / "t", "--news", 300, "--users", 50, "--impressions", 80)
    assert hashlib.sha256((tmp_path / "t" / "train" / "behaviors.tsv").read_bytes()).hexdigest() == first
    assert json.loads((tmp_path / "s" / "synth.json").read_text())["oracle"]


def test_a_command_starts_without_what_it_does_not_need():
    """torch takes two seconds of each process and transformers another: the processes that read raw data need neither."""
    code = (
        "import sys; import tnr_dist.cli.app, tnr_dist.data.prepare.prepare, tnr_dist.data.dataset\n"
        "assert 'torch' not in sys.modules\n"
        "import tnr_dist.stages.registry\n"
        "assert 'torch' in sys.modules and not {'transformers', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
