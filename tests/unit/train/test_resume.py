"""Interrupted at any step and resumed equals uninterrupted, bit for bit."""

import contextlib
import json
import os
import re
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch

from tests import engine_task
from tests.ranks import on_ranks
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.recommender import load_recommender
from tnr_dist.runs.checkpoint_files import sorted_steps
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command
from tnr_dist.train import checkpoint, loop
from tnr_dist.train.checkpoint import Checkpoints
from tnr_dist.util.errors import InputError, Preempted

STEPS = 7


def config(prepared, tiny_plm, output, *overrides):
    return load_config(
        None,
        [
            f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1", "precision=fp32",
            "model.news_dim=16", "model.query_dim=8", "data.history=10", "data.title_tokens=24", "finetune.init=plm",
            "finetune.layers=2", "finetune.batch_size=48", f"finetune.max_steps={STEPS}", "finetune.lr=1e-3",
            "finetune.schedule=linear", "finetune.warmup=0.3", "finetune.amsgrad=true", "log.every=1",
            "log.checkpoint_every=3", *overrides,
        ],
    )  # fmt: skip


def train(settings):
    run_command("finetune", settings, DDPEngine("cpu", 1))


def weights(output: Path):
    return load_recommender(output / "finetune-2" / "model.safetensors")[0].state_dict()


@pytest.fixture(scope="module")
def whole(prepared, tiny_plm, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    train(config(prepared, tiny_plm, output))
    return output


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_stopped_by_a_signal(whole, prepared, tiny_plm, tmp_path, stop_at, monkeypatch):
    """TERM in the middle of a step: a checkpoint after it, Preempted, and the same weights in the end."""
    settings = config(prepared, tiny_plm, tmp_path)
    original = loop._record

    def record(engine, parts, norm, step, *rest):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(engine, parts, norm, step, *rest)

    monkeypatch.setattr(loop, "_record", record)
    with pytest.raises(Preempted, match=f"stopped at step {stop_at} of {STEPS}"):
        train(settings)
    monkeypatch.undo()
    assert sorted_steps(tmp_path / "finetune-2" / "checkpoints")[-1] == stop_at
    train(settings)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(tmp_path)[name]), name
    losses = [[r["train/loss"] for r in read_metrics(o / "finetune-2" / "metrics.jsonl")] for o in (whole, tmp_path)]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS


STOPS = (signal.SIGTERM, signal.SIGUSR1)


@pytest.mark.parametrize("end", ["done", "crashed", "told to stop"])
def test_training_leaves_the_process_as_it_was(prepared, tiny_plm, tmp_path, monkeypatch, end):
    """While it trains TERM is a request; afterwards it does again what the program around it wants of it."""
    taken, during = [], []
    original = loop._record

    def record(*arguments):
        during.extend(signal.getsignal(number) is before[number] for number in STOPS)
        if end == "told to stop":
            os.kill(os.getpid(), signal.SIGUSR1)
        if end == "crashed":
            raise RuntimeError("power cut")
        return original(*arguments)

    monkeypatch.setattr(loop, "_record", record)
    before = {number: (lambda *_: taken.append(1)) for number in STOPS}
    outside = {number: signal.signal(number, handler) for number, handler in before.items()}
    raised = {
        "done": contextlib.nullcontext(),
        "crashed": pytest.raises(RuntimeError),
        "told to stop": pytest.raises(Preempted),
    }
    try:
        with raised[end]:
            train(config(prepared, tiny_plm, tmp_path, "finetune.max_steps=2"))
        after = [signal.getsignal(number) is before[number] for number in STOPS]
    finally:
        for number, handler in outside.items():
            signal.signal(number, handler)
    assert during and not any(during) and all(after) and not taken


def interrupted(prepared, tiny_plm, output, monkeypatch, at=6, *overrides):
    settings = config(prepared, tiny_plm, output, "log.keep=5", *overrides)
    original = loop._record

    def record(engine, parts, norm, step, *rest):
        if step == at:
            raise RuntimeError("power cut")
        return original(engine, parts, norm, step, *rest)

    monkeypatch.setattr(loop, "_record", record)
    with pytest.raises(RuntimeError):
        train(settings)
    monkeypatch.undo()
    return settings


def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, prepared, tiny_plm, tmp_path, monkeypatch, capsys):
    settings = interrupted(prepared, tiny_plm, tmp_path, monkeypatch, at=7)
    folder = tmp_path / "finetune-2" / "checkpoints"
    assert sorted_steps(folder) == [3, 6]
    newest = folder / "6" / "optimizer.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(bytes(data))
    train(settings)
    said = capsys.readouterr().err
    assert "is not used" in said
    assert re.search(rf" finetune.*: {STEPS - 3} of {STEPS} steps in ", said), said  # the rate is of this start's steps
    assert all(torch.equal(v, weights(tmp_path)[k]) for k, v in weights(whole).items())


def test_a_damaged_checkpoint_does_not_push_out_the_next_one(tmp_path):
    """A run that went back before damaged checkpoints is stopped again before it has reached them."""
    engine = DDPEngine("cpu", 1)
    engine_task.setup(engine)
    engine_task.steps(engine, 0, 1)
    for step in (3, 6, 9):
        checkpoints = Checkpoints(tmp_path, engine, keep=3)
        checkpoints.save(step, {"fingerprint": "x"})
        checkpoints.close()
    for step in (6, 9):
        (tmp_path / str(step) / "model.safetensors").write_bytes(b"damaged")
    checkpoints = Checkpoints(tmp_path, engine, keep=2)
    assert checkpoints.load_newest("x")["step"] == 3
    checkpoints.save(5, {"fingerprint": "x"})
    checkpoints.close()
    assert sorted_steps(tmp_path) == [3, 5]
    assert Checkpoints(tmp_path, engine, keep=2).load_newest("x")["step"] == 5


def test_only_one_copy_is_held_at_a_time(tmp_path, monkeypatch):
    engine = DDPEngine("cpu", 1)
    engine_task.setup(engine)
    checkpoints = Checkpoints(tmp_path, engine, keep=9)
    original, written, held = checkpoint.save_file, threading.Event(), []

    def slow(values, file):
        written.wait(0.3)
        original(values, file)

    def copy(value):
        held.append(checkpoints._writing is not None and not checkpoints._writing.done())
        return value.clone()

    monkeypatch.setattr(checkpoint, "save_file", slow)
    monkeypatch.setattr(checkpoint, "_copy", copy)
    for step in (1, 2):
        checkpoints.save(step, {"fingerprint": "x"})
    written.set()
    checkpoints.close()
    assert held and not any(held)
    assert sorted_steps(tmp_path) == [1, 2]


def test_other_settings_do_not_continue_a_checkpoint(prepared, tiny_plm, tmp_path, monkeypatch):
    interrupted(prepared, tiny_plm, tmp_path, monkeypatch)
    with pytest.raises(InputError, match="other settings"):
        train(config(prepared, tiny_plm, tmp_path, "finetune.lr=2e-3"))


def test_a_finished_run_is_not_overwritten(whole, prepared, tiny_plm):
    train(config(prepared, tiny_plm, whole))  # the same: nothing to do
    with pytest.raises(InputError, match=r"finetune\.lr"):
        train(config(prepared, tiny_plm, whole, "finetune.lr=2e-3"))


def test_keeps_the_newest_checkpoints_only(whole):
    assert sorted_steps(whole / "finetune-2" / "checkpoints") == [3, 6]


def test_a_foreign_folder_is_left_alone(prepared, tiny_plm, tmp_path):
    (tmp_path / "finetune-2").mkdir()
    (tmp_path / "finetune-2" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not a run"):
        train(config(prepared, tiny_plm, tmp_path))
    assert (tmp_path / "finetune-2" / "thesis.tex").read_text() == "x"


def test_nan_is_an_error(prepared, tiny_plm, tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(config(prepared, tiny_plm, tmp_path, "finetune.lr=1e30"))


@pytest.mark.parametrize("change", [('"samples": ', '"samples": 1'), ('"fingerprint": "', '"fingerprint": "0')])
def test_a_changed_state_file_counts_as_damage(whole, prepared, tiny_plm, tmp_path, monkeypatch, capsys, change):
    settings = interrupted(prepared, tiny_plm, tmp_path, monkeypatch, at=7)
    state = tmp_path / "finetune-2" / "checkpoints" / "6" / "state.json"
    state.write_text(state.read_text().replace(*change, 1))
    train(settings)
    assert "state.json: damaged" in capsys.readouterr().err
    assert all(torch.equal(v, weights(tmp_path)[k]) for k, v in weights(whole).items())


def test_skipped_samples_are_counted_through_a_stop(prepared, tiny_plm, tmp_path, monkeypatch):
    data = Path(shutil.copytree(prepared, tmp_path / "data"))
    shard = sorted((data / "train").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-2000])
    counted = []
    for name in ("whole", "stopped"):
        settings = config(data, tiny_plm, tmp_path / name, "data.on_bad_shard=skip")
        if name == "stopped":
            settings = interrupted(data, tiny_plm, tmp_path / name, monkeypatch, 6, "data.on_bad_shard=skip")
        train(settings)
        done = json.loads((tmp_path / name / "finetune-2" / "complete.json").read_text())
        logged = [r["train/skipped_samples"] for r in read_metrics(tmp_path / name / "finetune-2" / "metrics.jsonl")]
        counted.append([*logged, done["skipped_samples"]])
    assert counted[0] == counted[1]
    assert len(set(counted[0])) > 3 and counted[0][0] < counted[0][-1]  # of the steps made, not of those laid out ahead


def _train_to_an_input_error(settings):
    try:
        train(settings)
    except InputError as error:
        return str(error)


def test_a_run_of_skipped_samples_alone_is_no_run(prepared, tiny_plm, tmp_path):
    """No rank meets all shards in an epoch, so no loader finds that not one can be read."""
    data = Path(shutil.copytree(prepared, tmp_path / "data"))
    for shard in (data / "train").glob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:-2000])
    # fit_scale reads all shards of so small a split before the first step, and would find it earlier.
    off = ("data.on_bad_shard=skip", "finetune.max_steps=1", "finetune.fit_scale=false")
    settings = config(data, tiny_plm, tmp_path, *off)
    for said in on_ranks(2, _train_to_an_input_error, settings):
        assert said is not None and "every sample was of a damaged shard" in said
    assert not (tmp_path / "finetune-2" / "complete.json").exists()


def test_checkpoints_kept_for_good_and_by_the_clock(prepared, tiny_plm, tmp_path, monkeypatch):
    settings = config(prepared, tiny_plm, tmp_path, "log.checkpoint_every=1", "log.keep=1", "log.keep_every=2")
    train(settings)
    assert sorted_steps(tmp_path / "finetune-2" / "checkpoints") == [2, 4, 5, 6]  # 5: the newest rolling one
    settings = config(
        prepared, tiny_plm, tmp_path / "b", "log.checkpoint_every=0", "log.checkpoint_minutes=1e-9", "log.keep=9"
    )
    train(settings)
    assert sorted_steps(tmp_path / "b" / "finetune-2" / "checkpoints") == list(range(1, STEPS))


def test_a_full_disk_costs_a_checkpoint_not_the_run(whole, prepared, tiny_plm, tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tnr_dist.train.checkpoint.save_file", full)
    train(config(prepared, tiny_plm, tmp_path))
    assert "was not written" in capsys.readouterr().err
    assert not sorted_steps(tmp_path / "finetune-2" / "checkpoints")
    assert all(torch.equal(v, weights(tmp_path)[k]) for k, v in weights(whole).items())
