"""Keras-named layers: parameters and shapes; their arithmetic is in nnlite.ops."""

from nnlite.layers.activation import Activation
from nnlite.layers.base import Layer
from nnlite.layers.conv2d import Conv2D
from nnlite.layers.dense import Dense
from nnlite.layers.input import Input
from nnlite.layers.pooling import MaxPooling2D
from nnlite.layers.regularization import Dropout
from nnlite.layers.reshaping import Flatten

__all__ = ["Activation", "Conv2D", "Dense", "Dropout", "Flatten", "Input", "Layer", "MaxPooling2D"]
