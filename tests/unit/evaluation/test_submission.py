"""prediction.zip: what is written reads back, and what is malformed is named by line."""

import json
import re
import struct
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tnr_dist.evaluation import prediction_text, submission
from tnr_dist.evaluation.metrics import NAMES, impression_metrics
from tnr_dist.evaluation.submission import check_prediction, write_prediction
from tnr_dist.util.errors import InputError


def make_zip(path, text, name="prediction.txt", more=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in ((name, text), *more):
            archive.writestr(member, content)
    return path


def read_prediction(path):
    """Ids, ranks and offsets of a prediction."""
    with zipfile.ZipFile(path) as archive:
        lines = [line.split(" ") for line in archive.read(submission.MEMBER).decode().splitlines()]
    ranks = [json.loads(line[1]) for line in lines]
    offsets = np.cumsum([0, *map(len, ranks)])
    return np.array([int(line[0]) for line in lines]), np.concatenate(ranks), offsets


def split_of(rng, impressions=200, largest=300, ties=False):
    sizes = rng.integers(1, largest + 1, impressions)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    scores = rng.standard_normal(offsets[-1]).astype(np.float32)
    ids = rng.permutation(10 * impressions)[:impressions]
    return ids, np.round(scores) if ties else scores, offsets


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("chunk", [1 << 20, 1, 700])
def test_round_trip(tmp_path, monkeypatch, ties, chunk):
    monkeypatch.setattr(submission, "_CHUNK_CANDIDATES", chunk)
    monkeypatch.setattr(prediction_text, "_CHUNK_BYTES", 4096)
    ids, scores, offsets = split_of(np.random.default_rng(0), ties=ties)
    path = tmp_path / "prediction.zip"
    write_prediction(path, ids, scores, offsets)

    read_ids, ranks, read_offsets = read_prediction(path)
    assert np.array_equal(read_ids, ids) and np.array_equal(read_offsets, offsets)
    for first, last in pairwise(offsets):
        order = np.argsort(-scores[first:last], kind="stable")
        assert np.array_equal(ranks[first:last][order], np.arange(1, last - first + 1))

    halves = [(ids[:90], np.diff(offsets)[:90]), (ids[90:], np.diff(offsets)[90:])]
    report = check_prediction(path, iter(halves))
    assert report["impressions"] == 200 and report["candidates"] == offsets[-1]
    assert report["zip_bytes"] == path.stat().st_size
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_the_format_of_mind(tmp_path):
    path = tmp_path / "prediction.zip"
    write_prediction(path, np.array([24486, 7]), np.array([0.1, 0.9, 0.5, 3.0]), np.array([0, 3, 4]))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["prediction.txt"]
        assert archive.read("prediction.txt") == b"24486 [3,1,2]\n7 [1]\n"


def test_ids_as_large_as_the_data_may_have_them(tmp_path):
    ids = np.array([0, 10**18, 1234567890123456789, 2**63 - 1])
    write_prediction(tmp_path / "p.zip", ids, np.zeros(6), np.array([0, 1, 3, 4, 6]))
    assert check_prediction(tmp_path / "p.zip", [(ids, np.array([1, 2, 1, 2]))])["impressions"] == 4
    assert read_prediction(tmp_path / "p.zip")[0].tolist() == ids.tolist()


def test_same_scores_give_the_same_bytes(tmp_path):
    split = split_of(np.random.default_rng(1))
    write_prediction(tmp_path / "a.zip", *split, threads=1)
    write_prediction(tmp_path / "b.zip", *split, threads=3)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("ties", [False, True])
def test_a_submission_scores_as_the_scores_do(tmp_path, ties):
    """The leaderboard sees 1 / rank only: MRR and nDCG must come out the same, but where it takes one order of a tie."""
    rng = np.random.default_rng(2)
    ids, scores, offsets = split_of(rng, 100, 40, ties=ties)
    labels = rng.random(len(scores)) < 0.2
    write_prediction(tmp_path / "p.zip", ids, scores, offsets)
    _, ranks, _ = read_prediction(tmp_path / "p.zip")
    ours, theirs = impression_metrics(scores, labels, offsets), impression_metrics(1 / ranks, labels, offsets)
    assert (ours.tied_share > 0.1) == ties and theirs.tied_share == 0 and (ties or not ours.tied.any())
    for name in NAMES[1:]:
        one, other = (getattr(found, name)[~ours.tied] for found in (ours, theirs))
        assert len(one) > 5
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize(
    ("ids", "scores", "offsets", "message"),
    [
        ([1, 2], [0.0, np.nan, 1.0], [0, 1, 3], "impression index 1, candidate 0 of 2"),
        ([1, 2], [0.0, np.inf, 1.0], [0, 1, 3], "impression index 1"),
        ([1, 2], [0.0, 1.0, 1.0], [0, 0, 3], r"impression 1 \(index 0\) has no candidates"),
        ([1, -2], [0.0, 1.0, 1.0], [0, 1, 3], "negative id"),
        ([7, 8, 7], [0.0, 1.0, 1.0], [0, 1, 2, 3], r"impression 7 \(index 2\) has the id of an earlier one"),
        ([1], [0.0, 1.0, 1.0], [0, 1, 3], "1 impression ids"),
    ],
)
def test_refuses_to_write_nonsense(tmp_path, ids, scores, offsets, message):
    with pytest.raises(InputError, match=message):
        write_prediction(tmp_path / "p.zip", np.array(ids), np.array(scores), np.array(offsets))
    assert not list(tmp_path.iterdir())


FAULTS = {
    "not a permutation": ("1 [1,2]\n2 [1,1,3]\n", r"line 2: rank 1 of candidate 2 occurs twice"),
    "rank above n": ("1 [1,2]\n2 [1,4,3]\n", r"line 2: rank 4 of candidate 2, but there are 3"),
    "rank zero": ("1 [0,1]\n", "line 1: .* is not of the form"),
    "leading zero": ("1 [01,2]\n", "line 1"),
    "negative": ("1 [1,-2]\n", "line 1"),
    "float ranks": ("1 [1.0,2.0]\n", "line 1"),
    "spaces between ranks": ("1 [1,2]\n2 [1, 2]\n", "line 2"),
    "no brackets": ("1 1,2\n", "line 1"),
    "unclosed": ("1 [1,2]\n2 [2,1\n", "line 2"),
    "empty list": ("1 []\n", "line 1"),
    "trailing comma": ("1 [1,2,]\n", "line 1"),
    "empty rank": ("1 [1,,2]\n", "line 1"),
    "blank line": ("1 [1,2]\n\n2 [1,2]\n", "line 2"),
    "id is no number": ("1 [1,2]\nN2 [1,2]\n", "line 2"),
    "no id": (" [1,2]\n", "line 1"),
    "text after": ("1 [1,2] 3\n", "line 1"),
    "huge rank": ("1 [99999999999999999999]\n", "line 1"),
    "huge id": ("99999999999999999999 [1]\n", "line 1"),
    "id beyond int64": (
        "1 [1]\n9223372036854775808 [1]\n",
        "line 2: impression id 9223372036854775808, but ids end at",
    ),
    "id of 19 nines": ("9999999999999999999 [1]\n", "line 1: impression id 9999999999999999999"),
    "repeated id": ("1 [1]\n2 [1]\n1 [1]\n", "line 3: impression 1 has a line already"),
    "empty file": ("", "empty"),
    "not ascii": ("１ [1]\n", "line 1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_names_the_line_that_is_wrong(tmp_path, name):
    text, message = FAULTS[name]
    path = make_zip(tmp_path / "p.zip", text)
    with pytest.raises(InputError, match=message) as error:
        check_prediction(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 [1,2]\n3 [1]\n2 [1]\n", "line 2: impression 3, but the split has 2 there"),
        ("1 [1,2]\n2 [1,2]\n3 [1]\n", "line 2: impression 2 has 2 ranks, but 1 candidates in the split"),
        ("1 [1,2]\n2 [1]\n", "ends after line 2, but the split has 3 .* impression 3 is the first"),
        ("1 [1,2]\n2 [1]\n3 [1]\n4 [1]\n", "line 4: one line too many; the split has 3"),
    ],
)
def test_compares_with_the_split(tmp_path, text, message):
    path = make_zip(tmp_path / "p.zip", text)
    assert check_prediction(path)["impressions"] == text.count("\n")
    with pytest.raises(InputError, match=message):
        check_prediction(path, [(np.array([1, 2, 3]), np.array([2, 1, 1]))])


@pytest.mark.parametrize("chunk", [1 << 22, 40])
@pytest.mark.parametrize(
    "text",
    [
        "1 [2,1]\r\n2 [1]\r\n3 [1,3,2]\r\n",
        "1 [2,1]\n2 [1]\n3 [1,3,2]\n\n",
        "1 [2,1]\n2 [1]\n3 [1,3,2]" + "\n \r\n\t" * 9,
        "1  [2,1]\n2\t[1] \n 3 [1,3,2]\n",
    ],
)
def test_what_the_scorer_skips_is_accepted(tmp_path, monkeypatch, text, chunk):
    """The leaderboard's scorer splits a line at white space, and stops reading after the last impression."""
    monkeypatch.setattr(prediction_text, "_CHUNK_BYTES", chunk)
    expected = [(np.array([1, 2, 3]), np.array([2, 1, 3]))]
    path = make_zip(tmp_path / "p.zip", text)
    assert check_prediction(path, expected)["candidates"] == 6
    (tmp_path / "prediction.txt").write_text(text, newline="")
    with pytest.raises(InputError, match=r"prediction\.txt: its 3 lines are right, but it is plain text; zip it"):
        check_prediction(tmp_path / "prediction.txt", expected)


def test_plain_text_is_looked_at_before_it_is_zipped(tmp_path):
    (tmp_path / "prediction.txt").write_text("1 [2,1]\n2 [2]\n")
    with pytest.raises(InputError, match=r"prediction\.txt line 2: rank 2 of candidate 1"):
        check_prediction(tmp_path / "prediction.txt")


def test_blank_lines_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_text, "_CHUNK_BYTES", 1000)
    with pytest.raises(InputError, match="bytes of blank lines"):
        check_prediction(make_zip(tmp_path / "p.zip", "1 [1]\n" + "\n" * 9000))


def test_a_missing_last_newline_is_no_fault(tmp_path):
    assert check_prediction(make_zip(tmp_path / "p.zip", "1 [2,1]\n2 [1]"))["candidates"] == 3


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("sub/prediction.txt", (), "holds 'sub/prediction.txt'; it must hold exactly one file"),
        ("../prediction.txt", (), r"holds '\.\./prediction\.txt'"),
        ("prediction.txt", (("__MACOSX/._prediction.txt", "x"),), "exactly one file"),
        ("predictions.txt", (), "exactly one file"),
    ],
)
def test_the_zip_holds_one_member_at_its_top(tmp_path, name, more, message):
    with pytest.raises(InputError, match=message):
        check_prediction(make_zip(tmp_path / "p.zip", "1 [1]\n", name, more))


def test_damaged_zips(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such file"):
        check_prediction(tmp_path / "none.zip")
    with pytest.raises(InputError, match="a folder"):
        check_prediction(tmp_path)
    (tmp_path / "text.zip").write_text("something else\n")
    with pytest.raises(InputError, match="not a readable zip"):
        check_prediction(tmp_path / "text.zip")

    good = make_zip(tmp_path / "good.zip", "".join(f"{i} [2,1,3]\n" for i in range(1, 3000)))
    data = good.read_bytes()
    (tmp_path / "short.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="not a readable zip"):
        check_prediction(tmp_path / "short.zip")
    for place in range(60, len(data) - 120, 400):
        flipped = bytearray(data)
        flipped[place] ^= 0x55
        (tmp_path / "flipped.zip").write_bytes(flipped)
        with pytest.raises(InputError):
            check_prediction(tmp_path / "flipped.zip")

    # The size that the archive's directory claims, 8 bytes before its name's length.
    at = data.index(b"PK\x01\x02") + 24
    bomb = data[:at] + struct.pack("<I", 0xFFFFFFF0) + data[at + 4 :]
    (tmp_path / "bomb.zip").write_bytes(bomb)
    monkeypatch.setattr(prediction_text, "_MAX_TEXT_BYTES", 1 << 30)
    with pytest.raises(InputError, match="refused"):
        check_prediction(tmp_path / "bomb.zip")


def test_a_file_without_line_ends_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_text, "_CHUNK_BYTES", 1000)
    with pytest.raises(InputError, match="a line of more than 1000 bytes"):
        check_prediction(make_zip(tmp_path / "p.zip", "1" * 100_000))


def test_the_line_number_counts_over_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_text, "_CHUNK_BYTES", 64)
    lines = [f"{i} [2,1,3]" for i in range(1, 101)]
    lines[76] = "77 [2,1,4]"
    with pytest.raises(InputError, match=r"line 77: rank 4"):
        check_prediction(make_zip(tmp_path / "p.zip", "\n".join(lines)))


@given(
    st.lists(st.sampled_from(["1", "2", "0", " ", "[", "]", ",", "\n", "1 [1]\n", "2 [2,1]\n", "-", "é"]), max_size=12)
)
@settings(max_examples=600, deadline=None)
def test_the_fast_check_agrees_with_the_check_of_each_line(pieces):
    text = "".join(pieces).encode() + b"\n"
    faults = [prediction_text.line_fault(line) for line in text.split(b"\n")[:-1]]
    parsed = prediction_text.parse(text)
    assert (parsed is None) == any(faults)
    if parsed is not None:
        ids, ranks, counts = parsed
        rows = [[int(n) for n in re.findall(rb"\d+", line)] for line in text.split(b"\n")[:-1]]
        assert ids.tolist() == [row[0] for row in rows] and counts.tolist() == [len(row) - 1 for row in rows]
        assert ranks.tolist() == [rank for row in rows for rank in row[1:]]
