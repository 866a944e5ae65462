"""`tnr data prepare` against a plain-Python reading of the same files, cut, shared, killed and resumed in every way."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.data.prepare.raw import Split, expected, random_split, write_vocabulary
from tnr_dist.cli import app
from tnr_dist.data.prepare import impressions, prepare
from tnr_dist.data.prepare import processes as processes_module
from tnr_dist.data.prepare.options import is_generated_input
from tnr_dist.data.prepare.prepare import PrepareOptions, is_generated, manifest_hash, print_counts, read_manifest
from tnr_dist.data.shards import read_index, read_shard
from tnr_dist.data.tokens import read_table
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.util import lock
from tnr_dist.util.errors import InputError, os_error_advice
from tnr_dist.util.lock import held


@pytest.fixture(scope="module")
def plm(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("plm"))


def run(plm, raw, output, part=None, merge=False, processes=1, **options):
    options = {"max_unknown": 1.0, "block_size": 8} | options
    return prepare.prepare(
        PrepareOptions(input=str(raw), plm=plm, **options), output, part=part, merge=merge, processes=processes
    )


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read_back(output, split, rows):
    """Rows by number as `expected` gives them, and the blocks' invariants."""
    got, block_of_user, index = {}, {}, read_index(output, split)
    for info in index.shards:
        for key, block in read_shard(output / split / info.name, info).items():
            h, c = block["history_offsets"], block["candidate_offsets"]
            histories = [block["history_news"][a:b].tolist() for a, b in itertools.pairwise(h)]
            used = []
            for i, number in enumerate(block["row"].tolist()):
                user = rows[number].user
                assert block_of_user.setdefault(user, key) == key, "a user straddles blocks"
                used.append((user, block["impression_history"][i]))
                clicked = block.get("candidate_clicked")
                assert number not in got
                got[number] = (
                    int(block["impression_id"][i]), user, int(block["time"][i]),
                    histories[block["impression_history"][i]],
                    block["candidate_news"][c[i] : c[i + 1]].tolist(),
                    clicked[c[i] : c[i + 1]].tolist() if clicked is not None else None,
                )  # fmt: skip
            # Each history belongs to one user, and all are used.
            assert len({number for _, number in used}) == len(histories) == len(set(used))
            line = next(one for one in info.blocks if one["key"] == key)
            assert (line["impressions"], line["histories"]) == (len(block["row"]), len(histories))
    return got


def check(output, splits, manifest):
    """Every split of the output equals the reference."""
    ids = pq.read_table(output / "news.parquet")["id"].to_pylist()
    index = {news: i for i, news in enumerate(ids)}
    for name, (split, chosen) in splits.items():
        kept, account = expected(split, index, chosen)
        assert read_back(output, name, split.rows) == kept
        assert manifest["counts"]["splits"][name] == account
        assert read_index(output, name).samples == account["samples"]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 80),
    end=st.sampled_from(["\n", "\r\n"]),
    prefix=st.sampled_from(["N", "long-news-id", "é"]),
    chunk=st.integers(1, 4000),
    block=st.integers(3, 30),
)
def test_equals_the_reference(plm, tmp_path_factory, seed, rows, end, prefix, chunk, block):
    folder = tmp_path_factory.mktemp("case")
    train = random_split(seed, rows, prefix=prefix)
    test = random_split(seed + 1, max(rows // 2, 1), labelled=False, prefix=prefix)
    train.end = test.end = end
    # One row that is certainly kept.
    train.rows[0].candidates = [(train.news[0], 1), (train.news[1], 0)]
    train.write(folder / "raw" / "train")
    test.write(folder / "raw" / "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "_CHUNK_BYTES", chunk)
        manifest = run(plm, folder / "raw", folder / "out", block_size=block)
    check(folder / "out", {"train": (train, None), "test": (test, None)}, manifest)


def test_unlabelled_split_keeps_unknown_candidates(plm, tmp_path):
    train, test = random_split(1), random_split(2, labelled=False)
    train.write(tmp_path / "raw" / "train")
    test.write(tmp_path / "raw" / "test")
    run(plm, tmp_path / "raw", tmp_path / "out")
    blocks = [
        b for i in read_index(tmp_path / "out", "test").shards
        for b in read_shard(tmp_path / "out" / "test" / i.name).values()
    ]  # fmt: skip
    news = np.concatenate([b["candidate_news"] for b in blocks])
    assert (news == -1).sum() == sum(c not in test.news for r in test.rows for c, _ in r.candidates) > 0
    assert not any("candidate_clicked" in b for b in blocks)
    assert sum(len(b["row"]) for b in blocks) == len(test.rows)


def test_texts(plm, tmp_path):
    """News are the union of the splits, first mention first; titles and pairs are tokenised in that order."""
    train, dev = random_split(1, news=8), random_split(2, news=12)
    dev.titles = {"N3": "sun sun sun"}
    train.write(tmp_path / "raw" / "MINDsmall_train")
    dev.write(tmp_path / "raw" / "MINDsmall_dev")
    manifest = run(plm, tmp_path / "raw", tmp_path / "out")
    news = pq.read_table(tmp_path / "out" / "news.parquet")
    assert news["id"].to_pylist() == [f"N{i}" for i in range(12)]
    assert news["title"][3].as_py() == '"wins" wins 3'
    counts = manifest["counts"]
    assert (counts["news"], counts["news_described_differently"], counts["empty_abstracts"]) == (12, 1, 2)
    tokenizer = load_tokenizer(plm)
    titles = read_table(tmp_path / "out" / "tokens" / "title")
    for i, title in enumerate(news["title"].to_pylist()):
        want = tokenizer.encode_batch([title], 30)[0]
        assert titles.values[titles.offsets[i] : titles.offsets[i + 1]].tolist() == want.tolist()
    kept = [i for i, text in enumerate(news["abstract"].to_pylist()) if text]
    pairs, bodies = (read_table(tmp_path / "out" / "tokens" / name) for name in ("corpus_title", "body"))
    assert len(pairs) == len(bodies) == len(kept) == counts["corpus"]["kept"]
    for row, i in enumerate(kept):
        want = tokenizer.encode_batch([news["title"][i].as_py()], 30)[0]
        assert pairs.values[pairs.offsets[row] : pairs.offsets[row + 1]].tolist() == want.tolist()
    assert load_tokenizer(str(tmp_path / "out" / "tokenizer")).hash == manifest["tokenizer"]["hash"]


# Split rules ------------------------------------------------------------------------------------------------------------


def rows_of(output, split):
    shards = read_index(output, split).shards
    return {int(r) for i in shards for b in read_shard(output / split / i.name).values() for r in b["row"]}


@pytest.mark.parametrize(
    ("dev", "test"),
    [
        ("last-days:1", ""), ("", "last-days:2"), ("last-days:1", "last-days:1"), ("random:0.2", ""),
        ("random:0.3", "random:0.3"), ("random:0.2", "last-days:1"), ("last-days:1", "random:0.5"),
    ],
)  # fmt: skip
def test_split_rules(plm, tmp_path, monkeypatch, dev, test):
    split = random_split(5, rows=150, users=60, unknown=0)
    split.write(tmp_path / "raw" / "train")
    manifest = run(plm, tmp_path / "raw", tmp_path / "out", dev_split=dev, test_split=test)
    names = ["train"] + ["dev"] * bool(dev) + ["test"] * bool(test)
    rows = {name: rows_of(tmp_path / "out", name) for name in names}
    assert sum(map(len, rows.values())) == 150 and set.union(*rows.values()) == set(range(150))
    check(tmp_path / "out", {name: (split, rows[name]) for name in names}, manifest)
    days = [row.seconds // 86_400 for row in split.rows]
    if test.startswith("last-days"):
        assert rows["test"] == {i for i, day in enumerate(days) if day > max(days) - int(test[-1])}
    if dev.startswith("last-days"):
        left = [i for i in range(150) if i not in rows.get("test", ())]
        last = max(days) - (int(test[-1]) if test.startswith("last") else 0)
        assert rows["dev"] == {i for i in left if days[i] == last}
    if dev == test == "random:0.3":
        assert 28 <= len(rows["test"]) <= 62 and 16 <= len(rows["dev"]) <= 48
    # The same again from other chunks, and another with another seed.
    monkeypatch.setattr(prepare, "_CHUNK_BYTES", 4000)
    run(plm, tmp_path / "raw", tmp_path / "again", dev_split=dev, test_split=test)
    assert tree(tmp_path / "again") == tree(tmp_path / "out")
    if "random" in dev:
        run(plm, tmp_path / "raw", tmp_path / "other", dev_split=dev, test_split=test, split_seed=1)
        assert rows_of(tmp_path / "other", "dev") != rows["dev"]


# One result -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    random_split(7, rows=200, users=40).write(folder / "MINDlarge_train")
    random_split(8, rows=50, users=40).write(folder / "MINDlarge_dev")
    random_split(9, rows=50, users=40, labelled=False).write(folder / "MINDlarge_test")
    return folder


@pytest.fixture(scope="module")
def whole(plm, raw, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    run(plm, raw, output)
    return tree(output)


@pytest.mark.parametrize("chunk", [1 << 10, 5000, 1 << 16])
def test_chunks_do_not_change_a_byte(plm, raw, whole, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(prepare, "_CHUNK_BYTES", chunk)
    run(plm, raw, tmp_path / "out")
    assert tree(tmp_path / "out") == whole


def test_processes_do_not_change_a_byte(plm, raw, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_CHUNK_BYTES", 8000)
    monkeypatch.setattr(processes_module, "_WORTH_PROCESSES", 0)
    run(plm, raw, tmp_path / "out", processes=2)
    assert tree(tmp_path / "out") == whole


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_parts_and_merge_do_not_change_a_byte(plm, raw, whole, tmp_path, order, monkeypatch):
    monkeypatch.setattr(prepare, "_CHUNK_BYTES", 8000)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no parts to merge"):
        run(plm, raw, out, merge=True)
    for part in order:
        run(plm, raw, out, part=(part, 3))
        assert not (out / "manifest.json").exists()
        if part != order[-1]:
            with pytest.raises(InputError, match=r"not made yet|part 1 has not"):
                run(plm, raw, out, merge=True)
    run(plm, raw, out, merge=True)
    assert tree(out) == whole


def test_merge_finds_a_shard_that_is_gone(plm, raw, whole, tmp_path):
    out = tmp_path / "out"
    for part in range(2):
        run(plm, raw, out, part=(part, 2))
    shard = out / "train" / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(InputError, match=r"train/shard-000001\.tar: missing or not whole; make its part again"):
        run(plm, raw, out, merge=True)
    run(plm, raw, out, part=(1, 2))
    run(plm, raw, out, merge=True)
    assert tree(out) == whole


def test_a_shard_that_is_not_whole_is_made_again(plm, raw, whole, tmp_path):
    """By its part, or by a run without parts, which keeps all that the parts have made."""
    out = tmp_path / "out"
    for part in range(2):
        run(plm, raw, out, part=(part, 2))
    first, second = (out / "train" / f"shard-00000{number}.tar" for number in range(2))
    kept = (out / "dev" / "shard-000000.tar").stat().st_ino
    second.write_bytes(second.read_bytes()[:-512])
    run(plm, raw, out, part=(1, 2))
    assert second.read_bytes() == whole["train/shard-000001.tar"]
    first.write_bytes(b"")
    run(plm, raw, out)
    assert tree(out) == whole and (out / "dev" / "shard-000000.tar").stat().st_ino == kept


def test_parts_at_one_time(plm, raw, whole, tmp_path):
    """Three processes work in one folder at once."""
    code = (
        "import sys; from pathlib import Path; from tnr_dist.data.prepare.prepare import *\n"
        "options = PrepareOptions(input=sys.argv[1], plm=sys.argv[2], max_unknown=1.0, block_size=8)\n"
        "prepare(options, Path(sys.argv[3]), part=(int(sys.argv[4]), 3), processes=1)\n"
    )
    out = tmp_path / "out"
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, str(raw), plm, str(out), str(part)], stderr=subprocess.PIPE)
        for part in range(3)
    ]
    for job in jobs:
        assert job.wait() == 0, job.stderr.read().decode()
        job.stderr.close()
    run(plm, raw, out, merge=True)
    assert tree(out) == whole


class Killed(BaseException):
    """As sudden as a signal: no handler for errors runs."""


@pytest.mark.parametrize("where", ["route_chunk", "build_shard", "make_texts", "_complete"])
@pytest.mark.parametrize("calls", [0, 1, 4])
def test_killed_and_run_again(plm, raw, whole, tmp_path, monkeypatch, where, calls):
    out = tmp_path / "out"
    monkeypatch.setattr(prepare, "_CHUNK_BYTES", 8000)
    owner = prepare._Preparation if where == "_complete" else prepare
    work, left = getattr(owner, where), [calls]

    def dies(*args):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return work(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, where, dies)
        died = False
        try:
            run(plm, raw, out)
        except Killed:
            died = True
            (out / "train").mkdir(exist_ok=True)
            (out / "train" / ".shard-000000.tar.abc.tmp").write_bytes(b"half")
    assert died == (not (out / "manifest.json").exists())
    monkeypatch.setattr(prepare, "_CHUNK_BYTES", 4000)
    run(plm, raw, out)
    assert tree(out) == whole


def test_killed_just_before_the_end(plm, raw, whole, tmp_path, monkeypatch):
    """With the manifest there, the next run removes what only the making needed."""
    out = tmp_path / "out"

    def dies(output):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "tidy", dies)
        with pytest.raises(Killed):
            run(plm, raw, out)
    assert (out / "manifest.json").exists() and (out / ".work").exists()
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    with held(out):  # another process is at it: the data set can be used all the same
        assert run(plm, raw, out) == read_manifest(out)
    run(plm, raw, out)
    assert tree(out) == whole and not (out / ".work").exists()


def test_a_finished_split_is_not_read_again(plm, raw, tmp_path, monkeypatch):
    done = []
    real = impressions.route_chunk

    def watched(route):
        done.append(route.out.parent.parent.name)
        if route.out.parent.parent.name == "test" and done.count("train") == 1:
            raise Killed
        return real(route)

    monkeypatch.setattr(prepare, "route_chunk", watched)
    with pytest.raises(Killed):
        run(plm, raw, tmp_path / "out")
    with pytest.raises(Killed):
        run(plm, raw, tmp_path / "out")
    assert Counter(done) == {"train": 1, "dev": 1, "test": 2}


def test_killed_by_a_signal(plm, raw, whole, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from tnr_dist.data.prepare import prepare as p\n"
        "p._CHUNK_BYTES = 3000; build = p.build_shard\n"
        "p.build_shard = lambda b: (build(b), time.sleep(0.1))\n"
        "options = p.PrepareOptions(input=sys.argv[1], plm=sys.argv[2], max_unknown=1.0, block_size=8)\n"
        "p.prepare(options, Path(sys.argv[3]), processes=1)\n"
    )
    out = tmp_path / "out"
    job = subprocess.Popen([sys.executable, "-c", code, str(raw), plm, str(out)], stderr=subprocess.DEVNULL)
    while not (out / "train" / "shard-000001.tar").exists():
        assert job.poll() is None
        time.sleep(0.01)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert not (out / "manifest.json").exists()
    run(plm, raw, out)
    assert tree(out) == whole


def test_run_again(plm, raw, tmp_path, capsys):
    out = tmp_path / "out"
    manifest = run(plm, raw, out)
    before = tree(out)
    assert run(plm, raw, out) == manifest == read_manifest(out)
    assert "already prepared" in capsys.readouterr().err and tree(out) == before
    with pytest.raises(InputError, match=r"prepared with other settings \(title_tokens\)"):
        run(plm, raw, out, title_tokens=20)
    assert tree(out) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("x")
    with pytest.raises(InputError, match="not a prepared data set"):
        run(plm, raw, other)
    assert tree(other) == {"precious.txt": b"x"}
    with pytest.raises(InputError, match="names a folder"):
        run(plm, raw, other / "precious.txt")
    run(plm, raw, tmp_path / "begun", part=(0, 2))
    with pytest.raises(InputError, match="unfinished preparation with other options"):
        run(plm, raw, tmp_path / "begun", part=(1, 2), title_tokens=20)


def test_the_hash_changes_with_the_data(plm, raw, tmp_path):
    run(plm, raw, tmp_path / "a")
    run(plm, raw, tmp_path / "b", title_tokens=20)
    assert manifest_hash(tmp_path / "a") == manifest_hash(tmp_path / "a") != manifest_hash(tmp_path / "b")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(InputError, match="not a manifest of format"):
        read_manifest(tmp_path)


# Malformed input --------------------------------------------------------------------------------------------------------

ROW = "1\tU1\t11/15/2019 8:55:22 AM\tN0\tN1-1 N2-0\n"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("behaviors.tsv", lambda t: "", r"behaviors\.tsv: the file is empty"),
        ("behaviors.tsv", lambda t: t + "9\tU1\t11/15", r"line 61: 3 tab-separated columns, expected 5"),
        ("behaviors.tsv", lambda t: t + ROW.replace("N1-1", "N1"), r"line 61: candidate 'N1': expected NEWS-0 or"),
        ("behaviors.tsv", lambda t: t + ROW.replace("N1-1", "N1-2"), r"line 61: candidate 'N1-2'"),
        ("behaviors.tsv", lambda t: t + ROW.replace("N1-1", "-1"), r"line 61: candidate '-1'"),
        ("behaviors.tsv", lambda t: ROW.replace("11/15", "15/11") + t, r"line 1: time '15/11/2019 8:55:22 AM'"),
        ("behaviors.tsv", lambda t: t + "x" + ROW, r"line 61: impression id 'x1' is not a whole number"),
        ("behaviors.tsv", lambda t: t + ROW.replace("1", "1" * 30, 1), r"line 61: impression id '1{30}'"),
        (
            "behaviors.tsv",
            lambda t: t + ROW.replace("1", str(2**63 - 1), 1) + ROW.replace("1", str(2**63), 1),
            r"line 62: impression id '9223372036854775808'",
        ),
        ("behaviors.tsv", lambda t: t + ROW.replace("U1", ""), r"line 61: empty user"),
        ("behaviors.tsv", lambda t: t + ROW.replace("U1", "U\udcff"), r"line 61: not UTF-8 text \(byte 4"),
        ("behaviors.tsv", lambda t: t + ROW.replace("11/15", "\udcff"), r"line 61"),
        ("behaviors.tsv", lambda t: t + "\n" + ROW, r"line 61: an empty line; remove it"),
        ("behaviors.tsv", lambda t: "\r\n" + t, r"line 1: an empty line; remove it"),
        ("behaviors.tsv", lambda t: t + ROW.replace("U1", "U\0"), r"line 61: a NUL byte"),
        ("behaviors.tsv", lambda t: t + ROW.replace("U1", "U\r1"), r"line 61: a carriage return inside"),
        ("behaviors.tsv", lambda t: t + "x" * (17 << 20), r"line 61: longer than 16,777,216 bytes"),
        ("news.tsv", lambda t: "", r"news\.tsv: the file is empty"),
        ("news.tsv", lambda t: t + t.splitlines()[4], r"line 31: news id 'N4' is also in line 5"),
        ("news.tsv", lambda t: t + "N99\tsports\n", r"line 31: 2 tab-separated columns, expected 8"),
        ("news.tsv", lambda t: "N1\tsports\n", r"line 1: 2 tab-separated columns, expected at least"),
        ("news.tsv", lambda t: t.replace("N5", ""), r"line 6: empty news id"),
        ("news.tsv", lambda t: t.replace("golf", "g\udcff", 1), r"line 1: not UTF-8 text"),
        ("news.tsv", lambda t: t.replace("golf", "g\0", 1), r"line 1: a NUL byte"),
        ("news.tsv", lambda t: t + "\n" + t.replace("N", "M"), r"line 31: an empty line"),
        ("news.tsv", None, r"train: no news\.tsv in it"),
        ("behaviors.tsv", None, r"train: no behaviors\.tsv in it"),
    ],
)  # fmt: skip
def test_malformed(plm, tmp_path, monkeypatch, file, change, message):
    random_split(3).write(tmp_path / "raw" / "train")
    path = tmp_path / "raw" / "train" / file
    if change is None:
        path.unlink()
    else:
        text = change(path.read_text(encoding="utf-8"))
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for chunk in (3000, 1 << 25):
        monkeypatch.setattr(prepare, "_CHUNK_BYTES", chunk)
        for options in ({}, {"dev_split": "last-days:1"}):
            with pytest.raises(InputError, match=message) as error:
                run(plm, tmp_path / "raw", tmp_path / "out", **options)
            assert "\n" not in str(error.value) and file.split(".")[0] in str(error.value)
            assert not (tmp_path / "out").exists()


def test_malformed_requests(plm, tmp_path):
    split = random_split(3)
    with pytest.raises(InputError, match="no such folder"):
        run(plm, tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="nothing to prepare"):
        run(plm, "", tmp_path / "out")
    split.write(tmp_path / "raw" / "train")
    for rule in ("last-days:0", "random:1.5", "random:0.0", "weekly", "random:nan"):
        with pytest.raises(InputError, match="split rule"):
            run(plm, tmp_path / "raw", tmp_path / "out", dev_split=rule)
    with pytest.raises(InputError, match="leave no day for training"):
        run(plm, tmp_path / "raw", tmp_path / "out", dev_split="last-days:3", test_split="last-days:3")
    with pytest.raises(InputError, match="dev split is empty"):
        run(plm, tmp_path / "raw", tmp_path / "out", dev_split="random:0.000001")
    with pytest.raises(InputError, match="title_tokens=2: at least 3"):
        run(plm, tmp_path / "raw", tmp_path / "out", title_tokens=2)
    with pytest.raises(InputError, match="max_unknown=2"):
        run(plm, tmp_path / "raw", tmp_path / "out", max_unknown=2)
    split.write(tmp_path / "raw" / "dev")
    with pytest.raises(InputError, match="has a dev split of its own"):
        run(plm, tmp_path / "raw", tmp_path / "out", dev_split="last-days:1")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "raw" / "dev" / "behaviors.tsv").write_text("")
    with pytest.raises(InputError, match=r"dev.*is empty"):
        run(plm, tmp_path / "raw", tmp_path / "empty")
    assert list(tmp_path.glob("empty/*")) == [] and (tmp_path / "empty").exists()


def test_too_many_unknown_news(plm, tmp_path, capsys):
    split = random_split(4, unknown=20)
    split.write(tmp_path / "raw" / "train")
    with pytest.raises(
        InputError, match=r"train.*: \d+\.\d% of the candidates \(fifth column\) are in no news.tsv.*--max-unknown 1"
    ):
        run(plm, tmp_path / "raw", tmp_path / "out", max_unknown=0.2)
    assert "dropped: no known candidate" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    Split(split.rows, [f"X{i}" for i in range(5)]).write(tmp_path / "other" / "train")
    with pytest.raises(InputError, match=r"100\.0% of the candidates .*no impression is left"):
        run(plm, tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zips(plm, raw, whole, tmp_path):
    """Zips, with and without a nested folder, give what folders give, but for the names of the sources."""
    zipped = tmp_path / "zips"
    zipped.mkdir()
    for number, folder in enumerate(sorted(raw.iterdir())):
        with zipfile.ZipFile(zipped / f"{folder.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in folder.iterdir():
                archive.write(path, f"{folder.name}/{path.name}" if number else path.name)
    run(plm, zipped, tmp_path / "out")
    got = tree(tmp_path / "out")
    assert {k: v for k, v in got.items() if k != "manifest.json"} == {
        k: v for k, v in whole.items() if k != "manifest.json"
    }
    assert json.loads(got["manifest.json"])["counts"] == json.loads(whole["manifest.json"])["counts"]
    # A flipped byte inside: the zip's own checksum tells.
    path = zipped / "MINDlarge_train.zip"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"MINDlarge_train\.zip.*download it again"):
        run(plm, zipped, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_full_disk_is_no_fault_of_the_zip(plm, raw, tmp_path, monkeypatch):
    """It is said of the file that does not fit, and what is done stays for the next run."""
    for folder in raw.iterdir():
        with zipfile.ZipFile(tmp_path / f"{folder.name}.zip", "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
    out = tmp_path / "out"
    run(plm, tmp_path, out, part=(0, 2))
    unzipped = list((out / ".work").glob("*.tsv"))
    assert len(unzipped) == 3
    unzipped[0].unlink()

    @contextlib.contextmanager
    def full(path):
        try:
            yield Path("/dev/full")
        except OSError as error:
            error.filename = str(path)
            raise

    before = tree(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tnr_dist.data.prepare.raw.atomic_path", full)
        with pytest.raises(OSError, match="No space left") as error:
            run(plm, tmp_path, out)
    assert "make room" in os_error_advice(error.value) and str(unzipped[0]) in os_error_advice(error.value)
    assert before.items() <= tree(out).items()
    run(plm, tmp_path, out)


# Command line -----------------------------------------------------------------------------------------------------------


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tnr", "data", "prepare", *map(str, arguments)])
    try:
        app.main()
    except SystemExit as end:
        return end.code or 0
    return 0


def test_command_line(plm, raw, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert command(monkeypatch, "--input", raw, "--plm", plm, "--output", out, "--max-unknown", 1) == 0
    shown = capsys.readouterr().out
    for label in ("impressions read", "training samples", "dropped: unknown news", "first impression"):
        assert label in shown
    for bad, message in (
        (["--input", tmp_path / "none"], "no such folder"),
        (["--input", raw, "--part", "4/3"], "expected i/n"),
        (["--input", raw, "--part", "1/3", "--merge"], "exclude each other"),
        (["--input", raw, "--dev-split", "x"], "split rule 'x'"),
        (["--input", raw, "--max-unknown", "0"], "in no news.tsv"),
        (["--input", raw, "--plm", tmp_path], "no tokenizer"),
        ([], "nothing to prepare"),
    ):
        assert command(monkeypatch, "--plm", plm, "--output", tmp_path / "bad", *bad) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("tnr: ") and message in error
        assert not (tmp_path / "bad").exists()


def test_print_counts_of_a_corpus_alone(capsys):
    corpus = {"articles": 1000, "kept": 998, "without_title": 1, "without_body": 1, "title_tokens": 5, "body_tokens": 6}
    print_counts({"counts": {"corpus": corpus}, "request": {"corpus": True}})
    shown = capsys.readouterr().out
    assert "(title, body) pairs" in shown and "1 (0.1 %)" in shown and "impressions" not in shown


def test_generated_data_is_known_as_such(prepared, raw_mind, tmp_path):
    assert read_manifest(prepared)["generated"] is True and is_generated(prepared)
    assert is_generated_input(PrepareOptions(input=str(raw_mind)))
    assert is_generated_input(PrepareOptions(input=str(raw_mind / "train")))
    assert is_generated_input(PrepareOptions(corpus=str(raw_mind / "corpus.tsv")))
    logs = tmp_path / "logs"
    logs.mkdir()
    assert not is_generated_input(PrepareOptions(input=str(logs)))
    assert not is_generated_input(PrepareOptions(input=str(logs), corpus=str(raw_mind / "corpus.tsv")))
    # Data sets of earlier versions do not say so.
    old = tmp_path / "data"
    old.mkdir()
    manifest = read_manifest(prepared)
    for name in ("generated", "files", "plm_digest", "digest"):
        del manifest[name]
    (old / "manifest.json").write_text(json.dumps(manifest))
    assert not is_generated(old)
    (tmp_path / "data-raw").mkdir()
    (tmp_path / "data-raw/synth.json").write_text("{}")
    assert is_generated(old)
