"""The teachers' pass: killed, shared over shard ranges, run twice at a time; the result is the same."""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ranks import on_ranks
from tnr_dist.data.batches.sample_windows import last_clicked
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.shards import read_index, read_shard
from tnr_dist.data.teacher_cache import TeacherCache
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.recommender import load_recommender
from tnr_dist.stages import cache
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command
from tnr_dist.util import preemption
from tnr_dist.util.errors import InputError, Preempted
from tnr_dist.util.transfer import from_stored, to_stored


def settings(prepared, tiny_plm, output, *overrides):
    common = [
        f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1", "precision=fp32",
        "model.news_dim=16", "model.query_dim=8", "data.history=10", "data.title_tokens=24", "finetune.teachers=2",
        "finetune.batch_size=64", "finetune.max_steps=1", "post_train.batch_size=16", "post_train.max_steps=1",
        "post_train.negatives=3", "post_train.body_tokens=40",
    ]  # fmt: skip
    return load_config(None, [*common, *overrides])


@pytest.fixture(scope="module")
def teachers(prepared, tiny_plm, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("teachers")
    config = settings(prepared, tiny_plm, output)
    engine = DDPEngine("cpu", 1)
    run_command("post-train", config, engine)
    run_command("finetune", config, engine)
    return output


@pytest.fixture
def fresh(teachers, tmp_path) -> Path:
    return Path(shutil.copytree(teachers, tmp_path / "run"))


def digests(output: Path) -> dict[str, str]:
    folder = output / "cache"
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in [*sorted(folder.rglob("*.tar")), folder / "news.safetensors"]
    }


def work(config):
    engine = DDPEngine("cpu", 1)
    run_command("cache", config, engine)
    engine.close()


@pytest.fixture(scope="module")
def whole(teachers, prepared, tiny_plm, tmp_path_factory) -> dict[str, str]:
    output = Path(shutil.copytree(teachers, tmp_path_factory.mktemp("whole") / "run"))
    work(settings(prepared, tiny_plm, output))
    assert (output / "cache" / "cache.json").is_file()
    return digests(output)


def test_threads_make_the_same_cache(fresh, whole, prepared, tiny_plm):
    """Several shards at a time; torch may use as many threads afterwards as before."""
    threads = torch.get_num_threads()
    try:
        engine = DDPEngine("cpu", 3)
        run_command("cache", settings(prepared, tiny_plm, fresh, "threads=3"), engine)
        engine.close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert digests(fresh) == whole


def test_side_shards_equal_vectors_gathered_for_every_pair(fresh, whole, prepared, tiny_plm):
    """Logits to 1e-6 of u^T h, user vectors to bf16's rounding of the user encoder's own."""
    config = settings(prepared, tiny_plm, fresh)
    work(config)
    stored = TeacherCache(fresh / "cache", cache.expected(config, DataSet.open(config)))
    news = stored.news_vectors().float()
    models = [load_recommender(fresh / f"teacher-{n}" / "model.safetensors")[0].eval() for n in range(2)]
    for info in read_index(prepared, "train").shards:
        columns, blocks = stored.columns("train", info), read_shard(prepared / "train" / info.name, info).values()
        history = candidate = 0
        for block in blocks:
            rows = last_clicked(block["history_news"], block["history_offsets"], 10).astype(np.int64)
            slots = torch.from_numpy(rows)
            owner = np.repeat(block["impression_history"], np.diff(block["candidate_offsets"]))
            what = torch.from_numpy(block["candidate_news"].astype(np.int64))
            for number, model in enumerate(models):
                with torch.no_grad():
                    users = model.user_encoder(news[number][slots.clamp(min=0)], slots >= 0)
                logits = (users[owner] * news[number][what]).sum(1)
                found = torch.from_numpy(columns.logits[candidate : candidate + len(owner), number])
                torch.testing.assert_close(found, logits, rtol=1e-6, atol=1e-6 * float(logits.abs().max()))
                kept = from_stored(columns.users[history : history + len(rows), number]).float()
                torch.testing.assert_close(kept, users, rtol=2**-8, atol=1e-6)
            history, candidate = history + len(rows), candidate + len(owner)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_make_the_same_cache(fresh, whole, prepared, tiny_plm, ranks):
    on_ranks(ranks, work, settings(prepared, tiny_plm, fresh))
    assert digests(fresh) == whole


def test_killed_at_any_shard_goes_on_without_redoing_one(fresh, whole, prepared, tiny_plm, monkeypatch):
    config = settings(prepared, tiny_plm, fresh)
    original, made = cache.teacher_columns, []

    def columns(*arguments):
        made.append(1)
        if len(made) in (2, 5):
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(cache, "teacher_columns", columns)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            work(config)
        assert not (fresh / "cache" / "cache.json").exists()
        assert not list((fresh / "cache").rglob("*.tmp"))
    work(config)
    assert digests(fresh) == whole
    blocks = sum(len(info.blocks) for info in read_index(prepared, "train").shards)
    per_shard = max(len(info.blocks) for info in read_index(prepared, "train").shards)
    assert len(made) <= blocks + 2 * per_shard  # at most the interrupted shards were begun again


def test_precision_is_the_settings_whatever_ran_before(prepared, tiny_plm, tmp_path):
    """`tnr cache` alone makes what it makes in `tnr run`, where the engine has trained the teachers."""
    config = settings(prepared, tiny_plm, tmp_path / "chain", "precision=bf16")
    engine = DDPEngine("cpu", 1)
    run_command("post-train", config, engine)
    run_command("finetune", config, engine)
    shutil.copytree(tmp_path / "chain", tmp_path / "alone")
    run_command("cache", config, engine)
    engine.close()
    work(settings(prepared, tiny_plm, tmp_path / "alone", "precision=bf16"))
    assert digests(tmp_path / "alone") == digests(tmp_path / "chain")


def _told_to_stop(config):
    if os.environ["RANK"] == "1":
        preemption._requested.set()
    try:
        work(config)
    except Preempted as error:
        return str(error)


def test_told_to_stop_all_ranks_end_as_preempted(fresh, whole, prepared, tiny_plm):
    """One that has made all of its shards too: it waits for the others at the end of a split."""
    config = settings(prepared, tiny_plm, fresh)
    assert all("run it again" in message for message in on_ranks(2, _told_to_stop, config))
    work(config)
    assert digests(fresh) == whole


def test_shard_ranges_complete_together(fresh, whole, prepared, tiny_plm, capsys):
    shards = len(read_index(prepared, "train").shards)
    assert shards >= 3
    work(settings(prepared, tiny_plm, fresh, "cache.shard_range=0:1"))
    assert not (fresh / "cache" / "cache.json").exists() and "still to be made" in capsys.readouterr().err
    work(settings(prepared, tiny_plm, fresh, f"cache.shard_range=1:{shards}"))
    assert digests(fresh) == whole
    assert json.loads((fresh / "cache" / "complete.json").read_text())["stage"] == "cache"


def test_other_settings_do_not_remove_an_unfinished_pass(fresh, whole, prepared, tiny_plm):
    work(settings(prepared, tiny_plm, fresh, "cache.shard_range=0:2"))
    made = sorted((fresh / "cache").rglob("*.tar"))
    for other in ("data.history=9", "cache.dtype=fp32"):
        with pytest.raises(InputError, match="an unfinished run of other settings"):
            work(settings(prepared, tiny_plm, fresh, "cache.shard_range=2:3", other))
    assert len(made) == 2 and sorted((fresh / "cache").rglob("*.tar")) == made
    work(settings(prepared, tiny_plm, fresh))
    assert digests(fresh) == whole


def test_learned_padding_of_the_teachers_histories(prepared, tiny_plm, tmp_path):
    """`cache.history_padding=learned`: user vectors and logits are those of the user encoders as they were trained."""
    learned = ["model.history_padding=learned", "cache.dtype=fp32"]
    config = settings(prepared, tiny_plm, tmp_path, *learned, "cache.history_padding=learned")
    engine = DDPEngine("cpu", 1)
    run_command("post-train", config, engine)
    run_command("finetune", config, engine)
    work(config)
    data = DataSet.open(config)
    stored = TeacherCache(tmp_path / "cache", cache.expected(config, data))
    info = read_index(prepared, "train").shards[0]
    columns, news = stored.columns("train", info), stored.news_vectors()
    blocks = list(read_shard(prepared / "train" / info.name, info).values())
    rows = np.concatenate([last_clicked(b["history_news"], b["history_offsets"], 10) for b in blocks]).astype(np.int64)
    slots = torch.from_numpy(rows)
    assert (slots < 0).any()
    owners, first = [], 0
    for block in blocks:
        owners.append(first + np.repeat(block["impression_history"], np.diff(block["candidate_offsets"])))
        first += len(block["history_offsets"]) - 1
    owner, candidates = np.concatenate(owners), np.concatenate([block["candidate_news"] for block in blocks])
    for number in range(2):
        model, _ = load_recommender(tmp_path / f"teacher-{number}" / "model.safetensors")
        with torch.no_grad():
            users = model.user_encoder.train()(news[number][slots.clamp(min=0)], slots >= 0)
            logits = (users[owner] * news[number][candidates]).sum(1)
        np.testing.assert_allclose(columns.users[:, number], users, atol=1e-5)
        np.testing.assert_allclose(columns.logits[:, number], logits, atol=1e-4)
    # It is part of what the cache is: another padding is another cache, refused by name.
    masked = settings(prepared, tiny_plm, tmp_path, *learned)
    assert cache.run_folder(masked, data).key != cache.run_folder(config, data).key
    with pytest.raises(
        InputError, match=r"made from another padding of histories \(it has learned, this stage needs mask\)"
    ):
        TeacherCache(tmp_path / "cache", cache.expected(masked, data))


def test_a_damaged_side_shard_is_made_again_as_the_error_says(fresh, whole, prepared, tiny_plm):
    config = settings(prepared, tiny_plm, fresh)
    work(config)
    folder, info = fresh / "cache", read_index(prepared, "train").shards[1]
    path = folder / "train" / info.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"damaged") as error:
        TeacherCache(folder, cache.expected(config, DataSet.open(config))).columns("train", info)
    said = f"delete it, its .json and {folder / 'complete.json'}, then run `tnr cache` again"
    assert str(error.value).endswith(said)
    for one in (path, path.with_suffix(".json"), folder / "complete.json"):
        one.unlink()
    work(config)
    assert digests(fresh) == whole
    (folder / "news.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=rf"news\.safetensors: damaged .*; delete {folder} and run `tnr cache` again"):
        TeacherCache(folder, {}).news_vectors()
    shutil.rmtree(folder)
    work(config)
    assert digests(fresh) == whole


def test_two_processes_on_the_same_shards(fresh, whole, prepared, tiny_plm):
    config = settings(prepared, tiny_plm, fresh)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(on_ranks, 1, work, config) for _ in range(2)]:
            done.result()
    assert digests(fresh) == whole and not list((fresh / "cache").rglob("*.tmp"))


def test_a_late_job_of_an_array_leaves_what_another_has_completed(fresh, prepared, tiny_plm):
    """It found the pass unfinished before it loaded the teachers."""
    work(settings(prepared, tiny_plm, fresh))
    late = settings(prepared, tiny_plm, fresh, "cache.shard_range=0:1", "log.every=7")
    place = cache.run_folder(late, DataSet.open(late))
    before = {path: path.read_bytes() for path in place.path.rglob("*") if path.is_file()}
    assert place.begin(redo=False) is False
    assert {path: path.read_bytes() for path in place.path.rglob("*") if path.is_file()} == before
    place.check_files()


@pytest.mark.parametrize("text", ["3", "2:2", "a:b", "-1:2", "1:", "²:3"])
def test_bad_ranges(text):
    with pytest.raises(InputError, match="shard_range"):
        cache.shard_slice(text, 4)


def test_the_manifest_tells_the_rounding_error(fresh, prepared, tiny_plm):
    """Of news and user vectors, the largest and that of all; the cache of float32 has none."""
    work(settings(prepared, tiny_plm, fresh))
    facts = json.loads((fresh / "cache" / "cache.json").read_text())
    for part in ("news", "users"):
        assert 0 < facts[part]["max_rounding_error"] < 0.02
        assert 2**-11 < facts[part]["relative_rounding_error"] < 2**-8  # half a unit of 8 bits at most
    shutil.rmtree(fresh / "cache")
    work(settings(prepared, tiny_plm, fresh, "cache.dtype=fp32"))
    facts = json.loads((fresh / "cache" / "cache.json").read_text())
    for part in ("news", "users"):
        assert facts[part]["max_rounding_error"] == facts[part]["relative_rounding_error"] == 0


def test_bf16_is_rounded_to_nearest():
    values = torch.tensor([1.0, 1.00390625, -3.14159, 1e-30, 65504.0])
    stored = to_stored(values, "bf16")
    assert stored.dtype == "uint16"
    assert torch.equal(from_stored(stored), values.to(torch.bfloat16))
    assert torch.equal(from_stored(to_stored(values, "fp32")), values)
