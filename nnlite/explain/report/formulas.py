"""Where each number comes from: its formula, with the values of the run in it.

A formula is plain arithmetic that can be calculated again; a test does so for every formula of a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from nnlite.cost import ITEMSIZE, OPTIMIZER_PASSES
from nnlite.explain.accuracy import off
from nnlite.explain.numbers import short
from nnlite.explain.question import EPOCH_IMAGES
from nnlite.explain.report.run import Model, step
from nnlite.scopes import PART_NAMES

Layer = dict[str, Any]
Operation = dict[str, Any]
_BACK = ("grad_input", "grad_weight")
#: operations of which the shapes of a layer tell the counts
_SHAPED = ("conv2d", "dense")


@dataclass(frozen=True)
class Formula:
    """What a number is, its arithmetic (left = right), and what the factors mean."""

    title: str
    arithmetic: str
    meaning: str


def parameters(model: Model) -> Formula | None:
    """The sum over the layers that have any; None where the document does not describe the layers."""
    rows = [s for s in model.get("structure") or [] if s["parameters"]]
    if not rows:
        return None
    terms = [_layer_parameters(s) for s in rows]
    meaning = "weights + biases of " + ", ".join(s["name"] for s in rows)
    return Formula(f"{model['name']}: parameters", f"{' + '.join(terms)} = {model['parameters']:,}", meaning)


def _layer_parameters(s: Layer) -> str:
    if not s.get("weight_shape"):
        return f"{s['parameters']:,}"
    weights = " × ".join(f"{size:,}" for size in s["weight_shape"])
    bias = s["parameters"] - prod(s["weight_shape"])
    return f"({weights} + {bias:,})" if bias else f"({weights})"


def macs(model: Model, batch: int, training: bool) -> Formula | None:
    """MACs an image, forward or with both gradients."""
    names = [s["name"] for s in model.get("structure") or []]
    products = _products(model, names, ("forward", *_BACK) if training else ("forward",), batch)
    if not products:
        return None
    terms = [(f"{times} × " if training else "") + sizes for times, sizes in products]
    kind, key = ("training", "training_macs_per_image") if training else ("forward", "forward_macs_per_image")
    meaning = "places × filters × kernel × channels, or inputs × outputs"
    if training:
        meaning = f"forward, weight gradient and input gradient, which the first layer does without; {meaning}"
    return Formula(f"{model['name']}: {kind} MACs an image", f"{' + '.join(terms)} = {model[key]:,}", meaning)


def _products(model: Model, names: list[str], parts: Sequence[str], batch: int) -> list[tuple[int, str]]:
    """Of each product in the named layers: how many of the passes it has, and the MACs of one for an image."""
    found = [(s, o, passes) for s, o, passes in _operations(model, names, parts) if o["macs"] and passes]
    return [(len(passes), _macs(s, operation, batch)) for s, operation, passes in found]


def _operations(model: Model, names: list[str], parts: Sequence[str]) -> Iterator[tuple[Layer, Operation, list[str]]]:
    """(layer, operation, which of the passes it has) in the named layers.

    Up to a network's first product there is no input gradient: nobody needs the gradient of the data.
    """
    after = False
    for s in model.get("structure") or []:
        has_product = any(operation["macs"] for operation in s["operations"])
        for operation in s["operations"] if s["name"] in names else ():
            needed = after or (has_product and not operation["macs"])
            yield s, operation, [part for part in parts if needed or part != "grad_input"]
        after = after or has_product


def _macs(s: Layer, operation: Operation, batch: int) -> str:
    """Of one image: every place of the output, every filter, every tap; of a user's own product the count alone."""
    if operation["kind"] not in _SHAPED:
        return f"{operation['macs'] // batch:,}"
    return _product([*s["output_shape"][:-1], *s["weight_shape"]])


def _passes(layer: Layer) -> Sequence[str]:
    """The passes that a row stands for."""
    return _BACK if layer["pass"] == "gradients" else (layer["pass"],)


def flops(model: Model, layer: Layer, batch: int) -> Formula:
    """2 for each MAC, of every image."""
    title = f"{_row(layer)}: FLOPs"
    products = _products(model, layer["name"].split("+"), _passes(layer), batch)
    if not products:
        return Formula(title, f"2 × {layer['flops'] // 2:,} = {layer['flops']:,}", "2 FLOPs × MACs")
    both = layer["pass"] == "gradients"
    terms = [f"2 × {batch} × {sizes}" + (f" × {times}" if both else "") for times, sizes in products]
    meaning = "2 FLOPs a MAC × images × places × kernel × channels × filters"
    if both:
        meaning += " × gradients: of weight and input, in the network's first product of the weight alone"
    return Formula(title, f"{' + '.join(terms)} = {layer['flops']:,}", meaning)


def _row(layer: Layer) -> str:
    return f"{layer['name']}, {PART_NAMES[layer['pass']]}"


def least_bytes(model: Model, layer: Layer, batch: int) -> Formula:
    """Every array that the pass reads or writes, once."""
    title = f"{_row(layer)}: unfused least bytes"
    if layer["pass"] == "optimizer":
        arithmetic = f"{ITEMSIZE} × {OPTIMIZER_PASSES} × {model['parameters']:,} = {layer['bytes']:,}"
        return Formula(title, arithmetic, "bytes of a float32 × passes over the parameters × parameters")
    terms = _arrays(model, layer, batch)
    if not terms:
        return Formula(title, f"{ITEMSIZE} × {layer['bytes'] // ITEMSIZE:,} = {layer['bytes']:,}", "bytes × elements")
    arithmetic = f"{ITEMSIZE} × ({' + '.join(sizes for _, sizes in terms)}) = {layer['bytes']:,}"
    names = ", ".join(dict.fromkeys(name for name, _ in terms))
    return Formula(title, arithmetic, f"bytes of a float32 × elements read and written by {names}")


def _arrays(model: Model, layer: Layer, batch: int) -> list[tuple[str, str]]:
    """(operation, elements that it reads and writes) of the pass."""
    terms = []
    for s, operation, passes in _operations(model, layer["name"].split("+"), _passes(layer)):
        counts = [operation.get(part, 0) for part in passes]
        terms += [(operation["kind"], _sizes(s, operation, count, batch)) for count in counts if count]
    return terms


def _sizes(s: Layer, operation: Operation, count: int, batch: int) -> str:
    """The count as sizes of arrays: all that a product or a pooling touches, or one array some times."""
    inputs, outputs = [batch, *s["input_shape"]], [batch, *s["output_shape"]]
    if operation["kind"] in _SHAPED:
        arrays = [inputs, s["weight_shape"], outputs]
        bias = count - sum(map(prod, arrays))
        return " + ".join(map(_product, [*arrays, [bias]] if bias else arrays))
    if operation["kind"] == "max_pool2d":
        return f"{_product(inputs)} + {_product(outputs)}"
    if count % prod(outputs):
        return f"{count:,}"
    return _product([count // prod(outputs), *outputs])


def _product(sizes: list[int]) -> str:
    return " × ".join(f"{size:,}" for size in sizes)


def speed(layer: Layer) -> Formula:
    """GFLOP/s of a pass."""
    rate = layer["flops"] / layer["ms"] / 1e6
    title = f"{_row(layer)}: speed"
    arithmetic = f"{layer['flops']:,} / {layer['ms']:.6g} / 1,000,000 = {short(rate)}"
    return Formula(title, arithmetic, "FLOPs / ms / 10⁶ = GFLOP/s")


def predicted(layer: Layer) -> Formula | None:
    """The time model's terms; None where the document does not give them."""
    terms = layer.get("terms_ms")
    if not terms:
        return None
    title = f"{_row(layer)}: predicted ms"
    arithmetic = f"{' + '.join(f'{ms:.6f}' for ms in terms.values())} = {short(layer['predicted_ms'])}"
    stages = "; ".join(f"{s['what']} {short(s['ms'])} ms" for s in layer.get("stages") or [])
    return Formula(title, arithmetic, " + ".join(terms) + (f". Stages: {stages}" if stages else ""))


def predicted_step(model: Model, sums: dict[str, float]) -> Formula:
    """The time model's terms, each summed over the step."""
    arithmetic = f"{' + '.join(f'{ms:.6f}' for ms in sums.values())} = {short(model['predicted_ms'])}"
    return Formula(f"{model['name']}: the predicted step, ms", arithmetic, " + ".join(sums))


def error(name: str, predicted_ms: float, ms: float) -> Formula:
    """Percent by which a prediction is off."""
    arithmetic = f"100 × ({predicted_ms:.6g} / {ms:.6g} - 1) = {100 * off(predicted_ms, ms):.4g}"
    return Formula(f"{name}: off by, %", arithmetic, "100 × (predicted / measured - 1)")


def share(model: Model, layer: Layer) -> Formula:
    """Percent of the step."""
    percent = 100 * layer["ms"] / step(model)
    title = f"{_row(layer)}: share of the step"
    return Formula(
        title, f"100 × {layer['ms']:.6g} / {step(model):.6g} = {short(percent)}", "100 × ms / ms of the step"
    )


def ratio(model: Model, base: Model, label: str, value: float, other: float) -> Formula:
    """A network's count or time relative to the baseline's."""
    title = f"{label}: {model['name']} to {base['name']}"
    left = f"{_plain(value)} / {_plain(other)}"
    return Formula(title, f"{left} = {short(value / other)}", f"{model['name']} / {base['name']}")


def epoch(model: Model, batch: int) -> Formula:
    """Seconds of an epoch of 60,000 images, from the median step."""
    steps = -(-EPOCH_IMAGES // batch)
    arithmetic = f"{steps} × {step(model):.6g} / 1,000 = {short(model['epoch_s_60000'])}"
    return Formula(f"{model['name']}: an epoch", arithmetic, f"steps of {batch} images × median ms / 1,000 = s")


def median(model: Model) -> Formula:
    """The measured step among its samples."""
    samples = model["step_ms"]["samples"]
    shown = ", ".join(short(s) for s in sorted(samples))
    return Formula(f"{model['name']}: the measured step, ms", f"median of {len(samples)} steps: {shown}", "sorted")


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
