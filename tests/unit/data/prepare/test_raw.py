"""Finding splits in folders and zips, cutting files into chunks, reading rows."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.prepare.raw import random_split
from tnr_dist.data.prepare.raw import (
    chunks_of,
    find_splits,
    parse_behaviours,
    parse_times,
    parse_tsv,
    read_news,
    scan_chunk,
    union_news,
)
from tnr_dist.util.errors import InputError


def make_zip(path, folder, inner=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inner + file.name)
    return path


@pytest.fixture
def files(tmp_path):
    return random_split(1, rows=5).write(tmp_path / "files")


def test_layouts(tmp_path, files):
    def found(folder):
        return {split: (str(r.news), str(r.behaviors)) for split, r in find_splits(folder).items()}

    raw = tmp_path / "raw"
    for name in ("MINDlarge_test", "MINDlarge_dev/MINDlarge_dev"):
        random_split(2, rows=3).write(raw / name)
    make_zip(raw / "MINDlarge_train.zip", files, "MINDlarge_train/")
    (raw / "MINDlarge_train").mkdir()  # a failed extraction
    assert list(find_splits(raw)) == ["train", "dev", "test"]
    got = found(raw)
    assert got["train"][0] == f"{raw}/MINDlarge_train.zip:MINDlarge_train/news.tsv"
    assert got["dev"][1] == f"{raw}/MINDlarge_dev/MINDlarge_dev/behaviors.tsv"
    # One folder deeper; a zip or a split's folder given itself.
    assert found(tmp_path)["test"] == got["test"]
    assert list(found(raw / "MINDlarge_train.zip")) == ["train"] and list(found(raw / "MINDlarge_test")) == ["test"]
    assert list(found(files)) == ["train"]
    # A zip beside the folder extracted from it: the folder is read.
    random_split(1, rows=5).write(raw / "MINDlarge_train")
    assert found(raw)["train"][0] == f"{raw}/MINDlarge_train/news.tsv"
    for name, split in (("valid", "dev"), ("MINDsmall_train", "train"), ("test.zip", "test")):
        place = tmp_path / f"only-{split}"
        make_zip(place / name, files) if name.endswith(".zip") else random_split(1, rows=2).write(place / name)
        assert list(find_splits(place)) == [split]


def test_layouts_that_are_wrong(tmp_path, files):
    with pytest.raises(InputError, match="no such folder"):
        find_splits(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no news\.tsv and behaviors\.tsv found"):
        find_splits(tmp_path / "empty")
    two = tmp_path / "two"
    for name in ("MINDlarge_train", "MINDsmall_train"):
        random_split(1, rows=2).write(two / name)
    with pytest.raises(InputError, match="two train splits, MINDlarge_train and MINDsmall_train"):
        find_splits(two)
    doubled = tmp_path / "doubled" / "train"
    for name in ("a", "b"):
        random_split(1, rows=2).write(doubled / name)
    with pytest.raises(InputError, match=r"2 files news\.tsv"):
        find_splits(tmp_path / "doubled")
    (files / "news.tsv").unlink()
    with pytest.raises(InputError, match=r"no news\.tsv in it"):
        find_splits(files)


@pytest.mark.parametrize("member", ["../news.tsv", "/etc/news.tsv", "a/../../news.tsv", "..\\news.tsv", "C:\\news.tsv"])
def test_zip_members_that_point_outside(tmp_path, files, member):
    path = tmp_path / "raw" / "train.zip"
    make_zip(path, files)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="points out of the archive"):
        find_splits(tmp_path / "raw")
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_zips(tmp_path, files):
    path = make_zip(tmp_path / "raw" / "train.zip", files)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"train\.zip: not a readable zip file.*download it again"):
        find_splits(tmp_path / "raw")
    path.write_bytes(data.replace(b"golf", b"gulf"))
    with pytest.raises(InputError, match=r"train\.zip:news\.tsv: cannot be read.*download it again"):
        read_news(find_splits(tmp_path / "raw")["train"].news)


def test_read_news_takes_quotes_literally(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "news.tsv").write_text('N1\ta\tb\t"Quoted\tnot closed\nN2\ta\tb\tit\'s "x" \\n\t\n', encoding="utf-8-sig")
    (folder / "behaviors.tsv").write_text("")
    news = read_news(find_splits(folder)["train"].news)
    assert news.to_pydict() == {
        "id": ["N1", "N2"], "category": ["a", "a"], "subcategory": ["b", "b"],
        "title": ['"Quoted', 'it\'s "x" \\n'], "abstract": ["not closed", ""],
    }  # fmt: skip


def test_union_news():
    columns = ["id", "category", "subcategory", "title", "abstract"]
    one = parse_tsv(b"N2\tc\ts\tt\ta\nN1\tc\ts\tt\ta\n", columns, "x")
    two = parse_tsv(b"N3\tc\ts\tt\ta\nN1\tc\ts\tother\ta\nN2\tc\ts\tt\ta\n", columns, "x")
    union, differing = union_news([one, two])
    assert union["id"].to_pylist() == ["N2", "N1", "N3"] and differing == 1
    assert union["title"].to_pylist() == ["t", "t", "t"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 60), st.booleans())
def test_chunks_cover_a_file_at_line_boundaries(tmp_path_factory, lengths, size, last_newline):
    path = tmp_path_factory.mktemp("c") / "f"
    lines = [b"x" * n + b"\n" for n in lengths]
    text = b"".join(lines) if last_newline else b"".join(lines) + b"end"
    path.write_bytes(text)
    chunks = list(chunks_of(path, size, "f"))
    assert b"".join(text[c.start : c.stop] for c in chunks) == text
    line = 1
    for chunk in chunks:
        assert chunk.first_line == line
        assert chunk.start == 0 or text[chunk.start - 1 : chunk.start] == b"\n"
        assert chunk.read().count(b"\n") == chunk.lines > 0
        line += chunk.lines
    assert line - 1 == len(lines) + (not last_newline)


def test_a_line_without_end(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"a\n" + b"x" * 5000)
    for size in (10, 1 << 20):
        with pytest.raises(InputError, match=r"the file, line 2: longer than 4,000 bytes"):
            list(chunks_of(path, size, "the file", longest_line=4000))
    assert len(list(chunks_of(path, 100, "f"))) == 2


@pytest.mark.parametrize("size", [50, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_scan_finds_what_the_parser_reads(tmp_path, size, end):
    split = random_split(3, rows=40)
    split.end = end
    path = tmp_path / "behaviors.tsv"
    path.write_text(split.behaviours_text().removesuffix(end), newline="")
    for chunk in chunks_of(path, size, "x"):
        rows = scan_chunk(chunk, "x")
        numbers = np.arange(chunk.lines) + chunk.first_line - 1
        table = parse_behaviours(chunk.read(), numbers, "x")
        want = [split.rows[i] for i in numbers]
        assert table["user"].to_pylist() == [row.user for row in want]
        assert table["time"].to_pylist() == [row.seconds for row in want]
        assert table["history"].to_pylist() == [row.space.join(row.history) for row in want]
        assert table["impression_id"].to_pylist() == [row.id for row in want]
        assert rows.times(numbers + 1, "x").tolist() == table["time"].to_pylist()
        starts = rows.tabs[:, 0] + 1
        users = [rows.data[a:b].tobytes().decode() for a, b in zip(starts, rows.tabs[:, 1], strict=True)]
        assert users == table["user"].to_pylist()


def test_times():
    import pyarrow as pa

    texts = ["11/15/2019 8:55:22 AM", "11/15/2019 12:00:00 AM", "11/15/2019 12:00:00 PM", "1/2/2020 11:59:59 PM"]
    seconds, _ = parse_times(pa.array(texts, pa.large_string()), np.arange(4) + 1, "x")
    want = ["2019-11-15T08:55:22", "2019-11-15T00:00:00", "2019-11-15T12:00:00", "2020-01-02T23:59:59"]
    assert seconds.tolist() == np.array(want, "datetime64[s]").astype(int).tolist()
    with pytest.raises(InputError, match="x, line 8: time ''; expected 11/15/2019 8:55:22 AM, ISO 8601"):
        parse_times(pa.array([texts[0], ""], pa.large_string()), np.array([7, 8]), "x")
    # A year of two digits is the first century's for `strptime`: no manifest could hold such a time.
    for text in ("11/15/19 8:55:22 AM", "12/31/1969 11:59:59 PM", "2/30/2019 8:55:22 AM", "4/ 31/2019 8:55:22 AM"):
        with pytest.raises(InputError, match=f"line 2: time '{text}'; expected 11/15"):
            parse_times(pa.array([texts[0], text], pa.large_string()), np.array([1, 2]), "x")
    assert parse_times(pa.array(["1/1/1970 12:00:00 AM"], pa.large_string()), np.array([1]), "x")[0].tolist() == [0]
