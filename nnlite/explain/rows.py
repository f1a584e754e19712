"""The counts, times and prediction of a network with one algorithm, as an entry of the document."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnlite.explain import document as doc
from nnlite.explain.case import Case
from nnlite.network.layers import Layer
from nnlite.performance.counts import Cost
from nnlite.performance.model import PassTime, StepModel
from nnlite.performance.profiler import Key
from nnlite.performance.rounds import Samples
from nnlite.performance.statistics import Ratio, interval
from nnlite.runtime import scopes, threads

#: the fewest rounds for an interval; with fewer, no network is called faster or slower
ROUNDS = 15
#: images in an epoch of MNIST
EPOCH_IMAGES = 60_000


def network_of(case: Case, model: StepModel | None, samples: Samples, index: int, ratio: Ratio | None) -> doc.Network:
    steps = np.asarray(samples[index])  # (rounds,)
    counts = case.model.cost(case.batch_size)
    parts = model.predict(samples) if model else {}
    predicted = sum(part.seconds for part in parts.values()) if model and not model.missing else None
    with case.at_work():
        algorithms = case.model.algorithms(case.batch_size)
    step = doc.Samples.of([1e3 * seconds for seconds in steps.tolist()])
    return doc.Network(
        name=case.model.name,
        algorithm=case.algorithm,
        data=case.data,
        input_shape=list(case.model.input_shape or ()),
        threads=case.team.threads or threads.get_num_threads(),
        parameters=counts.parameters,
        forward_macs_per_image=counts.forward_macs_per_image,
        training_macs_per_image=counts.training_macs_per_image,
        unfused_least_bytes_per_step=counts.minimum_traffic,
        moved_bytes_per_step=model.moved_bytes if model else None,
        step_ms=step,
        predicted_ms=None if predicted is None else 1e3 * float(np.median(predicted)),
        prediction_error=None if predicted is None else interval(predicted / steps - 1, fewest=ROUNDS),
        ratio=ratio,
        epoch_s_60000=-(-EPOCH_IMAGES // case.batch_size) * step.median / 1e3,
        not_predicted=model.missing if model else [],
        convolutions=[doc.Convolution(name, *choice) for name, choice in algorithms.items()],
        structure=[_shape(layer, case.batch_size) for layer in case.model.layers],
        layers=_rows(case, counts, parts),
    )


def _rows(case: Case, counts: Cost, parts: Mapping[Key, PassTime]) -> list[doc.Row]:
    """One row per measured part, with its counts and its prediction, in the network's order. Their sum is the step."""
    medians = case.profile.medians()
    order = [layer.name for layer in case.model.layers]

    def place(key: Key) -> tuple[int, int]:
        first = key[0].split("+")[0]
        return order.index(first) if first in order else len(order), scopes.PARTS.index(key[1])

    return [_row(key, 1e3 * medians[key], counts, medians, parts.get(key)) for key in sorted(medians, key=place)]


def _row(key: Key, ms: float, counts: Cost, medians: Mapping[Key, float], part: PassTime | None) -> doc.Row:
    row = doc.Row(*key, *_counted(counts, medians, key), ms=ms)
    if part is None or part.missing:
        return row
    row.predicted_ms = 1e3 * float(np.median(part.seconds))
    row.moved_bytes = part.moved_bytes
    terms = part.terms
    row.bound = max(terms, key=lambda term: terms[term])
    scale = row.predicted_ms / (sum(terms.values()) or 1)  # the median of a sum is not the sum of medians
    row.terms_ms = {name: scale * seconds for name, seconds in terms.items()}
    row.work = [
        doc.WorkItem(
            what=work.item.what,
            kind=work.item.kind,
            size=[int(size) for size in work.item.size],
            calls=work.item.calls,
            flops=work.item.flops,
            moved_bytes=work.item.moved,
            amount=float(work.item.amount),
            rate=work.rate,
            ms=1e3 * float(np.median(work.seconds)),
        )
        for work in part.work
    ]
    return row


def _counted(counts: Cost, medians: Mapping[Key, float], key: Key) -> tuple[int | None, int | None]:
    """FLOPs and minimum traffic, unfused, of a part. "+" joins the names of fused layers."""
    layer, part = key
    if part == "grad_input" and (layer, "gradients") in medians:
        return None, None  # both gradients are one pass: this is the code around it
    if part == "optimizer":
        passes = [p for p in counts.passes if p.part == "optimizer"]
    else:
        parts = ("grad_input", "grad_weight") if part == "gradients" else (part,)
        passes = [p for p in counts.passes if p.layer in layer.split("+") and p.part in parts]
    if not passes:
        return None, None
    return sum(p.flops for p in passes), sum(p.bytes for p in passes)


def _shape(layer: Layer, batch: int) -> doc.LayerShape:
    weights = [list(p.shape) for p in layer.parameters() if p.name == "weight"]
    return doc.LayerShape(
        name=layer.name or "",
        class_name=type(layer).__name__,
        input_shape=list(layer.input_shape or ()),
        output_shape=list(layer.output_shape or ()),
        parameters=layer.count_params(),
        weight_shape=weights[0] if weights else None,
        operations=list(layer.operations(batch)),
    )
