"""The question of 2017: Keras's MNIST examples on a CPU, Theano backend, batch 128. Only for its three networks."""

from __future__ import annotations

from nnlite.explain.document import Convolution, Document, Network
from nnlite.explain.rows import ROUNDS
from nnlite.lab.numbers import listed, of, short, threads_said
from nnlite.lab.table import Cell, Table
from nnlite.performance.statistics import Ratio, paired_ratio

#: network -> its parameters
PARAMETERS = {"mlp": 669_706, "cnn": 110_986, "small_cnn": 5_958}
#: network -> seconds per epoch of 60,000 images, as reported
REPORTED_SECONDS = {"mlp": 16.0, "cnn": 340.0, "small_cnn": 28.0}
BASELINE = "mlp"
#: the algorithm that reconstructs the 2017 run
ALGORITHM = "theano2017"
#: the accepted answer assumes this number of input channels, and finds this ratio of multiplications
ACCEPTED_CHANNELS, ACCEPTED_RATIO = 3, 7.5

#: algorithms that copy image patches
_COPYING = ("im2col", "theano2017")
#: what the algorithms of the default run do, in a few words
_ALGORITHMS = {
    "theano2017": "theano2017, its method rebuilt",
    "im2col": "im2col, copies patches",
    "auto": "auto, nnlite's choice",
}

QUESTION = (
    "On a 2017 CPU, mlp (3 Dense layers) took 16\u00a0s per epoch, cnn (convolutions of 32 and 64 filters) "
    "340\u00a0s with a sixth of the parameters, small_cnn (4 and 4 filters) still 28\u00a0s with a hundredth. Why?"
)


def answer(document: Document) -> list[str]:
    """Why cnn and small_cnn took so long, with this run's numbers; empty if it did not reconstruct that of 2017."""
    then = {name: document.find(name, ALGORITHM) for name in PARAMETERS}
    now = {n.name: n for n in document.models}
    if not document.case_study or any(n and n.ratio and n.ratio.low is None for n in then.values()):
        return []
    cnn, small, base = then["cnn"], then["small_cnn"], then[BASELINE]
    if not (cnn and small and base and cnn.ratio and small.ratio):
        return []
    uses = cnn.forward_macs_per_image / cnn.parameters
    forward = cnn.forward_macs_per_image / base.forward_macs_per_image
    macs, small_macs = (n.training_macs_per_image / base.training_macs_per_image for n in (cnn, small))
    missed = "" if small.ratio.value > 1 else ", so this run does not show it"
    said = [
        f"cnn: a convolution uses each weight at many positions, {uses:.0f} times per image on average (mlp: once). "
        f"That makes {short(forward)} times the MACs (multiply-adds) forward and {short(macs)} times in training. It "
        f"took {short(reported_ratio('cnn'))} times as long in 2017 ({ALGORITHM}: {short(cnn.ratio.value)}).",
        f"small_cnn: it does only {of(small_macs)} mlp's MACs, but took {short(reported_ratio('small_cnn'))} times as "
        f"long in 2017 ({ALGORITHM}: {short(small.ratio.value)}{missed}). {_moving(small)}",
    ]
    pairs = [(now[n.name], n) for n in (small, cnn)]
    if all((_speedup(ours, then).low or 0) > 2 for ours, then in pairs):
        how = _avoids(document, small, [c for ours, _ in pairs for c in ours.convolutions])
        means = f": {document.algorithm} {listed(how)}" if how else f" with {document.algorithm}"
        if names := [c.name for c in now["cnn"].convolutions if c.algorithm == "winograd"]:
            means += f"; in cnn, Winograd needs a quarter of {listed(names)}'s multiplications"
        faster = [short(_speedup(ours, then).value) for ours, then in pairs]
        said.append(
            f"Most of this is avoidable{means}. small_cnn is then {faster[0]} times as fast, cnn {faster[1]} times."
        )
    return said


def _avoids(document: Document, then: Network, convolutions: list[Convolution]) -> list[str]:
    """How the algorithm of this run differs from the reconstruction, for all networks."""
    how = [] if any(c.algorithm in _COPYING for c in convolutions) else ["copies no patches", "fuses layers"]
    if then.threads < document.threads:
        how.append(f"uses {document.threads} threads")
    return how


def _speedup(ours: Network, then: Network) -> Ratio:
    """How many times as long another step takes, by the rounds of both."""
    return paired_ratio(then.step_ms.samples, ours.step_ms.samples, fewest=ROUNDS)


def _moving(small: Network) -> str:
    """How much of a step is data movement, as the time model says, and what it is."""
    terms = [row.terms_ms for row in small.layers if row.terms_ms]
    if not small.predicted_ms or not terms:
        return "The 2017 method moves much data: copies of image patches, passes over results."
    moving = sum(row.get("memory", 0.0) for row in terms) / sum(sum(row.values()) for row in terms)
    if moving < 0.5:
        return f"Of its predicted step, {100 * moving:.0f}% moves data: so data movement does not explain it."
    copies = sum(item.ms for row in small.layers for item in row.work if item.what.startswith("patches"))
    return (
        f"{100 * moving:.0f}% of {ALGORITHM}'s predicted step moves data: {100 * copies / small.predicted_ms:.0f}% in "
        "copies of image patches and sums of their gradients."
    )


def reported_ratio(name: str) -> float:
    """How many times as long as the baseline's epoch was reported to take."""
    return REPORTED_SECONDS[name] / REPORTED_SECONDS[BASELINE]


def epochs(document: Document) -> Table | None:
    """Seconds per epoch in 2017 and in this run, and the ratios; None unless the networks are the question's."""
    if not document.case_study or any(n.ratio and n.ratio.low is None for n in document.everything):
        return None
    names = [n.name for n in document.models]
    reported = [Cell(f"{REPORTED_SECONDS[name]:.0f} ({short(reported_ratio(name))})") for name in names]
    rows = [[Cell("2017, as reported"), *reported]]
    by_algorithm, order = document.by_algorithm, list(_ALGORITHMS)
    for algorithm in sorted(by_algorithm, key=lambda name: order.index(name) if name in order else -1):
        networks = by_algorithm[algorithm]
        cells = [_epoch(n.epoch_s_60000, n.ratio.value if n.ratio else 1.0) for n in networks]
        label = f"{_ALGORITHMS.get(algorithm, algorithm)}, {threads_said(networks[0].threads)}"
        rows.append([Cell(label), *cells])
    title = f"Seconds per epoch of 60,000 images (ratio to {document.baseline}, median of the rounds)"
    return Table(title, ["", *names], rows)


def _epoch(seconds: float, ratio: float) -> Cell:
    return Cell(f"{short(seconds)} ({short(ratio)})", seconds)


def sections(document: Document) -> dict[str, list[str]]:
    """Sentences about the 2017 run, by title; empty unless the document is of its three networks."""
    if not document.case_study:
        return {}
    return {
        "A reconstruction of the 2017 Theano run": _reconstruction(document),
        "The accepted answer": _accepted_answer(document),
    }


def _reconstruction(document: Document) -> list[str]:
    return [
        "Reported were Keras's MNIST examples on the Theano backend, batch 128, trained with RMSprop on a CPU.",
        "mlp: Dense layers of 512, 512 and 10 units. cnn: 3x3 convolutions of 32 and 64 filters, max pooling, a Dense "
        "layer of 10 units. small_cnn: the same with 4 and 4 filters. Dropout in all of them.",
        f"Algorithm {ALGORITHM} changes the data layout around each convolution, runs im2col and one GEMM per image, "
        "uses one thread and fuses nothing.",
        "It has neither Theano's elementwise code nor its BLAS, and this is not the 2017 CPU. So its ratios show why "
        f"cnn and small_cnn are slow, and need not be those of 2017: {_beside_2017(document)}.",
        *_copies(document),
    ]


def _copies(document: Document) -> list[str]:
    """Why im2col takes longer than the reconstruction for small_cnn, if it does."""
    timed = [n for name in ("im2col", ALGORITHM) if (n := document.find("small_cnn", name))]
    found = [[item for row in n.layers for item in row.work if item.kind == "assign"] for n in timed]
    copies = [max(items, key=lambda item: item.ms) for items in found if items]
    if len(copies) < 2 or timed[0].step_ms.median <= timed[1].step_ms.median:
        return []
    rates = [f"{short(item.rate / 1e9)} GB/s" for item in copies]
    return [
        f"For small_cnn, im2col takes longer than {ALGORITHM}, although it has {threads_said(timed[0].threads)}: NumPy "
        f"copies its patches with one thread, {copies[0].size[1]} channels at a time, at {rates[0]}. "
        f"{ALGORITHM} copies rows of {copies[1].size[0]} pixels, at {rates[1]}."
    ]


def _beside_2017(document: Document) -> str:
    """Each network's ratio in the reconstruction and in 2017."""
    ratios = {n.name: n.ratio.value for n in document.by_algorithm.get(ALGORITHM, []) if n.ratio}
    measured = [f"{name} {short(ratio)}, reported {short(reported_ratio(name))}" for name, ratio in ratios.items()]
    return "; ".join(measured) or "this run did not measure them"


def _accepted_answer(document: Document) -> list[str]:
    cnn, small, base = (_counts(document, name) for name in ("cnn", "small_cnn", BASELINE))
    first = next(o.macs for layer in cnn.structure for o in layer.operations if o.macs) // document.batch_size
    forward = cnn.forward_macs_per_image / base.forward_macs_per_image
    training = cnn.training_macs_per_image / base.training_macs_per_image
    of_small = small.training_macs_per_image / base.training_macs_per_image
    reported = REPORTED_SECONDS["small_cnn"] / REPORTED_SECONDS[BASELINE]
    return [
        "The answer that was accepted in 2017 is right that a convolution uses each weight at every position.",
        f"It assumes {ACCEPTED_CHANNELS} input channels. MNIST has 1: the first convolution does {first:,} MACs per "
        f"image, not {ACCEPTED_CHANNELS * first:,}.",
        f"It finds {ACCEPTED_RATIO} times the multiplications of {BASELINE}. Counted here: {forward:.1f} times in the "
        f"forward pass, {training:.1f} times in training.",
        f"Multiplications do not explain small_cnn: they predict {of_small:.2f} times the time of {BASELINE}; "
        f"{reported:.2f} times was reported.",
    ]


def _counts(document: Document, name: str) -> Network:
    return next(n for n in document.models if n.name == name)


def pretends(name: str, parameters: int) -> bool:
    """Whether a network has the name of one of the question's networks but other parameters."""
    return name in PARAMETERS and parameters != PARAMETERS[name]
