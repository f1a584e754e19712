"""What tables and pictures call layers that one kernel computes: short, with the whole name said beside them."""

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
    """What tables and figures call a pass."""
    return _PASSES.get(part, part)


def shorten(name: str) -> str:
    """conv2d+conv2d_1+max_pooling2d+dropout -> conv2d+3: the first layer, and how many are in its kernel besides."""
    first, *rest = name.split("+")
    return f"{first}+{len(rest)}" if rest else first


def spelled_out(names: Iterable[str]) -> list[str]:
    """A sentence for each name that `shorten` changes: which layers it stands for."""
    together = dict.fromkeys(name for name in names if "+" in name)
    return [f"{shorten(name)}: {name.replace('+', ', ')} in one kernel" for name in together]


def spoken(name: str, part: str) -> str:
    """A pass of a layer, or what is left of the step, as a sentence calls it."""
    return "what lies between the layers" if part == "other" else f"{name} ({PART_NAMES[part]})"
