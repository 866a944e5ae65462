"""Each way in which a download or a prepared data set can be damaged is found and named."""

import json
import os
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tnr_dist.data.prepare import download as module
from tnr_dist.data.prepare.verify import verify_download, verify_prepared
from tnr_dist.data.shards import SplitIndex, index_to_dict, write_shard
from tnr_dist.data.tokens import TableWriter
from tnr_dist.util.digests import describe, write_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import file_hash

NEWS = "".join(f'N{i}\tsports\tgolf\tA "title" {i}\t\thttps://x\t[]\t[]\n' for i in range(6))
BEHAVIOURS = "1\tU1\t11/15/2019 8:55:22 AM\tN0 N1\tN2-1 N3-0\n2\tU2\t11/9/2019 10:05:02 PM\t\tN4-0 N5-1\n"


def levels(findings):
    return {finding.level for finding in findings}


def the_error(findings):
    errors = [finding for finding in findings if finding.level == "error"]
    assert len(errors) == 1 and errors[0].advice, findings
    return f"{errors[0].where}: {errors[0].message}"


@pytest.fixture
def download(tmp_path, monkeypatch):
    """A folder like MIND's with a zip whose hash the table knows, and its extracted folder."""
    folder = tmp_path / "MIND"
    train = folder / "MINDlarge_train"
    train.mkdir(parents=True)
    (train / "news.tsv").write_text(NEWS)
    (train / "behaviors.tsv").write_text(BEHAVIOURS)
    with zipfile.ZipFile(folder / "MINDlarge_train.zip", "w") as archive:
        for name in ("news.tsv", "behaviors.tsv"):
            archive.write(train / name, f"MINDlarge_train/{name}")
    path = folder / "MINDlarge_train.zip"
    monkeypatch.setitem(module._ZIPS, "MINDlarge_train", (file_hash(path, "md5"), path.stat().st_size))
    monkeypatch.setattr(module, "_ROWS", {("MINDlarge_train", "behaviors.tsv"): 2, ("MINDlarge_train", "news.tsv"): 6})
    return folder


def test_a_whole_download_is_ok_and_missing_splits_are_told(download):
    findings = verify_download(download)
    assert [f.level for f in findings] == ["ok", "ok", "ok", "warning", "warning"]
    assert "2 rows, as published in MINDlarge_train" in findings[1].message
    assert "yjw1029/MIND" in findings[3].advice and "licence" in findings[3].advice and "token" in findings[3].advice
    assert [f.where.rsplit("/", 1)[1] for f in findings[3:]] == ["MINDlarge_dev.zip", "MINDlarge_test.zip"]
    # A zip alone; also from inside the split's own folder, and through a link to it.
    zip_alone = verify_download(download / "MINDlarge_train.zip")
    assert [(f.level, f.where) for f in zip_alone[1:]] == [(f.level, f.where) for f in findings[3:]]
    assert levels(verify_download(download / "MINDlarge_train")) == {"ok", "warning"}
    (download / "MINDlarge_train" / "loop").symlink_to(download)
    assert len(verify_download(download)) == 5


def test_nothing_there(tmp_path):
    assert "yjw1029/MIND" in verify_download(tmp_path)[0].advice
    with pytest.raises(InputError, match="no such folder"):
        verify_download(tmp_path / "none")


def test_the_published_table_is_the_default():
    assert module._ZIPS["MINDsmall_dev"] == ("e3bac5485be8fc7a9934e85e3b78615f", 30948560)
    assert module._ROWS["MINDlarge_test", "behaviors.tsv"] == 2370727


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "a web page, not a zip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"x", "some other file, not a zip"),
        (None, "incomplete: "),
    ],
)
def test_what_is_no_zip(download, content, message):
    path = download / "MINDlarge_train.zip"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    assert message in the_error(verify_download(download))


def test_zips_that_are_not_the_published_one(download):
    path = download / "MINDlarge_train.zip"
    data = path.read_bytes()
    damaged = data.replace(b"golf", b"gulf", 1)
    path.write_bytes(damaged)
    # The folder beside it is what is prepared.
    (finding,) = [f for f in verify_download(download) if f.where.startswith(str(path))]
    assert finding.level == "warning" and "Bad CRC-32" in finding.message and "not read" in finding.message
    shutil.rmtree(download / "MINDlarge_train")
    assert "Bad CRC-32" in the_error(verify_download(download))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("news.tsv", NEWS)
    assert "no behaviors.tsv in it" in the_error(verify_download(download))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("news.tsv", NEWS + "\n")
        archive.writestr("behaviors.tsv", BEHAVIOURS)
    finding = next(f for f in verify_download(download) if f.where == str(path))
    assert finding.level == "warning" and "not the published" in finding.message


ROW = "\tU1\t11/15/2019 8:55:22 AM\tN0\tN2-1 N3-0\n"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("behaviors.tsv", "", "empty"),
        ("behaviors.tsv", "1" + ROW, "1 rows, the published MINDlarge_train has 2"),
        ("behaviors.tsv", "1" + ROW + "x" + ROW, "line 2: impression id 'x'"),
        ("behaviors.tsv", "1" + ROW + "2\tU\n", "line 2: 2 tab-separated columns"),
        ("behaviors.tsv", "1\tU1\t2019/11/15\tN0\tN2-1\n", "line 1: time '2019/11/15'"),
        ("behaviors.tsv", "1" + ROW + "-5" + ROW, "line 2: impression id '-5' is not a whole number, 0 or more"),
        ("behaviors.tsv", "1" + ROW + "007" + ROW, "line 2: impression id '007' is not a whole number"),
        ("behaviors.tsv", "1" + ROW * 700 + "-5" + ROW, "line 2: impression id ''"),
        ("behaviors.tsv", ("1" + ROW) * 700 + "-5" + ROW, "line 701: impression id '-5'"),
        (
            "behaviors.tsv",
            ("1" + ROW) * 700 + "1" + ROW.replace("11/15", "13/45"),
            "line 701: time '13/45/2019 8:55:22",
        ),
        (
            "behaviors.tsv",
            "1" + ROW.replace("11/15/2019 8:55", "2/3/2019 25:48"),
            "line 1: time '2/3/2019 25:48:22 AM'",
        ),
        ("behaviors.tsv", "1" + ROW.replace("11/15", "2/30"), "line 1: time '2/30/2019 8:55:22 AM'"),
        ("behaviors.tsv", "1" + ROW + "1" + ROW.replace("\tU1", "\t"), "line 2: empty user id"),
        ("behaviors.tsv", "1\tU1\t11/15/2019 8:55:22 AM\tN0\t\n" * 2, "no candidates in any row"),
        (
            "behaviors.tsv",
            "1\tU1\t11/15/2019 8:55:22 AM\tN0\tN2-1 N3-0 N3\n",
            "line 1: candidate 'N3': expected NEWS-0 or NEWS-1",
        ),
        ("news.tsv", "N1\tsports\n", "line 1: 2 tab-separated columns"),
        ("news.tsv", "\ta\tb\tc\td\n", "line 1: empty news id"),
        ("news.tsv", NEWS.replace("N2\t", "N2 \t"), "line 3: news id 'N2 ' holds a space"),
        ("news.tsv", NEWS + NEWS.splitlines(True)[2], "line 7: news id 'N2' is also in line 3"),
        ("news.tsv", NEWS.replace("\nN4\tsports", "\nN4"), "line 5: 7 tab-separated columns, expected 8"),
        ("news.tsv", NEWS + "".join(f"M{i}\ta\tb\tc\t\tx\t[]\t[]\n" for i in range(700)) + "M\n", "line 707: 1 tab"),
        ("news.tsv", NEWS.replace("\nN4", "\n\nN4"), "line 5: an empty line"),
        (
            "news.tsv",
            NEWS.replace("N4", "X4").replace("N5", "X5"),
            "50.0% of the candidates (fifth column) are in no news.tsv",
        ),
        ("news.tsv", None, "no news.tsv in it"),
    ],
)
def test_damaged_text(download, file, text, message):
    path = download / "MINDlarge_train" / file
    path.unlink() if text is None else path.write_text(text)
    assert message in the_error(verify_download(download))


def test_text_that_is_not_utf8(download):
    (download / "MINDlarge_train" / "news.tsv").write_bytes(NEWS.encode().replace(b"golf", b"g\xff", 1))
    assert "line 1: not UTF-8" in the_error(verify_download(download))


def test_unlabelled_and_unnamed_data_is_checked_for_format(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "news.tsv").write_text(NEWS)
    (tmp_path / "test" / "behaviors.tsv").write_text(BEHAVIOURS.replace("-0", "").replace("-1", "").rstrip("\n"))
    findings = verify_download(tmp_path)
    assert [(f.level, f.message) for f in findings] == [("ok", "6 rows"), ("ok", "2 rows")]


def test_a_byte_order_mark_is_no_part_of_an_id(download):
    path = download / "MINDlarge_train" / "news.tsv"
    path.write_text(NEWS.replace("N0", "N9", 1).replace("N2", "N0", 1).replace("N9", "N2", 1), encoding="utf-8-sig")
    assert levels(verify_download(download / "MINDlarge_train")) == {"ok", "warning"}
    assert not [f for f in verify_download(download) if "no news.tsv" in f.message]


def test_zips_of_other_names_as_they_can_be_prepared(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("logs/news.tsv", NEWS)
        archive.writestr("logs/behaviors.tsv", BEHAVIOURS)
    for place in (tmp_path, tmp_path / "train.zip"):
        findings = verify_download(place)
        assert [(f.level, f.where.rpartition("train.zip:")[2], f.message) for f in findings] == [
            ("ok", "logs/news.tsv", "6 rows"),
            ("ok", "logs/behaviors.tsv", "2 rows"),
        ]
    (tmp_path / "more.zip").write_bytes(b"of something else")
    assert levels(verify_download(tmp_path)) == {"ok"}
    data = (tmp_path / "train.zip").read_bytes()
    (tmp_path / "train.zip").write_bytes(data.replace(b"golf", b"gulf", 1))
    assert "train.zip:logs/news.tsv: cannot be read (Bad CRC-32" in the_error(verify_download(tmp_path))
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("news.tsv", NEWS)
    assert "train.zip: no behaviors.tsv in it" in the_error(verify_download(tmp_path))


# Prepared -------------------------------------------------------------------------------------------------------------

COUNTS = {"impressions": 9, "impressions_kept": 8, "candidates": 26, "unknown_candidates": 2, "samples": 8}


LINE = {"impressions": 4, "samples": 4, "candidates": 12, "histories": 2}


def block(labelled=True):
    """4 impressions of 3 candidates each, one click each, 2 histories."""
    arrays = {
        "row": np.arange(4),
        "impression_id": np.arange(1, 5),
        "time": np.arange(4) + 1_573_000_000,
        "impression_history": np.array([0, 0, 1, 1]),
        "history_offsets": np.array([0, 2, 2]),
        "history_news": np.array([0, 9]),
        "candidate_offsets": np.arange(5) * 3,
        "candidate_news": np.arange(12) % 10,
        "candidate_clicked": np.arange(12) % 3 == 1,
    }
    if not labelled:
        del arrays["candidate_clicked"]
        arrays["candidate_news"] = arrays["candidate_news"] - 1
    return arrays


def write_split(folder, split, shards, labelled=True):
    infos = [write_shard(folder / split / f"shard-{n:06d}.tar", blocks) for n, blocks in enumerate(shards)]
    (folder / split / "index.json").write_text(json.dumps(index_to_dict(SplitIndex(split, labelled, infos))))


def write_tokens(folder, rows=10, token=5):
    (folder / "tokens").mkdir(exist_ok=True)
    with TableWriter(folder / "tokens" / "title", np.dtype(np.uint16)) as table:
        table.append(np.full(2 * rows, token), np.arange(rows + 1) * 2)


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "prepared"
    write_split(folder, "train", [[block()], [block()]])
    write_split(folder, "test", [[block(False)]], labelled=False)
    write_tokens(folder)
    pq.write_table(pa.table({"index": np.arange(10, dtype=np.int32)}), folder / "news.parquet")
    test = {"impressions": 4, "impressions_kept": 4, "candidates": 12, "unknown_candidates": 2, "samples": 0}
    manifest = {
        "format_version": 1,
        "counts": {"news": 10, "splits": {"train": COUNTS, "test": test}},
        "tokenizer": {"vocab_size": 100},
        "max_lengths": {"title": 30},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture
def signed(prepared):
    """With digests, which the other data set is too old to have."""
    (prepared / "tokenizer").mkdir()
    (prepared / "tokenizer" / "vocab.txt").write_text("[CLS]\n[SEP]\n")
    files = [path for path in sorted(prepared.rglob("*")) if path.suffix in SIGNED and path.name != "manifest.json"]
    names = [str(path.relative_to(prepared)) for path in files]
    manifest = json.loads((prepared / "manifest.json").read_text())
    write_sealed(prepared / "manifest.json", {**manifest, "files": describe(prepared, names)})
    return prepared


SIGNED = (".npy", ".parquet", ".txt", ".json")


def test_a_sound_data_set_is_ok(signed):
    findings = verify_prepared(signed)
    assert levels(findings) == {"ok"} and len(findings) == 6
    assert findings[4].message == "2 shards, 8 impressions, 8 samples"
    with pytest.raises(InputError, match="no such folder"):
        verify_prepared(signed / "none")


def test_a_data_set_without_digests_is_taken_with_a_warning(prepared):
    findings = verify_prepared(prepared)
    assert levels(findings) == {"ok", "warning"} and len(findings) == 5
    (warning,) = [finding for finding in findings if finding.level == "warning"]
    assert "kept no digests" in warning.message and warning.where.endswith("manifest.json")


@pytest.mark.parametrize(
    "name",
    ["news.parquet", "tokens/title.values.npy", "tokens/title.offsets.npy", "train/index.json", "tokenizer/vocab.txt"],
)
def test_every_file_is_compared_with_its_digest(signed, name):
    """Whatever the file's times say: a disk that loses a bit tells nobody."""
    path = signed / name
    assert verify_prepared(signed)  # remembers what can be remembered
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    where = [finding.where for finding in verify_prepared(signed) if finding.level == "error"]
    assert where == [str(path)] or (name.startswith("tokens") and where[0] == str(path.parent / "title"))


def test_an_edited_manifest_is_damaged(signed):
    edit(signed / "manifest.json", lambda value: value["max_lengths"].update(title=29))
    assert "its own digest differs" in the_error(verify_prepared(signed))


def test_damaged_shards(prepared):
    path = prepared / "train" / "shard-000001.tar"
    data = path.read_bytes()
    path.write_bytes(data[:2000])
    assert "shard-000001.tar: 2,000 bytes, the index says" in the_error(verify_prepared(prepared))
    path.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    assert "sha256 differs" in the_error(verify_prepared(prepared))
    path.unlink()
    assert "shard-000001.tar: cannot be read" in the_error(verify_prepared(prepared))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("candidate_news", np.full(12, 10), "candidate_news has index 10 of 10 news"),
        ("candidate_news", np.full(12, -1), "candidate_news has index -1 of 10 news"),
        ("history_news", np.array([-1, 3]), "history_news has index -1 of 10 news"),
        ("history_offsets", np.array([0, 3, 2]), "history_offsets do not cut"),
        ("history_offsets", np.array([0, 2, 3]), "history_offsets do not cut"),
        ("candidate_offsets", np.array([0, 3, 6, 12]), "candidate_offsets has 4 entries for 4 impressions"),
        ("impression_history", np.array([0, 1, 2, 0]), "points outside the block's 2 histories"),
        ("time", np.arange(3), "time has 3 entries for 4 impressions"),
        ("candidate_clicked", np.full(12, 2), "not a 0 or 1"),
        ("candidate_clicked", None, "it lacks candidate_clicked"),
        ("row", np.zeros((4, 1)), "row is int64 [4, 1]"),
    ],
)
def test_arrays_that_are_not_well_formed(prepared, monkeypatch, field, value, message):
    """Damage that the checksums cannot see, because it was there when they were made."""
    bad = block()
    if value is None:
        del bad[field]
    else:
        bad[field] = value
    monkeypatch.setattr("tnr_dist.data.shards.describe", lambda b, key: LINE | {"key": key})
    write_split(prepared, "train", [[block()], [bad]])
    errors = [f.message for f in verify_prepared(prepared) if f.level == "error" and "shard-000001" in f.where]
    assert len(errors) == 1 and message in errors[0]


def test_counts_that_do_not_agree(prepared):
    index, manifest = prepared / "train" / "index.json", prepared / "manifest.json"
    keep = index.read_text()
    edit(index, lambda value: value["shards"].pop())
    findings = verify_prepared(prepared)
    assert "4 impressions, the manifest says 8" in the_error(findings)
    assert any(f.level == "warning" and "does not name" in f.message for f in findings)
    index.write_text(keep)
    edit(index, lambda value: value["shards"][0]["blocks"][0].update(candidates=13))
    assert any("block 000000-000: candidates 12, the index says 13" in f.message for f in verify_prepared(prepared))
    index.write_text(keep)
    edit(index, lambda value: value["shards"][0].update(samples=5))
    assert any("its blocks have 4 samples" in f.message for f in verify_prepared(prepared))
    index.write_text(keep)
    edit(index, lambda value: value["shards"][1]["blocks"][0].pop("candidates"))
    assert "a block of shard-000001.tar lacks" in the_error(verify_prepared(prepared))
    index.write_text(keep)
    for what in ("samples", "candidates", "impressions_kept"):
        text = manifest.read_text()
        edit(manifest, lambda value, what=what: value["counts"]["splits"]["train"].update({what: 99}))
        assert "the manifest says 9" in the_error(verify_prepared(prepared))
        manifest.write_text(text)
    edit(manifest, lambda value: value["counts"]["splits"].pop("test"))
    assert any(f.level == "warning" and f.where.endswith("test") for f in verify_prepared(prepared))


def test_damaged_tables(prepared):
    write_tokens(prepared, rows=9)
    assert "9 rows, the manifest says 10 news" in the_error(verify_prepared(prepared))
    write_tokens(prepared, token=100)
    assert "token id 100, the tokenizer has 100" in the_error(verify_prepared(prepared))
    np.save(prepared / "tokens" / "title.offsets.npy", np.array([0, 5, 3, 20]))
    assert "offsets fall after row 1" in the_error(verify_prepared(prepared))
    (prepared / "tokens" / "title.values.npy").unlink()
    assert "no such token table" in the_error(verify_prepared(prepared))
    write_tokens(prepared)
    pq.write_table(pa.table({"index": np.arange(9)}), prepared / "news.parquet")
    assert "9 news, the manifest says 10" in the_error(verify_prepared(prepared))
    (prepared / "news.parquet").write_bytes(b"PAR1")
    assert "news.parquet: cannot be read" in the_error(verify_prepared(prepared))
    (prepared / "news.parquet").unlink()
    assert "news.parquet: missing" in the_error(verify_prepared(prepared))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        '{"format_version": 1}',
        '{"format_version": 1, "counts": []}',
        '{"format_version": 2, "counts": {}}',
    ],
)
def test_no_usable_manifest(prepared, text):
    path = prepared / "manifest.json"
    path.unlink() if text is None else path.write_text(text)
    assert "manifest.json" in the_error(verify_prepared(prepared))


def test_a_corpus_alone(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format_version": 1, "counts": {"corpus": {"pairs": 10}}}))
    write_tokens(tmp_path)
    assert levels(verify_prepared(tmp_path)) == {"ok", "warning"}
