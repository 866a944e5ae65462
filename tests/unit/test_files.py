import pytest

from tnr_dist.errors import InputError
from tnr_dist.files import atomic_path, read_json, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_folders_appear_whole(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "d") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("1")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_path(tmp_path / "d") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("1")
    assert (tmp_path / "d" / "x").read_text() == "1"


def test_json_errors_name_the_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    for name in ("bad.json", "none.json"):
        with pytest.raises(InputError, match=name):
            read_json(tmp_path / name)
