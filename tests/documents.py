"""Sample documents of `nnlite explain`: exact counts, made-up times."""

from __future__ import annotations

from contextlib import contextmanager
from types import ModuleType
from unittest import mock

import numpy as np

import nnlite as nn
import nnlite.explain
from nnlite.explain import report
from nnlite.explain.document import (
    Convolution,
    Document,
    LayerShape,
    Network,
    Row,
    Samples,
    WorkItem,
)
from nnlite.performance.statistics import Ratio

BATCH = 128
ROUNDS = 15
#: layers that `auto` computes in one kernel, both gradients at once
FUSED = "conv2d+conv2d_1+max_pooling2d+dropout"
MACHINE = {
    "processor": "a processor",
    "threads": 2,
    "fma_gflops_one": 90.0,
    "fma_gflops_all": 200.0,
    "bandwidths": [
        {"level": level, "bytes": size, "threads": n, "read_gbs": n * speed / 2, "copy_gbs": n * speed / 2}
        for n in (1, 2)
        for level, size, speed in (("L1", 1 << 15, 300.0), ("L2", 1 << 20, 200.0), ("memory", 1 << 28, 20.0))
    ],
}
#: algorithm -> (FLOPs per ms, bytes per ms, overhead per pass in ms, traffic relative to the minimum, threads)
SPEEDS = {
    "auto": (9e7, 1.4e7, 0.01, 1.1, 2),
    "im2col": (6e7, 7e6, 0.03, 3.0, 2),
    "theano2017": (3e7, 4e6, 0.08, 4.0, 1),
}


def question(**options) -> Document:
    """The three networks of the question, under three algorithms."""
    models = [getattr(nn.models, name)() for name in ("mlp", "cnn", "small_cnn")]
    return document(models, case_study=True, **options)


def rendered(sample: Document) -> str:
    """The report's page."""
    with answers():
        return report.render(sample)[0]


def coloured():
    """A network that takes no image of digits."""
    convolution = nn.Conv2D(10, 2, strides=2, activation="relu")
    return nn.Sequential([nn.Input((12, 12, 3)), convolution, nn.Flatten(), nn.Dense(5)], name="coloured")


def wide():
    return nn.Sequential([nn.Input((20,)), nn.Dense(50, activation="relu"), nn.Dense(3)], name="wide")


@contextmanager
def answers():
    """The sentences of the answer; until there are any, some that stand for them."""
    try:
        from nnlite.explain import answer, case_study
    except ImportError:
        answer, case_study = ModuleType("nnlite.explain.answer"), ModuleType("nnlite.explain.case_study")
        answer.question = lambda document: "Why?"
        answer.sentences = lambda document: ["Because."]
        case_study.sections = lambda document: {"What was asked": ["A question."]}
        modules = {"answer": answer, "case_study": case_study}
        with mock.patch.multiple(nnlite.explain, create=True, **modules):
            yield
    else:
        yield


def single(**options) -> Document:
    """One network, one algorithm."""
    return document([nn.models.cnn()], ("auto",), **options)


def odd_names(**options) -> Document:
    """Four networks, whose names are long, or markup; one is not of images of digits."""
    names = ("<b>bold</b> & [b]co[/b]", "a_network_with_a_very_long_name_of_forty_signs", "C", "x\"y'{{ 1 }}")
    models = [_small(name, filters) for name, filters in zip(names, (4, 8, 16, 2), strict=True)]
    return document(models, ("auto",), **options)


def few_rounds() -> Document:
    """Interrupted: two rounds, so there are no intervals."""
    return question(algorithms=("auto",), rounds=2)


def no_machine() -> Document:
    """Nothing is compiled, so nothing is predicted, and there are no peak rates."""
    return question(algorithms=("auto",), predicted=False)


def all_samples() -> dict[str, Document]:
    """Every sample by its name."""
    return {
        "question": question(),
        "single": single(),
        "odd": odd_names(),
        "few": few_rounds(),
        "no_machine": no_machine(),
    }


def document(models, algorithms=tuple(SPEEDS), *, rounds=ROUNDS, predicted=True, case_study=False) -> Document:
    by_algorithm = {}
    for place, algorithm in enumerate(algorithms):
        networks = [_network(m, algorithm, 10 * place + i, rounds, predicted) for i, m in enumerate(models)]
        for n in networks[1:]:
            n.ratio = _interval(np.divide(n.step_ms.samples, networks[0].step_ms.samples), rounds)
        by_algorithm[algorithm] = networks
    own = by_algorithm.pop(algorithms[0])
    return Document(
        machine=MACHINE if predicted else None,
        batch_size=BATCH,
        threads=2,
        algorithm=algorithms[0],
        data="mnist5k",
        baseline=models[0].name,
        rounds=rounds,
        rounds_asked=ROUNDS,
        cautions=[]
        if rounds == ROUNDS
        else [f"Too few rounds ({rounds} of {ROUNDS}): ratios have no intervals. Use --rounds {ROUNDS}."],
        models=own,
        comparisons=by_algorithm,
        case_study=case_study,
        run={
            "command": "nnlite explain",
            "date": "2030-01-01T00:00:00+00:00",
            "processor": "a processor",
            "versions": {"numpy": "2"},
        },
        sweeps=[sweep("filters"), sweep("batch")] if case_study and predicted else [],
        ladder_layer="128x26x26x32 -> 64, 3x3" if case_study and predicted else None,
        ladder=LADDER if case_study and predicted else None,
    )


def _small(name, filters):
    return nn.Sequential(
        [nn.Input((8, 8, 3)), nn.Conv2D(filters, 2, strides=2, activation="relu"), nn.Flatten(), nn.Dense(5)], name=name
    )


def _interval(values, rounds) -> Ratio:
    low, value, high = np.percentile(values, [20, 50, 80])
    return Ratio(float(value), float(low), float(high)) if rounds >= ROUNDS else Ratio(float(value))


def _network(model, algorithm, seed, rounds, predicted) -> Network:
    random = np.random.default_rng(seed)
    cost = model.cost(BATCH)
    threads = SPEEDS[algorithm][4]
    rows = [
        _row(*key, *counts, algorithm, random, predicted) for key, counts in _counts(model, cost, algorithm).items()
    ]
    rows += [Row("loss", "forward", None, None, 0.02), Row("other", "other", None, None, 0.05)]
    total = sum(row.ms for row in rows)
    samples = [total * float(noise) for noise in random.normal(1, 0.01, rounds)]
    step = Samples.of(samples)
    for row in rows:
        row.ms *= step.median / total
    guess = sum(row.predicted_ms or 0 for row in rows) if predicted else None
    return Network(
        name=model.name,
        algorithm=algorithm,
        data="mnist5k",
        input_shape=list(model.input_shape),
        threads=threads,
        parameters=cost.parameters,
        forward_macs_per_image=cost.forward_macs_per_image,
        training_macs_per_image=cost.training_macs_per_image,
        unfused_least_bytes_per_step=cost.minimum_traffic,
        moved_bytes_per_step=sum(row.moved_bytes or 0 for row in rows) if predicted else None,
        step_ms=step,
        predicted_ms=guess,
        prediction_error=_interval(guess / np.array(samples) - 1, rounds) if guess else None,
        ratio=None,
        epoch_s_60000=469 * step.median / 1e3,
        not_predicted=[],
        convolutions=[
            Convolution(layer.name, algorithm, "as asked") for layer in model.layers if layer.name.startswith("conv")
        ],
        structure=structure(model),
        layers=rows,
    )


def _counts(model, cost, algorithm) -> dict[tuple[str, str], tuple[int, int]]:
    """(layer, pass) -> FLOPs, bytes; with auto the first layers of the question's CNNs are in one kernel."""
    fused = algorithm == "auto" and model.name in ("cnn", "small_cnn")
    result: dict[tuple[str, str], tuple[int, int]] = {}
    for p in cost.passes:
        key = ("rmsprop" if p.part == "optimizer" else p.layer, p.part)
        if fused and p.layer in FUSED.split("+") and p.part != "optimizer":
            key = (FUSED, p.part if p.part == "forward" else "gradients")
        flops, size = result.get(key, (0, 0))
        result[key] = flops + p.flops, size + p.bytes
    return result


def _row(name, part, flops, size, algorithm, random, predicted) -> Row:
    speed, bandwidth, overhead, excess, _ = SPEEDS[algorithm]
    moved = int(size * excess)
    terms = {"compute": flops / speed, "memory": moved / bandwidth, "overhead": overhead}
    guess = sum(terms.values())
    row = Row(name, part, flops, size, ms=guess * float(random.uniform(0.85, 1.25)))
    if predicted:
        row.moved_bytes, row.predicted_ms, row.terms_ms = moved, guess, terms
        row.bound = max(terms, key=lambda term: terms[term])
        row.work = [WorkItem("product", "matmul", [BATCH, 10], 1, flops, moved, flops, speed * 1e3, guess)]
    return row


def structure(model) -> list[LayerShape]:
    """The layers of a network as a document holds them."""
    return [
        LayerShape(
            layer.name,
            type(layer).__name__,
            list(layer.input_shape),
            list(layer.output_shape),
            layer.count_params(),
            next((list(p.shape) for p in layer.parameters() if p.name == "weight"), None),
            list(layer.operations(BATCH)),
        )
        for layer in model.layers
    ]


LADDER = [
    {"name": "naive", "ms": 9e4, "changes": "the definition: seven loops of plain Python", "scaled": True},
    {"name": "im2col", "ms": 30.0, "changes": "every patch a row of a matrix, one matrix product", "scaled": False},
    {"name": "winograd", "ms": 5.0, "changes": "a quarter of the products", "scaled": False},
]


def sweep(name):
    """A sweep of two networks that crosses a baseline."""
    points = [
        {"x": x, "network": net, "algorithm": under, "ms": slow * (a + b * x), "training_macs_per_image": 10 * x}
        for under, slow in (("auto", 1.0), ("im2col", 2.5))
        for net, a, b in (("cnn", 1.0, 0.5), ("small_cnn", 0.5, 0.1))
        for x in (1, 2, 4, 8, 16)
    ]
    crossing = {"network": "cnn", "algorithm": "auto", "x": 4.0, "ms": 3.0}
    base = {"x": 0, "network": "mlp", "algorithm": "auto", "ms": 3.0, "training_macs_per_image": 1}
    words = {"title": f"{name} that vary", "x": name, "findings": ["The time grows with it."]}
    return {"name": name, **words, "points": points, "baselines": [base], "crossings": [crossing]}
