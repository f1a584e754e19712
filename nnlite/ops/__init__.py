"""Differentiable operations, each with its gradient beside it. They know nothing of layers."""

from nnlite.ops.activation import activation_name, get_activation, linear, relu, sigmoid, softmax, tanh
from nnlite.ops.arithmetic import add, divide, exp, log, matmul, multiply, negative, power, sqrt, subtract
from nnlite.ops.convolution import conv2d
from nnlite.ops.crossentropy import categorical_crossentropy, sparse_categorical_crossentropy
from nnlite.ops.dense import dense
from nnlite.ops.dropout import dropout
from nnlite.ops.pair import conv2d_pair
from nnlite.ops.pooling import max_pool2d
from nnlite.ops.reduction import max, mean, sum
from nnlite.ops.shape import flatten, getitem, reshape, transpose
from nnlite.ops.squared_error import mean_squared_error

__all__ = [
    "activation_name",
    "add",
    "categorical_crossentropy",
    "conv2d",
    "conv2d_pair",
    "dense",
    "divide",
    "dropout",
    "exp",
    "flatten",
    "get_activation",
    "getitem",
    "linear",
    "log",
    "matmul",
    "max",
    "max_pool2d",
    "mean",
    "mean_squared_error",
    "multiply",
    "negative",
    "power",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "sparse_categorical_crossentropy",
    "sqrt",
    "subtract",
    "sum",
    "tanh",
    "transpose",
]
