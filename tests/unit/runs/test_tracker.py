"""metrics.jsonl, and the counts of texts, tokens, operations and ranks that stand in it."""

import json
import mmap
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.kernels.dispatch import use_kernels
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.flops import news_encoder_flops
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.runs.tracker import MetricsFile, Tracker, read_metrics
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTask
from tnr_dist.stages.parts.corpus_task import encoded_texts
from tnr_dist.train import peak_flops
from tnr_dist.train.peak_flops import Peak
from tnr_dist.train.throughput import Texts, Throughput, peak_gib
from tnr_dist.util.errors import os_error_advice


def test_records_of_later_steps_are_taken_back(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        file.write({"step": step})
    file.close()
    with (tmp_path / "metrics.jsonl").open("a") as torn:
        torn.write('{"step": 4, "train/lo')
    assert [one["step"] for one in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    file = MetricsFile(tmp_path / "metrics.jsonl", resume_step=2)
    file.write({"step": 3, "again": True})
    file.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in lines] == [1, 2, 3] and lines[-1]["again"]


def test_lines_that_are_no_records_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 1}\n\xff\xfe\x00\n{"step": 2, "note": "K\xf6ln"}\n[1]\n3\nnull\n' + b"9" * 5000 + b'\n{"step": 3}\n'
    )
    assert [one["step"] for one in read_metrics(path)] == [1, 2, 3]
    MetricsFile(path, resume_step=2).close()
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full: not Linux")
def test_a_full_disk_is_named_and_the_run_is_ended_as_failed(tmp_path, monkeypatch):
    ends = []
    tracker = Tracker(SimpleNamespace(path=tmp_path), None)  # type: ignore[arg-type]
    monkeypatch.setattr(tracker, "_wandb", SimpleNamespace(finish=ends.append, log=lambda record, step, commit: None))
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    tracker._file = MetricsFile.__new__(MetricsFile)
    tracker._file._room = None
    tracker._file._file = (tmp_path / "metrics.jsonl").open("a")
    with pytest.raises(OSError, match="No space left") as caught, tracker:
        tracker.write({"step": 1})
    assert os_error_advice(caught.value).startswith(f"{tmp_path / 'metrics.jsonl'}: No space left")
    assert ends == [caught.value]


LENGTHS = np.array([7, 3, 5, 5])


def news_encoder(trainable=None, layers=3):
    config = EncoderConfig(
        vocab_size=50,
        hidden=32,
        layers=layers,
        heads=4,
        intermediate=64,
        max_positions=16,
        dropout=0,
        attention_dropout=0,
    )
    encoder = NewsEncoder(encoder_from_config(config), news_dim=16, query_dim=8)
    if trainable is not None:
        encoder.encoder.freeze_below(trainable)
    return encoder


def texts(lengths=LENGTHS):
    return Packed.pack(torch.arange(int(lengths.sum())) % 50, lengths)


def counted(encoder, backward, first=0):
    hidden = torch.zeros(int(LENGTHS.sum()), 32) if first else None
    # oneDNN's fused products are not among those that the counter knows.
    with use_kernels("torch"), FlopCounterMode(display=False) as counter:
        out = encoder(texts(), first, hidden)
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("trainable", "first"), [(None, 0), (2, 0), (1, 0), (1, 2)])
def test_operations_are_those_that_torch_counts(trainable, first):
    encoder = news_encoder(trainable)
    assert news_encoder_flops(encoder, LENGTHS, first) == counted(encoder, True, first)
    encoder.requires_grad_(False)
    assert news_encoder_flops(encoder, LENGTHS, first) == counted(encoder, False, first)


def test_a_frozen_encoder_only_runs():
    encoder = news_encoder().requires_grad_(False)
    assert news_encoder_flops(encoder, LENGTHS) < news_encoder_flops(news_encoder(), LENGTHS) / 2.9
    with torch.no_grad():
        assert news_encoder_flops(news_encoder(), LENGTHS) == news_encoder_flops(encoder, LENGTHS)


def test_counts_of_a_window():
    encoder = news_encoder(1)
    throughput = Throughput(DDPEngine("cpu", 1), Peak(1e9, "test"))
    for _ in range(2):
        throughput.step(4.0, 60, [Texts(LENGTHS, partial(news_encoder_flops, encoder, LENGTHS))], 0.0)
    record = throughput.record(throughput.shares().tolist())
    per_s = record["perf/samples_per_s"] / 8
    assert record["perf/news_per_s"] == pytest.approx(8 * per_s)
    assert record["perf/tokens_per_s"] == pytest.approx(2 * LENGTHS.sum() * per_s)
    assert record["perf/dedupe_ratio"] == pytest.approx(8 / (8 * 15))
    assert record["perf/mfu"] == pytest.approx(2 * news_encoder_flops(encoder, LENGTHS) * per_s / 1e9)
    throughput.restart()
    assert throughput.record(throughput.shares().tolist())["perf/news_per_s"] == 0


def test_a_module_that_counts_itself():
    class Own(torch.nn.Module):
        def encoded(self, inputs):
            return inputs, 7.0

    throughput = Throughput(DDPEngine("cpu", 1), None)
    throughput.step(1.0, 1, [encoded_texts(Own(), LENGTHS)], 0.0)
    assert throughput.shares()[:3].tolist() == [len(LENGTHS), LENGTHS.sum(), 7.0]


def test_memory_is_the_peak_since_the_training_began():
    with mmap.mmap(-1, 300 * 2**20) as block:  # goes back to the system at once, whatever the allocator keeps
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        high = peak_gib(torch.device("cpu"))
    Throughput(DDPEngine("cpu", 1), None)
    assert peak_gib(torch.device("cpu")) < high - 0.2


@pytest.mark.parametrize("cached", [False, True])
def test_a_filled_batch_counts_its_real_titles_above_the_cached_layers(cached):
    encoder = news_encoder(1)
    batch = texts()
    some = torch.zeros(1)
    inputs = ClickInputs(some, batch, some if cached else None, some, some, some, some, some, some, some, 1.0)
    task = ClickTask(SimpleNamespace(news_encoder=encoder), None, None, None, None, 0, "test")
    (plain,) = task.texts(inputs)
    assert plain.lengths is batch.lengths and plain.flops() == news_encoder_flops(encoder, LENGTHS, 2 * cached)
    inputs.real_lengths = LENGTHS[:3]
    (filled,) = task.texts(inputs)
    assert filled.lengths.tolist() == [7, 3, 5]
    assert filled.flops() == news_encoder_flops(encoder, LENGTHS[:3], 2 * cached)


def test_the_worst_of_the_ranks_is_shown_and_each_of_them():
    throughput = Throughput(DDPEngine("cpu", 1), Peak(1e9, "test"))
    throughput.world = 2
    counts = [10.0, 20.0, 4e6, 40.0]
    record = throughput.record([*counts, 5.0, 1.5, 90.0, 60.0, 0.5, 80.0])
    assert record["perf/data_wait_pct"] == 60 and record["memory/max_gib"] == 1.5
    assert record["perf/dedupe_ratio"] == 0.25
    assert (record["ranks/data_wait_pct_0"], record["ranks/data_wait_pct_1"]) == (5, 60)
    assert record["ranks/cpu_pct_1"] == 80 and record["ranks/max_gib_1"] == 0.5
    assert record["perf/mfu"] == pytest.approx(record["perf/news_per_s"] / 10 * 4e6 / 2e9)


@pytest.mark.parametrize(("name", "tflops"), [
    ("NVIDIA H200", 989), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-40GB", 312),
    ("NVIDIA L40S", 362), ("NVIDIA L4", 121),
])  # fmt: skip
def test_known_devices(monkeypatch, name, tflops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    found = peak_flops.device_peak(SimpleNamespace(device=torch.device("cuda", 0)))
    assert found.flops == tflops * 1e12 and name in found.source and "data sheet" in found.source


def test_an_unknown_device_is_measured_once_and_moves_no_random_number():
    peak_flops.measured_peak.cache_clear()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    engine = DDPEngine("cpu", 1)
    first = peak_flops.device_peak(engine)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.flops > 1e8 and "fp32, measured" in first.source
    assert peak_flops.device_peak(engine) == first
