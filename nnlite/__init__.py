"""nnlite: a small, fast, honest convolution engine in Python.

A library (Keras-named layers on a minimal autograd), a laboratory (convolution algorithms side by side, `nn.conv`),
and an explanation (`nnlite explain`: where the time of a network goes, and why parameters do not predict it).
"""

from typing import TYPE_CHECKING, Any

from nnlite import conv, ops
from nnlite.autograd import Tensor, differentiable, no_grad
from nnlite.autograd.gradcheck import gradcheck
from nnlite.network import datasets, initializers, layers, losses, metrics, models, optimizers
from nnlite.network.importing import load_model
from nnlite.network.layers import Activation, Conv2D, Dense, Dropout, Flatten, Input, Layer, MaxPooling2D
from nnlite.network.optimizers import SGD, Adadelta, Adam, RMSprop
from nnlite.network.progress import History
from nnlite.network.sequential import Sequential
from nnlite.runtime.errors import GradientError, GraphError, NNLiteError, Unsupported
from nnlite.runtime.random import seed
from nnlite.runtime.threads import get_num_threads, set_num_threads
from nnlite.runtime.version import __version__

if TYPE_CHECKING:
    from nnlite import compiler, explain

__all__ = [
    "SGD",
    "Activation",
    "Adadelta",
    "Adam",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GradientError",
    "GraphError",
    "History",
    "Input",
    "Layer",
    "MaxPooling2D",
    "NNLiteError",
    "RMSprop",
    "Sequential",
    "Tensor",
    "Unsupported",
    "__version__",
    "compiler",
    "conv",
    "datasets",
    "differentiable",
    "explain",
    "get_num_threads",
    "gradcheck",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "no_grad",
    "ops",
    "optimizers",
    "seed",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    """Import `nn.explain` and `nn.compiler` when they are asked for: a program may need neither their packages."""
    if name not in ("explain", "compiler"):
        raise AttributeError(f"module 'nnlite' has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"nnlite.{name}")
