"""gradcheck accepts right gradients and rejects wrong ones, however little they are wrong."""

import numpy as np
import pytest

import nnlite as nn


@pytest.fixture
def matrix(generator):
    return generator.standard_normal((3, 3))


def operation(backward):
    @nn.differentiable
    def cube(x):
        return x**3, lambda dy: backward(x, dy)

    return cube


def test_accepts_the_right_gradient(matrix):
    nn.gradcheck(operation(lambda x, dy: 3 * x * x * dy), [matrix])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, dy: 3.003 * x * x * dy,  # by 0.1%
        lambda x, dy: (3 * x * x * dy).T,  # transposed
        lambda x, dy: 3 * x * dy,  # a factor missing
        lambda x, dy: 3 * x * x,  # the upstream gradient missing
        lambda x, dy: np.where(np.arange(9).reshape(3, 3) == 4, 0, 3 * x * x * dy),  # one element missing
        lambda x, dy: np.full_like(x, np.nan),
    ],
)
def test_rejects_a_wrong_gradient(matrix, wrong):
    with pytest.raises(nn.GradientError, match=r"input 0 \(3, 3\).*relative error"):
        nn.gradcheck(operation(wrong), [matrix])


def test_rejects_a_missing_term(matrix):
    @nn.differentiable
    def twice_used(x):
        return x * x.sum(), lambda dy: dy * x.sum()  # the term through the sum is missing

    with pytest.raises(nn.GradientError):
        nn.gradcheck(twice_used, [matrix])


def test_says_which_input_is_wrong(matrix):
    @nn.differentiable
    def product(x, y):
        return x * y, (lambda dz: dz * y, lambda dz: dz * x * 1.001)

    with pytest.raises(nn.GradientError, match="input 1"):
        nn.gradcheck(product, [matrix, matrix + 1])


def test_rejects_an_input_that_gets_no_gradient(matrix):
    with pytest.raises(nn.GradientError, match="input 1.*none"):
        nn.gradcheck(lambda x, y: x * 2, [matrix, matrix])


def test_needs_a_list_of_inputs(matrix):
    with pytest.raises(TypeError, match="inputs: expected a list"):
        nn.gradcheck(lambda x: x, matrix)
