"""Convolution algorithms: arrays in, arrays out; one file each, under one interface."""

from nnlite.conv.algorithm import Algorithm
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import PASSES, Geometry
from nnlite.conv.registry import get, names, register, select, unregister, use
from nnlite.errors import Unsupported

__all__ = [
    "PASSES",
    "Algorithm",
    "Epilogue",
    "Geometry",
    "Unsupported",
    "get",
    "names",
    "register",
    "select",
    "unregister",
    "use",
]
