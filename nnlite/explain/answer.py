"""The answer in a few short sentences, from a document's numbers: what the first screen says."""

from __future__ import annotations

from nnlite.explain import case_study
from nnlite.explain.case import RANDOM
from nnlite.explain.compare import WITHIN, differences, predictions
from nnlite.explain.document import Document, Interval, Network, Row
from nnlite.explain.names import pass_name, shorten
from nnlite.lab.numbers import listed, milliseconds, short
from nnlite.performance.counts import human_bytes

#: what bounds a row, in words
_BOUNDS = {"compute": "arithmetic", "memory": "memory traffic", "overhead": "the overhead of calls"}


def question(document: Document) -> str:
    """What this run answers, in one sentence."""
    if document.case_study:
        return case_study.QUESTION
    if len(document.models) == 1:
        return f"Where does the time of {document.models[0].name} go, and what would make it faster?"
    others = listed([n.name for n in document.models if n.name != document.baseline])
    verb = "does" if len(document.models) == 2 else "do"
    return f"Why {verb} {others} not take the time of {document.baseline}?"


def sentences(document: Document) -> list[str]:
    """Three to five sentences. Nothing is called faster or slower unless its interval says so."""
    if len(document.models) == 1:
        found = _single(document.models[0], document)
    else:
        found = [*_ratios(document), *_metric(document), *_where(document), *_change(document)]
    return [*found, *_data(document)]


def _times(ratio: float) -> str:
    return f"{short(ratio)} times"


def _known(ratio: Interval | None) -> bool:
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
            differs = n.ratio.low > 1 or n.ratio.high < 1
            took = f"{_times(n.ratio.value)} the time of {base.name}" if differs else f"about the time of {base.name}"
            took = f"{n.name} takes {took}. It"
        uses, base_uses = (m.forward_macs_per_image / max(1, m.parameters) for m in (n, base))
        often = f" and uses each {short(uses)} times per image ({base.name}: {short(base_uses)})"
        macs = _times(n.training_macs_per_image / max(1, base.training_macs_per_image))
        said.append(
            f"{took or n.name} has {_times(n.parameters / base.parameters)} the parameters{often}: {macs} the training "
            "MACs."
        )
    return said[:2]


def _metric(document: Document) -> list[str]:
    """Which metric predicts the ratios, under each algorithm."""
    if not all(_known(n.ratio) for n in document.everything if document.base_of(n)):
        return []
    holds: dict[str, list[str]] = {}
    fails: dict[str, list[str]] = {}
    for algorithm in document.by_algorithm:
        for metric, rows in predictions(document, algorithm).items():
            (holds if all(p.holds for p in rows) else fails).setdefault(metric, []).append(algorithm)
    counts = [metric for metric in holds if metric != "time model"]
    always = [metric for metric in counts if metric not in fails]
    never = "parameters" not in holds
    parts = []
    if never:
        parts.append("Parameters do not predict these times")
    if always:
        verb = "does" if len(always) == 1 else "do"
        parts.append(f"{listed(always)} {verb}, within a factor of {WITHIN:g}")
    elif counts:
        best = max(counts, key=lambda metric: len(holds[metric]))
        parts.append(f"{best} predicts them only with algorithm {listed(holds[best])}")
    else:
        parts.append("neither do MACs or traffic alone" if never else "No single count predicts these times")
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."]


def _where(document: Document) -> list[str]:
    """Which pass of which layer makes the largest difference, for the network that differs most."""
    pairs = [(n, document.base_of(n)) for n in document.models]
    found = [(n, base) for n, base in pairs if base is not None and _known(n.ratio)]
    if not found:
        return []
    network, base = max(found, key=lambda pair: abs(pair[0].step_ms.median - pair[1].step_ms.median))
    longer, shorter = (network, base) if network.step_ms.median > base.step_ms.median else (base, network)
    gap = longer.step_ms.median - shorter.step_ms.median
    largest = max(differences(longer, shorter), key=lambda d: d.more)
    if gap <= 0 or largest.more <= 0:
        return []
    row = next((r for r in longer.layers if (r.name, r.part) == (largest.name, largest.part)), None)
    where = f"{shorten(largest.name)} ({pass_name(largest.part)})" if largest.part != "other" else "what is in no layer"
    why = f", bound by {_BOUNDS[row.bound]}" if row is not None and row.bound else ""
    return [
        f"{longer.name} takes {milliseconds(gap)} more than {shorter.name}; the largest part is "
        f"{milliseconds(min(largest.more, gap))} in {where}{why}."
    ]


def _change(document: Document) -> list[str]:
    """What another algorithm changes, for the network where it changes most."""
    found = []
    for n in document.models:
        for algorithm in document.comparisons:
            other = document.find(n.name, algorithm)
            if other is not None and algorithm != case_study.ALGORITHM and n.convolutions:
                found.append((other.step_ms.median / n.step_ms.median, n, other))
    if not found or document.rounds < document.rounds_asked:
        return []
    ratio, n, other = max(found, key=lambda item: item[0])
    if ratio < 1.05:
        return []
    traffic = ""
    if n.moved_bytes_per_step and other.moved_bytes_per_step:
        traffic = f", with {human_bytes(n.moved_bytes_per_step)} of memory traffic instead of "
        traffic += human_bytes(other.moved_bytes_per_step)
    return [
        f"The algorithm matters: {n.name} takes {milliseconds(n.step_ms.median)} with {n.algorithm} and "
        f"{milliseconds(other.step_ms.median)} with {other.algorithm}{traffic}."
    ]


# One network ---------------------------------------------------------------------------------------------------


def _single(n: Network, document: Document) -> list[str]:
    """Where its time goes, what bounds it, and what would make it faster."""
    rows = sorted(n.layers, key=lambda row: -row.ms)
    top = rows[0]
    said = [
        f"{_place(top)} takes {100 * top.ms / n.step_ms.median:.0f}% of the step of {milliseconds(n.step_ms.median)}"
        + (f", bound by {_BOUNDS[top.bound]}." if top.bound else ".")
    ]
    bounds: dict[str, float] = {}
    for row in n.layers:
        for term, ms in (row.terms_ms or {}).items():
            bounds[term] = bounds.get(term, 0.0) + ms
    total = sum(bounds.values())
    if total and n.predicted_ms:
        shares = [f"{100 * ms / total:.0f}% {_BOUNDS[term]}" for term, ms in bounds.items()]
        said.append(f"The predicted step is {listed(shares)}.")
    return [*said, *_gain(n, document), *_advice(n, bounds, total), *_change(document)]


def _place(row: Row) -> str:
    return "What is in no layer" if row.part == "other" else f"{shorten(row.name)} ({pass_name(row.part)})"


def _gain(n: Network, document: Document) -> list[str]:
    """The pass that lies furthest above what the peak rates allow."""
    if document.machine is None:
        return []
    gains = [(row.ms - floor_ms(row, n, document), row) for row in n.layers if row.work]
    if not gains:
        return []
    gain, row = max(gains, key=lambda item: item[0])
    if gain < 0.05 * n.step_ms.median:
        return ["Every pass is within 5% of the step of what the peak rates of this machine allow."]
    return [
        f"The most to gain is in {_place(row)}: at the peak rates its arithmetic and its traffic would take "
        f"{milliseconds(row.ms - gain)}, not {milliseconds(row.ms)}."
    ]


def floor_ms(row: Row, n: Network, document: Document) -> float:
    """What a pass would take at the peak rates: its executed FLOPs, or its memory traffic, whichever takes longer."""
    assert document.machine is not None
    one = n.threads == 1
    peak = document.machine["fma_gflops_one" if one else "fma_gflops_all"]
    count = 1 if one else document.machine["threads"]
    copies = [b["copy_gbs"] for b in document.machine["bandwidths"] if (b["threads"], b["level"]) == (count, "L3")]
    compute = sum(item.amount for item in row.work if item.flops) / peak / 1e6
    memory = (row.moved_bytes or 0) / max(copies, default=float("inf")) / 1e6
    return min(row.ms, max(compute, memory))


def _advice(n: Network, bounds: dict[str, float], total: float) -> list[str]:
    """What the network's author could change, by what bounds the most of the step."""
    if not total:
        return []
    most = max(bounds, key=lambda term: bounds[term])
    return [
        {
            "compute": "Fewer filters, a smaller kernel or strides would make it faster: they save arithmetic.",
            "memory": "Smaller activations would make it faster: fewer filters before the first pooling, or pooling "
            "earlier.",
            "overhead": f"A larger batch would make each image cheaper: {milliseconds(bounds['overhead'])} of each "
            "step do not depend on how many images it has.",
        }[most]
    ]


def _data(document: Document) -> list[str]:
    """Which networks were timed on random images, if that was not asked for."""
    names = [n.name for n in document.models if n.data == RANDOM]
    if not names or document.data == RANDOM:
        return []
    verb = "was" if len(names) == 1 else "were"
    return [f"{listed(names)} {verb} timed on random images: those of {document.data} do not fit."]
