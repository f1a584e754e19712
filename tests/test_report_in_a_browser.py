"""The report in chromium: it opens without a complaint or a request, it sorts, it toggles, it fits, it prints."""

import base64
import io

import browser
import documents
import pypdf
import pytest

pytestmark = pytest.mark.skipif(browser.executable() is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The report of a complete run, of one where everything is null that can be, and of one with fused layers."""
    folder = tmp_path_factory.mktemp("report")
    runs = {
        "complete": documents.document(),
        "sparse": documents.document(complete=False),
        "fused": documents.document(fused=True),
    }
    for name, run in runs.items():
        (folder / f"{name}.html").write_text(documents.rendered(run), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def size(tab, width, height=900):
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


def click(tab, selector):
    tab.evaluate(f"document.querySelector({selector!r}).click()")


def test_the_browser_notices_errors_and_requests(tab, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.warn(1); nothing()</script>")
    tab.open(bad)
    assert len(tab.complaints()) >= 2
    assert "http://127.0.0.1:9/x.png" in tab.requests()


@pytest.mark.parametrize("name", ["complete", "sparse"])
@pytest.mark.parametrize("scripts", [True, False])
def test_it_opens_without_a_complaint_and_asks_for_nothing(tab, files, name, scripts):
    path = files / f"{name}.html"
    tab.open(path, scripts=scripts)
    assert tab.complaints() == []
    assert tab.requests() == [path.resolve().as_uri()]
    assert tab.evaluate("document.querySelectorAll('svg').length") >= 8


COLUMN = (
    "[...document.querySelector('#layer-by-layer .variant:not([hidden]) tbody').rows].map(r => r.cells[5].textContent)"
)
TIME = "#layer-by-layer .variant:not([hidden]) thead th:nth-child(6) button"


def test_tables_sort_both_ways_and_say_so(tab, files):
    tab.open(files / "complete.html")
    before = tab.evaluate(COLUMN)
    click(tab, TIME)
    after = [float(text) for text in tab.evaluate(COLUMN)]
    assert after == sorted(map(float, before), reverse=True)
    assert after != list(map(float, before))
    assert tab.evaluate(f"document.querySelector({TIME!r}).parentElement.ariaSort") == "descending"
    click(tab, TIME)
    assert [float(text) for text in tab.evaluate(COLUMN)] == sorted(map(float, before))
    assert tab.evaluate("document.querySelectorAll('tfoot th').length") == 9  # the sums stay below


def test_missing_values_stay_at_the_end(tab, files):
    tab.open(files / "complete.html")
    predicted = TIME.replace("(6)", "(9)")
    for _ in range(2):
        click(tab, predicted)
        last = tab.evaluate(COLUMN.replace("cells[5]", "cells[8]"))[-2:]
        assert last == ["–", "–"]


SHOWN = """[...new Set([...document.querySelectorAll('.variant')]
  .filter(section => section.checkVisibility()).map(section => section.dataset.algorithm))]"""


def test_one_algorithm_is_shown_and_can_be_chosen(tab, files):
    tab.open(files / "complete.html")
    assert tab.evaluate(SHOWN) == ["auto"]
    click(tab, "#controls button[value=im2col]")
    assert tab.evaluate(SHOWN) == ["im2col"]
    assert tab.evaluate("document.querySelector('#controls [value=im2col]').ariaPressed") == "true"
    tab.open(files / "complete.html", scripts=False)
    assert tab.evaluate(SHOWN) == ["auto", "im2col", "theano2017"]


def test_light_and_dark_by_system_and_by_choice(tab, files):
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
    for system, expected in (("light", light), ("dark", dark)):
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": system}])
        tab.open(files / "complete.html")
        assert tab.evaluate(ground) == expected
        click(tab, "#controls button[value=light]")
        assert tab.evaluate(ground) == light
        click(tab, "#controls button[value=dark]")
        assert tab.evaluate(ground) == dark
    tab.call("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("scripts", [True, False])
def test_a_number_shows_its_formula_by_keyboard(tab, files, scripts):
    tab.open(files / "complete.html", scripts=scripts)
    opened = "document.querySelector('.formula:popover-open')?.textContent ?? ''"
    tab.evaluate("document.querySelector('.number').focus()")
    assert tab.evaluate(opened) == ""
    tab.press("Enter", 13, "\r")
    assert "784 × 512 + 512" in tab.evaluate(opened)
    tab.press("Escape", 27)
    assert tab.evaluate(opened) == ""


def test_everything_is_reached_by_tab(tab, files):
    tab.open(files / "sparse.html")
    tab.press("Tab", 9)
    assert tab.evaluate("document.activeElement.textContent") == "To the content"
    reached = set()
    for _ in range(30):
        tab.press("Tab", 9)
        reached.add(tab.evaluate("document.activeElement.tagName + (document.activeElement.value ?? '')"))
    assert {"A", "BUTTONdark", "DIV", "BUTTON"} <= reached


@pytest.mark.parametrize("width", [1280, 800, 400])
@pytest.mark.parametrize("name", ["complete", "sparse"])
def test_it_fits_the_width(tab, files, width, name):
    size(tab, width)
    tab.open(files / f"{name}.html")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


SCROLLED = """[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth)
  .map(box => box.getAttribute('aria-label'))"""


@pytest.mark.parametrize("name", ["complete", "sparse", "fused"])
@pytest.mark.parametrize("scripts", [True, False])
def test_no_table_scrolls_sideways_where_there_is_room(tab, files, name, scripts):
    size(tab, 1200)
    tab.open(files / f"{name}.html", scripts=scripts)
    assert tab.evaluate(SCROLLED) == []


OUTSIDE = """[...document.querySelectorAll('svg text')].filter(text => {
  const svg = text.ownerSVGElement, box = text.getBoundingClientRect(), whole = svg.getBoundingClientRect();
  return box.width && (box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1
    || box.bottom > whole.bottom + 1);
}).map(text => text.textContent)"""
OVERLAPS = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 3
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5;
  return boxes.flatMap(([name, box], i) =>
    boxes.slice(i + 1).filter(([, other]) => box.width && meet(box, other)).map(([other]) => `${name} / ${other}`));
})"""


@pytest.mark.parametrize("name", ["complete", "sparse", "fused"])
def test_words_in_pictures_stay_inside_and_apart(tab, files, name):
    size(tab, 1280)
    tab.open(files / f"{name}.html", scripts=False)
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(OVERLAPS) == []


PAPER = 726  # pixels of CSS between the margins of an A4 page
SMALLEST = """Math.min(...[...document.querySelectorAll('svg text')].map(text => {
  const svg = text.ownerSVGElement;
  return text.getAttribute('font-size') * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
}))"""
MOST_BESIDE = """Math.max(...[...document.querySelectorAll('.panels')].map(panels => {
  const tops = [...panels.children].map(panel => panel.offsetTop);
  return Math.max(...tops.map(top => tops.filter(other => other === top).length));
}))"""


@pytest.mark.parametrize("name", ["complete", "sparse", "fused"])
def test_pictures_can_be_read_on_paper(tab, files, name):
    size(tab, PAPER)
    tab.open(files / f"{name}.html", scripts=False)
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert 0.75 * tab.evaluate(SMALLEST) > 6.7  # points
    assert tab.evaluate(MOST_BESIDE) <= 2
    tab.call("Emulation.setEmulatedMedia", media="")


def test_it_prints(tab, files):
    tab.open(files / "complete.html")
    assert 4 <= len(printed(tab)) <= 40


def test_a_table_that_goes_on_on_another_page_has_its_headings_there(tab, files):
    tab.open(files / "complete.html")
    tables = tab.evaluate("[...document.querySelectorAll('thead')].filter(h => /misses by/.test(h.textContent)).length")
    pages = [page for page in printed(tab, paperHeight=4) if "✗ no" in page or "✓ yes" in page]
    assert len(pages) > tables
    assert all("misses by" in page for page in pages)


def printed(tab, **options):
    """The texts of the pages on paper."""
    document = base64.b64decode(tab.call("Page.printToPDF", printBackground=True, **options)["data"])
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(document)).pages]
