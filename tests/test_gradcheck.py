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


def test_rejects_an_operation_that_changes_its_input(matrix):
    doubled = nn.differentiable(lambda x: (x.__imul__(2), lambda dy: 2 * dy))
    with pytest.raises(
        nn.GradientError, match="function: expected it to leave its inputs as they are.*input 0 in place"
    ):
        nn.gradcheck(doubled, [matrix])


def test_rejects_a_backward_that_changes_what_it_gets(matrix):
    changes_dy = nn.differentiable(lambda x: (x * 2, lambda dy: dy.__imul__(2)))
    with pytest.raises(nn.GradientError, match="backward: expected it to leave dy as it is"):
        nn.gradcheck(changes_dy, [matrix])
    changes_x = nn.differentiable(lambda x: (x * 2, lambda dy: (x.__imul__(2), 2 * dy)[1]))
    with pytest.raises(nn.GradientError, match="backward: expected it to leave its inputs as they are.*input 0"):
        nn.gradcheck(changes_x, [matrix])


@pytest.mark.parametrize(
    ("option", "wrong"),
    [("directions", 0), ("directions", 1.5), ("step", 0), ("step", "a"), ("tolerance", -1), ("tolerance", np.nan),
     ("seed", -1)],
)  # fmt: skip
def test_options_that_check_nothing_are_refused(matrix, option, wrong):
    with pytest.raises(ValueError, match=f"^{option}: expected "):
        nn.gradcheck(operation(lambda x, dy: dy), [matrix], **{option: wrong})
