"""The report in a real browser: its layout at three widths, by night and on paper, without errors and without requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import NAMES, Page, chromium, executable
from tests.lanes import missing
from tests.unit.report.run_folders import BEGUN, make_config, unfinish, write_experiment
from tnr_dist.config.schema import RowConfig
from tnr_dist.figures.palette import DARK, LIGHT
from tnr_dist.report.command import write_report
from tnr_dist.report.data import read_impression_facts

pytestmark = pytest.mark.browser

WIDTHS = (360, 768, 1280)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """A page with every section, a very long name, and an unfinished run."""
    output = tmp_path_factory.mktemp("runs") / "an-output-folder-with-a-rather-long-name"
    facts = read_impression_facts(prepared, "dev")
    assert facts is not None
    rows = [
        RowConfig("PLM-NR-3 (DP)", "teacher"),
        RowConfig("Tiny-NewsRec-1", "tiny-newsrec", 1),
        RowConfig("A-name-without-any-space-that-no-telephone-has-room-for", "tiny-newsrec", 1, ["stage2.beta2=0.5"]),
    ]
    write_experiment(make_config(output, rows, data=prepared), impressions=facts.rows)
    unfinish(next((output / "seed-1").glob("stage1-1*")), 5)
    page, _ = write_report([output], now=BEGUN + 600)
    return page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests."""
    if executable() is None:
        missing(f"there is no browser: none of {', '.join(NAMES)} (Debian: apt-get install chromium)")
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_complains_of_nothing(browser, report, width, scheme):
    browser.open(report, width, scheme=scheme)
    assert browser.evaluate("window.innerWidth") == width  # wider content would widen a telephone's window
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelectorAll('svg.chart').length") >= 15
    outside = """[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1
        && !one.closest('.scroll') && !one.closest('pre') && !one.closest('svg')).map(one => one.outerHTML.slice(0, 90))"""
    assert browser.evaluate(outside) == []
    assert browser.problems == []
    assert browser.requests == [report.resolve().as_uri()]


def test_problems_would_be_seen(browser, tmp_path):
    """The checks above can fail: a page with an error, a request and too wide a table."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><meta name=viewport content='width=device-width'><p style='width: 900px'>wide</p>"
        "<img src='not-there.png'><script>console.error('said'); undefined_function()</script>"
    )
    browser.open(bad, 360)
    assert browser.evaluate("document.documentElement.scrollWidth") > 360
    found = " ".join(browser.problems)
    assert "exception" in found and "said" in found and "ERR_FILE_NOT_FOUND" in found
    assert len(browser.requests) == 2


def test_tables_scroll_in_their_own_frame(browser, report):
    browser.open(report, 360)
    widest = "[...document.querySelectorAll('.scroll')].map(one => [one.clientWidth, one.scrollWidth])"
    sizes = browser.evaluate(widest)
    assert all(shown <= 360 for shown, _ in sizes)
    assert any(whole > 360 for _, whole in sizes)
    assert browser.evaluate("[...document.querySelectorAll('.scroll')].every(one => one.tabIndex === 0)")
    # The first column stays when the rest is moved.
    moved = """(() => { const frame = [...document.querySelectorAll('.scroll')].find(one => one.scrollWidth > 500);
        const cell = frame.querySelector('tbody th'); const before = cell.getBoundingClientRect().left;
        frame.scrollLeft = 100; return [before, cell.getBoundingClientRect().left, frame.scrollLeft] })()"""
    before, after, by = browser.evaluate(moved)
    assert by == 100 and abs(before - after) <= 2


def test_every_picture_says_what_it_shows(browser, report):
    browser.open(report, 768)
    silent = """[...document.querySelectorAll('img, svg')].filter(one => one.tagName === 'IMG' ? !one.alt :
        one.getAttribute('aria-hidden') !== 'true' && !(one.getAttribute('role') === 'img' &&
        one.querySelector(':scope > title')?.textContent.trim() && one.querySelector(':scope > desc')?.textContent.trim()))
        .map(one => one.outerHTML.slice(0, 90))"""
    assert browser.evaluate(silent) == []
    # What assistive technology is told, by the browser's own account.
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    images = [
        node for node in tree if node.get("role", {}).get("value") in ("image", "img") and not node.get("ignored")
    ]
    assert len(images) == browser.evaluate("document.querySelectorAll('svg.chart').length")
    assert all(node["name"]["value"].strip() for node in images)


def test_night_changes_the_colours(browser, report):
    colours = {}
    for scheme in ("light", "dark"):
        browser.open(report, 768, scheme=scheme)
        line = "getComputedStyle(document.querySelector('svg.chart path.s0')).stroke"
        page = "getComputedStyle(document.body).backgroundColor"
        text = "getComputedStyle(document.body).color"
        colours[scheme] = [browser.evaluate(one) for one in (page, text, line)]
    for scheme, wanted in (("light", LIGHT), ("dark", DARK)):
        assert colours[scheme] == [rgb(wanted[name]) for name in ("page", "text", "c0")]


def test_the_shade_beside_a_wide_table_is_dark_by_night(browser, report):
    """It was the colour of an axis, which by night is a light one."""
    for scheme, colours in (("light", LIGHT), ("dark", DARK)):
        browser.open(report, 360, scheme=scheme)
        image = browser.evaluate("getComputedStyle(document.querySelector('.scroll')).backgroundImage")
        assert rgb(colours["shade"]) in image, image
    assert rgb(DARK["axis"]) not in image and all(int(DARK["shade"][i : i + 2], 16) < 16 for i in (1, 3, 5))


def test_letters_in_charts_are_large_enough(browser, report):
    for width in WIDTHS:
        browser.open(report, width)
        sizes = """[...document.querySelectorAll('svg.chart')].map(one =>
            one.getBoundingClientRect().width / one.viewBox.baseVal.width * 11)"""
        assert min(browser.evaluate(sizes)) >= 9, width


def test_the_page_can_be_printed(browser, report):
    browser.open(report, 1280, scheme="dark")
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-") and pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") >= 2
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == rgb(LIGHT["page"])
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    # A legend is not left alone at the end of a page.
    kept = "[...document.querySelectorAll('.legend, figcaption')].every(one => getComputedStyle(one).breakAfter === 'avoid')"
    assert browser.evaluate(kept) and browser.evaluate("document.querySelectorAll('.legend').length") >= 3
    browser.call("Emulation.setEmulatedMedia", media="", features=[])


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
