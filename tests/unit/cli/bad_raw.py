"""Malformed raw files and arguments of `tnr data prepare` and `tnr data synth`."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.cli.bad_table import CORPUS, NEWS, ROWS, Place, add, case

TIME = "11/15/2019 8:55:22 AM"

# behaviors.tsv --------------------------------------------------------------------------------------------------------

_BAD_ROWS = {
    "too_few_columns": (f"3\tU3\t{TIME}\n", "3 tab-separated columns"),
    "too_many_columns": (f"3\tU3\t{TIME}\tN1\tN1-0\tx\n", "6 tab-separated columns"),
    "bad_time": ("3\tU3\t2019/11/15 08:55:22\tN1\tN1-0\n", "time '2019/11/15 08:55:22'"),
    "time_of_no_day": ("3\tU3\t13/45/2019 8:55:22 AM\tN1\tN1-0\n", "time '13/45/2019"),
    "candidate_without_label": (f"3\tU3\t{TIME}\tN1\tN1-0 N2\n", "candidate 'N2'"),
    "candidate_with_another_label": (f"3\tU3\t{TIME}\tN1\tN1-0 N2-2\n", "candidate 'N2-2'"),
    "candidate_without_news": (f"3\tU3\t{TIME}\tN1\tN1-0 -1\n", "candidate '-1'"),
    "nul_bytes": (f"3\tU\0\t{TIME}\tN1\tN1-0\n", "NUL byte"),
    "carriage_return": (f"3\tU3\t{TIME}\tN1\rN2\tN1-0\n", "carriage return"),
    "empty_line": ("\n", "an empty line"),
    "impression_id_is_text": (f"three\tU3\t{TIME}\tN1\tN1-0\n", "impression id 'three'"),
    "impression_id_negative": (f"-5\tU3\t{TIME}\tN1\tN1-0\n", "impression id '-5'"),
    "time_of_a_day_too_many": ("3\tU3\t2/30/2019 8:55:22 AM\tN1\tN1-0\n", "time '2/30/2019"),
    "impression_id_is_missing": (f"\tU3\t{TIME}\tN1\tN1-0\n", "impression id ''"),
    "impression_id_of_thirty_digits": (f"{'7' * 30}\tU3\t{TIME}\tN1\tN1-0\n", "impression id '7777"),
    "impression_id_of_a_million_letters": (f"{'x' * 10**6}\tU3\t{TIME}\tN1\tN1-0\n", "impression id 'xxxx"),
    "impression_id_with_zeros_before": (f"007\tU3\t{TIME}\tN1\tN1-0\n", "impression id '007'"),
    "impression_id_with_a_sign": (f"-0\tU3\t{TIME}\tN1\tN1-0\n", "impression id '-0'"),
    "user_is_missing": (f"3\t\t{TIME}\tN1\tN1-0\n", "empty user id"),
    "candidate_of_a_million_letters": (f"3\tU3\t{TIME}\tN1\t{'N' * 10**6}\n", "candidate of 1,000,000 bytes"),
}
for _name, (_row, _says) in _BAD_ROWS.items():
    add(
        f"behaviors_{_name}",
        lambda place, row=_row: place.prepare(input=place.raw(behaviors=ROWS + row)),
        "behaviors.tsv, line 3",
        _says,
        working=True,
    )
add(
    "behaviors_empty",
    lambda place: place.prepare(input=place.raw(behaviors="")),
    "behaviors.tsv",
    "empty",
    working=True,
)
add("behaviors_missing", lambda place: place.prepare(input=place.raw(behaviors=None)), "no behaviors.tsv")
add(
    "behaviors_utf16",
    lambda place: place.prepare(input=place.raw(behaviors=ROWS.encode("utf-16"))),
    "behaviors.tsv, line 1",
    "NUL byte",
    working=True,
)
add(
    "behaviors_latin1",
    lambda place: place.prepare(input=place.raw(behaviors=ROWS.replace("U2", "Zo\xeb").encode("latin-1"))),
    "behaviors.tsv, line 2",
    "not UTF-8",
    working=True,
)


@case("behaviors.tsv, line 3", "longer than", working=True)
def behaviors_line_of_100_mb(place: Place) -> list[Any]:
    folder = place.raw()
    with (folder / "behaviors.tsv").open("ab") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    return place.prepare(input=folder)


@case("in no news.tsv", working=True)
def behaviors_of_other_news(place: Place) -> list[Any]:
    return place.prepare(input=place.raw(behaviors=ROWS.replace("N1", "N8").replace("N2", "N9")))


@case("behaviors.tsv: no candidates in any row", working=True)
def behaviors_without_candidates(place: Place) -> list[Any]:
    return place.prepare(input=place.raw(behaviors=f"1\tU1\t{TIME}\tN1\t\n2\tU2\t{TIME}\t\t\n"))


# news.tsv -------------------------------------------------------------------------------------------------------------

_BAD_NEWS = {
    "empty": ("", "the file is empty"),
    "of_three_columns": ("N1\tnews\tx\n", "3 tab-separated columns"),
    "with_a_truncated_row": (NEWS + "N3\tnews\n", "line 3: 2 tab-separated columns"),
    "with_nul_bytes": (NEWS + "N3\tnews\tx\t\0\t\tu\t[]\t[]\n", "line 3: a NUL byte"),
    "with_an_empty_line": (NEWS + "\n" + NEWS.replace("N", "M"), "line 3: an empty line"),
    "with_a_repeated_id": (NEWS + NEWS, "line 3: news id 'N1' is also in line 1"),
    "without_an_id": (NEWS + "\tnews\tx\tT\tA\tu\t[]\t[]\n", "line 3: empty news id"),
    "with_an_id_before_a_space": (NEWS + "N3 \tnews\tx\tT\tA\tu\t[]\t[]\n", "line 3: news id 'N3 ' holds a space"),
    "with_an_id_before_a_fixed_space": (NEWS + "N3\xa0\tnews\tx\tT\tA\tu\t[]\t[]\n", "line 3: news id 'N3\\xa0' holds"),
    "with_an_id_of_two_words": (NEWS + "N 3\tnews\tx\tT\tA\tu\t[]\t[]\n", "line 3: news id 'N 3' holds a space"),
    "in_utf16": (NEWS.encode("utf-16"), "NUL byte"),
    "in_latin1": (NEWS.replace("Other", "\xd6ther").encode("latin-1"), "line 2: not UTF-8"),
    "of_binary": (bytes(range(256)) * 40, "news.tsv"),
}
for _name, (_text, _says) in _BAD_NEWS.items():
    add(f"news_{_name}", lambda place, text=_text: place.prepare(input=place.raw(news=text)), "news.tsv", _says)
add("news_missing", lambda place: place.prepare(input=place.raw(news=None)), "no news.tsv")


@case("news.tsv, line 3", "longer than")
def news_line_of_100_mb(place: Place) -> list[Any]:
    folder = place.raw()
    with (folder / "news.tsv").open("ab") as file:
        file.write(b"N3\tnews\tx\t")
        for _ in range(100):
            file.write(b"word " * 200_000)
        file.write(b"\t\tu\t[]\t[]\n")
    return place.prepare(input=folder)


@case("news.tsv")
def news_is_a_folder(place: Place) -> list[Any]:
    folder = place.raw(news=None)
    (folder / "news.tsv").mkdir()
    return place.prepare(input=folder)


@case("news.tsv")
def news_is_a_dangling_link(place: Place) -> list[Any]:
    folder = place.raw(news=None)
    (folder / "news.tsv").symlink_to("nowhere")
    return place.prepare(input=folder)


# Archives -------------------------------------------------------------------------------------------------------------


def _archive(place: Place, members: dict[str, str]) -> Path:
    folder = place.path / "raw"
    folder.mkdir()
    with zipfile.ZipFile(folder / "MINDsmall_train.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder


for _name, _member in {
    "escaping": "../../behaviors.tsv",
    "absolute": "/tmp/behaviors.tsv",
    "of_windows": "C:\\x\\behaviors.tsv",
    "escaping_with_backslashes": "..\\..\\behaviors.tsv",
}.items():
    add(
        f"zip_with_a_path_{_name}",
        lambda place, member=_member: place.prepare(input=_archive(place, {"news.tsv": NEWS, member: ROWS})),
        "MINDsmall_train.zip",
        "points out of the archive",
    )


@case("MINDsmall_train.zip", "symbolic link")
def zip_with_a_symlink(place: Place) -> list[Any]:
    folder = _archive(place, {"behaviors.tsv": ROWS})
    with zipfile.ZipFile(folder / "MINDsmall_train.zip", "a") as archive:
        member = zipfile.ZipInfo("news.tsv")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    return place.prepare(input=folder)


@case("MINDsmall_train.zip", "not a readable zip")
def zip_truncated(place: Place) -> list[Any]:
    folder = _archive(place, {"news.tsv": NEWS, "behaviors.tsv": ROWS})
    path = folder / "MINDsmall_train.zip"
    path.write_bytes(path.read_bytes()[:-40])
    return place.prepare(input=folder)


@case("MINDsmall_train.zip:news.tsv", "CRC")
def zip_with_a_flipped_bit(place: Place) -> list[Any]:
    folder = _archive(place, {"news.tsv": NEWS, "behaviors.tsv": ROWS})
    path = folder / "MINDsmall_train.zip"
    path.write_bytes(path.read_bytes().replace(b"A title", b"B title"))
    return place.prepare(input=folder)


@case("2 files news.tsv")
def zip_with_two_news_files(place: Place) -> list[Any]:
    return place.prepare(input=_archive(place, {"news.tsv": NEWS, "again/news.tsv": NEWS, "behaviors.tsv": ROWS}))


@case("train", "no news.tsv")
def zip_of_nothing(place: Place) -> list[Any]:
    return place.prepare(input=_archive(place, {}))


@case("not a readable zip")
def input_is_a_text_file(place: Place) -> list[Any]:
    return place.prepare(input=place.raw() / "news.tsv")


add("input_missing", lambda place: place.prepare(input=place.path / "none"), "none: no such folder")

# Corpora --------------------------------------------------------------------------------------------------------------

_BAD_CORPORA: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "the file is empty"),
    "of_two_columns": ("N1\tA title\n", "line 1: 2 tab-separated columns"),
    "with_a_truncated_row": (CORPUS + "N2\tnews\n", "line 2: 2 tab-separated columns"),
    "with_nul_bytes": (CORPUS + "N2\tnews\tx\tT\tA\t\0\n", "line 2: a NUL byte"),
    "in_latin1": ((CORPUS + "N2\tnews\tx\tT\tA\tK\xf6ln\n").encode("latin-1"), "line 2: not UTF-8"),
    "in_utf16": (CORPUS.encode("utf-16"), "corpus.tsv"),
    "without_any_body": ("N1\tnews\tx\tA title\tAn abstract\t \n", "no article has both"),
    "with_a_repeated_id": (CORPUS + CORPUS, "articles 1 and 2 have one id"),
    "with_a_repeated_column": ("title\ttitle\tbody\nA\tB\tC\n", "title"),
}


def _corpus(place: Place, name: str, content: str | bytes) -> list[Any]:
    path = place.path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return place.prepare("--corpus", path)


for _name, (_content, _says) in _BAD_CORPORA.items():
    add(
        f"corpus_{_name}",
        lambda place, content=_content: _corpus(place, "corpus.tsv", content),
        "corpus.tsv",
        _says,
        working=True,
    )
add("corpus_missing", lambda place: place.prepare("--corpus", place.path / "c.tsv"), "c.tsv: no such corpus")
add("corpus_no_parquet", lambda place: _corpus(place, "c.parquet", "no table"), "c.parquet", "Parquet")


def _table(place: Place, **columns: list[Any]) -> list[Any]:
    pq.write_table(pa.table(columns), place.path / "c.parquet")
    return place.prepare("--corpus", place.path / "c.parquet")


add("corpus_parquet_without_titles", lambda place: _table(place, text=["a"], body=["b"]), "c.parquet", "columns body")
add(
    "corpus_parquet_of_numbers",
    lambda place: _table(place, title=[1], body=["b"]),
    "c.parquet",
    "column title holds int64",
)
add(
    "corpus_parquet_of_lists",
    lambda place: _table(place, id=[["a"]], title=["t"], body=["b"]),
    "c.parquet",
    "cast from list",
)


@case("c.parquet", "Parquet")
def corpus_parquet_truncated(place: Place) -> list[Any]:
    arguments = _table(place, title=["a"] * 1000, body=["b"] * 1000)
    path = place.path / "c.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    return arguments


# Arguments ------------------------------------------------------------------------------------------------------------

_BAD_OPTIONS = {
    "nothing_to_prepare": ([], ["nothing to prepare"]),
    "title_tokens_negative": (["--title-tokens", "-5"], ["title_tokens=-5"]),
    "title_tokens_of_text": (["--title-tokens", "many"], ["--title-tokens"]),
    "max_unknown_nan": (["--max-unknown", "nan"], ["max_unknown=nan"]),
    "max_unknown_above_1": (["--max-unknown", "1.5"], ["max_unknown=1.5"]),
    "dev_split_of_no_days": (["--dev-split", "last-days:0"], ["last-days:0"]),
    "dev_split_by_magic": (["--dev-split", "magic"], ["magic"]),
    "part_0": (["--part", "0/3"], ["--part '0/3'"]),
    "part_beyond": (["--part", "4/3"], ["--part '4/3'"]),
    "part_superscript": (["--part", "²/3"], ["--part '²/3'"]),
    "part_and_merge": (["--part", "1/3", "--merge"], ["exclude each other"]),
    "merge_of_nothing": (["--merge"], ["no parts to merge"]),
    "processes_negative": (["--processes", "-2"], ["--processes", "-2"]),
    "news_inputs_unknown": (["--news-inputs", "title,body"], ["'title,body'"]),
    "news_inputs_in_another_order": (["--news-inputs", "abstract,title"], ["'abstract,title'"]),
    "plm_missing": (["--plm", "./none"], ["'./none'"]),
    "plm_in_no_package": (["--plm", "package:no_such_package/x"], ["no_such_package"]),
}
for _name, (_options, _says_all) in _BAD_OPTIONS.items():
    add(
        f"prepare_{_name}",
        lambda place, options=_options: place.prepare(*options, input=place.raw() if options else None),
        *_says_all,
    )


@case("behaviors.tsv", "no day for training", working=True)
def prepare_with_a_dev_split_of_all_days(place: Place) -> list[Any]:
    return place.prepare("--dev-split", "last-days:400", input=place.raw())


@case("out: a file")
def prepare_into_a_file(place: Place) -> list[Any]:
    (place.path / "out").write_text("mine")
    return place.prepare(input=place.raw())


@case("out: exists and is not a prepared data set")
def prepare_into_a_folder_of_others(place: Place) -> list[Any]:
    (place.path / "out").mkdir()
    (place.path / "out" / "thesis.tex").write_text("mine")
    return place.prepare(input=place.raw())


@case("prepared with other settings (", "body_tokens")
def prepare_again_otherwise(place: Place) -> list[Any]:
    place.data().rename(place.path / "out")
    more = ["--corpus", place.raw_mind / "corpus.tsv", "--title-tokens", "24", "--body-tokens", "41"]
    return place.prepare(*more, input=place.raw_mind)


@case("manifest.json", "not a JSON")
def prepare_over_a_damaged_manifest(place: Place) -> list[Any]:
    place.data().rename(place.path / "out")
    (place.path / "out" / "manifest.json").write_text("{")
    return place.prepare(input=place.raw())


@case("manifest.json")
def prepare_over_a_manifest_that_is_a_list(place: Place) -> list[Any]:
    place.data().rename(place.path / "out")
    (place.path / "out" / "manifest.json").write_text("[]")
    return place.prepare(input=place.raw())


_BAD_SYNTH = {
    "news_too_few": (["--news", "5"], ["news=5"]),
    "users_none": (["--users", "0"], ["users=0"]),
    "impressions_negative": (["--impressions", "-1"], ["impressions=-1"]),
    "signal_nan": (["--signal", "nan"], ["signal=nan"]),
    "signal_too_strong": (["--signal", "inf"], ["signal=inf"]),
    "seed_negative": (["--seed", "-1"], ["seed=-1"]),
    "body_of_no_words": (["--bodies", "--body-words", "0"], ["body_words=0"]),
}
for _name, (_options, _says_all) in _BAD_SYNTH.items():
    add(
        f"synth_{_name}",
        lambda place, options=_options: ["data", "synth", "--output", place.path / "out", *options],
        *_says_all,
    )


@case("out: exists and is not empty")
def synth_into_a_folder_of_others(place: Place) -> list[Any]:
    (place.path / "out").mkdir()
    (place.path / "out" / "thesis.tex").write_text("mine")
    return ["data", "synth", "--output", place.path / "out"]
