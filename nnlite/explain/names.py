"""Short names of passes and of fused layers, for tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Iterable

from nnlite.runtime.scopes import PART_NAMES

_PASSES = {
    "grad_input": "dX",
    "grad_weight": "dW",
    "gradients": "dX + dW",
    "optimizer": "update",
    "other": "between layers",
}


def pass_name(part: str) -> str:
    """The name of a pass in tables and figures."""
    return _PASSES.get(part, part)


def shorten(name: str) -> str:
    """conv2d+conv2d_1+max_pooling2d+dropout -> conv2d…: the first of the fused layers."""
    first, *rest = name.split("+")
    return f"{first}…" if rest else first


def layer_and_pass(name: str, part: str) -> tuple[str, str]:
    """A layer's short name and its pass, for tables and figures; time outside of layers has no pass."""
    if part == "other":
        return "everything else" if name == "rest" else pass_name(part), ""
    return shorten(name), pass_name(part)


def spelled_out(names: Iterable[str]) -> list[str]:
    """For each name that `shorten` changes, the layers it stands for."""
    changed = dict.fromkeys(name for name in names if shorten(name) != name)
    return [f"{shorten(name)}: {name.replace('+', ', ')}, fused in one kernel" for name in changed]


def spoken(name: str, part: str = "") -> str:
    """A layer and its pass, or the rest of the step, as a sentence names it."""
    if part == "other":
        return "the rest of the step" if name == "rest" else "the code between the layers"
    if part == "optimizer":
        return f"the update by {name}"
    first, *rest = name.split("+")
    layers = f"the fused layers {first} {'to' if len(rest) > 1 else 'and'} {rest[-1]}" if rest else name
    return f"{layers} ({PART_NAMES[part]})" if part else layers
