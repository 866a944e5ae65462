"""The report as a whole: what is in it, that it needs nothing else, and that it is the same each time."""

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from tests.pictures import drawn
from tests.unit.report.run_folders import BEGUN, make_config, unfinish, write_experiment
from tnr_dist.config.schema import RowConfig, to_yaml
from tnr_dist.figures.palette import LIGHT, SERIES
from tnr_dist.report.command import report, split_arguments, write_report
from tnr_dist.report.data import read_impression_facts
from tnr_dist.report.progress import duration
from tnr_dist.stages.evaluate import read_impressions
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_text
from tnr_dist.util.markup import html

EVIL = '<script>alert("x")</script>|[y](javascript:z)'


class Page(HTMLParser):
    """Tags with attributes, headings, and the rows of each table by the text of its caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.subtitle = ""
        self._caption, self._open, self._text = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.tags.append((tag, facts))
        if tag in ("h1", "h2", "h3", "th", "td") or (tag == "p" and facts.get("class") in ("caption", "subtitle")):
            self._open, self._text = tag, ""
        if tag == "table":
            self.tables[self._caption] = []
        if tag == "tr":
            self.tables[self._caption].append([])

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        text = self._text.strip()
        if tag != self._open:
            return
        if tag in ("th", "td"):
            self.tables[self._caption][-1].append(text)
        elif tag == "p":
            self._caption = text
            self.subtitle = self.subtitle or text  # the first paragraph
        else:
            self.headings.append((int(tag[1]), text))
        self._open = ""

    def table(self, words: str) -> list[list[str]]:
        """The one table whose caption contains the words."""
        (found,) = [rows for caption, rows in self.tables.items() if words in caption]
        return found


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """Two seeds of a teacher and a student over real prepared data; stage 2 of seed 1 is unfinished."""
    output = tmp_path_factory.mktemp("runs") / "demo"
    facts = read_impression_facts(prepared, "dev")
    assert facts is not None
    write_experiment(make_config(output, data=prepared), impressions=facts.rows)
    unfinish(output / "seed-1/stage2-1", 6)
    return output


@pytest.fixture(scope="module")
def written(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's folder."""
    page, _ = write_report([experiment], tmp_path_factory.mktemp("report"), now=BEGUN + 7200)
    return page.parent


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take most of a report's time; where they do not matter their files are empty."""
    monkeypatch.setattr("tnr_dist.report.command.write_picture", lambda path, *_: write_text(path, ""))


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text())


def test_results_are_the_runs(page, experiment):
    rows = page.table("Metrics in percent")
    head, teacher, student = rows[:3]
    aucs = [json.loads((experiment / f"seed-{s}/teacher-0/results.json").read_text())["auc"] for s in (0, 1)]
    mean = sum(aucs) / 2
    deviation = abs(aucs[0] - aucs[1]) / 2**0.5
    assert teacher[0] == "PLM-NR-3 (DP)" and head[1] == "AUC"
    assert teacher[1].removesuffix(" (best)") == f"{100 * mean:.2f} ± {100 * deviation:.2f}"
    assert teacher[-1] == "2" and student[-1] == "1"  # the other seed of the student is unfinished
    assert student[head.index("Speed-up")] == "2.25 ×"
    assert [row[0] for row in rows[3:]] == ["random", "most popular", "oracle"]
    assert rows[-1][1] == "83.00"  # the oracle is never the best
    means = {row[0]: float(row[1].split()[0]) for row in (teacher, student)}
    assert means["PLM-NR-3 (DP)"] != means["Tiny-NewsRec-1"]
    assert [row[0] for row in rows if "(best)" in row[1]] == [max(means, key=means.__getitem__)]


def test_an_unfinished_run_is_shown_as_such(page):
    (row,) = page.table("Unfinished runs")[1:]
    assert row[:3] == ["Tiny-NewsRec-1", "1", "stage2"]
    assert row[3] == "50 % of 12 steps" and row[4] == "6" and row[7] == "2 h"
    assert row[6] == "2023-11-14 22:13 UTC"


def test_every_section_is_there(page, written):
    assert [text for level, text in page.headings if level == 2] == [
        "Results",
        "Unfinished runs",
        "Impressions",
        "Training curves",
        "Teachers",
        "Speed",
        "Data",
        "Settings",
        "Environment and time",
    ]
    for name in ("quality", "curves-post-train", "curves-stage2", "teachers", "speed"):
        assert drawn(written / f"{name}.png", tuple(LIGHT[f"c{n}"] for n in range(SERIES))), name
    assert page.table("held-out pairs")[1] == ["post-train", "91.00 ± 0.00"]
    stage2 = next(row for row in page.table("Means over a training") if row[0] == "Tiny-NewsRec-1")
    assert stage2[2] == "306"  # samples a second: without their first records the seeds have 307 and 304
    assert page.table("Time of the stages")[-1] == ["together", "14", "", "16 min 43 s"]


def test_omega_is_drawn_over_the_training(page, written):
    """Beside the entropy of the weights, from its first logged value to the last, a line a seed; and in the table."""
    described = dict(re.findall(r'<desc id="(trust-\d-d)">(.*?)</desc>', (written / "report.html").read_text()))
    omega = described["trust-2-d"]
    assert "Tiny-NewsRec-1, seed 0: 1 to 1.01" in omega and "Tiny-NewsRec-1, seed 1: 1 to 1.01" in omega
    (row,) = page.table("Weights at the last logged step")[1:]
    assert row[0] == "Tiny-NewsRec-1" and row[-1] == "1.010 ± 0.005"  # 1 + step / 900 after 12 and after 6 steps


def test_data_and_impressions_come_from_the_data_set(page, prepared):
    manifest = json.loads((prepared / "manifest.json").read_text())
    rows = {row[0]: row for row in page.table(f"Impressions of {prepared}")}
    assert rows["Impressions"][1] == f"{manifest['counts']['splits']['train']['impressions_kept']:,}"
    (tests,) = page.table("Difference of AUC")[1:]
    assert tests[0] == "Tiny-NewsRec-1"
    titles = {facts["id"] for tag, facts in page.tags if tag == "desc"}
    assert {"impressions-1-d", "impressions-2-d", "impressions-3-d", "data-1-d", "data-2-d"} <= titles


@pytest.mark.usefixtures("no_pictures")
def test_models_of_one_shape_have_the_best_speed_of_all(tmp_path):
    rows = [
        RowConfig("a", "teacher"),
        RowConfig("b", "tiny-newsrec", 1),
        RowConfig("c", "tiny-newsrec", 1, ["stage2.lr=0.01"]),
    ]
    write_experiment(make_config(tmp_path / "run", rows))
    students = sorted(tmp_path.glob("run/*/stage2-1*/results.json"))
    for speed, file in zip((100.0, 300.0, 500.0, 200.0), students, strict=True):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"news_per_s": speed}))
    path, models = write_report([tmp_path / "run"], tmp_path / "out", now=BEGUN)
    assert [(one.name, one.news_per_s) for one in models] == [("a", 400.0), ("b", 500.0), ("c", 500.0)]
    rows = Page(path.read_text()).table("best of all runs with as many layers and parameters")
    assert [row[rows[0].index("Speed-up")] for row in rows[1:4]] == ["1.00 ×", "1.25 ×", "1.25 ×"]
    assert "1.2 ×</strong>" in path.read_text()


@pytest.mark.usefixtures("no_pictures")
def test_a_headline_that_may_be_chance_says_so(tmp_path):
    """20 impressions prove little; 4,000 show the difference that is in the made-up figures."""
    for name, impressions, doubt in (("few", 20, True), ("many", 4000, False)):
        write_experiment(make_config(tmp_path / name), np.arange(impressions))
        path, _ = write_report([tmp_path / name], tmp_path / "out", now=BEGUN)
        text = path.read_text()
        (label,) = re.findall(r"<span>(AUC points[^<]*)</span>", text)
        (row,) = Page(text).table("Difference of AUC")[1:]
        assert (f"not significant (p = {row[-1]})" in label) == doubt
        assert label.endswith(": Tiny-NewsRec-1 against PLM-NR-3 (DP)")
        assert "of the parameters of PLM-NR-3 (DP): Tiny-NewsRec-1 has 13.9 M of 17.5 M" in text


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("kind", ["random", "most popular"])
def test_what_beats_every_model_without_being_one_is_the_best(tmp_path, kind):
    config = make_config(tmp_path / "run")
    write_experiment(config)
    file = tmp_path / "run/baselines.json"
    levels = json.loads(file.read_text())
    levels["rows"][kind]["auc"] = 0.8

    def made(made_from):
        file.write_text(json.dumps(levels | {"made_from": made_from}))
        path, _ = write_report([tmp_path / "run"], tmp_path / "out", now=BEGUN)
        return path.read_text(), (path.parent / "report.md").read_text()

    text, markdown = made({})
    assert re.search(rf">80.00</strong> <span>best AUC: {kind}, without a model; of the models [^,<]+, \d", text)
    rows = Page(text).table("Metrics in percent, ")
    assert [row[0] for row in rows if "(best)" in row[1]] == [kind] and "the oracle apart" in text
    assert f"| {kind} | **80.00** |" in markdown and "**83.00**" not in markdown
    # Of other data or another split it says nothing about these models.
    assert "without a model" not in made({"data": "of others", "split": "dev"})[0]


@pytest.mark.usefixtures("no_pictures")
def test_the_report_has_the_days_of_its_runs(tmp_path):
    write_experiment(make_config(tmp_path / "run"))

    def days():
        return Page(write_report([tmp_path / "run"], tmp_path / "out", now=BEGUN)[0].read_text()).subtitle

    assert re.search(r" · \d{4}-\d\d-\d\d · ", days())  # of the files
    for number, folder in enumerate(sorted((tmp_path / "run").glob("seed-*/*"))):
        started = [f"2026-11-{3 + number:02}T23:59:59+02:00", "2026-11-28T01:02:03+02:00", 7, "soon"]
        (folder / "environment.json").write_text(json.dumps({"started": started}))
    assert " · 2026-11-03 to 2026-11-28 · " in days()


def last_batch_of(path: Path, samples: int) -> None:
    """As if the last batch of the only epoch had so few samples, and with them a loss by chance."""
    *lines, last = path.read_text().splitlines()
    record = json.loads(last)
    record["samples"] += samples - 64
    lines.append(json.dumps(record | {"train/loss": 9.75}))
    path.write_text("\n".join(lines))


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("samples", "shown"), [(64, True), (63, False), (5, False)])
def test_a_last_batch_of_few_samples_is_no_point_of_the_curve(tmp_path, samples, shown):
    write_experiment(make_config(tmp_path / "run"))
    for file in tmp_path.glob("run/seed-*/teacher-0/metrics.jsonl"):
        last_batch_of(file, samples)
    text = write_report([tmp_path / "run"], tmp_path / "out", now=BEGUN)[0].read_text()
    (said,) = re.findall(r'<desc id="curves-finetune-1-d">([^<]*)', text)
    assert (" to 9.75" in said) == shown
    assert ("last batch is left out where it is smaller" in text) != shown


@pytest.mark.usefixtures("no_pictures")
def test_what_a_teacher_counts_for_is_drawn_from_zero(tmp_path):
    """Weights of 0.46 to 0.54, an entropy near ln 2 and an omega near 1 do not fill a panel each."""
    write_experiment(make_config(tmp_path / "run"))
    text = write_report([tmp_path / "run"], tmp_path / "out", now=BEGUN)[0].read_text()
    for panel in ("teachers-1", "trust-1", "trust-2"):
        (svg,) = re.findall(rf'<svg[^>]*aria-labelledby="{panel}-t.*?</svg>', text, re.S)
        assert ">0</text>" in svg, panel


@pytest.mark.usefixtures("no_pictures")
def test_names_and_values_that_are_cut_still_differ(tmp_path):
    long = "A model with a name that no chart has room for"
    rows = [
        RowConfig("PLM-NR-3 (DP)", "teacher"),
        *(RowConfig(f"{long}, {n}", "tiny-newsrec", 1, [f"stage2.beta2={n}"]) for n in (0.25, 0.75)),
    ]
    write_experiment(make_config(tmp_path / "a", rows, data=tmp_path / f"{long}" / "a" / "data"))
    write_experiment(make_config(tmp_path / "b", data=tmp_path / f"{long}" / "b" / "data"))
    text = write_report([tmp_path / "a"], tmp_path / "out", now=BEGUN)[0].read_text()
    (svg,) = re.findall(r'<svg[^>]*aria-labelledby="quality-1-t.*?</svg>', text, re.S)
    shown = [one for one in re.findall(r">([^<]*)</text>", svg) if one.startswith("A mo")]
    assert len(shown) == 2 and {one[-4:] for one in shown} == {"0.25", "0.75"} and all("…" in one for one in shown)
    text = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out", now=BEGUN)[0].read_text()
    (places,) = [row for row in Page(text).table("Settings that differ") if row[0] == "data.dir"]
    assert len(set(places[1:])) == 2 and all(len(one) <= 60 for one in places)


@pytest.mark.usefixtures("no_pictures")
def test_a_record_that_is_no_record_is_left_out(tmp_path):
    """metrics.jsonl is not read as if it had to be ours."""
    write_experiment(make_config(tmp_path / "run"))
    file = tmp_path / "run/seed-0/stage2-1/metrics.jsonl"
    odd = [{"step": "q", "samples": "q", "epoch": "q", "train/loss": 1.0}, {"train/loss": "q"}, {"train/loss": None}]
    file.write_text("".join(json.dumps(one) + "\n" for one in [5, [1], "train/loss", *odd]))
    (file.parent / "complete.json").unlink()
    path, _ = write_report([tmp_path / "run"], tmp_path / "out", now=BEGUN)
    assert 'id="training"' in path.read_text()


def test_settings_that_are_not_the_default(page, prepared, written):
    rows = {row[0]: row[1:] for row in page.table("not the default")}
    # Only the student has layers of its own, so nothing differs where it matters.
    assert rows == {
        "Setting": ["Value", "Default"],
        "data.dir": [str(prepared), "runs/data"],
        "student.layers": ["1", "4"],
        "finetune.epochs": ["1", "4"],
        "finetune.teachers": ["2", "4"],
        "stage2.epochs": ["1", "4"],
    }
    assert "All results were made with the same settings" in (written / "report.html").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_two_experiments_differ_in_what_was_changed(tmp_path):
    for name, lr in (("a", 1e-4), ("b", 2e-4)):
        write_experiment(make_config(tmp_path / name, data=tmp_path / "data", stage2__lr=lr))
    path, _ = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out", now=BEGUN)
    rows = Page(path.read_text()).table("Settings that differ")
    assert [row[0] for row in rows[1:]] == ["stage2.lr"]  # student.layers and seeds are no difference of the two
    values = dict(zip(rows[0], rows[1], strict=True))
    assert values["a: Tiny-NewsRec-1"] == "0.0001" and values["b: Tiny-NewsRec-1"] == "0.0002"
    assert values["a: PLM-NR-3 (DP)"] == "-"  # it does not depend on stage 2


def test_the_page_needs_nothing_else_and_runs_nothing(page, written):
    text = (written / "report.html").read_text()
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "form")]
    for tag, facts in page.tags:
        assert not [name for name in facts if name.startswith("on")], tag
        for name in ("href", "src", "xlink:href"):
            assert (facts.get(name) or "#").startswith(("#", "data:")), (tag, facts)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"<pre.*?</pre>", "", text, flags=re.S))
    assert "default-src 'none'" in text


def test_the_page_is_well_built(page):
    ids = [facts["id"] for _, facts in page.tags if "id" in facts]
    assert len(set(ids)) == len(ids)
    for tag, facts in page.tags:
        if (facts.get("href") or "").startswith("#"):
            assert facts["href"][1:] in ids
        for target in (facts.get("aria-labelledby") or "").split():
            assert target in ids
        if tag == "svg":
            assert facts["role"] == "img" and facts["aria-labelledby"]
        if tag == "img":
            assert facts["alt"]
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_same_runs_give_the_same_bytes(experiment, written, tmp_path):
    again, _ = write_report([experiment], tmp_path, now=BEGUN + 7200)
    names = sorted(path.name for path in written.iterdir())
    assert names == sorted(path.name for path in again.parent.iterdir())
    for name in names:
        assert (again.parent / name).read_bytes() == (written / name).read_bytes(), name


def test_markdown_has_the_same_tables_and_the_pictures(page, written):
    text = (written / "report.md").read_text()
    for caption, rows in page.tables.items():
        shown = caption.replace("&", "&amp;").replace("<", "&lt;")
        assert shown.split("[")[0] in text
        assert all(
            cell.removesuffix(" (best)").split("(")[0].strip() in text
            for row in rows
            for cell in row
            if "<" not in cell
        )
    pictures = re.findall(r"!\[[^\]]+\]\((.+?)\)", text)
    assert len(pictures) >= 8 and all((written / name).is_file() for name in pictures)


@pytest.mark.usefixtures("no_pictures")
def test_names_from_outside_are_only_text(tmp_path):
    config = make_config(
        tmp_path / EVIL.replace("/", ""), [RowConfig(EVIL, "teacher"), RowConfig("b", "tiny-newsrec", 1)]
    )
    config.wandb.tags = [EVIL]
    write_experiment(config)
    file = Path(config.output) / "seed-0/teacher-0/complete.json"
    file.write_text(file.read_text().replace('"stage": "finetune"', '"stage": "../../evil<b>"'))
    path, _ = write_report([Path(config.output)], tmp_path / "out", now=BEGUN)
    text = path.read_text()
    assert not [tag for tag, _ in Page(text).tags if tag in ("script", "b")]
    assert "&lt;script&gt;" in text and "<script" not in text
    markdown = (tmp_path / "out/report.md").read_text()
    outside = re.sub(r"^(`{3,}).*?^\1$", "", markdown, flags=re.S | re.M)  # within a fence everything is text
    outside = re.sub(r"^<summary>[^<]*</summary>$", "", outside, flags=re.M)  # HTML, in which Markdown is text
    assert "<script" not in outside and "](javascript" not in outside.replace("\\](", "")
    page = MarkdownIt("gfm-like", {"linkify": False}).render(markdown)
    assert not re.search(r"<(script|b|a)\b", page) and html(EVIL).replace("&#34;", "&quot;") in page
    assert {path.name for path in tmp_path.iterdir()} == {"out", Path(config.output).name}


@pytest.mark.usefixtures("no_pictures")
def test_one_run_alone_is_a_report(experiment, tmp_path):
    path, models = write_report([experiment / "seed-0/post-train"], tmp_path, now=BEGUN)
    assert not models
    text = path.read_text()
    assert "no model evaluated yet" in text and 'id="training"' in text and 'id="results"' not in text


@pytest.mark.usefixtures("no_pictures")
def test_a_run_without_any_record_is_a_report(experiment, tmp_path):
    folder = tmp_path / "seed-0/cache"
    folder.mkdir(parents=True)
    (folder / "begun.json").write_text((experiment / "seed-0/cache/begun.json").read_text())
    path, _ = write_report([folder], now=BEGUN)
    assert path == folder / "report/report.html" and "nothing logged yet" in path.read_text()


@pytest.mark.usefixtures("no_pictures")
def test_models_of_other_data_are_not_compared(tmp_path):
    for name in ("a", "b"):
        write_experiment(make_config(tmp_path / name, data=tmp_path / name / "data"))
    for file in tmp_path.glob("b/*/*/results.json"):
        results = json.loads(file.read_text())
        results["made_from"]["data"] = "another"
        file.write_text(json.dumps(results))
    path, _ = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out", now=BEGUN)
    page = Page(path.read_text())
    rows = page.table("they do not compare")
    assert not [cell for row in rows for cell in row if "(best)" in cell or "×" in cell]
    assert "best AUC" not in path.read_text()
    # Rows of the raw files have the same numbers in both, but are other impressions: a test pairs those of one data set.
    tested = page.table("paired t test")
    assert tested and all(row[0].startswith("a:") for row in tested[1:]), tested


@pytest.mark.usefixtures("no_pictures")
def test_impressions_of_a_seed_on_another_split_do_not_count(tmp_path):
    write_experiment(make_config(tmp_path))
    file = tmp_path / "seed-1/stage2-1/results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"split": "train"}))
    _, models = write_report([tmp_path], tmp_path / "out", now=BEGUN)
    (student,) = [one for one in models if one.name == "Tiny-NewsRec-1"]
    alone = read_impressions(tmp_path / "seed-0/stage2-1/impressions.parquet")
    assert len(student.values["auc"]) == 1 and np.array_equal(student.impressions[1], alone["auc"])


@pytest.mark.usefixtures("no_pictures")
def test_missing_data_is_said_and_no_error(tmp_path):
    write_experiment(make_config(tmp_path / "run"))
    path, _ = write_report([tmp_path / "run"], now=BEGUN)
    assert "not there any more" in path.read_text()


# The command --------------------------------------------------------------------------------------------------------


def test_arguments_are_paths_and_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert split_arguments(["runs/x", "seeds=2", "stage2.lr=1e-4", "a=b"]) == (
        [Path("runs/x"), Path("a=b")],
        ["seeds=2", "stage2.lr=1e-4"],
    )


@pytest.mark.usefixtures("no_pictures")
def test_a_configuration_stands_for_its_output(tmp_path, capsys):
    config = make_config(tmp_path / "run")
    write_experiment(config)
    unfinish(tmp_path / "run/seed-1/stage2-1", 2)
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    page = report([str(file)])
    assert page == tmp_path / "run/report/report.html" and page.is_file()
    assert "Tiny-NewsRec-1" in capsys.readouterr().out  # the table, although one run is unfinished


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: no such folder or configuration file"),
        (["config.yaml"], "not-run-yet, is not there yet; run `tnr run config.yaml` first"),
        (["folder", "seeds=2"], "seeds=2: a setting changes a configuration"),
        (["folder"], "folder: no run there"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "config.yaml").write_text("output: not-run-yet\n")
    with pytest.raises(InputError) as error:
        report(arguments)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.glob("**/report"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (245, "4 min 05 s"), (12_000, "3 h 20 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
    assert duration(725, coarse=True) == "12 min"
