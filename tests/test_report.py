"""The report from explain.json alone: formulas are true, nothing is asked of a network, nulls are named."""

import base64
import json
import re
from html import unescape
from itertools import combinations
from xml.etree import ElementTree

import documents
import numpy as np
import pytest
from matplotlib.colors import to_hex

import nnlite as nn
from nnlite.explain import report
from nnlite.explain.report import axes, canvas, labels, page, raster, theme
from nnlite.explain.report.axes import Scale
from nnlite.explain.report.figures import paradox, roofline, waterfall
from nnlite.explain.report.run import METRICS, Run, step
from nnlite.scopes import PART_NAMES

FORMULA = re.compile(r'<div popover class="formula" id="(f\d+)"><b>(.*?)</b><code>(.*?)</code>')


@pytest.fixture(scope="module")
def html():
    return documents.rendered(documents.document())


def test_what_the_numbers_are_worth_is_said_first():
    content = documents.document()
    content["verdict"] = {"Cautions": ["CAUTION: disturbed."], "Why so": ["Arithmetic explains it."]}
    html = documents.rendered(content)
    order = ("The answer of this run</h2>", "CAUTION", "<svg", "<h3>Why so</h3>", "Arithmetic explains")
    places = [html.index(text) for text in order]
    assert places == sorted(places)


def calculated(arithmetic):
    """(left, right) of "2 × 3 = 6" as numbers."""
    left, right = (side.replace("×", "*").replace(",", "") for side in arithmetic.split(" = "))
    assert re.fullmatch(r"[\d\s.*/+()e-]+", left), left
    return eval(left), float(right)


@pytest.mark.parametrize("fused", [False, True])
def test_every_formula_gives_the_number_it_stands_for(fused):
    html = documents.rendered(documents.document(fused=fused))
    formulas = [(title, unescape(code)) for _, title, code in FORMULA.findall(html)]
    counted = 0
    for title, arithmetic in formulas:
        if arithmetic.startswith("median of"):
            continue
        left, right = calculated(arithmetic)
        assert left == pytest.approx(right, rel=6e-3), title
        counted += 1
    assert counted > 150


@pytest.mark.parametrize("name", nn.models.NAMES)
@pytest.mark.parametrize("fused", [False, True])
def test_formulas_of_counts_are_exact_and_name_their_factors(name, fused):
    content = documents.document((name,), fused=fused)
    formulas = {title: unescape(code) for _, title, code in FORMULA.findall(documents.rendered(content))}
    for title, arithmetic in formulas.items():
        if "FLOPs" in title or "bytes" in title or "MACs" in title or "parameters" in title:
            left, right = calculated(arithmetic)
            assert left == right, title
            assert "+" in arithmetic or arithmetic.count("×") >= 2, title  # made of the shapes, not the count again


def test_a_users_own_product_is_counted_without_shapes_that_may_mean_something_else():
    content = documents.document(("mlp",))
    for model in content["models"] + content["comparisons"]["im2col"] + content["comparisons"]["theano2017"]:
        first = model["structure"][0]
        first["weight_shape"], first["operations"][0]["kind"] = None, "mine"
    text = unescape(documents.rendered(content))
    assert "2 × 128 × 401,408 = 102,760,448" in text


def test_predictions_are_shown_beside_what_was_measured_and_by_how_much_they_miss():
    content = documents.document()
    mlp, cnn, _ = content["models"]
    mlp["predicted_ms"], cnn["predicted_ms"] = 1.12 * step(mlp), 0.5 * step(cnn)
    for layer in mlp["layers"]:
        if layer["predicted_ms"]:
            layer["predicted_ms"] = 1.25 * layer["ms"]
    html = documents.rendered(content)
    rows = re.findall(r'<tr><th scope="row">auto</th><td[^>]*>(mlp|cnn)</td>(.*?)</tr>', html)
    assert [re.search(r">([+-]\d+%)<", row).group(1) for _, row in rows] == ["+12%", "-50%"]
    for model, (_, row) in zip((mlp, cnn), rows, strict=True):  # by these values the rows are sorted
        moved, *terms, predicted, measured, off = [float(v) for v in re.findall(r'data-value="(.*?)"', row)][:7]
        assert moved == model["moved_bytes_per_step"]
        assert len(terms) == 3
        assert (predicted, measured) == pytest.approx((model["predicted_ms"], step(model)))
        assert off == pytest.approx(abs(predicted / measured - 1))
        of_layers = [sum(layer["terms_ms"].values()) for layer in model["layers"] if layer.get("terms_ms")]
        assert sum(terms) == pytest.approx(sum(of_layers))
    captions = re.findall(r"<caption>(mlp|cnn) under auto: (.*?)</caption>", html)
    assert "Median error of a row: 25%." in dict(captions)["mlp"]
    assert html.count(">+25%</button>") == sum(bool(layer["predicted_ms"]) for layer in mlp["layers"])
    assert "ratio to mlp" in html
    assert "ratio to mlp" not in documents.rendered(documents.document(("mnist_cnn",)))


def test_a_row_that_is_off_too_far_in_the_median_is_told():
    content = documents.document(("mlp",))
    for layer in content["models"][0]["layers"]:
        if layer["predicted_ms"]:
            layer["predicted_ms"] = 1.4 * layer["ms"]
    assert "Median error of a row: 40%, above the 30% that" in documents.rendered(content)


def test_why_there_is_no_prediction_is_said_at_the_table():
    content = documents.document(("mlp",))
    model = content["models"][0]
    model |= {"predicted_ms": None, "not_predicted": ["operation 'own'", "algorithm 'mine'"]}
    html = unescape(documents.rendered(content))
    assert "Not predicted: operation 'own' and algorithm 'mine' do not declare what they do" in html
    bare = documents.rendered(documents.document(("mlp",), complete=False))
    assert "words missing" not in bare  # a number that is missing stands where numbers do
    assert '<td class="missing">–</td>' in bare


def test_the_interval_of_a_measured_ratio_is_shown():
    content = documents.document()
    mlp, cnn, _ = content["models"]
    cnn["step_ms"] = {"median": 4.0, "min": 3.0, "samples": [3.0, 4.0, 4.0, 4.0, 5.0]}
    mlp["step_ms"] = {"median": 2.0, "min": 2.0, "samples": [2.0] * 5}
    text = documents.rendered(content)
    assert text.count("2.00 (1.50 to 2.50)") == 1 + len(METRICS)


def test_the_cnns_second_convolution_is_explained_by_its_shape(html):
    text = unescape(html)
    assert "2 × 128 × 24 × 24 × 3 × 3 × 32 × 64 = 2,717,908,992" in text
    assert "(784 × 512 + 512) + (512 × 512 + 512) + (512 × 10 + 10) = 669,706" in text


def test_buttons_and_formulas_belong_together(html):
    targets = set(re.findall(r'popovertarget="(f\d+)"', html))
    assert targets == {name for name, _, _ in FORMULA.findall(html)}


def test_nothing_is_asked_of_a_network(html):
    assert "http" not in html.replace("http-equiv", "")
    assert all(where[0] == "#" or where.startswith("data:") for where in re.findall(r'(?:src|href)="(.*?)"', html))
    assert "url(" not in html
    assert "@import" not in html


def test_the_file_is_small(html):
    assert len(html.encode()) < 2_000_000


def test_the_data_is_in_the_file_once(html):
    content = documents.document()
    links = re.findall(r'<a download="(.*?)" href="data:[a-z/]+;base64,(.*?)">', html)
    data = {name: base64.b64decode(text).decode() for name, text in links}
    assert list(data) == ["explain.json", "layers.csv"]
    assert json.loads(data["explain.json"]) == content
    groups = [content["models"], *content["comparisons"].values()]
    assert len(data["layers.csv"].splitlines()) == 1 + sum(len(model["layers"]) for group in groups for model in group)
    assert "training_macs_per_image" not in html


def test_what_a_user_named_can_not_break_the_page():
    content = documents.document(("mlp",))
    content["models"][0]["name"] = "</script><b>&"
    content["comparisons"] = {}
    html = documents.rendered(content)
    assert "</script><b>" not in html
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in html


def test_layers_of_one_kernel_have_a_short_name_and_the_whole_one_beside_it():
    content = documents.document(("cnn",))
    content["models"][0]["layers"][0]["name"] = "conv2d+conv2d_1+max_pooling2d+dropout"
    html = documents.rendered(content)
    assert '<th scope="row">conv2d+3</th>' in html
    assert "conv2d+3: conv2d, conv2d_1, max_pooling2d, dropout in one kernel. " in html
    assert "<title>conv2d+conv2d_1+max_pooling2d+dropout forward: " in html
    assert ">conv2d+3 forward</text>" in html


def test_what_was_not_computed_is_named():
    html = unescape(documents.rendered(documents.document(complete=False)))
    for said in (
        "time model's prediction is not in this run",
        "Moved bytes are not in this run",
        "no measured ceilings",
        "did not time im2col and theano2017",
        "Not in this run: filters, batch, kernel and image",
        "nnlite explain --ladder",
    ):
        assert said in html, said


def test_a_users_own_network_alone():
    html = documents.rendered(documents.document(("mnist_cnn",)))
    assert "Where the time of mnist_cnn goes" in html
    assert "Which count predicts" not in html


def test_pictures_are_written_as_svg_and_png(tmp_path):
    written = report.write(documents.document(), tmp_path)
    names = {path.stem for path in written}
    assert {
        "paradox",
        "passes",
        "metrics-auto",
        "roofline-im2col",
        "waterfall-auto",
        "sweep-filters",
        "ladder",
    } <= names
    for path in written:
        if path.suffix == ".svg":
            ElementTree.parse(path)
        elif path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
            assert path.with_suffix(".svg").exists()


def test_each_picture_is_drawn_once(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(paradox, "draw", lambda run: drawn.append(run))
    report.write(documents.document(), tmp_path)
    assert len(drawn) == 1


def handmade(*rows):
    """A network whose step takes 10 ms, of (name, pass, GFLOP, ms, the time model's terms)."""
    layers = [
        {"name": name, "pass": part, "flops": gflop * 1e9 if gflop else None, "ms": ms, "terms_ms": terms}
        for name, part, gflop, ms, terms in rows
    ]
    return {"name": "net", "step_ms": {"median": 10.0}, "predicted_ms": 9.0, "layers": layers}


def test_the_stages_of_a_waterfall_are_the_time_models_terms():
    model = handmade(
        ("conv2d", "forward", 0.4, 6.0, {"compute": 5.0, "memory": 0.5, "calls": 0.25, "fresh": 0.01}),
        ("rmsprop", "optimizer", None, 4.0, {"compute": 0.0, "memory": 2.5, "calls": 0.25, "fresh": 0.01}),
    )
    stages = {stage.name: stage.ms for stage in waterfall.stages(model, 200.0)}
    assert stages == pytest.approx(
        {
            "its FLOPs at the peak": 2.0,
            "arithmetic, at the rates of these shapes": 3.0,
            "bytes moved, where they take longer than arithmetic": 3.0,
            "calls": 0.5,
            "not explained": 1.48,
            "measured": 10.0,
        }
    )  # memory touched for the first time, 0.2% of the step, is not drawn


def test_without_the_time_model_the_stages_are_measured_parts():
    model = handmade(
        ("conv2d", "forward", 0.4, 6.0, None),
        ("flatten", "forward", None, 0.5, None),
        ("rmsprop", "optimizer", None, 2.0, None),
        ("loss", "forward", None, 0.5, None),
        ("other", "other", None, 1.0, None),
    )
    model["predicted_ms"] = None
    begin, *added, end = waterfall.stages(model, 200.0)
    assert (begin.ms, end.ms) == (2.0, 10.0)
    assert [stage.ms for stage in added] == pytest.approx([4.0, 0.5, 2.0, 1.5])


def test_no_line_of_a_waterfall_crosses_a_name():
    run = Run(documents.document())
    for panel in waterfall.draw(run, run.variants[0]).panels:
        names = [s for s in panel.shapes if isinstance(s, canvas.Text) and s.points[0][0] == waterfall.LEFT]
        for name in (s for s in names if s.anchor == "start" and not s.bold):
            (left, height), at = name.points[0], panel.shapes.index(name)
            right = left + canvas.text_width(name.text, name.size)
            ground = panel.shapes[at - 1]
            assert ground.fill == "page"
            assert ground.points[0][0] <= left
            assert right <= ground.points[2][0]
            for line in (s for s in panel.shapes[at:] if isinstance(s, canvas.Path) and s.stroke):
                (x, top), (_, bottom) = line.points
                assert not (left < x < right and top < height < bottom)


def test_the_largest_pass_is_said_to_be_summed_over_all_layers(html):
    assert "The passes, each summed over all layers, add up to the measured step" in html


def test_each_picture_says_in_words_what_it_shows():
    figures = {figure.name: figure for figure in page.figures(Run(documents.document()))}
    assert figures["ladder"].caption.startswith("The same layer (128x26x26x32 -> 64, 3x3), computed 3 ways.")
    for figure in figures.values():
        assert figure.caption
        for panel in figure.panels:
            assert len(panel.label) > 20
            assert f'aria-label="{panel.label[:5]}' in canvas.svg(panel)


@pytest.mark.parametrize("ratios", [(1.02, 0.98), (0.9, 0.8), (30, 25), (0.01, 0.012), (1.3, 1.2)])
def test_the_paradoxs_labels_stay_apart_and_off_the_mlps_line(ratios):
    content = documents.document()
    mlp, *others = content["models"]
    for model, ratio in zip(others, ratios, strict=True):
        model["step_ms"]["median"] = ratio * step(mlp)
    (panel,) = paradox.draw(Run(content)).panels
    line = next(s.points[0][0] for s in panel.shapes if isinstance(s, canvas.Path) and s.stroke == "text")
    labels = [s for s in panel.shapes if isinstance(s, canvas.Text) and s.size == paradox.SIZE and "×" in s.text]
    assert len(labels) == 12
    rows = {}
    for label in labels:
        (left, height), wide = label.points[0], canvas.text_width(label.text, label.size)
        assert not left < line < left + wide
        assert left >= 0
        assert left + wide <= panel.width
        assert all(left >= end or left + wide <= begin for begin, end in rows.get(height, []))
        rows.setdefault(height, []).append((left, left + wide))


def test_a_network_has_its_colour_in_every_sweep_and_an_algorithm_its_kind_of_line():
    content = documents.document()
    sweep = content["sweeps"][0]
    sweep["points"] += [{**p, "algorithm": "im2col", "ms": 3 * p["ms"]} for p in sweep["points"]]
    (panel,) = page.figures(Run(content))[-3].panels
    whole = {s.stroke for s in panel.shapes if isinstance(s, canvas.Path) and s.width == 2 and not s.dashed}
    broken = {s.stroke for s in panel.shapes if isinstance(s, canvas.Path) and s.width == 2 and s.dashed}
    assert whole == broken == {theme.series(1)[0], theme.series(2)[0]}
    markers = [s for s in panel.shapes if isinstance(s, canvas.Marker) and s.radius == 5]
    assert {(s.fill, s.stroke, s.kind) for s in markers} == {
        form
        for colour, kind in (theme.series(1), theme.series(2))
        for form in ((colour, None, kind), ("page", colour, kind))
    }
    assert 'class="fill-page stroke-c6" stroke-width="1.8"' in canvas.svg(panel)


def test_the_networks_that_do_not_vary_are_lines_in_their_own_colour():
    content = documents.document()
    sweep = content["sweeps"][0]
    sweep["baselines"] += [{**sweep["baselines"][0], "algorithm": "im2col", "ms": 9.0}]
    panel = page.figures(Run(content))[-3].panels[0]
    lines = [s for s in panel.shapes if isinstance(s, canvas.Path) and s.stroke == theme.series(0)[0]]
    assert [s.dashed for s in lines] == [False, True]
    assert all(len({y for _, y in s.points}) == 1 for s in lines)


def test_a_hollow_marker_has_its_outline_in_a_picture_too():
    hollow, filled = (canvas.Marker(((5, 5),), 4, "page", "square", stroke=stroke) for stroke in ("c6", None))
    colours = [to_hex(raster._artist(marker, 0).get_edgecolor()) for marker in (hollow, filled)]
    assert colours == [theme.light("c6"), theme.light("page")]


def test_the_first_topics_stand_beside_the_picture_of_the_paradox():
    content = documents.document()
    content["verdict"] = {f"Topic {i}": ["So."] for i in range(5)}
    html = documents.rendered(content)
    beside = html[html.index('<div class="pairs">') : html.index("<caption>The networks")]
    assert re.findall(r"<h3>(Topic \d)</h3>", beside) == ["Topic 0", "Topic 1", "Topic 2"]
    assert re.findall(r"<h3>(Topic \d)</h3>", html) == list(content["verdict"])
    alone = documents.document(("mnist_cnn",))
    alone["verdict"] = content["verdict"]
    assert re.findall(r"<h3>(Topic \d)</h3>", documents.rendered(alone)) == list(content["verdict"])


def test_what_a_rung_does_is_said_to_its_end():
    content = documents.document()
    words = [f"word{i}" for i in range(60)]
    content["ladder"][1]["changes"] = " ".join(words)
    panel = page.figures(Run(content))[-1].panels[0]
    texts = [s for s in panel.shapes if isinstance(s, canvas.Text)]
    assert set(words) <= set(" ".join(s.text for s in texts).split())
    bars = [s for s in panel.shapes if isinstance(s, canvas.Path) and s.fill]
    for text in (s for s in texts if s.anchor != "middle"):
        height = text.points[0][1]
        assert not any(min(y for _, y in b.points) < height < max(y for _, y in b.points) for b in bars)


def gap(x, y, left, top, right, bottom):
    """From a point to a box."""
    return np.hypot(max(left - x, x - right, 0), max(top - y, y - bottom, 0))


#: dots that lie close to each other, as im2col's of the small CNN do: name, centre, radius, end of its arrow
CLOSE = [
    labels.Dot("first input gradient", (290, 335), 18, (205, 335)),
    labels.Dot("first weight gradient", (348, 299), 14, (205, 299)),
    labels.Dot("first forward", (307, 298), 14, (210, 298)),
    labels.Dot("second weight gradient", (292, 320), 9, (193, 320)),
    labels.Dot("second forward", (236, 284), 7, (170, 284)),
    labels.Dot("third forward", (310, 204), 3, (310, 204)),
]


@pytest.mark.parametrize("dots", [CLOSE, [*CLOSE[:3], *reversed(CLOSE[3:])]])
def test_a_dots_name_is_nearest_to_it_or_joined_to_it(dots):
    panel = canvas.Canvas(470, 416)
    labels.draw(panel, dots, len(dots), (56, 50, 456, 372), [], [])
    joined = {shape.points for shape in panel.shapes if isinstance(shape, canvas.Path)}
    names = {shape.text: shape.points[0] for shape in panel.shapes if isinstance(shape, canvas.Text)}
    assert set(names) == {dot.name for dot in dots}
    assert joined
    for dot in dots:
        x, y = names[dot.name]
        box = (x, y - 9, x + canvas.text_width(dot.name, labels.SIZE), y + 2)
        away = {other.name: gap(*other.centre, *box) - other.radius for other in dots}
        ends = [begin for begin, end in joined if end == dot.centre and gap(*begin, *box) < 2]
        assert ends or min(away, key=away.get) == dot.name


def test_the_largest_dots_of_a_roofline_are_named():
    content = documents.document()
    for variant in Run(content).variants:
        for panel, model in zip(roofline.draw(Run(content), variant).panels, variant.models, strict=True):
            names = [shape.text for shape in panel.shapes if isinstance(shape, canvas.Text)]
            rows = sorted((x for x in model["layers"] if x["flops"]), key=lambda x: -x["ms"])
            for layer in rows[:2]:
                assert f"{layer['name']} {PART_NAMES[layer['pass']]}" in names


def test_the_last_tick_stays_in_the_picture():
    panel = canvas.Canvas(100, 50)
    axes.draw_x(panel, Scale(1, 1000, 10, 98), 5, 30, "")
    *_, tick, _ = (shape for shape in panel.shapes if isinstance(shape, canvas.Text))
    assert tick.text == "1,000"
    assert tick.points[0][0] + canvas.text_width(tick.text, tick.size) / 2 <= panel.width


def test_scales():
    log = Scale(1, 100, 0, 200)
    assert [log(1), log(10), log(100)] == pytest.approx([0, 100, 200])
    assert Scale(0.01, 10_000, 0, 1).ticks() == pytest.approx([0.01, 0.1, 1, 10, 100, 1000, 10_000])
    assert Scale(0, 42, 0, 1, log=False).ticks() == [0, 10, 20, 30, 40]


# Colours -----------------------------------------------------------------------------------------------------------

#: Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as such a reader sees it
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
    passes = list(theme.PASS_ROLES.values())
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
    for i in range(7):
        assert contrast(colours[f"on-c{i}"], colours[f"c{i}"]) > 4.5, i


@pytest.mark.parametrize(
    ("algorithm", "threads", "peak", "slopes"),
    [
        ("auto", "2 threads", 200, "L1 300, L2 200, memory 20.0"),
        ("theano2017", "1 thread", 90, "L1 150, L2 100, memory 10.0"),
    ],
)
def test_the_ceilings_are_those_of_as_many_threads_as_the_algorithm_has(algorithm, threads, peak, slopes):
    run = Run(documents.document())
    variant = next(v for v in run.variants if v.algorithm == algorithm)
    caption = waterfall.draw(run, variant).caption
    assert f"at the measured peak of {threads}, {peak} GFLOP/s" in caption
    texts = [shape.text for shape in roofline.draw(run, variant).panels[0].shapes if isinstance(shape, canvas.Text)]
    assert f"peak {peak} GFLOP/s" in texts
    subtitle = f"{threads}: {slopes} GB/s"
    assert subtitle in texts
    of_a_server = subtitle.replace("L1 ", "6L1 3,").replace("L2 ", "L2 1,").replace("memory", "L3 400, memory")
    assert roofline.LEFT + canvas.text_width(of_a_server, 11) <= roofline.WIDTH


@pytest.mark.parametrize(
    ("algorithms", "threads"), [(["theano2017"], "1 thread"), (["theano2017", "auto"], "2 threads")]
)
def test_the_lead_tells_the_threads_that_were_used(algorithms, threads):
    content = documents.document()
    under = {content["algorithm"]: content["models"], **content["comparisons"]}
    own, *rest = algorithms
    content |= {"algorithm": own, "models": under[own], "comparisons": {name: under[name] for name in rest}}
    assert f"in batches of 128 on {threads}:" in documents.rendered(content)
