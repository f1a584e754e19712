"""The tape: `Tensor`, the decorator of its operations, and a check of gradients."""

from nnlite.autograd.node import Backward
from nnlite.autograd.recording import differentiable, is_recording, no_grad
from nnlite.autograd.tensor import Tensor

__all__ = ["Backward", "Tensor", "differentiable", "is_recording", "no_grad"]
