"""The report from a document alone: its order, that it is one safe file, its pictures and its colours."""

import base64
import json
import re
from html import unescape
from itertools import combinations
from xml.etree import ElementTree

import documents
import numpy as np
import pytest

from nnlite.explain import report
from nnlite.explain.report import comparisons, rooflines, theme
from nnlite.lab.numbers import short

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


@pytest.fixture(scope="module")
def html():
    return documents.rendered(documents.question(algorithms=("auto", "im2col")))


@pytest.fixture(scope="module")
def odd():
    """The page and the files of its pictures."""
    with documents.answers():
        return report.render(documents.odd_names())


@pytest.fixture(scope="module")
def no_machine():
    return documents.rendered(documents.no_machine())


def headings(html):
    return re.findall("<summary>(.*?)</summary>", html)


# Order and content -------------------------------------------------------------------------------------------------


def test_the_answer_stands_first_and_the_details_below_it():
    document = documents.single(rounds=2)
    with documents.answers():
        from nnlite.explain import answer

        first, *_ = answer.sentences(document)
    html = unescape(documents.rendered(document))
    order = (
        "<h1>",
        "<caption>A training step",
        first,
        "Predicted: FLOPs",
        "Too few rounds (2 of 15)",
        "<summary>",
    )
    places = [html.index(text) for text in order]
    assert places == sorted(places)


def test_sections_in_their_order(html):
    assert headings(html) == [
        "Case study: the question of 2017",
        "Size versus time",
        "Where the time goes",
        "The difference between the networks",
        "Which metric predicts the time",
        "Layer by layer",
        "How accurate the predictions are",
        "What limits each layer: arithmetic or memory (rooflines)",
        "Sweeps",
        "The ladder of algorithms",
        "This run and its data",
    ]


def test_one_network_has_nothing_to_compare_and_no_case_study():
    found = headings(documents.rendered(documents.single(predicted=False)))
    limits = "What limits each layer: arithmetic or memory (rooflines)"
    assert found == ["Where the time goes", "Layer by layer", limits, "This run and its data"]


def test_without_predictions_none_are_shown(no_machine):
    assert "How accurate the predictions are" not in headings(no_machine)
    assert "No step is predicted in this run." in no_machine
    assert "no measured peak rates" in no_machine


def test_the_legend_names_every_pass_that_is_drawn():
    """Also one that the first algorithm's bar does not have, because it computes both gradients of a layer at once."""
    sample = documents.question()
    for n in sample.models:
        n.layers[:] = [row for row in n.layers if row.part != "grad_weight"]
    for panel in comparisons.passes(sample).panels:
        drawn = {bar.get_facecolor() for container in panel.figure.axes[0].containers for bar in container}
        (legend,) = panel.figure.legends
        assert len(legend.get_texts()) == len(drawn)


def test_the_dots_of_a_roofline_are_of_executed_flops_and_the_legend_names_their_passes():
    """So Winograd, which needs a quarter of the multiplications, is not above the peak."""
    sample = documents.single()
    n = sample.models[0]
    row = next(row for row in n.layers if row.part == "gradients")
    row.work[0].amount = row.flops / 4
    picture = rooflines.roofline(sample, "auto")
    assert f"{row.name.split('+')[0]}… dX + dW {short(row.flops / 4 / row.ms / 1e6)} GFLOP/s" in picture.panels[0].alt
    (legend,) = picture.panels[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["forward", "dX", "dW", "dX + dW"]


def test_each_picture_follows_the_sentence_that_it_shows(html):
    said = [unescape(text) for text in re.findall("<figcaption>(.*?)</figcaption>", html)]
    order = "the order of the times follows training MACs, not parameters."
    assert said[0] == f"With algorithm auto (filled), {order} With algorithm im2col (hollow), {order}"
    assert (
        "A step of small_cnn takes 3.93 ms less than one of mlp. The largest saving is dense forward: -1.46 ms."
    ) in said[2]
    assert all(re.search(r"\d|grows", text) for text in said[1:])
    assert html.count("<figure>") == len(said)


def test_a_buttons_formula_is_there_once(html):
    targets, ids = re.findall(r"popovertarget=\"(\w+)\"", html), re.findall(r"<div popover [^>]*id=\"(\w+)\"", html)
    assert targets == ids
    assert len(set(ids)) == len(ids) > 150


# One safe file -----------------------------------------------------------------------------------------------------


def test_nothing_is_asked_of_a_network(html):
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", html)
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "@import" not in html


def test_the_file_is_small(html):
    assert len(html.encode()) < 2_000_000


def test_what_a_user_named_can_not_break_the_page(odd):
    html, _ = odd
    assert "<b>bold" not in html
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; [b]co[/b]" in html
    assert "{{ 1 }}" in unescape(html)


def test_the_data_can_be_taken_from_the_page():
    document = documents.single()
    html = documents.rendered(document)
    content = dict(re.findall(r"<a download=\"([^\"]+)\" href=\"data:[^,]+,([^\"]+)\"", html))
    assert json.loads(base64.b64decode(content["explain.json"])) == document.to_json()
    lines = base64.b64decode(content["layers.csv"]).decode().splitlines()
    assert lines[0].startswith("algorithm,network,layer,pass,flops")
    assert len(lines) == 1 + len(document.models[0].layers)


def test_the_first_screen_alone_is_a_fragment_for_a_notebook():
    with documents.answers():
        fragment = report.first_screen_html(documents.question())
    assert "<h1>" in fragment
    assert "19.5 (19.4–19.6)" in fragment
    assert not re.search("<html|<script|<style|<summary|popover|<button", fragment)


# Pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_are_written_beside_the_page_the_same_each_time(tmp_path):
    document = documents.single()
    with documents.answers():
        written = report.write(document, tmp_path)
        assert written[0] == tmp_path / "report.html"
        before = {path: path.read_bytes() for path in written}
        report.write(document, tmp_path)
    names = {path.name for path in written[1:]}
    assert {"passes-cnn.svg", "roofline-auto-cnn.svg"} <= names
    assert {path: path.read_bytes() for path in written} == before
    assert all(path.read_bytes().startswith(b"<?xml") for path in written[1:])


def test_pictures_are_written_as_png_files_too_if_asked_for(tmp_path):
    with documents.answers():
        written = report.write(documents.single(), tmp_path, png=True)
    found = {path.name for path in written if path.suffix == ".png"}
    assert found == {path.with_suffix(".png").name for path in written if path.suffix == ".svg"}
    assert (tmp_path / "figures" / "passes-cnn.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_are_whole_named_and_said_in_words(html):
    pictures = [ElementTree.fromstring(svg) for svg in SVG.findall(html)]
    assert len(pictures) == 18
    assert all(svg.get("role") == "img" and len(svg.get("aria-label")) > 20 for svg in pictures)
    ids = re.findall(r"\bid=\"([^\"]+)\"", html)
    assert len(ids) == len(set(ids))
    known = set(ids)
    used = re.findall(r"(?:href=\"#|url\(#)([^\")]+)", html)
    assert used
    assert known.issuperset(used)


def test_colours_of_pictures_are_the_pages(html):
    found = set(re.findall(r"#[0-9a-f]{6}\b", " ".join(SVG.findall(html))))
    assert found == set()
    assert "var(--c0)" in html
    assert theme.variables(dark=True) in html


def test_names_of_files_hold_nothing_of_a_strange_name(odd):
    _, files = odd
    assert all(re.fullmatch(r"[\w.-]+", name) for name in files)
    assert "passes-C.svg" in files
    assert "passes-network1.svg" in files


# Colours -----------------------------------------------------------------------------------------------------------


BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    """#rrggbb -> linear RGB."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Linear RGB -> CIE Lab under D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.maximum(to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089], 0.00886))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one, other):
    """WCAG's ratio."""
    light, dark = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_passes_and_networks_are_told_apart_by_the_colour_blind(kind, dark):
    passes = list(theme.PASSES.values())
    networks = [colour for colour, _ in theme.SERIES[:3]]
    seen = {role: lab(np.asarray(BLINDNESS[kind]) @ linear(pair[dark])) for role, pair in theme.COLOURS.items()}
    for roles in (passes, networks):
        for one, other in combinations(roles, 2):
            assert np.linalg.norm(seen[one] - seen[other]) > 10, (one, other)


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_on_its_ground(dark):
    colours = {role: pair[dark] for role, pair in theme.COLOURS.items()}
    for ink in ("text", "muted", "accent", "good", "bad"):
        for ground in ("page", "panel"):
            assert contrast(colours[ink], colours[ground]) > 4.5, (ink, ground)


def test_each_role_has_a_light_colour_of_its_own():
    assert len({light for light, _ in theme.COLOURS.values()}) == len(theme.COLOURS)
