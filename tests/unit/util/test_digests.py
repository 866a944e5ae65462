"""Digests: what is remembered, what is not, and the seal of files that state them."""

import json
import os
import re
import time

import pytest

from tnr_dist.util import digests
from tnr_dist.util.digests import describe, digest, fault, read_sealed, write_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import file_hash, read_json, write_json


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TNR_DIGEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_remembered", None)
    return tmp_path / "cache" / "digests.json"


@pytest.fixture
def reads(monkeypatch):
    """How often a file is read for its digest."""
    read, count = digests._sha256, []
    monkeypatch.setattr(digests, "_sha256", lambda path, size: count.append(path) or read(path, size))
    return count


def settled(path, content=b"some bytes"):
    """A file that was last written some seconds ago, as one that is read in earnest was."""
    path.write_bytes(content)
    past = time.time() - 60
    os.utime(path, (past, past))
    return path


@pytest.fixture
def old(monkeypatch):
    """As if every file had been there for long: its time of change cannot be set back."""
    monkeypatch.setattr(digests, "_SETTLED", -1.0)
    monkeypatch.setattr(digests, "_WORTH", 0)


def test_a_file_is_read_once_also_by_later_processes(tmp_path, cache, reads, old, monkeypatch):
    path = settled(tmp_path / "a")
    assert digest(path) == digest(path) == file_hash(path) and len(reads) == 1
    monkeypatch.setattr(digests, "_remembered", None)  # another process
    assert digest(path) == file_hash(path) and len(reads) == 1
    assert digest(path, again=True) == file_hash(path) and len(reads) == 2


@pytest.mark.parametrize("change", ["content", "content, times as before", "another file of its name"])
def test_a_changed_file_is_read_again(tmp_path, cache, old, change):
    path = settled(tmp_path / "a")
    before = digest(path)
    times = path.stat()
    if change == "another file of its name":
        settled(tmp_path / "b", b"other byte").replace(path)
    else:
        path.write_bytes(b"other byte")
        if "times" in change:
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(path) == file_hash(path) != before


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, cache, reads):
    """Two changes within a tick of the file system's clock look like one."""
    path = tmp_path / "a"
    path.write_bytes(b"some bytes")
    digest(path)
    digest(path)
    assert len(reads) == 2 and not cache.exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 3}', '{"x": [1, 2]}'])
def test_a_damaged_memory_is_none(tmp_path, cache, old, content):
    path = settled(tmp_path / "a")
    cache.parent.mkdir()
    cache.write_text(content)
    assert digest(path) == file_hash(path)
    assert len([line for line in read_json(cache).values() if isinstance(line, list) and len(line) == 5]) == 1


def test_without_a_place_to_remember_files_are_read(tmp_path, old, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TNR_DIGEST_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(digests, "_remembered", None)
    assert digest(tmp_path / "file") == file_hash(tmp_path / "file")


def test_a_user_without_a_home_folder(tmp_path, old, monkeypatch):
    monkeypatch.delenv("TNR_DIGEST_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 987_654)
    monkeypatch.setattr(digests, "_remembered", None)
    with pytest.raises(RuntimeError):
        digests.cache_file()
    path = settled(tmp_path / "a")
    assert digest(path) == digest(path) == file_hash(path)


def test_small_files_are_read_again(tmp_path, cache, reads, old, monkeypatch):
    monkeypatch.setattr(digests, "_WORTH", 1_000)
    for size, count in ((999, 2), (1_000, 1)):
        path = settled(tmp_path / "a", b"x" * size)
        reads.clear()
        assert digest(path) == digest(path) == file_hash(path) and len(reads) == count


def test_the_memory_is_bounded(tmp_path, cache, old, monkeypatch):
    monkeypatch.setattr(digests, "_MOST_REMEMBERED", 3)
    for number in range(5):
        digest(settled(tmp_path / str(number)))
    assert [key.rpartition("/")[2] for key in read_json(cache)] == ["2:", "3:", "4:"]


def test_faults_say_what_is_wrong(tmp_path, cache):
    for name in ("same", "longer", "shorter", "flipped", "gone", "grown"):
        (tmp_path / name).write_bytes(b"0123456789")
    stated = describe(tmp_path, ["same", "longer", "shorter", "flipped", "gone", "grown"])
    (tmp_path / "longer").write_bytes(b"0123456789x")
    (tmp_path / "shorter").write_bytes(b"012345678")
    (tmp_path / "flipped").write_bytes(b"0123456788")
    (tmp_path / "grown").write_bytes(b"0123456789 and more")
    (tmp_path / "gone").unlink()
    assert fault(tmp_path, "same", stated) == ""
    assert "11 bytes instead of 10" in fault(tmp_path, "longer", stated)
    assert "9 bytes instead of 10" in fault(tmp_path, "shorter", stated)
    assert "sha256" in fault(tmp_path, "flipped", stated)
    assert fault(tmp_path, "gone", stated) == "missing"
    assert fault(tmp_path, "grown", stated, grows=True) == "" and fault(tmp_path, "grown", stated)
    (tmp_path / "grown").write_bytes(b"0123456788 and more")
    assert "sha256" in fault(tmp_path, "grown", stated, grows=True)
    assert "not one of the files" in fault(tmp_path, "other", stated)
    assert "not stated" in fault(tmp_path, "same", {"same": {"bytes": "10"}})


def test_every_bit_of_a_sealed_file_counts(tmp_path):
    path = tmp_path / "a.json"
    value = {"id": "ab", "lr": 1e-5, "list": [1, None, True], "text": "a b"}
    assert write_sealed(path, value) == read_sealed(path) == {**value, "digest": read_json(path)["digest"]}
    assert write_sealed(path, read_sealed(path)) == read_sealed(path)
    sound = path.read_bytes()
    for bit in range(8 * len(sound)):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(data))
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}: "):
            read_sealed(path)


def test_a_file_without_a_seal_is_taken_as_it_is(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_sealed(tmp_path / "a.json") == {"a": 1}
    for value in ({"digest": "0" * 64}, {"a": 1, "files": {}}):
        (tmp_path / "a.json").write_text(json.dumps(value))
        with pytest.raises(InputError, match="its own digest differs"):
            read_sealed(tmp_path / "a.json")
