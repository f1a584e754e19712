"""nnlite: a small, fast, honest convolution engine in Python."""

__version__ = "0.1.0"

from nnlite import conv

__all__ = ["conv"]
