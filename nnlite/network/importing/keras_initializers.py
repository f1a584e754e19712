"""The initializers in Keras's files, by nnlite's names."""

from __future__ import annotations

from typing import Any

from nnlite.network import initializers
from nnlite.network.layers.base import default_name

#: names of Keras 1 -> nnlite's
_OLD = {"uniform": "random_uniform", "normal": "random_normal", "zero": "zeros", "one": "ones"}
#: VarianceScaling's (scale, mode) -> nnlite's; the distribution follows
_SCALED: dict[Any, str] = {(1, "fan_avg"): "glorot", (2, "fan_in"): "he", (1, "fan_in"): "lecun"}
_DISTRIBUTIONS = {"uniform": "uniform", "normal": "normal", "truncated_normal": "normal"}
#: the options of those that nnlite has with one value only
_FIXED = {
    "random_normal": {"mean": 0, "stddev": 0.05},
    "random_uniform": {"minval": -0.05, "maxval": 0.05},
}


def named(described: Any) -> str | None:
    """nnlite's name of an initializer, which Keras writes as a name or an object; None if nnlite does not have it.

    Seeds are ignored: the generators of random numbers differ.
    """
    config: dict[str, Any] = {}
    if isinstance(described, dict):
        described, config = described.get("class_name"), described.get("config") or {}
    name = default_name(str(described))
    if name == "variance_scaling":
        family = _SCALED.get((config.get("scale", 1), config.get("mode", "fan_in")))
        distribution = _DISTRIBUTIONS.get(str(config.get("distribution", "truncated_normal")))
        name = f"{family}_{distribution}"
    name = _OLD.get(name, name)
    fixed = _FIXED.get(name, {})
    if any(config.get(option, value) != value for option, value in fixed.items()):
        return None
    try:
        initializers.get(name)
    except ValueError:
        return None
    return name


def said(described: Any) -> str:
    """An initializer in a message."""
    if not isinstance(described, dict):
        return repr(described)
    options = ", ".join(f"{k}={v}" for k, v in (described.get("config") or {}).items() if v is not None)
    return f"{described.get('class_name')}({options})"
