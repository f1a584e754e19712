"""Keras-named layers: parameters and shapes; their arithmetic is in nnlite.ops."""

from nnlite.network.layers.activation import Activation
from nnlite.network.layers.base import Layer
from nnlite.network.layers.conv2d import Conv2D
from nnlite.network.layers.dense import Dense
from nnlite.network.layers.input import Input
from nnlite.network.layers.pooling import MaxPooling2D
from nnlite.network.layers.regularization import Dropout
from nnlite.network.layers.reshaping import Flatten

__all__ = ["Activation", "Conv2D", "Dense", "Dropout", "Flatten", "Input", "Layer", "MaxPooling2D"]
