"""Histories whose news are unknown are bounded as candidates are, by `prepare` and by `verify`."""

import pytest

from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.data.prepare.unknown import describe_unknown
from tnr_dist.data.prepare.verify import verify_download
from tnr_dist.util.errors import InputError


@pytest.fixture
def raw(raw_mind, tmp_path):
    """Train rows whose histories are separated by whatever the test asks for."""

    def of(separator: str):
        folder = tmp_path / "raw" / "train"
        folder.mkdir(parents=True)
        (folder / "news.tsv").write_bytes((raw_mind / "train" / "news.tsv").read_bytes())
        rows = [line.split("\t") for line in (raw_mind / "train" / "behaviors.tsv").read_text().splitlines()]
        for row in rows:
            row[3] = row[3].replace(" ", separator)
        (folder / "behaviors.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
        return tmp_path / "raw"

    return of


@pytest.mark.parametrize("separator", [",", ";", "|"])
def test_histories_with_another_separator_are_refused(raw, separator, tiny_plm, tmp_path):
    folder = raw(separator)
    options = PrepareOptions(input=str(folder), plm=str(tiny_plm), title_tokens=24, body_tokens=40)
    with pytest.raises(InputError, match=r"\d\d\.\d% of the news in the histories \(fourth column\)") as error:
        prepare(options, tmp_path / "data", processes=1)
    said = str(error.value)
    assert "behaviors.tsv" in said and f"separated by {separator!r}" in said and "\n" not in said
    assert not (tmp_path / "data").exists()
    (found,) = [finding for finding in verify_download(folder) if finding.level == "error"]
    assert f"separated by {separator!r}" in found.message and found.where.endswith("behaviors.tsv")
    accepted = PrepareOptions(input=str(folder), plm=str(tiny_plm), title_tokens=24, body_tokens=40, max_unknown=1.0)
    assert prepare(accepted, tmp_path / "data", processes=1)["counts"]["splits"]["train"]["unknown_history_items"]


def test_sound_histories_pass(raw, tiny_plm, tmp_path):
    folder = raw(" ")
    options = PrepareOptions(input=str(folder), plm=str(tiny_plm), title_tokens=24, body_tokens=40, max_unknown=0.0)
    prepare(options, tmp_path / "data", processes=1)
    assert not [finding for finding in verify_download(folder) if finding.level == "error"]


def test_an_unknown_word_is_shown():
    assert describe_unknown(["N1 N2", "N1 X9"], {"N1", "N2"}) == "such as 'X9'; is the news file incomplete?"
    assert "'" + "y" * 39 + "…'" in describe_unknown(["y" * 99], {"N1"})
