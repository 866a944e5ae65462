"""One flipped bit in any file of an export is noticed by what reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tnr_dist.export import Recommender
from tnr_dist.export.command import export
from tnr_dist.export.description import FORMATS
from tnr_dist.util.digests import write_sealed
from tnr_dist.util.errors import InputError

FOR_OTHERS = {"news.parquet", "index.faiss"}  # no `Recommender` reads them


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")


def unnoticed(folder: Path, count: int) -> list[tuple[str, int]]:
    left = []
    for path in files_of(folder):
        sound = path.read_bytes()
        for bit in np.random.default_rng(len(path.name)).integers(0, 8 * len(sound), count).tolist():
            data = bytearray(sound)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(data))
            try:
                Recommender.from_pretrained(folder, trust=True)
                left.append((path.name, bit))
            except InputError as error:
                assert str(path) in str(error) and "\n" not in str(error)
        path.write_bytes(sound)
    return [(name, bit) for name, bit in left if name not in FOR_OTHERS]


@pytest.mark.parametrize("form", ["hf", "vectors"])
def test_a_flipped_bit_is_noticed(exports, form, tmp_path):
    folder = Path(shutil.copytree(exports(form), tmp_path / form))
    Recommender.from_pretrained(folder, trust=True)
    assert unnoticed(folder, 2) == []
    (folder / "README.md").write_text("its owner's words")
    Recommender.from_pretrained(folder, trust=True)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_twenty_flipped_bits_are_noticed(exports, form, tmp_path):
    assert unnoticed(Path(shutil.copytree(exports(form), tmp_path / form)), 20) == []


@pytest.mark.parametrize("form", ["hf", "vectors"])
def test_a_damaged_export_is_not_complete(exports, form, run, tmp_path):
    folder = Path(shutil.copytree(exports(form), tmp_path / form))
    assert export(run, [form], tmp_path, speed=False) == [folder]
    for path in files_of(folder):
        sound = path.read_bytes()
        path.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
        with pytest.raises(InputError, match=f"^{folder}.*--force"):
            export(run, [form], tmp_path, speed=False)
        path.write_bytes(sound)


def test_vectors_that_are_damaged_do_not_join_a_sound_model(exports, tmp_path):
    folder = Path(shutil.copytree(exports("vectors"), tmp_path / "vectors"))
    vectors = np.load(folder / "vectors.npy")
    vectors[0, 0] += 1
    np.save(folder / "vectors.npy", vectors)
    with pytest.raises(InputError, match=r"vectors\.npy: damaged"):
        Recommender.from_pretrained(exports("hf"), vectors=folder)


def test_an_export_of_an_older_version_is_taken(exports, tmp_path):
    folder = Path(shutil.copytree(exports("hf"), tmp_path / "hf"))
    values = json.loads((folder / "recommender.json").read_text())
    (folder / "recommender.json").write_text(
        json.dumps({name: one for name, one in values.items() if name not in ("files", "digest")})
    )
    assert Recommender.from_pretrained(folder).description.files == {}


@pytest.mark.parametrize("stated", [{"model.safetensors": 3}, {"model.safetensors": {"bytes": "3"}}, {"/dev/zero": {}}])
def test_what_it_states_may_be_anything(exports, stated, tmp_path):
    folder = Path(shutil.copytree(exports("hf"), tmp_path / "hf"))
    values = json.loads((folder / "recommender.json").read_text())
    write_sealed(folder / "recommender.json", values | {"files": stated})
    with pytest.raises(InputError, match="export the run again"):
        Recommender.from_pretrained(folder)
