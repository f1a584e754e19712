"""The formula behind a number of the report, with this run's values.

Factors are shown only if their product is the count in the document; otherwise the count itself is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from nnlite.explain.document import LayerShape, Network, Operation, Row
from nnlite.explain.names import pass_name
from nnlite.lab.numbers import short
from nnlite.lab.table import Formula
from nnlite.performance.counts import ITEMSIZE, OPTIMIZER_PASSES

_PASSES = ("forward", "grad_input", "grad_weight")


def parameters(network: Network) -> Formula | None:
    """Weights plus biases, layer by layer."""
    layers = [layer for layer in network.structure if layer.parameters]
    terms = []
    for layer in layers:
        weights = layer.weight_shape or []
        rest = layer.parameters - (prod(weights) if weights else 0)
        terms.append(" + ".join(filter(None, [_product(weights), f"{rest:,}" if rest else ""])))
    meaning = f"weights + biases of {', '.join(layer.name for layer in layers)}"
    return _formula(f"{network.name}: parameters", "", terms, network.parameters, meaning)


def training_macs(network: Network, batch: int) -> Formula | None:
    """MACs per image of the forward pass and both gradients."""
    terms = []
    for layer, operation, passes in _operations(network, {layer.name for layer in network.structure}, _PASSES):
        if operation.macs:
            terms.append(f"{len(passes)} × {_macs(layer, operation, batch)}")
    meaning = "passes (3; 2 in the first product, which has no dX) × output positions × weight shape"
    return _formula(f"{network.name}: training MACs per image", "", terms, network.training_macs_per_image, meaning)


def flops(network: Network, row: Row, batch: int) -> Formula | None:
    """2 FLOPs per MAC, summed over the batch."""
    terms = [
        f"{len(passes)} × {_macs(layer, operation, batch)}"
        for layer, operation, passes in _operations(network, set(row.name.split("+")), _passes(row))
        if operation.macs and passes
    ]
    meaning = "2 FLOPs per MAC × images × (passes × output positions × weight shape)"
    return _formula(f"{_title(row)}: FLOPs", f"2 × {batch} × ", terms, row.flops, meaning)


def minimum_traffic(network: Network, row: Row, batch: int) -> Formula | None:
    """Every array that the pass reads or writes, counted once."""
    title = f"{_title(row)}: minimum traffic"
    if row.part == "optimizer":
        terms = [f"{OPTIMIZER_PASSES} × {network.parameters:,}"]
        meaning = "bytes of a float32 × arrays that RMSprop reads and writes × parameters"
        return _formula(title, f"{ITEMSIZE} × ", terms, row.bytes, meaning)
    terms, kinds = [], []
    for layer, operation, passes in _operations(network, set(row.name.split("+")), _passes(row)):
        counts = [count for part in passes if (count := getattr(operation, part))]
        terms += [_elements(layer, count, batch) for count in counts]
        kinds += [operation.kind] * bool(counts)
    meaning = f"bytes of a float32 × elements read and written by {', '.join(dict.fromkeys(kinds))}"
    return _formula(title, f"{ITEMSIZE} × ", terms, row.bytes, meaning)


def predicted(
    title: str, terms: dict[str, float] | None, total: float | None, row: Row | None = None
) -> Formula | None:
    """The time model's terms, and the work items of a row behind them."""
    if not terms or total is None:
        return None
    items = "; ".join(f"{item.what} {short(item.ms)} ms" for item in row.work) if row else ""
    arithmetic = f"{' + '.join(map(short, terms.values()))} = {short(total)}"
    return Formula(f"{title}: predicted ms", arithmetic, " + ".join(terms) + (f". Work: {items}" if items else ""))


def ratio(what: str, network: Network, base: Network, value: float, base_value: float) -> Formula:
    """A number of a network divided by the baseline's."""
    arithmetic = f"{_plain(value)} / {_plain(base_value)} = {short(value / base_value)}"
    return Formula(f"{what}: {network.name} to {base.name}", arithmetic, f"{network.name} / {base.name}")


def step(network: Network) -> Formula:
    """The median step, from the times of all rounds."""
    samples = sorted(network.step_ms.samples)
    shown = ", ".join(short(ms) for ms in samples)
    return Formula(f"{network.name}: step, ms", f"median of {len(samples)} rounds: {shown}", "sorted")


def step_ratio(network: Network, base: Network) -> Formula:
    """The median ratio, from the ratios of all rounds."""
    ratios = sorted(a / b for a, b in zip(network.step_ms.samples, base.step_ms.samples, strict=False))
    shown = ", ".join(short(ratio) for ratio in ratios)
    title = f"step: {network.name} to {base.name}"
    return Formula(title, f"median of {len(ratios)} ratios: {shown}", "the two steps of each round; sorted")


def _formula(title: str, before: str, terms: list[str], value: int | None, meaning: str) -> Formula | None:
    """None without a value or terms."""
    if value is None or not terms:
        return None
    left = " + ".join(terms)
    if before and "+" in left:
        left = f"({left})"
    return Formula(title, f"{before}{left} = {value:,}", meaning)


def _operations(
    network: Network, names: set[str], parts: tuple[str, ...]
) -> Iterator[tuple[LayerShape, Operation, list[str]]]:
    """(layer, operation, the passes of `parts` that it has) in the named layers.

    There is no dX up to the network's first product: nothing needs the gradient of the data.
    """
    after = False
    for layer in network.structure:
        has_product = any(operation.macs for operation in layer.operations)
        for operation in layer.operations if layer.name in names else ():
            needed = after or (has_product and not operation.macs)
            yield layer, operation, [part for part in parts if needed or part != "grad_input"]
        after = after or has_product


def _macs(layer: LayerShape, operation: Operation, batch: int) -> str:
    """MACs of one pass per image: output positions times weight elements."""
    sizes = [*layer.output_shape[:-1], *(layer.weight_shape or [0])]
    return _product(sizes) if prod(sizes) * batch == operation.macs else f"{operation.macs // batch:,}"


def _elements(layer: LayerShape, count: int, batch: int) -> str:
    """A number of elements, written as the sizes of the arrays that hold them."""
    inputs, outputs, weights = [batch, *layer.input_shape], [batch, *layer.output_shape], layer.weight_shape
    if weights:
        arrays = [inputs, weights, outputs]
        bias = count - sum(map(prod, arrays))
        if bias in (0, layer.parameters - prod(weights)):
            return " + ".join(map(_product, arrays)) + (f" + {bias:,}" if bias else "")
    if prod(inputs) + prod(outputs) == count and inputs != outputs:
        return f"{_product(inputs)} + {_product(outputs)}"
    return f"{count:,}" if count % prod(outputs) else _product([count // prod(outputs), *outputs])


def _passes(row: Row) -> tuple[str, ...]:
    return _PASSES[1:] if row.part == "gradients" else (row.part,)


def _title(row: Row) -> str:
    return f"{row.name}, {pass_name(row.part)}"


def _product(sizes: list[int]) -> str:
    return " × ".join(f"{size:,}" for size in sizes)


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else short(value)
