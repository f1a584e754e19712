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
    """The report of a complete run, of one without predictions, and of one whose networks have odd names."""
    folder = tmp_path_factory.mktemp("report")
    runs = {
        "complete": documents.question(algorithms=("auto", "im2col")),
        "no_machine": documents.no_machine(),
        "odd": documents.odd_names(),
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


def unfold(tab):
    tab.evaluate("document.querySelectorAll('details').forEach(section => section.open = true)")


def test_the_browser_notices_errors_and_requests(tab, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.warn(1); nothing()</script>")
    tab.open(bad)
    assert len(tab.complaints()) >= 2
    assert "http://127.0.0.1:9/x.png" in tab.requests()


@pytest.mark.parametrize("name", ["complete", "no_machine", "odd"])
@pytest.mark.parametrize("scripts", [True, False])
def test_it_opens_without_a_complaint_and_asks_for_nothing(tab, files, name, scripts):
    path = files / f"{name}.html"
    tab.open(path, scripts=scripts)
    assert tab.complaints() == []
    assert tab.requests() == [path.resolve().as_uri()]


TABLE = "#details .variant:not([hidden]) table:has(tfoot th)"
COLUMN = "[...[...document.querySelectorAll('{table}')].find(t => /share/.test(t.tHead.textContent)).tBodies[0].rows]"


def column(tab, index):
    rows = COLUMN.format(table=TABLE)
    return tab.evaluate(f"{rows}.map(row => row.cells[{index}].firstChild.textContent)")


def sort(tab, index):
    rows = COLUMN.format(table=TABLE)
    return tab.evaluate(
        f"(h => (h.firstChild.click(), h.ariaSort))({rows}[0].closest('table').tHead.rows[0].cells[{index}])"
    )


def test_tables_sort_both_ways_and_say_so(tab, files):
    tab.open(files / "complete.html")
    before = column(tab, 5)
    assert sort(tab, 5) == "descending"
    assert column(tab, 5) == sorted(before, key=float, reverse=True) != before
    assert sort(tab, 5) == "ascending"
    assert column(tab, 5) == sorted(before, key=float)
    assert tab.evaluate(f"{COLUMN.format(table=TABLE)}[0].closest('table').tFoot.textContent").startswith("the step")


def test_missing_values_go_to_the_end(tab, files):
    tab.open(files / "complete.html")
    sort(tab, 5)
    sort(tab, 5)
    assert "–" in column(tab, 7)[:-1]  # short passes together have no prediction
    for _ in range(2):
        sort(tab, 7)
        assert column(tab, 7)[-1] == "–"


SHOWN = """[...new Set([...document.querySelectorAll('.variant')]
  .filter(section => section.checkVisibility()).map(section => section.dataset.algorithm))]"""


def test_one_algorithm_is_shown_and_can_be_chosen(tab, files):
    tab.open(files / "complete.html")
    unfold(tab)
    assert tab.evaluate(SHOWN) == ["auto"]
    click(tab, "#controls button[value=im2col]")
    assert tab.evaluate(SHOWN) == ["im2col"]
    assert tab.evaluate("document.querySelector('#controls [value=im2col]').ariaPressed") == "true"
    tab.open(files / "complete.html", scripts=False)
    unfold(tab)
    assert tab.evaluate(SHOWN) == ["auto", "im2col"]


def test_light_and_dark_by_system_and_by_choice(tab, files):
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
    for system, expected in (("light", light), ("dark", dark)):
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": system}])
        tab.open(files / "no_machine.html")
        assert tab.evaluate(ground) == expected
        click(tab, "#controls button[value=light]")
        assert tab.evaluate(ground) == light
        click(tab, "#controls button[value=dark]")
        assert tab.evaluate(ground) == dark
        picture = tab.evaluate("getComputedStyle(document.querySelector('svg [id$=patch_1] path')).fill")
        assert picture == dark
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


def test_sections_unfold_by_keyboard_and_all_at_once(tab, files):
    tab.open(files / "no_machine.html")
    tab.evaluate("document.querySelectorAll('summary')[2].focus()")
    tab.press("Enter", 13, "\r")
    is_open = "[...document.querySelectorAll('details')].map(section => section.open)"
    assert tab.evaluate(is_open)[:4] == [True, True, True, False]
    click(tab, "#controls > button")
    assert all(tab.evaluate(is_open))


@pytest.mark.parametrize("width", [1280, 500, 360])
@pytest.mark.parametrize("name", ["complete", "odd"])
def test_it_fits_the_width(tab, files, width, name):
    size(tab, width)
    tab.open(files / f"{name}.html")
    unfold(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_tables_of_the_first_screen_fit_a_telephone(tab, files):
    size(tab, 400)
    tab.open(files / "complete.html")
    beyond = "[...document.querySelectorAll('main > .scroll')].map(box => box.scrollWidth - box.clientWidth)"
    assert tab.evaluate(beyond) == [0, 0]


OUTSIDE = """[...document.querySelectorAll('svg text')].filter(text => {
  const svg = text.ownerSVGElement, box = text.getBoundingClientRect(), whole = svg.getBoundingClientRect();
  return box.width && (box.left < whole.left - 2 || box.right > whole.right + 2 || box.top < whole.top - 2
    || box.bottom > whole.bottom + 2);
}).map(text => text.textContent)"""
OVERLAPS = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 3
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5;
  return boxes.flatMap(([name, box], i) =>
    boxes.slice(i + 1).filter(([, other]) => box.width && meet(box, other)).map(([other]) => `${name} / ${other}`));
})"""


@pytest.mark.parametrize("name", ["complete", "no_machine", "odd"])
def test_words_in_pictures_stay_inside_and_apart(tab, files, name):
    size(tab, 1280)
    tab.open(files / f"{name}.html", scripts=False)
    unfold(tab)
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(OVERLAPS) == []


def on_paper(tab):
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    document = base64.b64decode(tab.call("Page.printToPDF", printBackground=True)["data"])
    tab.call("Emulation.setEmulatedMedia", features=[])
    pages = [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(document)).pages]
    return "\n".join(pages)


def test_every_section_is_on_paper_though_folded_on_the_screen(tab, files):
    tab.open(files / "complete.html", scripts=False)
    text = on_paper(tab)
    for words in ("cnn, algorithm im2col", "The prediction of each step", "GFLOP/s (log scale)", "layers.csv"):
        assert words in text, words


def test_the_algorithm_that_is_chosen_is_on_paper(tab, files):
    tab.open(files / "complete.html")
    click(tab, "#controls button[value=im2col]")
    text = on_paper(tab)
    assert "cnn, algorithm im2col: a step" in text
    assert "cnn, algorithm auto: a step" not in text
