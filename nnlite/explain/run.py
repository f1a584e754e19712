"""From networks to the document: the common part of `nnlite explain` and `nn.explain`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from nnlite import conv
from nnlite.explain import case_study
from nnlite.explain.case import RANDOM, Case, batches
from nnlite.explain.document import Document
from nnlite.explain.measure import ROUNDS, measure
from nnlite.network.datasets import Arrays
from nnlite.network.layers import Conv2D
from nnlite.network.sequential import Sequential
from nnlite.runtime.errors import positive_int, unknown

#: algorithms that "auto" is compared with, if there are convolutions
COMPARED = ("im2col",)


def explain_networks(
    networks: Sequence[Sequential],
    data: Arrays | None,
    *,
    data_name: str = RANDOM,
    algorithm: str = "auto",
    baseline: str | None = None,
    batch_size: int = 128,
    rounds: int = ROUNDS,
    seed: int = 0,
    command: str = "",
    say: Callable[[str], object] = lambda text: None,
) -> Document:
    """Count, predict and time a training step of each network. `data` is (images, labels), or None for random images.

    The networks have unique names and are not changed. The first is the baseline unless one is named.
    Raises ValueError, which names the argument, for an unknown baseline and if a network's step fails.
    """
    positive_int("--rounds", rounds)
    positive_int("--batch-size", batch_size)
    names = [network.name for network in networks]
    if baseline is not None and baseline not in names:
        raise unknown("--baseline", baseline, names)
    if data is not None and batch_size > len(data[0]):
        expected = f"1 to {len(data[0])}, the images of {data_name}"
        raise ValueError(f"--batch-size: expected {expected}. Received: {batch_size}")
    study = _is_case_study(networks)
    others: tuple[str, ...] = ()
    if algorithm == "auto" and any(isinstance(layer, Conv2D) for network in networks for layer in network.layers):
        others = (case_study.ALGORITHM, *COMPARED) if study else COMPARED
    cases = []
    for name in (algorithm, *others):
        if name != "auto":
            conv.get(name)
        for network in networks:
            model = copy.deepcopy(network)
            source, arrays = batches(model, data_name, data, batch_size, seed)
            cases.append(Case(model, name, source, *arrays, batch_size))
    return measure(
        cases,
        baseline=baseline or names[0],
        algorithm=algorithm,
        data=data_name,
        rounds=rounds,
        case_study=study,
        command=command,
        say=say,
    )


def _is_case_study(networks: Sequence[Sequential]) -> bool:
    """Whether these are the three networks of the 2017 question."""
    found = {network.name: network.count_params() for network in networks}
    return found == case_study.PARAMETERS
