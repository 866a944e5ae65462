"""The real wandb client, offline: what a run logs is read back from its files; and how a mode is chosen."""

import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from tests.wandb_files import _read, read_offline
from tnr_dist.config.schema import WandbConfig
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.runs import wandb
from tnr_dist.runs.tracker import Tracker, read_metrics
from tnr_dist.runs.wandb import WandbRun
from tnr_dist.stages import finetune
from tnr_dist.stages.methods import Tree, load_config
from tnr_dist.stages.registry import run_command
from tnr_dist.train import loop
from tnr_dist.util.errors import InputError, Preempted

STEPS = 5
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Without variables of the client, login or home folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(WandbRun, "first", None)
    wandb.say_once.cache_clear()
    return monkeypatch


@pytest.fixture
def offline(environment):
    pytest.importorskip("wandb", reason="wandb is not installed")
    environment.setenv("WANDB_MODE", "offline")
    return environment


@pytest.fixture
def settings(prepared, tiny_plm, tmp_path):
    return load_config(
        None,
        [
            f"output={tmp_path / 'experiment' / 'seed-0'}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1",
            "precision=fp32", "model.news_dim=16", "model.query_dim=8", "data.history=10", "data.title_tokens=24",
            "finetune.init=plm", "finetune.layers=2", "finetune.batch_size=48", f"finetune.max_steps={STEPS}",
            "log.every=1", "log.checkpoint_every=2",
        ],
    )  # fmt: skip


def train(config):
    run_command("finetune", config, DDPEngine("cpu", 1))


def folder(config):
    return finetune.plain_folder(config, finetune.DataSet.open(config), 2).path


def at_step(monkeypatch, stop_at, work):
    original = loop._record

    def record(engine, parts, norm, step, *rest):
        if step == stop_at:
            work()
        return original(engine, parts, norm, step, *rest)

    monkeypatch.setattr(loop, "_record", record)


def test_an_interrupted_run_goes_on_with_its_id(offline, settings, capfd):
    offline.setenv("WANDB_API_KEY", KEY)
    before = signal.getsignal(signal.SIGTERM)
    with offline.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        try:
            with pytest.raises(Preempted):
                train(settings)
        finally:
            signal.signal(signal.SIGTERM, before)
    run = folder(settings)
    saved = json.loads((run / "checkpoints" / "3" / "state.json").read_text())["wandb_id"]
    (run / "wandb_id").unlink()  # the checkpoint alone must do
    train(settings)
    first, second = read_offline(run)
    assert first.run.run_id == second.run.run_id == saved == (run / "wandb_id").read_text().strip()
    assert (first.exit_code, first.preempting) == (75, True)
    assert (second.exit_code, second.preempting) == (0, False)
    assert [one["_step"] for part in (first, second) for one in part.history] == [1, 2, 3, 4, 5]
    for part in (first, second):
        assert (part.run.run_group, part.run.job_type, part.run.project) == ("experiment", "finetune", "tnr_dist")
        assert part.run.display_name == "finetune-2 seed-0"
        assert part.metrics == {"samples": ""} | {f"{name}/*": "samples" for name in wandb._NAMESPACES}
        assert part.config["finetune"]["max_steps"] == STEPS
        facts = part.config["run"]
        assert facts["stage"] == "finetune" and facts["ranks"] == 1
        assert 0 < facts["trained_parameters"] < facts["parameters"]
        assert facts["peak_tflops"] > 0 and "fp32, measured" in facts["peak_source"]
    err = capfd.readouterr().err
    assert err.count("wandb:") == 1 and "runs are kept offline" in err
    assert not any(KEY.encode() in file.read_bytes() for file in run.rglob("*") if file.is_file())


def test_the_records_are_those_of_metrics_jsonl(offline, settings):
    train(settings)
    run = folder(settings)
    (part,) = read_offline(run)
    records = read_metrics(run / "metrics.jsonl")
    assert len(part.history) == len(records) == STEPS
    for logged, record in zip(part.history, records, strict=True):
        assert {key: logged[key] for key in record} == pytest.approx(record)
        assert set(logged) - set(record) == {"_step", "_runtime", "_timestamp"}
    last = records[-1]
    for key in ("perf/samples_per_s", "perf/news_per_s", "perf/tokens_per_s", "perf/mfu", "memory/max_gib", "optim/lr"):
        assert last[key] > 0, key
    assert 0 < last["perf/dedupe_ratio"] < 1 and 0 <= last["perf/data_wait_pct"] <= 100 and last["perf/mfu"] < 1
    assert not [key for key in last if key.startswith("ranks/")]  # one rank: the same again


def test_a_failed_run_is_shown_as_failed(offline, settings):
    def fail():
        raise RuntimeError("power cut")

    at_step(offline, 2, fail)
    with pytest.raises(RuntimeError):
        train(settings)
    (part,) = read_offline(folder(settings))
    assert part.exit_code == 1 and not part.preempting


def test_variables_go_before_the_configuration(offline, settings):
    for name, value in (
        ("PROJECT", "p"),
        ("ENTITY", "e"),
        ("RUN_GROUP", "g"),
        ("NAME", "n"),
        ("TAGS", "a,b"),
        ("RUN_ID", "abc"),
    ):
        offline.setenv(f"WANDB_{name}", value)
    settings.wandb = WandbConfig(project="other", entity="other", group="other", tags=["c"])
    settings.finetune.max_steps = 1
    train(settings)
    (part,) = read_offline(folder(settings))
    run = part.run
    assert (run.project, run.entity, run.run_group, run.display_name, run.run_id) == ("p", "e", "g", "n", "abc")
    assert list(run.tags) == ["a", "b"]


def test_the_clients_process_may_die(offline, settings, capfd):
    """A stop request reaches it too; what is logged afterwards goes to the same run."""

    def kill():
        (core,) = (one for one in psutil.Process().children() if one.name() == "wandb-core")
        core.kill()
        core.wait(10)

    at_step(offline, 3, kill)
    train(settings)
    run = folder(settings)
    assert [one["step"] for one in read_metrics(run / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    *_, last = read_offline(run)
    # What may not have been written yet is logged again.
    assert [one["_step"] for one in last.history][-4:] == [2, 3, 4, 5] and last.exit_code == 0
    assert last.run.run_id == (run / "wandb_id").read_text().strip()
    assert "continuing with metrics.jsonl only" not in capfd.readouterr().err


def test_a_record_is_written_before_the_next_comes(offline, settings):
    """A job that is killed between two logged steps, hours apart, has what it has logged."""
    seen = []

    def look():
        (file,) = folder(settings).glob("wandb/offline-run-*/*.wandb")
        end = time.monotonic() + 10
        while time.monotonic() < end and not (seen and seen[-1] == 2):
            time.sleep(0.2)
            seen[:] = [one["_step"] for one in _read(file).history]

    at_step(offline, 3, look)
    train(settings)
    assert seen == [1, 2]


@pytest.mark.parametrize("held_back", [False, True])
def test_slurm_tells_all_processes_to_stop(offline, settings, held_back, monkeypatch):
    """TERM to the client's processes and to the rank: no record is lost, and the run is marked as to be gone on with."""

    def tell_all():
        time.sleep(1.5)  # what is not held back is on disk
        for one in psutil.Process().children(recursive=True):
            if one.name().startswith("wandb"):
                one.send_signal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(wandb, "_UNWRITTEN", 1.0)
    if held_back:
        original = WandbRun.log
        monkeypatch.setattr(WandbRun, "log", lambda *arguments, commit: original(*arguments))
    at_step(offline, 3, tell_all)
    with pytest.raises(Preempted):
        train(settings)
    parts = read_offline(folder(settings))
    assert sorted({one["_step"] for part in parts for one in part.history}) == [1, 2, 3]
    assert (parts[-1].exit_code, parts[-1].preempting) == (75, True)


def test_without_the_client(environment, settings, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    train(settings)
    assert capsys.readouterr().err.count("wandb: not logged to") == 1
    assert len(read_metrics(folder(settings) / "metrics.jsonl")) == STEPS
    assert not (folder(settings) / "wandb").exists()


class NoFields:
    """A client whose settings are not what they were."""

    Settings = SimpleNamespace()


class Broken:
    """A finder: importing wandb fails as it does beside a protobuf that does not fit."""

    def find_spec(self, name, path=None, target=None):
        if name == "wandb":
            raise TypeError("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file")


@pytest.mark.parametrize("broken", [Broken, NoFields])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_broken_client_is_said_once_and_does_not_stop_the_training(
    environment, settings, monkeypatch, capsys, broken, mode
):
    environment.setenv("WANDB_MODE", mode)
    if broken is NoFields:
        monkeypatch.setitem(sys.modules, "wandb", NoFields)
    else:
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    settings.finetune.max_steps = 2
    train(settings)
    WandbRun.open(settings, folder(settings), "evaluate", {})  # a second stage of the process
    err = capsys.readouterr().err
    said = "TypeError: Descriptors cannot" if broken is Broken else "AttributeError"
    assert err.count("wandb: not logged to") == err.count("wandb:") == 1 and said in err
    assert len(read_metrics(folder(settings) / "metrics.jsonl")) == 2
    assert not WandbRun.unreachable


def test_the_given_id_is_the_first_run_folders(environment, settings, monkeypatch, tmp_path, capsys):
    """The stages of `tnr run`, made by one process, stay runs of their own; so do those of the process after a stop."""
    asked = []
    fake = SimpleNamespace(id="", url="", define_metric=lambda *a, **n: None)
    monkeypatch.setattr(
        WandbRun, "_init", lambda mode, arguments: asked.append(arguments["id"]) or WandbRun(fake, mode)
    )
    environment.setenv("WANDB_MODE", "online")
    environment.setenv("WANDB_RUN_ID", "abc")
    folders = [tmp_path / f"seed-{seed}" / name for seed in (0, 1) for name in ("post-train", "stage1")]
    for one in (folders[0], folders[0], *folders[1:3]):
        WandbRun.open(settings, one, "a-stage", {})
    monkeypatch.setattr(WandbRun, "first", None)
    for one in (folders[3], folders[1]):
        WandbRun.open(settings, one, "a-stage", {})
    assert asked[:2] == ["abc", "abc"] and "abc" not in asked[2:]
    assert len(set(asked[2:5])) == 3 and asked[5] == asked[2]
    assert capsys.readouterr().err.count("WANDB_RUN_ID=abc is one run folder's") == 1


def test_disabled_neither_imports_nor_says(environment, settings, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    settings.wandb.mode = "disabled"
    train(settings)
    assert "wandb" not in capsys.readouterr().err
    assert not (folder(settings) / "wandb_id").exists()


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_a_client_that_fails_does_not_stop_the_training(offline, settings, monkeypatch, capsys, failing):
    import wandb

    def fail(*arguments, **named):
        raise wandb.errors.CommError("no route")

    if failing == "init":
        monkeypatch.setattr(wandb, "init", fail)
    else:
        monkeypatch.setattr(wandb.Run, failing, fail)
    train(settings)
    assert "no route" in capsys.readouterr().err
    assert len(read_metrics(folder(settings) / "metrics.jsonl")) == STEPS


def test_online_falls_back_to_offline(offline, settings, monkeypatch, tmp_path, capsys):
    import wandb

    offline.setenv("WANDB_MODE", "online")
    original = wandb.init

    def init(mode, **arguments):
        if mode == "online":
            raise wandb.errors.CommError("no route")
        return original(mode=mode, **arguments)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(WandbRun, "unreachable", False)
    for _ in range(2):
        run = WandbRun.open(settings, tmp_path, "finetune", {})
        run.finish()
        assert run.mode == "offline"
    assert len(read_offline(tmp_path)) == 2
    assert capsys.readouterr().err.count("online does not work: no route") == 1  # tried once


def test_mode_without_a_login_is_offline(environment):
    assert wandb.chosen_mode(WandbConfig()) == "offline"
    assert wandb.chosen_mode(WandbConfig(mode="disabled")) == "disabled"
    environment.setenv("WANDB_API_KEY", KEY)
    assert wandb.chosen_mode(WandbConfig()) == "online"
    assert wandb.chosen_mode(WandbConfig(mode="offline")) == "offline"


@pytest.mark.parametrize(("host", "base", "mode"), [
    ("api.wandb.ai", "", "online"), ("example.org", "", "offline"), ("wandb.example.org", "https://wandb.example.org:8443", "online"),
])  # fmt: skip
def test_mode_with_a_login_of_netrc(environment, tmp_path, host, base, mode):
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    if base:
        environment.setenv("WANDB_BASE_URL", base)
    assert wandb.chosen_mode(WandbConfig()) == mode


@pytest.mark.parametrize(("variable", "value", "mode"), [
    ("WANDB_MODE", "disabled", "disabled"), ("WANDB_MODE", "dryrun", "offline"), ("WANDB_DISABLED", "true", "disabled"),
])  # fmt: skip
def test_mode_of_the_environment(environment, variable, value, mode):
    environment.setenv(variable, value)
    assert wandb.chosen_mode(WandbConfig(mode="online")) == mode


def test_an_unknown_mode_is_an_error(environment):
    environment.setenv("WANDB_MODE", "of")
    with pytest.raises(InputError, match="WANDB_MODE=of"):
        wandb.chosen_mode(WandbConfig())


def test_names():
    config = Tree(output="runs/demo/seed-3")
    assert wandb.experiment(config) == "demo"
    assert wandb.experiment(Tree(output="runs/demo")) == "demo"
    config.wandb.group = "mine"
    assert wandb.experiment(config) == "mine"


def test_secrets_of_a_url_are_left_out():
    shards = "https://user:secret@host/train/shard-{000000..000135}.tar?signature=secret"
    config = Tree()
    config.data.shards = shards
    cleaned = wandb.without_secrets(wandb.to_dict(config))
    assert cleaned["data"]["shards"] == "https://host/train/shard-{000000..000135}.tar"
    assert "secret" not in json.dumps(cleaned)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("pipe:curl -s -H 'Authorization: Bearer secret' https://host/shard-{0..9}.tar", "pipe:..."),
        ("data.shards=pipe:KEY=secret aws s3 cp s3://bucket/shard-{0..9}.tar -", "data.shards=pipe:..."),
        ("https://user:sec@ret@host/train/shard-{0..9}.tar", "https://host/train/shard-{0..9}.tar"),
        ("https://user:se/cr/et@host/x.tar", "https://...@host/x.tar"),
        ("s3://KEYsecret/sec/ret@bucket/x.tar", "s3://...@bucket/x.tar"),
        ("https://user:sec?ret@host/x.tar", "https://..."),
        ("https://user:sec#ret@host/x.tar?y=z", "https://..."),
        ("https://host/x.tar#token=secret", "https://host/x.tar"),
        ("https://host/x.tar?mail=secret@host", "https://..."),
        ("data.shards=user:secr/et@host:/x.tar", "data.shards=...@host:/x.tar"),
        ("{pipe:cat secret1,pipe:cat secret2}/x.tar", "{pipe:..."),
        ("[a.tar,{pipe:cat secret\n}]", "[a.tar,{pipe:..."),
        ("{https://u:secret@a/x,https://u:se/cret@b/y}", "{https://...@b/y}"),
        ("rows=[{set: [data.shards=pipe:cat secret]}]", "rows=[{set: [data.shards=pipe:..."),
        ("runs/a@b/x-{0..9}.tar", "runs/a@b/x-{0..9}.tar"),
        ("package:some_pipes/model", "package:some_pipes/model"),
    ],
)
def test_secrets_of_commands_and_odd_passwords_are_left_out(address, shown):
    assert wandb.without_secrets({"data": {"shards": address}}) == {"data": {"shards": shown}}


def test_secrets_of_the_command_line_are_left_out(offline, tmp_path):
    command = ["tnr", "stage2", "c.yaml", "data.shards=https://user:hunter2@host/train/shard-{0..9}.tar"]
    offline.setattr(sys, "argv", command)
    run = tmp_path / "run"
    run.mkdir()
    logged = WandbRun.open(Tree(output=str(tmp_path)), run, "stage2", {})
    assert logged.active and sys.argv is command
    logged.finish()
    read_offline(run)
    written = b"".join(file.read_bytes() for file in run.rglob("*") if file.is_file())
    assert b"hunter2" not in written and b"data.shards=https://host/train/shard-{0..9}.tar" in written


class OneOfTwoNodes:
    """The engine of rank 2, the first of the second node; rank 0 says `said`."""

    def __init__(self, said):
        self.environment = SimpleNamespace(rank=2, local_rank=0, world_size=4, local_world_size=2)
        self.said = said

    def gather(self, values):
        assert not len(values)
        return [np.frombuffer(self.said.encode(), np.uint8), *[values] * 3]


def test_a_further_node_adds_its_system_metrics_to_a_run_that_is_online(offline, settings, monkeypatch):
    import wandb

    asked = []
    monkeypatch.setattr(wandb, "init", lambda **arguments: asked.append(arguments) or SimpleNamespace(id="abc"))
    run = finetune.plain_folder(settings, finetune.DataSet.open(settings), 2)
    Tracker(run, OneOfTwoNodes("")).start(0, "", {})
    assert not asked  # rank 0 is offline, where the client has no shared runs
    Tracker(run, OneOfTwoNodes("abc")).start(0, "", {})
    (arguments,) = asked
    assert (arguments["mode"], arguments["id"], arguments["project"]) == ("shared", "abc", "tnr_dist")
    chosen = arguments["settings"]
    assert (chosen.x_label, chosen.x_primary, chosen.x_update_finish_state) == ("node of rank 2", False, False)
    assert not run.path.exists()  # rank 0's to write


def test_with_further_nodes_the_run_is_shared(offline, settings, monkeypatch, tmp_path):
    import wandb

    offline.setenv("WANDB_MODE", "online")
    modes = []
    logged = []
    fake = SimpleNamespace(
        id="abc", url="", define_metric=lambda *a, **n: None, log=lambda record, step=None, **more: logged.append(step)
    )
    monkeypatch.setattr(wandb, "init", lambda mode, **arguments: modes.append(mode) or fake)
    for shared in (True, False):
        WandbRun.open(settings, tmp_path, "finetune", {}, shared=shared).log({"samples": 1}, 7)
    assert modes == ["shared", "online"] and logged == [None, 7]  # a shared run has no say in its steps
