"""Convolution algorithms: arrays in, arrays out; one file each, under one interface."""

from nnlite.conv.algorithm import Algorithm
from nnlite.conv.choice import select, use, why
from nnlite.conv.epilogue import Epilogue, Fused, Gradients
from nnlite.conv.geometry import PASSES, Geometry
from nnlite.conv.pair import FusedPair, PairWeights
from nnlite.conv.registry import Choice, get, names, register, unregister
from nnlite.conv.tuning import autotune
from nnlite.runtime.errors import Unsupported

__all__ = [
    "PASSES",
    "Algorithm",
    "Choice",
    "Epilogue",
    "Fused",
    "FusedPair",
    "Geometry",
    "Gradients",
    "PairWeights",
    "Unsupported",
    "autotune",
    "get",
    "names",
    "register",
    "select",
    "unregister",
    "use",
    "why",
]
