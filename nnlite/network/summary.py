"""The table of `model.summary()`: Keras's columns and MACs."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from nnlite.network.layers import Layer
from nnlite.performance.counts import ITEMSIZE

if TYPE_CHECKING:
    from nnlite.network.sequential import Sequential


def render(model: Sequential, batch_size: int, width: int = 88) -> str:
    """The table as text: layer, output shape, parameters, forward MACs per sample; algorithms and fusion below it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f'Model: "{model.name}"', title_justify="left", width=width)
    table.add_column("Layer (type)")
    table.add_column("Output Shape")
    table.add_column("Param #", justify="right")
    table.add_column("MACs", justify="right")
    macs = 0
    for layer in model.layers:
        layer_macs = sum(operation.macs for operation in layer.operations(1))
        macs += layer_macs
        table.add_row(_title(layer), _shape(layer), f"{layer.count_params():,}", f"{layer_macs:,}")
    text = StringIO()
    # force_jupyter: in a notebook, rich would also display the text
    console = Console(width=width, file=text, force_jupyter=False, markup=False, emoji=False, highlight=False)
    console.print(table)
    cost = model.cost()
    for what, count in (
        ("Total", cost.parameters),
        ("Trainable", cost.trained),
        ("Non-trainable", cost.parameters - cost.trained),
    ):
        console.print(f"{what} params: {count:,} ({count * ITEMSIZE / 1024:,.2f} KiB)")
    console.print(
        f"Multiply-accumulates (MACs) per sample: {macs:,} forward, "
        f"{cost.training_macs_per_image:,} in training; 1 MAC = 2 FLOPs"
    )
    for layer_name, (algorithm, reason) in model.algorithms(batch_size).items():
        console.print(f"{layer_name}, batch of {batch_size}: {algorithm} ({reason})")
    for run in model.fused(batch_size):
        again = f"; {run.layers[0].name} is recomputed in the backward pass" if run.is_pair else ""
        console.print(f"{run.name}: fused in one kernel in training{again}")
    return text.getvalue().rstrip()


def _title(layer: Layer) -> str:
    return f"{layer.name} ({type(layer).__name__})"


def _shape(layer: Layer) -> str:
    return f"(None, {', '.join(map(str, layer.output_shape or ()))})"
