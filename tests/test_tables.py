"""Tables from a document: what they say, the formulas behind their numbers, and how a terminal shows them."""

import re
from dataclasses import replace
from io import StringIO

import documents
import pytest
from rich.console import Console

import nnlite as nn
from nnlite.explain import tables
from nnlite.explain.compare import differences, predictions, worst_prediction
from nnlite.lab.table import MISSING, Cell, Table, to_rich
from nnlite.performance.statistics import Ratio


def shown(table, width=80):
    """The lines of a table on a terminal."""
    file = StringIO()
    Console(file=file, width=width, color_system=None).print(to_rich(table))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def cells(table):
    return [cell for row in [*table.rows, table.total or []] for cell in row]


def every_table(document):
    yield tables.networks(document)
    yield tables.accuracy(document)
    for n in document.everything:
        yield tables.layers(n, document)
        if document.base_of(n):
            yield tables.difference(n, document.base_of(n))
    if len(document.models) > 1:
        for algorithm in document.by_algorithm:
            yield tables.metrics(document, algorithm)


def formulas(document):
    return [cell.formula for table in every_table(document) for cell in cells(table) if cell.formula]


def calculated(arithmetic):
    """(left, right) of "2 × 3 = 6" as numbers."""
    left, right = (side.replace("×", "*").replace(",", "") for side in arithmetic.split(" = "))
    assert re.fullmatch(r"[\d\s.*/+()e-]+", left), left
    return eval(left), float(right)


# On a terminal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["question", "single", "odd", "few", "no_machine"])
def test_the_first_table_fits_80_columns_with_every_number_whole(name):
    table = tables.networks(documents.all_samples()[name])
    lines = shown(table)
    assert max(map(len, lines)) <= 80
    for row in table.rows:
        assert all(any(cell.text in line for line in lines) for cell in row[1:]), row


def test_a_terminal_prints_markup_as_it_is():
    lines = shown(Table("[b]a[/b]", ["[i]b"], [[Cell("[red]c[/red]")]], ["[link]"]))
    assert [line.strip() for line in lines if line.strip(" ─")] == ["[b]a[/b]", "[i]b", "[red]c[/red]", "[link]"]


# What they say -----------------------------------------------------------------------------------------------------


def test_a_ratio_has_its_interval_and_none_from_too_few_rounds():
    assert tables.interval(Ratio(17.44, 17.1, 17.9)) == "17.4 (17.1–17.9)"
    assert tables.interval(Ratio(17.44)) == "17.4"
    few = tables.networks(documents.few_rounds())
    assert not any("(" in cell.text for cell in cells(few))
    assert few.notes == ["Medians of 2 rounds, 2 threads."]


def test_what_was_not_computed_is_left_out():
    document = documents.no_machine()
    assert [row[0].text for row in tables.networks(document).rows] == [
        "parameters",
        "training MACs per image",
        "step",
        "ratio to mlp",
    ]
    assert tables.layers(document.models[0], document).columns == [
        "layer",
        "pass",
        "MFLOP",
        "minimum traffic",
        "ms",
        "share",
    ]


def test_networks_are_columns_of_the_first_table_unless_they_are_more_than_three():
    assert tables.networks(documents.question()).columns == ["", "mlp", "cnn", "small_cnn"]
    four = documents.odd_names()
    assert [row[0].text for row in tables.networks(four).rows] == [n.name for n in four.models]


def test_a_metric_holds_if_it_is_within_half_as_much_again_for_every_network():
    document = documents.question()
    cnn, small = document.models[1:]
    cnn.ratio, small.ratio = Ratio(10.0, 9.0, 11.0), Ratio(1.0, 0.9, 1.1)
    base = document.models[0].training_macs_per_image
    for macs, verdict in (((10, 1), "yes"), ((14.9, 0.67), "yes"), ((15.1, 1), "1 of 2"), ((6.6, 1.51), "no")):
        cnn.training_macs_per_image, small.training_macs_per_image = (round(times * base) for times in macs)
        table = tables.metrics(document, "auto")
        row = next(row for row in table.rows if row[0].text == "training MACs")
        assert row[-1].text == verdict, macs
    assert [cell.text for cell in table.total] == ["measured", "10.0 (9.00–11.0)", "1.00 (0.900–1.10)", ""]


def test_a_metric_that_is_not_known_for_every_network_is_left_out():
    document = documents.question()
    document.models[1].moved_bytes_per_step = None
    assert "memory traffic" not in predictions(document, "auto")
    assert "memory traffic" in predictions(document, "im2col")


@pytest.mark.parametrize("most", [1, 3, 100])
def test_differences_add_up_to_the_difference_of_the_steps(most):
    document = documents.question()
    for n in document.everything:
        if base := document.base_of(n):
            found = differences(n, base, most)
            assert sum(d.base_ms for d in found) == pytest.approx(base.step_ms.median)
            assert sum(d.ms for d in found) == pytest.approx(n.step_ms.median)
            assert len(found) <= most + 1


def test_the_largest_differences_are_named_and_layers_of_one_name_are_compared():
    document = documents.question()
    base, cnn = document.comparisons["im2col"][:2]
    rows = {(d.name, d.part): d for d in differences(cnn, base, most=100, least=0)}
    measured = {(row.name, row.part): row.ms for row in cnn.layers}
    assert rows["dense", "grad_weight"].ms == measured["dense", "grad_weight"]
    assert rows["conv2d_1", "forward"].base_ms == 0
    largest = [abs(d.more) for d in differences(cnn, base, most=5, least=0)][:5]
    assert largest == sorted((abs(d.more) for d in rows.values()), reverse=True)[:5]


def test_small_differences_are_put_together():
    document = documents.question()
    base, cnn, _ = document.models
    named = [d for d in differences(cnn, base) if d.name != "rest"]
    assert named
    assert all(abs(d.more) >= 0.01 * cnn.step_ms.median for d in named)


@pytest.mark.parametrize(
    ("ms", "scale", "text"), [(94.21, 141, "+94.2"), (-1.092, 7.2, "-1.09"), (0.0144, 0.235, "+0.014")]
)
def test_differences_have_as_many_places_as_the_step(ms, scale, text):
    assert tables.signed(ms, scale) == text


def test_the_rows_of_a_layer_table_stand_above_their_sum():
    document = documents.question()
    n = document.models[1]
    table = tables.layers(n, document)
    ms = table.columns.index("ms")
    assert sum(row[ms].value for row in table.rows) == pytest.approx(n.step_ms.median)
    assert [table.total[0].text, table.total[ms + 1].text] == ["the step", "100%"]
    small = {row.name for row in n.layers if row.ms < 0.01 * n.step_ms.median}
    assert small
    assert not small & {row[0].text for row in table.rows}
    assert table.rows[-1][0].text == "everything else"
    assert table.rows[0][0].text == "conv2d…"
    assert "conv2d…: conv2d, conv2d_1, max_pooling2d, dropout, fused in one kernel." in table.notes


def test_the_worst_prediction_is_named_with_its_interval():
    document = documents.question()
    document.comparisons["im2col"][2].prediction_error = Ratio(-0.42, -0.44, -0.4)
    assert "small_cnn with im2col, 42% too low (95%: -44% to -40%)." in worst_prediction(document)


def test_the_worst_pass_of_a_predicted_step_is_told_if_it_is_not_too_short():
    document = documents.single()
    long, short = document.models[0].layers[:2]
    for row in document.models[0].layers:
        row.predicted_ms = row.ms
    long.predicted_ms = 1.48 * long.ms
    short.ms = 0.009 * document.models[0].step_ms.median
    short.predicted_ms = 9 * short.ms
    assert "Single passes are off by up to 48%." in worst_prediction(document)


def test_the_terms_of_a_step_add_up_to_its_prediction():
    """The median of a sum, which is predicted, is not the sum of the medians of its rows."""
    document = documents.single()
    n = document.models[0]
    n.predicted_ms *= 1.1
    assert sum(tables.sum_of_terms(n).values()) == pytest.approx(n.predicted_ms)


def test_what_is_not_predicted_is_told_with_its_reason():
    document = documents.single()
    document.models[0].prediction_error = document.models[0].predicted_ms = None
    document.models[0].not_predicted = ["mine"]
    assert worst_prediction(document) == "Not every step is predicted: mine does not declare its work."
    assert worst_prediction(documents.no_machine()) == "No step is predicted in this run."


def test_a_sweep_has_a_row_a_value_and_names_what_does_not_vary():
    table = tables.sweep(documents.sweep("filters"))
    assert table.columns == ["filters", "cnn, auto", "small_cnn, auto", "cnn, im2col", "small_cnn, im2col"]
    assert [row[0].text for row in table.rows] == ["1", "2", "4", "8", "16"]
    assert table.rows[2][1].text == "3.00"
    assert table.notes == ["mlp, auto: 3.00 ms per step."]


# Formulas ----------------------------------------------------------------------------------------------------------


def test_every_formula_gives_the_number_it_stands_for():
    found = formulas(documents.question())
    arithmetic = [formula for formula in found if not formula.arithmetic.startswith("median of")]
    for formula in arithmetic:
        left, right = calculated(formula.arithmetic)
        assert left == pytest.approx(right, rel=6e-3), formula.title
    assert len(arithmetic) > 150


@pytest.mark.parametrize("name", nn.models.NAMES)
@pytest.mark.parametrize("algorithm", ["auto", "im2col"])
def test_formulas_of_counts_are_exact_and_name_their_factors(name, algorithm):
    found = formulas(documents.document([getattr(nn.models, name)()], (algorithm,)))
    counts = [f for f in found if re.search("FLOPs|traffic|MACs|parameters", f.title)]
    for formula in counts:
        left, right = calculated(formula.arithmetic)
        assert left == right, formula.title
        assert "+" in formula.arithmetic or formula.arithmetic.count("×") >= 2, formula.title
    assert len(counts) >= 6


def test_the_cnns_second_convolution_is_explained_by_its_shape():
    found = {f.title: f.arithmetic for f in formulas(documents.document([nn.models.cnn()], ("im2col",)))}
    assert found["conv2d_1, forward: FLOPs"] == "2 × 128 × 1 × 24 × 24 × 3 × 3 × 32 × 64 = 2,717,908,992"


def test_a_users_own_product_is_shown_as_its_count():
    document = documents.document([nn.models.mlp()], ("auto",))
    n = document.models[0]
    (product, *_) = operations = n.structure[0].operations
    operations[0] = replace(product, macs=product.macs // 2)  # a product that does not use each weight once
    n.layers[0].flops //= 2
    found = {f.title: f.arithmetic for f in formulas(document)}
    assert found["dense, forward: FLOPs"] == "2 × 128 × 1 × 200,704 = 51,380,224"


def test_missing_values_have_no_formula():
    assert MISSING.formula is None
    assert not any("predicted" in formula.title for formula in formulas(documents.no_machine()))
