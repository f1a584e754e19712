"""The tape: `Tensor`, the decorator of its operations, and a check of gradients."""

from nnlite.autograd.tensor import Backward, Tensor, differentiable, is_recording, no_grad

__all__ = ["Backward", "Tensor", "differentiable", "is_recording", "no_grad"]
