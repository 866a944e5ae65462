"""A full disk: older checkpoints make room for what is newer; where none can go, the newest stays and the run goes on."""

import errno
import io
import os
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from tests import engine_task
from tests.unit.train.test_resume import STEPS, config, train, weights
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models import weights as model_files
from tnr_dist.runs.checkpoint_files import Room, sorted_steps
from tnr_dist.runs.tracker import MetricsFile, read_metrics
from tnr_dist.train import checkpoint
from tnr_dist.train.checkpoint import Checkpoints
from tnr_dist.util.errors import InputError, os_error_advice


def refuse(*_arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """Holds at most so many checkpoints beside what is being written."""

    def __init__(self, monkeypatch, folder, room):
        self.folder, self.room, self.refused = folder, room, 0
        monkeypatch.setattr(checkpoint, "save_file", self.write)
        monkeypatch.setattr(model_files, "save_file", self.write)

    def write(self, tensors, path, **more):
        if len(sorted_steps(self.folder)) > self.room:
            self.refused += 1
            refuse()
        save_file(tensors, path, **more)


@pytest.fixture(scope="module")
def whole(prepared, tiny_plm, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    train(config(prepared, tiny_plm, output))
    return output


def same(whole, output):
    return all(torch.equal(value, weights(output)[name]) for name, value in weights(whole).items())


def test_the_oldest_checkpoint_makes_room_for_the_model(whole, prepared, tiny_plm, tmp_path, monkeypatch, capsys):
    settings = config(prepared, tiny_plm, tmp_path, "log.checkpoint_every=1", "log.keep=3")
    folder = tmp_path / "finetune-2" / "checkpoints"
    original = model_files.save_tensors

    def full_at_the_end(*arguments):
        Disk(monkeypatch, folder, 1)
        original(*arguments)

    monkeypatch.setattr("tnr_dist.models.weights.save_tensors", full_at_the_end)
    train(settings)
    assert sorted_steps(folder) == [STEPS - 1]
    said = capsys.readouterr().err
    for step in (STEPS - 3, STEPS - 2):
        assert f"{folder / str(step)}: removed, the disk is full" in said
    assert same(whole, tmp_path)


def test_the_oldest_checkpoint_makes_room_for_the_next(whole, prepared, tiny_plm, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "finetune-2" / "checkpoints"
    disk = Disk(monkeypatch, folder, 1)
    train(config(prepared, tiny_plm, tmp_path, "log.checkpoint_every=1", "log.keep=3"))
    said = capsys.readouterr().err
    assert disk.refused and "was not written" not in said and "4: removed, the disk is full" in said
    assert sorted_steps(folder) == [STEPS - 1]
    assert same(whole, tmp_path)


def test_where_nothing_can_go_the_newest_stays_and_the_run_goes_on(whole, prepared, tiny_plm, tmp_path, monkeypatch):
    settings = config(prepared, tiny_plm, tmp_path, "log.checkpoint_every=3", "log.keep=1")
    folder = tmp_path / "finetune-2" / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(model_files, "save_file", Disk(patch, folder, 0).write)
        patch.setattr(checkpoint, "save_file", save_file)
        with pytest.raises(OSError, match="No space left") as ended:
            train(settings)
    assert os_error_advice(ended.value) == (
        f"{tmp_path / 'finetune-2' / 'model.safetensors'}: No space left on device; make room and run it again"
    )
    assert sorted_steps(folder) == [6] and not (tmp_path / "finetune-2" / "model.safetensors").exists()
    train(settings)
    assert same(whole, tmp_path)


def save(folder, step, *, keep=3, keep_every=0, must=False):
    engine = DDPEngine("cpu", 1)
    engine_task.setup(engine)
    engine_task.steps(engine, 0, 1)
    checkpoints = Checkpoints(folder, engine, keep=keep, keep_every=keep_every)
    checkpoints.save(step, {"fingerprint": "x"})
    checkpoints.wait(must=must)
    checkpoints.close()


def test_the_checkpoint_at_a_stop_says_what_the_run_goes_on_from(tmp_path, monkeypatch):
    save(tmp_path, 3)
    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(InputError, match=r"5: .*No space left.*make room and run it again: it continues from step 3"):
        save(tmp_path, 5, must=True)
    assert sorted_steps(tmp_path) == [3]


def test_of_damaged_ones_the_newest_sound_one_stays(tmp_path):
    for step in (2, 3, 6, 9):
        save(tmp_path, step, keep=4, keep_every=2)
    for step in (6, 9):
        (tmp_path / str(step) / "model.safetensors").write_bytes(b"damaged")
    left = []

    def write():
        left.append(sorted_steps(tmp_path))
        refuse()

    with pytest.raises(OSError, match="No space left"):
        Room(tmp_path, keep_every=2).write(write)
    # 3 is what a run would go on from; 2 and 6 were to stay for good.
    assert left == [[2, 3, 6, 9], [2, 3, 6]]
    with pytest.raises(OSError, match="Permission denied"):
        Room(tmp_path, 0).write(lambda: (_ for _ in ()).throw(OSError(errno.EACCES, "Permission denied")))
    assert sorted_steps(tmp_path) == [2, 3, 6]


def test_a_record_that_finds_room_is_written_once_and_whole(tmp_path):
    class Raw(io.FileIO):
        left = 9

        def write(self, data):
            if not self.left:
                refuse()
            count = min(self.left, len(data))
            self.left -= count
            return super().write(memoryview(data)[:count])

    for step in (3, 6):
        save(tmp_path / "checkpoints", step)
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0, Room(tmp_path / "checkpoints", 0))
    raw = Raw(tmp_path / "metrics.jsonl", "a")
    metrics._file = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
    original = metrics._room._free

    def freed():
        raw.left = 1 << 20
        return original()

    metrics._room._free = freed
    metrics.write({"step": 1, "loss": 0.5})
    metrics.write({"step": 2, "loss": 0.25})
    metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    assert sorted_steps(tmp_path / "checkpoints") == [6]


@pytest.fixture
def small_disk(whole, tmp_path):
    """A file system on which two checkpoints of `whole` fit, or one and the model, but not two and the model."""
    run = whole / "finetune-2"
    size = {name: sum(file.stat().st_size for file in (run / name).rglob("*")) for name in ("checkpoints",)}
    model, one = (
        (run / "model.safetensors").stat().st_size,
        size["checkpoints"] // len(sorted_steps(run / "checkpoints")),
    )
    out = tmp_path / "out"
    out.mkdir()
    kib = (max(2 * one, one + model) + min(one, model) // 2) // 1024
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", out], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs needs root: {mounted.stderr.decode().strip()}")
    try:
        yield out
    finally:
        subprocess.run(["umount", "-l", out], check=True)


def test_a_real_disk_that_two_checkpoints_fill(whole, prepared, tiny_plm, small_disk, capsys):
    train(config(prepared, tiny_plm, small_disk, "log.checkpoint_every=2", "log.keep=2"))
    assert "removed, the disk is full" in capsys.readouterr().err
    assert sorted_steps(small_disk / "finetune-2" / "checkpoints") == [6]
    assert same(whole, small_disk)
