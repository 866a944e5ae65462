"""One flipped bit in any file of a finished experiment is noticed by what reads the file.

Every kind of file: of the prepared data, of run folders, of the teacher cache, of the frozen layers' states, of a PLM.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import engine_task
from tests.click_batches import random_titles
from tnr_dist.cli.app import main
from tnr_dist.config.schema import Config
from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.shards import read_index, read_shard
from tnr_dist.data.teacher_cache import TeacherCache
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.evaluation.results import read_baselines
from tnr_dist.export.source import Source
from tnr_dist.launch import warn
from tnr_dist.models.convert import convert_plm
from tnr_dist.models.digest import plm_digest
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import TokenRows
from tnr_dist.models.plm import load_plm
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.report.read_runs import read_run
from tnr_dist.stages import cache
from tnr_dist.stages.evaluate import evaluate, read_impressions
from tnr_dist.stages.finetune_settings import FinetuneConfig
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts import frozen, matching_vectors
from tnr_dist.stages.parts.frozen import frozen_states
from tnr_dist.stages.parts.start_models import fresh_model, trained_model
from tnr_dist.stages.post_train import matching_loader
from tnr_dist.stages.registry import run_command
from tnr_dist.stages.stage1_settings import Stage1Config
from tnr_dist.train.checkpoint import Checkpoints
from tnr_dist.util.errors import InputError


@dataclasses.dataclass
class World:
    """A finished experiment of its own, for one test to damage."""

    config: Config  # of its seed folder
    base: Path  # the folder of the experiment
    data: Path
    runs: Path
    plm: Path
    converted: Path

    @property
    def student(self) -> Path:
        return self.runs / "stage2-1"


@pytest.fixture(scope="module")
def world(finished, chain_yaml, prepared, tiny_plm, tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("flipped")
    base = Path(shutil.copytree(finished, folder / "run"))
    data = Path(shutil.copytree(prepared, folder / "data"))
    plm = Path(shutil.copytree(tiny_plm, folder / "plm"))
    convert_plm(str(plm), folder / "converted")
    config = load_config(chain_yaml, [f"output={base / 'seed-0'}", f"data.dir={data}", "student.layers=1", "rows=[]"])
    config.evaluate.run = str(base / "seed-0" / "stage2-1")
    return World(config, base, data, base / "seed-0", plm, folder / "converted")


def teacher_cache(world: World) -> TeacherCache:
    return TeacherCache(world.runs / "cache", cache.expected(world.config, DataSet.open(world.config)))


def shard(world: World) -> None:
    info = read_index(world.data, "train").shards[0]
    read_shard(world.data / "train" / info.name, info)


def side_shard(world: World) -> None:
    teacher_cache(world).columns("train", read_index(world.data, "train").shards[0])


# File -> what reads it.
FILES: dict[str, Callable[[World], object]] = {
    "data/manifest.json": lambda world: DataSet.open(world.config),
    "data/news.parquet": lambda world: DataSet.open(world.config),
    "data/tokenizer/vocab.txt": lambda world: DataSet.open(world.config),
    "data/tokenizer/tokenizer_config.json": lambda world: DataSet.open(world.config),
    "data/tokens/title.values.npy": lambda world: DataSet.open(world.config).news_tokens(world.config.data),
    "data/tokens/title.offsets.npy": lambda world: DataSet.open(world.config).news_tokens(world.config.data),
    "data/tokens/body.values.npy": lambda world: MatchingLoader(world.data, 4, 1, 0),
    "data/tokens/body.offsets.npy": lambda world: MatchingLoader(world.data, 4, 1, 0),
    "data/tokens/corpus_title.values.npy": lambda world: MatchingLoader(world.data, 4, 1, 0),
    "data/train/index.json": lambda world: read_index(world.data, "train"),
    "data/train/shard-000000.tar": shard,
    "run/seed-0/stage2-1/complete.json": lambda world: trained_model(world.student, "stage2"),
    "run/seed-0/stage2-1/model.safetensors": lambda world: evaluate(world.config, DDPEngine("cpu", 1)),
    "run/seed-0/stage2-1/config.yaml": lambda world: Source.open(world.student),
    "run/seed-0/stage2-1/results.json": lambda world: evaluate(world.config, DDPEngine("cpu", 1)),
    "run/seed-0/stage2-1/impressions.parquet": lambda world: read_impressions(world.student / "impressions.parquet"),
    "run/seed-0/stage2-1/metrics.jsonl": lambda world: read_run(world.student),
    "run/seed-0/stage2-1/environment.json": lambda world: read_run(world.student),
    "run/seed-0/stage1-1/model.safetensors": lambda world: trained_model(world.runs / "stage1-1", "stage1"),
    "run/seed-0/teacher-1/model.safetensors": teacher_cache,
    "run/baselines.json": lambda world: read_baselines(world.base / "baselines.json"),
    "run/seed-0/teacher-1/complete.json": teacher_cache,
    "run/seed-0/post-train/model.safetensors": lambda world: trained_model(world.runs / "post-train", "post-train"),
    "run/seed-0/cache/cache.json": teacher_cache,
    "run/seed-0/cache/news.safetensors": lambda world: teacher_cache(world).news_vectors(),
    "run/seed-0/cache/train/shard-000000.tar": side_shard,
    "converted/model.safetensors": lambda world: load_plm(str(world.converted)),
}


def flips(path: Path, count: int) -> list[int]:
    """Bits of a file, drawn at random but the same every time."""
    return np.random.default_rng(len(path.name)).integers(0, 8 * path.stat().st_size, count).tolist()


def flip(path: Path, bit: int) -> bytes:
    """Flip one bit; returns what the file held before."""
    sound = path.read_bytes()
    data = bytearray(sound)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))
    return sound


def unnoticed(world: World, name: str, count: int, capsys: pytest.CaptureFixture[str]) -> list[int]:
    """The flipped bits of a file that its reader neither refuses nor speaks of."""
    path, left = world.base.parent / name, []
    for bit in flips(path, count):
        sound = flip(path, bit)
        capsys.readouterr()
        try:
            FILES[name](world)
            if "damaged" not in capsys.readouterr().err:
                left.append(bit)
        except InputError as error:
            assert "\n" not in str(error) and path.name.split(".")[0] in str(error), error
        finally:
            path.write_bytes(sound)
    return left


@pytest.mark.parametrize("name", FILES)
def test_sound_files_are_read_without_a_word(world, name, capsys):
    FILES[name](world)
    assert "damaged" not in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_noticed(world, name, capsys):
    assert unnoticed(world, name, 3, capsys) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_twenty_flipped_bits_are_noticed(world, name, capsys):
    assert unnoticed(world, name, 20, capsys) == []


@pytest.mark.parametrize("name", ["environment.json", "metrics.jsonl"])
def test_a_damaged_record_does_not_cost_the_training(world, name, capsys, monkeypatch):
    """It is said, and no more: nothing is made from it."""
    monkeypatch.setattr(warn, "_warned", set())
    sound = flip(world.student / name, 77)
    try:
        run_command("stage2", world.config, DDPEngine("cpu", 1))
        said = capsys.readouterr().err
        assert f"{world.student / name}: damaged" in said and f"{world.student}: complete, skipped" in said
    finally:
        (world.student / name).write_bytes(sound)


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json"])
def test_a_plm_with_a_flipped_bit_is_another_plm(world, name):
    """A plain folder states no digests: what is made from it holds one of the whole."""
    sound = plm_digest(str(world.plm))
    assert plm_digest(f"{world.plm}/") == plm_digest(f"{world.plm.parent}/./plm") == sound
    path = world.plm / name
    for bit in flips(path, 20):
        before = flip(path, bit)
        try:
            assert plm_digest(str(world.plm)) != sound
        except InputError as error:  # of a configuration that is none
            assert str(world.plm) in str(error)
        finally:
            path.write_bytes(before)


def test_a_flipped_bit_in_any_file_of_a_plm_is_spoken_of(world, chain_yaml, capsys, monkeypatch):
    """By what trains from it, once the data has been prepared with it."""
    monkeypatch.setattr(warn, "_warned", set())
    config = load_config(chain_yaml, [f"data.dir={world.data}", f"plm.name={world.plm}"])
    data = DataSet.open(config)
    tokenizer = {**data.manifest["tokenizer"], "name": f"{world.plm}/"}
    data = dataclasses.replace(data, manifest={**data.manifest, "tokenizer": tokenizer})
    capsys.readouterr()
    fresh_model(config, data, 1, 0, "finetune")
    assert "not the PLM that" not in capsys.readouterr().err
    names = [path.name for path in sorted(world.plm.iterdir())]
    assert {"model.safetensors", "config.json", "vocab.txt"} <= set(names)
    for name in names:
        path = world.plm / name
        for bit in flips(path, 20):
            warn._warned.clear()
            before = flip(path, bit)
            try:
                fresh_model(config, data, 1, 0, "finetune")
                said = capsys.readouterr().err
                assert str(world.plm) in said and "not the PLM that" in said, (name, bit)
            except InputError as error:
                assert str(world.plm) in str(error) or str(world.data) in str(error)
            finally:
                path.write_bytes(before)


def test_segments_of_frozen_states_with_a_flipped_bit_are_computed_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(frozen, "_SEGMENT", 20)
    torch.manual_seed(0)
    shape = EncoderConfig(vocab_size=30, hidden=16, layers=2, heads=2, intermediate=32, max_positions=16)
    encoder = encoder_from_config(shape).freeze_below(1)
    titles = random_titles(np.random.default_rng(0), 50, 8)
    settings, engine = FinetuneConfig(frozen_cache="disk"), DDPEngine("cpu", 1)
    everything = TokenRows(titles.offsets[:-1], titles.lengths, torch.device("cpu"))

    def states() -> torch.Tensor:
        found = frozen_states(encoder, titles, settings, engine, tmp_path, "frozen")
        assert found is not None
        return found.rows(everything)

    expected = states()
    for path in sorted(tmp_path.rglob("*.npy")):
        sound = path.read_bytes()
        for bit in [*flips(path, 20), 8 * len(sound) - 1]:
            flip(path, bit)
            capsys.readouterr()
            assert torch.equal(states(), expected)
            assert f"{path.name}: damaged" in capsys.readouterr().err and path.read_bytes() == sound
        for left in (b"", sound[:-32], sound[: len(sound) // 2]):  # empty, of an older version, cut
            path.write_bytes(left)
            assert torch.equal(states(), expected) and path.read_bytes() == sound
    assert "damaged" not in capsys.readouterr().err or torch.equal(states(), expected)


def test_checkpoints_with_a_flipped_bit_give_way_to_the_one_before(tmp_path, capsys):
    engine = DDPEngine("cpu", 1)
    engine_task.setup(engine)
    engine_task.steps(engine, 0, 1)
    checkpoints = Checkpoints(tmp_path, engine, keep=2)
    for step in (3, 6):
        checkpoints.save(step, {"fingerprint": "x", "seconds": 12.345678901234567})
    checkpoints.close()
    assert checkpoints.load_newest("x")["step"] == 6
    for path in sorted((tmp_path / "6").iterdir()):
        digits = [8 * place for place in range(path.stat().st_size - 300, path.stat().st_size)]
        for bit in [*flips(path, 20), *(digits if path.suffix == ".json" else ())]:
            sound = flip(path, bit)
            capsys.readouterr()
            found = checkpoints.load_newest("x")
            path.write_bytes(sound)
            assert found["step"] == 3 and str(path.parent) in capsys.readouterr().err, (path.name, bit)
    state = tmp_path / "6" / "state.json"
    state.write_text(state.read_text().replace("12.345678901234567", "NaN"))
    assert checkpoints.load_newest("x")["step"] == 3


def test_unfinished_runs_and_caches_with_a_flipped_bit_are_not_gone_on_with(world, tmp_path):
    """begun.json says which run it is; the marks of a cache which of its parts are finished."""
    runs = Path(shutil.copytree(world.runs, tmp_path / "seed-0"))
    config = dataclasses.replace(world.config, output=str(runs))
    for name in ("stage2-1", "cache"):
        (runs / name / "complete.json").unlink()
    (runs / "cache" / "cache.json").unlink()
    for name in ("stage2-1/begun.json", "cache/begun.json", "cache/news.json", "cache/train/shard-000000.json"):
        command = "stage2" if name.startswith("stage2") else "cache"
        path = runs / name
        for bit in flips(path, 20):
            sound = flip(path, bit)
            with pytest.raises(InputError, match=path.name) as error:
                run_command(command, config, DDPEngine("cpu", 1))
            assert "\n" not in str(error.value)
            path.write_bytes(sound)


def test_matching_vectors_with_a_flipped_bit_are_made_again(world, capsys):
    """Of the vectors' files; a mark that does not fit its own digest is an error."""
    config, device = world.config, DDPEngine("cpu", 1)
    device.use_precision(config.precision)
    data, train = DataSet.open(config), Stage1Config.of(config)
    loader = matching_loader(config, data, train, device)
    found = matching_vectors._Cache(world.runs / "post-train", 0, loader, train, device, data)
    assert found._is_complete()
    for path in sorted(found.folder.iterdir()):
        for bit in flips(path, 20):
            sound = flip(path, bit)
            if path.suffix == ".npy":
                assert not found._is_complete()
            else:
                with pytest.raises(InputError, match=path.name) if path.name == "complete.json" else nullcontext():
                    assert not found._is_complete()
            path.write_bytes(sound)


@pytest.mark.parametrize(
    ("damaged", "stage", "command", "without"),
    [
        ("teacher-1", "finetune", "stage2", ["stage2-1"]),
        ("teacher-1", "finetune", "cache", ["stage2-1", "cache"]),
        ("stage1-1", "stage1", "stage2", ["stage2-1"]),
        ("post-train", "post-train", "stage1", ["stage2-1", "stage1-1"]),
    ],
)
def test_the_advice_is_to_make_the_damaged_model_again(world, chain_yaml, tmp_path, damaged, stage, command, without):
    """Not the cache from a damaged teacher, and no student from a damaged stage 1."""
    runs = Path(shutil.copytree(world.runs, tmp_path / "seed-0"))
    for name in without:
        shutil.rmtree(runs / name)
    shutil.rmtree(runs / "post-train" / "matching")  # else a stage 1 has no need of the model
    path = runs / damaged / "model.safetensors"
    flip(path, 8 * path.stat().st_size - 77)
    before = {file: file.read_bytes() for file in runs.rglob("*") if file.is_file()}
    config = load_config(chain_yaml, [f"output={runs}", f"data.dir={world.data}", "student.layers=1", "rows=[]"])
    with pytest.raises(InputError) as error:
        run_command(command, config, DDPEngine("cpu", 1))
    assert str(error.value).startswith(f"{path}: damaged")
    assert f"delete {path.parent} and run {stage} again" in str(error.value)
    assert {file: file.read_bytes() for file in before} == before


def test_the_command_line_ends_with_2_and_one_line(world, chain_yaml, monkeypatch, capsys):
    arguments = [str(chain_yaml), f"data.dir={world.data}", f"output={world.runs}", "student.layers=1", "rows=[]"]
    for name in ("stage2-1/model.safetensors", "stage2-1/config.yaml"):
        sound = flip(world.runs / name, 8 * (world.runs / name).stat().st_size - 21)
        for command in (["evaluate", *arguments], ["export", str(world.student), "--to", "hf"]):
            monkeypatch.setattr("sys.argv", ["tnr", *command])
            with pytest.raises(SystemExit) as stop:
                main()
            err = capsys.readouterr().err
            assert stop.value.code == 2 and err.count("\n") == 1 and f"{name}" in err, err
        (world.runs / name).write_bytes(sound)


def test_runs_and_data_of_an_older_version_are_taken_with_one_line(world, chain_yaml, tmp_path, capsys):
    base, data = (
        Path(shutil.copytree(world.base, tmp_path / "run")),
        Path(shutil.copytree(world.data, tmp_path / "data")),
    )
    for file in [data / "manifest.json", *base.rglob("complete.json"), *base.rglob("results.json")]:
        value = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("digest", "files", "plm_digest")}
        file.write_text(json.dumps(value, indent=2))
    config = load_config(chain_yaml, [f"output={base / 'seed-0'}", f"data.dir={data}", "student.layers=1", "rows=[]"])
    config.evaluate.run = str(base / "seed-0" / "stage2-1")
    for _ in range(2):
        assert evaluate(config, DDPEngine("cpu", 1))["stage"] == "stage2"
    said = [line for line in capsys.readouterr().err.splitlines() if "older version" in line]
    assert len(said) == 2 and str(data) in said[0] and config.evaluate.run in said[1]
