"""Raw files as people have them: headers, other separators and times, packed files, odd rows, archives without end.

`tnr data verify` and `tnr data prepare` read them by the same functions; the last tests compare the two on inputs that are
damaged at random.
"""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.prepare.raw import random_split, write_vocabulary
from tnr_dist.data.prepare import raw_files
from tnr_dist.data.prepare.columns import BEHAVIOUR_COLUMNS, NEWS_COLUMNS, is_header, start_of_rows
from tnr_dist.data.prepare.counts import print_counts
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.data.prepare.raw import read_news
from tnr_dist.data.prepare.raw_files import Source, find_splits
from tnr_dist.data.prepare.times import FORMS, parse_times
from tnr_dist.data.prepare.verify import verify_download
from tnr_dist.util.errors import InputError

NEWS_HEADER = "news_id\tcategory\tsubcategory\ttitle\tabstract\turl\ttitle_entities\tabstract_entities\n"
ROWS_HEADER = "impression_id\tuser_id\ttime\thistory\timpressions\n"


@pytest.fixture(scope="module")
def plm(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("plm"))


@pytest.fixture
def train(tmp_path):
    """raw/train with sound files of 40 rows, for the test to change."""
    return random_split(11, rows=40, unknown=0).write(tmp_path / "raw" / "train")


def prepared(raw: Path, plm: str, output: Path, **options) -> dict:
    return prepare(PrepareOptions(input=str(raw), plm=plm, block_size=8, **options), output, processes=1)


def refusal(raw: Path, plm: str, output: Path) -> str:
    """What `prepare` says of a folder; '' when it takes it."""
    try:
        prepared(raw, plm, output)
    except InputError as error:
        assert not output.exists()
        return str(error)
    return ""


def first_error(raw: Path) -> str:
    """What `verify` says first of a folder, in the words of `prepare`; '' when all is well."""
    for finding in verify_download(raw):
        if finding.level == "error":
            assert finding.advice
            separator = ", " if finding.message.startswith("line ") else ": "
            return f"{finding.where}{separator}{finding.message}"
    return ""


def change(path: Path, edit) -> None:
    path.write_bytes(edit(path.read_bytes().decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"))


# Headers --------------------------------------------------------------------------------------------------------------

NEWS_HEADERS = [
    NEWS_HEADER,
    NEWS_HEADER.replace("\n", "\r\n"),
    "\ufeff" + NEWS_HEADER,
    NEWS_HEADER.upper(),
    "News ID\tCategory\tSubCategory\tTitle\tAbstract\tURL\tTitle Entities\tAbstract Entities\n",
    "#nid\tnews_category\tnews_subcategory\theadline\tsummary\tlink\te\tf\n",
    "0\t1\t2\t3\t4\t5\t6\t7\n",
    "Kennung\tcategory\tsubcategory\ttitle\tabstract\turl\t\t\n",
    "nid\tvert\tsubvert\ttitle\tab\turl\t_\t_\n",
    '"itemId"\t"topic"\t"subtopic"\t"newsTitle"\t"description"\t""\t""\t""\n',
]
ROWS_HEADERS = [
    ROWS_HEADER,
    ROWS_HEADER.replace("\n", "\r\n"),
    "\ufeff" + ROWS_HEADER,
    "ImpressionID\tUserID\tTime\tHistory\tImpressions\n",
    "impr_index\tuid\ttimestamp\tclick history\tcandidate_news\n",
    "id\tuser\tdatetime\thist\timpr\n",
    "1\t2\t3\t4\t5\n",
    "_\tuid\ttime\thistory\timpr\n",
]


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("where", ["news", "behaviors", "both"])
def test_a_header_row_is_skipped_and_counted(train, plm, tmp_path, number, where):
    plain = prepared(train.parent, plm, tmp_path / "plain")
    assert "header_rows" not in plain["counts"]
    if where != "behaviors":
        change(train / "news.tsv", lambda text: NEWS_HEADERS[number] + text)
    if where != "news":
        change(train / "behaviors.tsv", lambda text: ROWS_HEADERS[number % 8] + text)
    assert first_error(train.parent) == ""
    got = prepared(train.parent, plm, tmp_path / "out")
    assert got["counts"].pop("header_rows") == (2 if where == "both" else 1)
    assert got["counts"] == plain["counts"]
    news = pq.read_table(tmp_path / "out" / "news.parquet")
    assert news == pq.read_table(tmp_path / "plain" / "news.parquet")


def test_a_header_of_other_columns_is_refused(train, plm, tmp_path):
    other = "title\tnews_id\tcategory\tsubcategory\tabstract\turl\ta\tb\n"
    change(train / "news.tsv", lambda text: other + text)
    said = refusal(train.parent, plm, tmp_path / "out")
    assert "news.tsv, line 1: a header row whose column 1 is 'title'; expected the order id, category" in said
    assert first_error(train.parent) == said
    change(train / "news.tsv", lambda text: "news_id\ttitle\tabstract\n" + text.partition("\n")[2])
    assert "line 1: a header row of 3 columns" in refusal(train.parent, plm, tmp_path / "out")


@pytest.mark.parametrize("number", [0, 3, 4, 5])
def test_a_header_inside_a_file_is_refused(train, plm, tmp_path, number):
    both = (train / "news.tsv").read_text()
    change(train / "news.tsv", lambda text: NEWS_HEADER + text + NEWS_HEADERS[number])
    said = refusal(train.parent, plm, tmp_path / "out")
    assert (
        f"line {both.count(chr(10)) + 2}: a header row among the news" in said == said
        and first_error(train.parent) == said
    )
    (train / "news.tsv").write_text(both)
    change(train / "behaviors.tsv", lambda text: text + ROWS_HEADER)
    said = refusal(train.parent, plm, tmp_path / "out")
    assert (
        "line 41: impression id 'impression_id'" in said and "header row" in said and first_error(train.parent) == said
    )


def test_lines_are_numbered_with_the_header(train, plm, tmp_path):
    change(train / "behaviors.tsv", lambda text: ROWS_HEADER + text + "9\tU1\t11/15/2019 8:55:22 AM\t\tN1-2\n")
    change(train / "news.tsv", lambda text: NEWS_HEADER + text)
    assert "behaviors.tsv, line 42: candidate 'N1-2'" in refusal(train.parent, plm, tmp_path / "out")
    change(train / "news.tsv", lambda text: text + text.splitlines(True)[3])
    assert "news.tsv, line 32: news id 'N2' is also in line 4" in refusal(train.parent, plm, tmp_path / "out")


def test_a_header_alone_is_no_file(train, plm, tmp_path):
    for name, header in (("behaviors.tsv", ROWS_HEADER), ("news.tsv", NEWS_HEADER)):
        (train / name).write_text(header)
        said = refusal(train.parent, plm, tmp_path / "out")
        assert f"{name}: a header row and no" in said and first_error(train.parent) == said


@pytest.mark.parametrize(
    "row",
    [
        "N1\tnews\tnewspolitics\tTitle\tSummary",
        "N1\tnews\tsection\tAbstract of a title\t",
        "N1\tarticle\ttext\tSummary\tTitle",
        "N7\ttravel\titem\tTime, history and impressions of a user\t",
    ],
)
def test_news_are_no_headers(row):
    assert not is_header(row.split("\t"), NEWS_COLUMNS)
    assert start_of_rows(f"{row}\n".encode(), NEWS_COLUMNS, "x").byte == 0


def test_impressions_are_no_headers():
    assert not is_header(["1", "user", "11/15/2019 8:55:22 AM", "history", "N1-0"], BEHAVIOUR_COLUMNS)


# Columns and separators -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [1, 2, 17, 30])
@pytest.mark.parametrize("column", [3, 4])
def test_the_odd_line_of_news_is_named(train, plm, tmp_path, line, column):
    lines = (train / "news.tsv").read_text().splitlines()
    fields = lines[line - 1].split("\t")
    fields[column] = f"left\tright {fields[column]}"
    lines[line - 1] = "\t".join(fields)
    (train / "news.tsv").write_text("\n".join(lines))
    said = refusal(train.parent, plm, tmp_path / "out")
    assert said.endswith(
        f"news.tsv, line {line}: 9 tab-separated columns, expected 8 as in most rows (a tab inside a text?)"
    )
    assert first_error(train.parent) == said


def test_of_two_rows_the_one_like_minds_is_right(train, plm, tmp_path):
    lines = (train / "news.tsv").read_text().splitlines(True)[:2]
    (train / "news.tsv").write_text(lines[0].replace("\tsports\t", "\tspo\trts\t") + lines[1])
    assert "news.tsv, line 1: 9 tab-separated columns, expected 8" in refusal(train.parent, plm, tmp_path / "out")


@pytest.mark.parametrize("sign", [":", "_", "|", "="])
def test_another_sign_of_labels_is_guessed(train, plm, tmp_path, sign):
    change(train / "behaviors.tsv", lambda text: text.replace("-0", f"{sign}0").replace("-1", f"{sign}1"))
    said = refusal(train.parent, plm, tmp_path / "out")
    assert "(fifth column)" in said and f"labels seem to follow a {sign!r}, '-' is expected" in said
    assert first_error(train.parent) == said


@pytest.mark.parametrize("name", ["news.tsv", "behaviors.tsv"])
def test_what_is_no_file_is_not_waited_for(train, plm, tmp_path, name):
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()):
        (train / name).unlink()
        make(train / name)
        said = refusal(train.parent, plm, tmp_path / "out")
        assert said.endswith(f"{name}: no file, or not a regular one") and first_error(train.parent) == said
        if (train / name).is_dir():
            (train / name).rmdir()
    os.mkfifo(train.parent / "dev.zip")
    assert "regular" not in first_error(train.parent)


@pytest.mark.parametrize(("separator", "said"), [("|", "'|'"), (";", "';'"), (",", "','"), ("    ", "spaces")])
@pytest.mark.parametrize("name", ["news.tsv", "behaviors.tsv"])
def test_another_separator_of_columns_is_guessed(train, plm, tmp_path, separator, said, name):
    change(train / name, lambda text: text.replace("\t", separator))
    got = refusal(train.parent, plm, tmp_path / "out")
    assert f"{name}, line 1: no tabs; the columns seem to be separated by {said}, expected" in got
    assert first_error(train.parent) == got


@pytest.mark.parametrize("separator", [",", ";", "|", ", "])
@pytest.mark.parametrize("rows", ["all", "most"])
@pytest.mark.parametrize("column", [3, 4])
def test_another_separator_of_news_is_refused(train, plm, tmp_path, separator, rows, column):
    lines = [line.split("\t") for line in (train / "behaviors.tsv").read_text().splitlines()]
    for number, fields in enumerate(lines):
        if rows == "all" or number % 4:
            fields[column] = separator.join(fields[column].split())
    (train / "behaviors.tsv").write_text("".join("\t".join(fields) + "\n" for fields in lines))
    said = refusal(train.parent, plm, tmp_path / "out")
    assert first_error(train.parent) == said
    if column == 4 and separator == ", ":
        assert "candidate 'N" in said and "expected NEWS-0 or NEWS-1, separated by spaces" in said
    else:
        assert ("(fourth column)" if column == 3 else "(fifth column)") in said
        assert f"separated by {separator.strip()!r}, spaces are expected" in said


def test_rows_without_labels_are_named(train, plm, tmp_path):
    lines = (train / "behaviors.tsv").read_text().splitlines(True)
    for line in (1, 23):
        odd = [*lines]
        head, _, words = odd[line - 1].rpartition("\t")
        odd[line - 1] = f"{head}\t{words.replace('-0', '').replace('-1', '')}"
        (train / "behaviors.tsv").write_text("".join(odd))
        said = refusal(train.parent, plm, tmp_path / "out")
        assert f"behaviors.tsv, line {line}: candidate 'N" in said and "expected NEWS-0 or NEWS-1" in said
        assert first_error(train.parent) == said


def test_a_label_in_a_split_without_labels(train, plm, tmp_path):
    change(
        train / "behaviors.tsv", lambda text: text.replace("-0", "").replace("-1", "") + "9\tU\t1573813522\t\tN1-1\n"
    )
    said = refusal(train.parent, plm, tmp_path / "out")
    assert "line 41: candidate 'N1-1': a label in a split whose impressions have none" in said
    assert first_error(train.parent) == said


# Times ----------------------------------------------------------------------------------------------------------------

SECONDS = 1_573_806_122  # 2019-11-15 08:22:02 UTC


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("11/15/2019 8:22:02 AM", "mind"),
        ("2019-11-15T08:22:02", "iso"),
        ("2019-11-15 08:22:02", "iso"),
        ("2019-11-15t08:22:02z", "iso"),
        ("2019-11-15T08:22:02Z", "iso"),
        ("2019-11-15T08:22:02.123456Z", "iso"),
        ("2019-11-15T08:22:02,5", "iso"),
        ("2019-11-15T10:22:02+02:00", "iso"),
        ("2019-11-15T10:22:02.5+0200", "iso"),
        ("2019-11-15 03:22:02-05", "iso"),
        ("2019-11-14T22:52:02-09:30", "iso"),
        ("20191115T082202Z", "iso"),
        ("2019-11-15 08:22:02 UTC", "iso"),
        ("1573806122", "unix_seconds"),
        ("1573806122.75", "unix_seconds"),
        ("1573806122000", "unix_milliseconds"),
        ("1573806122999", "unix_milliseconds"),
    ],
)
def test_forms_of_times(text, form):
    seconds, forms = parse_times(pa.array([text, "1/1/1970 12:00:00 AM"], pa.large_string()), np.array([1, 2]), "x")
    assert seconds.tolist() == [SECONDS, 0]
    assert [FORMS[one] for one in forms] == [form, "mind"]


def test_a_minute_or_a_day_is_a_time():
    seconds, _ = parse_times(pa.array(["2019-11-15T08:22", "2019-11-15"], pa.large_string()), np.array([1, 2]), "x")
    assert seconds.tolist() == [SECONDS - 2, SECONDS - 2 - 8 * 3600 - 22 * 60]


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "now", "2019-13-15T08:22:02", "2019-02-30T08:22:02", "2019-11-15T24:00:01", "2019-11-15T08:60:02",
        "2019-11-15T08:22:02+25:00", "1969-12-31T23:59:59", "1970-01-01T00:00:00+01:00", "12345678", "15738061220",
        "157380612200", "1573806122000000", "-1573806122", "1.5738e9", "15/11/2019 8:22:02 AM", "2019-W46-5", "nan",
        "2019-11-15T08:22:02Zulu", "2019/11/15 08:22:02", "9" * 400,
    ],
)  # fmt: skip
def test_what_is_no_time(text):
    with pytest.raises(InputError, match=r"x, line 5: time .*; expected 11/15/2019 8:55:22 AM, ISO 8601 as") as error:
        parse_times(pa.array(["1573806122", text], pa.large_string()), np.array([4, 5]), "x")
    assert len(str(error.value)) < 300


def test_iso_agrees_with_python():
    import datetime

    rng = random.Random(3)
    texts, want = [], []
    for _ in range(300):
        zone = datetime.timezone(datetime.timedelta(minutes=rng.randrange(-14 * 60, 14 * 60)))
        moment = datetime.datetime.fromtimestamp(rng.randrange(10**5, 4 * 10**9), zone)
        texts.append(moment.isoformat(rng.choice("T ")))
        want.append(int(moment.timestamp()))
    assert parse_times(pa.array(texts, pa.large_string()), np.arange(300), "x")[0].tolist() == want


@pytest.mark.parametrize("form", ["iso", "unix_seconds", "unix_milliseconds", "mixed"])
def test_times_of_other_forms_give_the_same_data_and_are_counted(train, plm, tmp_path, form, capsys):
    plain = prepared(train.parent, plm, tmp_path / "plain", dev_split="last-days:1")
    lines = [line.split("\t") for line in (train / "behaviors.tsv").read_text().splitlines()]
    times = pa.array([fields[2] for fields in lines], pa.large_string())
    for number, (fields, second) in enumerate(
        zip(lines, parse_times(times, np.arange(40), "x")[0].tolist(), strict=True)
    ):
        forms = {
            "iso": f"{np.datetime64(second, 's')}Z",
            "unix_seconds": str(second),
            "unix_milliseconds": f"{second}250",
        }
        fields[2] = [*forms.values(), fields[2]][number % 4] if form == "mixed" else forms[form]
    (train / "behaviors.tsv").write_text("".join("\t".join(fields) + "\n" for fields in lines))
    assert first_error(train.parent) == ""
    got = prepared(train.parent, plm, tmp_path / "out", dev_split="last-days:1")
    capsys.readouterr()
    print_counts(got)
    told = capsys.readouterr().out
    total = dict.fromkeys(FORMS[1:], 0)
    for split in ("train", "dev"):
        for name in FORMS[1:]:
            total[name] += got["counts"]["splits"][split].pop(f"times_{name}", 0)
    assert total == dict.fromkeys(FORMS[1:], 10) if form == "mixed" else total[form] == 40 == sum(total.values())
    assert got["counts"] == plain["counts"]
    assert ("ISO 8601" in told) == (form in ("iso", "mixed")) and ("milliseconds" in told) == (
        form not in ("iso", "unix_seconds")
    )


# What lies there instead -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst", "lz4", "7z", "zip"])
@pytest.mark.parametrize("names", [("news.tsv", "behaviors.tsv"), ("behaviors.tsv",), ("news.tsv",)])
def test_packed_files_are_named(train, plm, tmp_path, ending, names):
    for name in names:
        (train / name).rename(train / f"{name}.{ending}")
    for place in (train, train.parent):
        said = refusal(place, plm, tmp_path / "out")
        found = [f"; found {name}.{ending}: unpack it (" for name in names]
        assert [one in said for one in found] == [True] * len(names) and said.count("unpack it") == len(names)
        assert first_error(place) == said and "hf download" not in str(verify_download(place))


def test_a_packed_split_beside_others_is_not_passed_over(train, plm, tmp_path):
    (train.parent / "MINDsmall_dev.tar.gz").write_bytes(b"x")
    said = refusal(train.parent, plm, tmp_path / "out")
    assert "found MINDsmall_dev.tar.gz: unpack it (tar xf MINDsmall_dev.tar.gz)" in said
    (train.parent / "MINDsmall_dev.tar.gz").unlink()
    (train.parent / "test_predictions.tar.gz").write_bytes(b"x")
    assert refusal(train.parent, plm, tmp_path / "sound") == ""
    (train.parent / "dev").mkdir()
    (train.parent / "dev" / "news.tsv.gz").write_bytes(b"x")
    assert "dev: no news.tsv and behaviors.tsv in it; found news.tsv.gz" in refusal(train.parent, plm, tmp_path / "out")


@pytest.mark.parametrize("name", ["MINDsmall_train.tar.gz", "train.7z", "corpus.tsv.gz"])
def test_a_packed_file_as_input_is_to_be_unpacked(train, plm, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"x" * 100)
    if name.startswith("corpus"):
        with pytest.raises(InputError, match=r"corpus.tsv.gz: a packed file; unpack it \(gunzip corpus.tsv.gz\)"):
            prepared(train.parent, plm, tmp_path / "out", corpus=str(path))
    else:
        said = refusal(path, plm, tmp_path / "out")
        assert f"{name}: a packed file; unpack it (" in said and first_error(path) == said


@pytest.mark.parametrize("name", ["Behaviors.TSV", "behaviours.tsv", "behaviors.csv", "behaviors.txt"])
def test_files_of_other_names_are_named(train, plm, tmp_path, name):
    (train / "behaviors.tsv").rename(train / name)
    said = refusal(train.parent, plm, tmp_path / "out")
    assert f"no behaviors.tsv in it; found {name}: it must be tab-separated text and be called behaviors.tsv" in said


@pytest.mark.parametrize(("name", "other"), [("MINDsmall", "MINDlarge"), ("MINDlarge", "MINDsmall")])
def test_the_advice_is_about_the_data_set_that_is_there(train, name, other):
    train.rename(train.parent / f"{name}_train")
    advice = [finding.advice for finding in verify_download(train.parent) if "missing" in finding.message]
    assert advice and all(f"*{name}*" in one and other not in one for one in advice)
    (train.parent / f"{name}_train" / "behaviors.tsv").unlink()
    (train.parent / f"{name}_train" / "news.tsv").unlink()
    assert f"*{name}*" in verify_download(train.parent / f"{name}_train")[0].advice


# Archives and sizes ---------------------------------------------------------------------------------------------------


def pack(path: Path, files: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("member")
            info.filename = name  # backslashes as they are
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("folder", ["", "MINDsmall_train/", "MINDsmall_train\\", "a\\b\\", "__MACOSX/../"])
def test_zips_are_judged_as_they_are_prepared(train, plm, tmp_path, folder):
    files = {f"{folder}{name}": (train / name).read_bytes() for name in ("news.tsv", "behaviors.tsv")}
    pack(tmp_path / "zips" / "train.zip", files)
    said = refusal(tmp_path / "zips", plm, tmp_path / "out")
    assert bool(said) == (".." in folder)
    assert first_error(tmp_path / "zips") == said
    files[f"{folder}behaviors.tsv"] += b"1\tU\t1573806122\t\tN1-2\n"
    pack(tmp_path / "odd" / "train.zip", files)
    assert first_error(tmp_path / "odd") == refusal(tmp_path / "odd", plm, tmp_path / "out2") != ""


@pytest.mark.parametrize("name", ["news.tsv", "behaviors.tsv"])
def test_a_member_that_expands_without_bound_is_refused(train, plm, tmp_path, name, monkeypatch):
    monkeypatch.setattr(raw_files, "_SMALL", 1 << 20)
    files = {one: (train / one).read_bytes() for one in ("news.tsv", "behaviors.tsv")}
    files[name] += b" " * (4 << 20)
    pack(tmp_path / "zips" / "train.zip", files)
    before = sorted(tmp_path.rglob("*"))
    said = refusal(tmp_path / "zips", plm, tmp_path / "out")
    assert f"train.zip:{name}: unpacks from " in said and "more than 200 times as many" in said
    assert first_error(tmp_path / "zips") == said and sorted(tmp_path.rglob("*")) == before


def test_files_beyond_the_stated_size_are_refused(train, plm, tmp_path, monkeypatch):
    monkeypatch.setitem(raw_files.MOST_BYTES, "news.tsv", 100)
    said = refusal(train.parent, plm, tmp_path / "out")
    assert "news.tsv: " in said and "a news.tsv of more than 100 is not read" in said
    assert first_error(train.parent) == said
    pack(tmp_path / "zips" / "train.zip", {name: (train / name).read_bytes() for name in ("news.tsv", "behaviors.tsv")})
    with pytest.raises(InputError, match="more than 100 is not read"):
        read_news(find_splits(tmp_path / "zips")["train"].news)
    assert raw_files.MOST_BYTES["behaviors.tsv"] == 64 << 30
    (tmp_path / "other").write_text("x" * 1000)
    with Source(tmp_path / "other").open() as file:
        assert len(file.read()) == 1000


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("9\t{long}\t1573806122\t\tN1-0\n", "user id of 2,000,000 bytes"),
        ("9\tU\t1573806122\tN1 {long}\tN1-0\n", "news of a history of 2,000,000 bytes"),
        ("9\tU\t1573806122\t\tN1-0 {long}-1\n", "candidate of 2,000,002 bytes"),
        ("9\tU\t{long}\t\tN1-0\n", "time 'xxxx"),
    ],
)
def test_ids_without_end_are_refused_at_once(train, plm, tmp_path, row, what):
    change(train / "behaviors.tsv", lambda text: text + row.format(long="x" * 2_000_000))
    said = refusal(train.parent, plm, tmp_path / "out")
    assert f"behaviors.tsv, line 41: {what}" in said and first_error(train.parent) == said


@pytest.mark.parametrize("text", ["007", "+7", " 7", "7 ", "0x7"])
def test_ids_that_would_be_written_otherwise_are_refused(train, plm, tmp_path, text):
    change(train / "behaviors.tsv", lambda rows: rows + f"{text}\tU\t1573806122\t\tN1-0\n")
    said = refusal(train.parent, plm, tmp_path / "out")
    assert f"behaviors.tsv, line 41: impression id {text!r} is not a whole number" in said
    assert first_error(train.parent) == said


def test_a_byte_order_mark_inside_a_file_is_refused_in_every_line(train, plm, tmp_path):
    lines = (train / "behaviors.tsv").read_text().splitlines(True)
    for line in range(2, 41, 3):
        (train / "behaviors.tsv").write_text("".join([*lines[: line - 1], "\ufeff" + lines[line - 1], *lines[line:]]))
        said = refusal(train.parent, plm, tmp_path / "out")
        assert f"behaviors.tsv, line {line}: impression id" in said and first_error(train.parent) == said


@pytest.mark.parametrize("text", ["N3 ", " N3", "N 3"])
def test_news_ids_with_spaces_are_refused(train, plm, tmp_path, text):
    change(train / "news.tsv", lambda rows: rows.replace("N3\t", f"{text}\t", 1))
    said = refusal(train.parent, plm, tmp_path / "out")
    assert f"news.tsv, line 4: news id {text!r} holds a space" in said and first_error(train.parent) == said


def test_long_lines_between_others_are_refused(train, plm, tmp_path):
    change(train / "behaviors.tsv", lambda text: "9\tU\t1573806122\t" + "N1 " * (6 << 20) + "\tN1-0\n" + text)
    assert "behaviors.tsv, line 1: longer than 16,777,216 bytes" in refusal(train.parent, plm, tmp_path / "out")
    change(train / "behaviors.tsv", lambda text: text.partition("\n")[2])
    change(train / "news.tsv", lambda text: text + f"{'M' * 2000}\ta\tb\tc\td\te\t\t\n")
    assert "news.tsv, line 31: news id of 2,000 bytes" in refusal(train.parent, plm, tmp_path / "out")


# Verify and prepare ---------------------------------------------------------------------------------------------------


def _odd_field(rng: random.Random, text: str) -> str:
    kinds = ["", " ", text + " ", " " + text, text.replace(" ", "  "), text.replace(" ", ","), text.replace("-", "_")]
    kinds += [
        "\ufeff" + text,
        text + "\u00a0",
        "\\" + text,
        '"' + text + '"',
        text.replace("-0", ""),
        "-0",
        "N1-0",
        "x" * 3000,
    ]
    kinds += [
        "2019-02-30",
        "2019-11-15T08:22:02+01:00",
        "1573806122",
        "007",
        "+1",
        "1e3",
        "\udcff",
        "\0",
        "a\rb",
        "a\tb",
    ]
    return rng.choice(kinds)


def _odd(rng: random.Random, text: str, columns: int) -> str:
    """A file with one to three oddities."""
    lines = text.splitlines(True)
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(lines))
        kind = rng.randrange(9)
        if kind <= 3:
            fields = lines[at].rstrip("\n").split("\t")
            place = rng.randrange(min(columns, len(fields)))
            fields[place] = _odd_field(rng, fields[place])
            lines[at] = "\t".join(fields) + "\n"
        elif kind == 4:
            lines[at] = rng.choice(["\n", "\r\n", lines[at] * 2, lines[at].rstrip("\n"), lines[at].replace("\t", "|")])
        elif kind == 5:
            lines.insert(at, rng.choice([NEWS_HEADER, ROWS_HEADER, "1\t2\t3\n"]))
        elif kind == 6:
            column = rng.randrange(columns)
            other = rng.choice([",", ";", "|"])
            for number, line in enumerate(lines):
                fields = line.rstrip("\n").split("\t")
                if rng.random() < 0.8 and column < len(fields):
                    fields[column] = fields[column].replace(" ", other)
                    lines[number] = "\t".join(fields) + "\n"
        elif kind == 7:
            lines = [line.replace("\n", "\r\n") for line in lines]
        else:
            share = rng.random()
            end = rng.choice([("-0", ""), ("-1", ""), ("N", "M")])
            lines = [line.replace(*end) if rng.random() < share else line for line in lines]
    return "".join(lines) if rng.random() < 0.9 else "".join(lines).rstrip("\n")


@pytest.mark.parametrize("seed", range(8))
def test_verify_and_prepare_agree(plm, tmp_path, seed):
    """Both take an input, or both refuse it in the same words: file, line and what is wrong."""
    rng = random.Random(seed)
    refused = 0
    for number in range(20):
        place = tmp_path / str(number)
        raw = place / "raw"
        splits = {"train": random_split(rng.randrange(10**6), rows=30, unknown=rng.choice([0, 2]))}
        if rng.random() < 0.4:
            splits["dev"] = random_split(rng.randrange(10**6), rows=12, unknown=1, labelled=rng.random() < 0.7)
        for name, split in splits.items():
            split.write(raw / name)
        folder = raw / rng.choice(list(splits))
        for name, columns in rng.choice(
            [(("news.tsv", 5),), (("behaviors.tsv", 5),) * 2, (("news.tsv", 5), ("behaviors.tsv", 5))]
        ):
            change(folder / name, lambda text, columns=columns: _odd(rng, text, columns))
        if rng.random() < 0.3:
            inside = rng.choice(["", "x/", "x\\y\\"])
            pack(raw / f"{folder.name}.zip", {inside + one.name: one.read_bytes() for one in folder.iterdir()})
            for one in folder.iterdir():
                one.unlink()
            folder.rmdir()
        elif rng.random() < 0.1:
            path = folder / rng.choice(["news.tsv", "behaviors.tsv"])
            path.rename(path.with_name(path.name + ".gz"))
        said = refusal(raw, plm, place / "out")
        assert first_error(raw) == said
        refused += bool(said)
    assert 4 <= refused <= 19
