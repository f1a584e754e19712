"""The question of 2017: Keras's MNIST examples on a CPU, Theano backend, batch 128. Only for its three networks."""

from __future__ import annotations

from nnlite.explain.document import Document, Network
from nnlite.lab.numbers import short

#: network -> its parameters
PARAMETERS = {"mlp": 669_706, "cnn": 110_986, "small_cnn": 5_958}
#: network -> seconds per epoch of 60,000 images, as reported
REPORTED_SECONDS = {"mlp": 16.0, "cnn": 340.0, "small_cnn": 28.0}
BASELINE = "mlp"
#: the algorithm that reconstructs the 2017 run
ALGORITHM = "theano2017"
#: the accepted answer assumes this number of input channels, and finds this ratio of multiplications
ACCEPTED_CHANNELS, ACCEPTED_RATIO = 3, 7.5

QUESTION = (
    "On a 2017 CPU, mlp took 16\u00a0s per epoch, cnn 340\u00a0s with a sixth of the parameters, and small_cnn still "
    "28\u00a0s with a hundredth of them. Why?"
)


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
    steps = [document.find(name, ALGORITHM) for name in REPORTED_SECONDS]
    known = [n for n in steps if n is not None]
    if len(known) < len(steps):
        return []
    rows = [
        f"{n.name} / {BASELINE}: {short(n.ratio.value)} here, "
        f"{short(REPORTED_SECONDS[n.name] / REPORTED_SECONDS[BASELINE])} reported."
        for n in known
        if n.ratio is not None
    ]
    return [
        f"Algorithm {ALGORITHM} changes the data layout around each convolution, runs im2col and one GEMM per image, "
        "uses one thread and fuses nothing.",
        *rows,
        "The reconstruction has neither Theano's elementwise code nor its BLAS, and this is not the 2017 CPU.",
    ]


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
