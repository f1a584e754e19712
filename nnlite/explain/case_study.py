"""The question of 2017: Keras's MNIST examples on a CPU, Theano backend, batch 128. Only for its three networks."""

from __future__ import annotations

from nnlite.explain.document import Document, Network
from nnlite.lab.numbers import listed, milliseconds, of, short
from nnlite.lab.table import Cell, Table
from nnlite.performance.counts import human_bytes
from nnlite.performance.statistics import paired_ratio

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
    "theano2017": "theano2017: the 2017 method rebuilt, one thread",
    "im2col": "im2col: patches copied, one product per layer",
    "auto": "auto: nnlite's choice for each layer",
}

QUESTION = (
    "On a 2017 CPU, mlp took 16\u00a0s per epoch, cnn 340\u00a0s with a sixth of the parameters, and small_cnn still "
    "28\u00a0s with a hundredth of them. Why?"
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
    macs, small_macs = (n.training_macs_per_image / base.training_macs_per_image for n in (cnn, small))
    missed = "" if small.ratio.value > 1 else ", so this run does not show it"
    said = [
        f"cnn: a convolution uses each weight at many positions, {uses:.0f} times per image on average (mlp: once). "
        f"That makes {short(macs)} times the MACs (multiply-adds) in training. It took "
        f"{short(reported_ratio('cnn'))} times as long in 2017 ({ALGORITHM}: {short(cnn.ratio.value)}).",
        f"small_cnn: it does only {of(small_macs)} the MACs, but took {short(reported_ratio('small_cnn'))} times as "
        f"long in 2017 ({ALGORITHM}: {short(small.ratio.value)}{missed}). {_moving(small, now['small_cnn'])}",
    ]
    pairs = [(now[n.name], n) for n in (small, cnn)]
    if all(_is_faster(ours, then) for ours, then in pairs):
        times = [
            f"{ours.name}: {milliseconds(ours.step_ms.median)}, not {milliseconds(then.step_ms.median)}"
            for ours, then in pairs
        ]
        copies = any(c.algorithm in _COPYING for ours, _ in pairs for c in ours.convolutions)
        how = [] if copies else ["copies no patches", "fuses layers"]
        if small.threads < document.threads:
            how.append(f"uses {document.threads} threads")
        avoided = f": {document.algorithm} {listed(how)}" if how else f" with {document.algorithm}"
        said.append(f"Most of it is avoidable{avoided} ({'; '.join(times)}).")
    return said


def _is_faster(ours: Network, then: Network) -> bool:
    """Whether a step takes less than half of another's, by the interval of their rounds."""
    high = paired_ratio(ours.step_ms.samples, then.step_ms.samples).high
    return high is not None and high < 0.5


def _moving(small: Network, now: Network) -> str:
    """How much of a step is data movement, as the time model says, and how many bytes."""
    what = "copies of patches, passes over results"
    terms = [row.terms_ms for row in small.layers if row.terms_ms]
    if small.predicted_ms is None or not terms or not small.moved_bytes_per_step or not now.moved_bytes_per_step:
        return f"The 2017 method moves much data: {what}."
    moving = sum(row.get("memory", 0.0) for row in terms) / sum(sum(row.values()) for row in terms)
    then_bytes, now_bytes = human_bytes(small.moved_bytes_per_step), human_bytes(now.moved_bytes_per_step)
    if moving < 0.5:
        return f"Of its predicted step, {100 * moving:.0f}% is data movement: the time model does not explain it so."
    return (
        f"{ALGORITHM} spends {100 * moving:.0f}% of its predicted step on data movement ({what}), {then_bytes} per "
        f"step ({now.algorithm}: {now_bytes})."
    )


def reported_ratio(name: str) -> float:
    """How many times as long as the baseline's epoch was reported to take."""
    return REPORTED_SECONDS[name] / REPORTED_SECONDS[BASELINE]


def ratios(document: Document) -> Table | None:
    """The ratios of 2017 above those of this run; None unless the document is of the question's networks."""
    if not document.case_study or any(n.ratio and n.ratio.low is None for n in document.everything):
        return None
    names = [n.name for n in document.models]
    rows = [[Cell("2017, as reported"), *(Cell(short(reported_ratio(name)), reported_ratio(name)) for name in names)]]
    by_algorithm, order = document.by_algorithm, list(_ALGORITHMS)
    for algorithm in sorted(by_algorithm, key=lambda name: order.index(name) if name in order else -1):
        measured = [n.ratio.value if n.ratio else 1.0 for n in by_algorithm[algorithm]]
        rows.append([Cell(_ALGORITHMS.get(algorithm, algorithm)), *(Cell(short(r), r) for r in measured)])
    return Table(f"Step time relative to {document.baseline}", ["", *names], rows, [])


def sections(document: Document) -> dict[str, list[str]]:
    """Sentences about the 2017 run, by title; empty unless the document is of its three networks."""
    if not document.case_study:
        return {}
    return {
        "What was reported": _reported(document),
        "A reconstruction of the 2017 Theano run": _reconstruction(document),
        "The accepted answer": _accepted_answer(document),
    }


def _reported(document: Document) -> list[str]:
    base = REPORTED_SECONDS[BASELINE]
    said = [
        f"{n.name}: {n.parameters:,} parameters, {REPORTED_SECONDS[n.name]:.0f} s per epoch"
        + (f", {REPORTED_SECONDS[n.name] / base:.3g} times {BASELINE}." if n.name != BASELINE else ".")
        for n in document.models
    ]
    return [*said, "The networks were Keras's MNIST examples on the Theano backend, batch 128, trained with RMSprop."]


def _reconstruction(document: Document) -> list[str]:
    return [
        f"Algorithm {ALGORITHM} changes the data layout around each convolution, runs im2col and one GEMM per image, "
        "uses one thread and fuses nothing.",
        "It has neither Theano's elementwise code nor its BLAS, and this is not the 2017 CPU. So its ratios show why "
        f"cnn and small_cnn are slow, and need not be those of 2017: {_beside_2017(document)}.",
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
        "The accepted answer is right that a convolution uses each weight at every position.",
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
