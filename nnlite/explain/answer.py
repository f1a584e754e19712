"""The answer in a few short sentences: the text of the first screen, from a document's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from nnlite.explain import case_study
from nnlite.explain.case import RANDOM
from nnlite.explain.compare import PREDICTED, WITHIN, Difference, differences, predictions
from nnlite.explain.document import Document, Network, Row
from nnlite.explain.names import spoken
from nnlite.explain.rows import ROUNDS
from nnlite.lab.numbers import listed, milliseconds, of
from nnlite.performance.counts import human_bytes
from nnlite.performance.statistics import Ratio, paired_ratio
from nnlite.runtime.scopes import PART_NAMES

#: what limits a pass, as a sentence names it
_LIMITS = {"compute": "arithmetic", "memory": "data movement", "overhead": "call overhead"}


def question(document: Document) -> str:
    """The question that this run answers, in one sentence."""
    if document.case_study:
        return case_study.QUESTION
    if len(document.models) == 1:
        return f"Where does the time of {document.models[0].name} go, and what would make it faster?"
    others = listed([n.name for n in document.models if n.name != document.baseline])
    verb = "does" if len(document.models) == 2 else "do"
    return f"How long {verb} {others} take compared with {document.baseline}, and why?"


def sentences(document: Document) -> list[str]:
    """Three to five sentences. A difference is reported only if its interval excludes 1."""
    if len(document.models) == 1:
        found = _single(document.models[0], document)
    else:
        first = case_study.answer(document) or [*_ratios(document), *_change(document)]
        found = [*first, *_where(document), *_metric(document)]
    return [*found, *_data(document)]


def _differs(ratio: Ratio) -> bool:
    """Whether the interval leaves out 1."""
    return ratio.low is not None and ratio.high is not None and (ratio.low > 1 or ratio.high < 1)


def _known(ratio: Ratio | None) -> bool:
    return ratio is not None and ratio.low is not None


# Several networks ----------------------------------------------------------------------------------------------


def _ratios(document: Document) -> list[str]:
    """How long each network takes beside the baseline, with how many parameters, and how often it uses each."""
    said = []
    for n in document.models:
        base = document.base_of(n)
        if base is None or n.ratio is None:
            continue
        took = ""
        if n.ratio.low is not None and n.ratio.high is not None:
            share = of(n.ratio.value) if _differs(n.ratio) else "about"
            took = f"{share} the time of {base.name}"
            took = f"{n.name} takes {took}. It"
        uses, base_uses = (_uses(m.forward_macs_per_image / max(1, m.parameters)) for m in (n, base))
        forward = of(n.forward_macs_per_image / max(1, base.forward_macs_per_image))
        training = of(n.training_macs_per_image / max(1, base.training_macs_per_image)).removesuffix(" of")
        said.append(
            f"{took or n.name} has {of(n.parameters / base.parameters)} the parameters and uses each {uses} per "
            f"image ({base.name}: {base_uses}). So it does {forward} the MACs forward and {training} in training."
        )
    return said[:2]


def _uses(count: float) -> str:
    return "once" if abs(count - 1) < 0.005 else f"{count:.3g} times"


def _metric(document: Document) -> list[str]:
    """Whether one count predicts the ratios, with each algorithm, and how often the predicted time does."""
    if not all(_known(n.ratio) for n in document.everything if document.base_of(n)):
        return []
    found: dict[str, list[bool]] = {}
    for algorithm in document.by_algorithm:
        for metric, rows in predictions(document, algorithm).items():
            found.setdefault(metric, []).extend(p.holds for p in rows)
    model = found.pop(PREDICTED, [])
    every = max((len(held) for held in found.values()), default=0)
    always = [metric for metric, held in found.items() if len(held) == every and all(held)]
    which = f"every ratio with {listed(list(document.by_algorithm))}" if every > 1 else "this ratio"
    within = f"{which} within a factor of {WITHIN:g}"
    if always:
        return [f"Of the counts, {listed(always)} {_predicts(always)} {within}."]
    said = f"No single count (parameters, MACs, memory traffic) predicts {within}"
    if len(model) < every or not any(model):
        return [f"{said}."]
    return [f"{said}; the predicted times do{'' if all(model) else f' for {sum(model)} of {every}'}."]


def _predicts(metrics: Sequence[str]) -> str:
    return "predicts" if len(metrics) == 1 and "traffic" in metrics[0] else "predict"


def _where(document: Document) -> list[str]:
    """The layer with the largest difference, for the network that differs most from the baseline."""
    pairs = [(n, document.base_of(n)) for n in document.models]
    found = [(n, base) for n, base in pairs if base is not None and n.ratio and _differs(n.ratio)]
    if not found:
        return []
    network, base = max(found, key=lambda pair: abs(pair[0].step_ms.median - pair[1].step_ms.median))
    longer, shorter = (network, base) if network.step_ms.median > base.step_ms.median else (base, network)
    gap = longer.step_ms.median - shorter.step_ms.median
    by_layer: dict[str, list[Difference]] = {}
    for d in differences(longer, shorter):
        by_layer.setdefault(d.name, []).append(d)
    largest = max(by_layer.values(), key=lambda passes: sum(d.more for d in passes))
    more = sum(d.more for d in largest)
    if gap <= 0 or more <= 0:
        return []
    share = (
        "all"
        if more >= gap
        else "nearly all"
        if more >= 0.9 * gap
        else "most"
        if more >= 0.5 * gap
        else milliseconds(more)
    )
    passes = [d for d in largest if d.more >= 0.1 * more]
    each = [f"{milliseconds(d.more)} {PART_NAMES[d.part]}" for d in passes]
    rows = [row for row in longer.layers if (row.name, row.part) in {(d.name, d.part) for d in passes}]
    where = (
        spoken(passes[0].name, passes[0].part) if len(each) == 1 else f"{spoken(passes[0].name)} ({', '.join(each)})"
    )
    return [
        f"With {network.algorithm}, {longer.name} takes {milliseconds(gap)} longer than {shorter.name}, {share} "
        f"in {where}{_limited(rows)}."
    ]


def _limited(rows: Sequence[Row]) -> str:
    """What limits these passes, if it is the same for all and at least half of their time is predicted."""
    bounds = {row.bound for row in rows}
    found = len(bounds) == 1 and sum(row.predicted_ms or 0 for row in rows) >= 0.5 * sum(row.ms for row in rows)
    return f", limited by {_LIMITS[rows[0].bound]}" if found and rows[0].bound else ""


def _change(document: Document) -> list[str]:
    """The effect of another algorithm, for the network where it is largest."""
    found = []
    for n in document.models:
        for algorithm in document.comparisons:
            other = document.find(n.name, algorithm)
            if other is not None and algorithm != case_study.ALGORITHM and n.convolutions:
                found.append((paired_ratio(other.step_ms.samples, n.step_ms.samples, fewest=ROUNDS), n, other))
    if not found:
        return []
    ratio, n, other = max(found, key=lambda item: item[0].value)
    if ratio.low is None or ratio.low <= 1:
        return []
    traffic = ["", ""]
    if n.moved_bytes_per_step and other.moved_bytes_per_step:
        traffic = [f" ({human_bytes(m.moved_bytes_per_step or 0)} of memory traffic)" for m in (n, other)]
    return [
        f"The algorithm matters: {n.name} takes {milliseconds(n.step_ms.median)} with {n.algorithm}{traffic[0]} and "
        f"{milliseconds(other.step_ms.median)} with {other.algorithm}{traffic[1]}."
    ]


# One network ---------------------------------------------------------------------------------------------------


def _single(n: Network, document: Document) -> list[str]:
    """Where its time goes, what bounds it, and what would make it faster."""
    rows = sorted(n.layers, key=lambda row: -row.ms)
    top = rows[0]
    said = [
        f"{100 * top.ms / n.step_ms.median:.0f}% of the step of {milliseconds(n.step_ms.median)} is in "
        f"{spoken(top.name, top.part)}{_limited([top])}."
    ]
    bounds: dict[str, float] = {}
    for row in n.layers if n.predicted_ms else ():
        for term, ms in (row.terms_ms or {}).items():
            bounds[term] = bounds.get(term, 0.0) + ms
    total = sum(bounds.values())
    if total:
        shares = [f"{100 * ms / total:.0f}% is {_LIMITS[term]}" for term, ms in bounds.items() if ms >= 0.005 * total]
        said.append(f"Of the predicted step, {listed(shares)}.")
    return [*said, *_gain(n, document), *_advice(n, bounds, total), *_change(document)]


def _gain(n: Network, document: Document) -> list[str]:
    """The pass with the largest difference between its time and its time at the peak rates."""
    if document.machine is None:
        return []
    gains = [(row.ms - floor_ms(row, n, document), row) for row in n.layers if row.work]
    if not gains:
        return []
    gain, row = max(gains, key=lambda item: item[0])
    if gain < 0.05 * n.step_ms.median:
        return ["At this machine's peak rates, no pass would save more than 5% of the step."]
    return [
        f"The largest possible saving is in {spoken(row.name, row.part)}: at this machine's peak rates it would take "
        f"{milliseconds(row.ms - gain)} instead of {milliseconds(row.ms)}."
    ]


def executed_flops(row: Row) -> float:
    """FLOPs of a pass as its algorithm executes them; 0 if it does not declare its work."""
    return sum(item.amount for item in row.work if item.flops)


def floor_ms(row: Row, n: Network, document: Document) -> float:
    """The time of a pass at the peak rates, ms: of its executed FLOPs or its memory traffic, whichever is longer."""
    peak, copies = document.peak_rates(n.threads)
    compute = executed_flops(row) / peak / 1e6
    memory = (row.moved_bytes or 0) / copies.get("L3", inf) / 1e6
    return min(row.ms, max(compute, memory))


def _advice(n: Network, bounds: dict[str, float], total: float) -> list[str]:
    """What to change in the network, by what bounds the largest part of the step."""
    if not total:
        return []
    most = max(bounds, key=lambda term: bounds[term])
    if most == "overhead":
        fixed = milliseconds(bounds["overhead"])
        return [
            f"Call overhead dominates: {fixed} per step. It does not grow with the batch size, so use a larger batch."
        ]
    if most == "compute":
        change = "fewer filters, a smaller kernel or larger strides" if n.convolutions else "fewer units"
        return [f"Arithmetic dominates. To reduce it, use {change}."]
    change = "fewer filters before the first pooling, or pool earlier" if n.convolutions else "fewer units"
    return [f"Data movement dominates. To reduce it, use {change}."]


def _data(document: Document) -> list[str]:
    """Which networks were timed on random images although a data set was asked for."""
    names = [n.name for n in document.models if n.data == RANDOM]
    if not names or document.data == RANDOM:
        return []
    verb = "was" if len(names) == 1 else "were"
    return [f"{listed(names)} {verb} timed on random images: the images or labels of {document.data} do not fit."]
