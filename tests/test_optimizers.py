"""Optimizers against PyTorch where the formulas agree, and against Keras 3's formulas in float64 NumPy."""

import numpy as np
import pytest

import nnlite as nn


def run(optimizer, gradients, start, dtype=np.float64):
    parameter = nn.Tensor(start.astype(dtype), requires_grad=True)
    optimizer.build([parameter])
    for gradient in gradients:
        parameter.grad = gradient.astype(dtype)
        optimizer.step()
    return parameter.data


@pytest.fixture
def problem(generator):
    return generator.standard_normal((6, 3, 4)), generator.standard_normal((3, 4))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda: nn.RMSprop(0.01, rho=0.8, epsilon=1e-3, epsilon_inside_root=False),
            lambda t, p: t.optim.RMSprop(p, lr=0.01, alpha=0.8, eps=1e-3),
        ),
        (
            lambda: nn.RMSprop(0.01, rho=0.8, epsilon=1e-3, epsilon_inside_root=False, centered=True),
            lambda t, p: t.optim.RMSprop(p, lr=0.01, alpha=0.8, eps=1e-3, centered=True),
        ),
        (
            lambda: nn.RMSprop(0.01, rho=0.8, momentum=0.5, epsilon=1e-3, epsilon_inside_root=False),
            lambda t, p: t.optim.RMSprop(p, lr=0.01, alpha=0.8, eps=1e-3, momentum=0.5),
        ),
        (lambda: nn.SGD(0.1), lambda t, p: t.optim.SGD(p, lr=0.1)),
        (lambda: nn.SGD(0.1, momentum=0.9), lambda t, p: t.optim.SGD(p, lr=0.1, momentum=0.9)),
        (
            lambda: nn.SGD(0.1, momentum=0.9, nesterov=True),
            lambda t, p: t.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        ),
        (lambda: nn.Adadelta(0.5, rho=0.9, epsilon=1e-4), lambda t, p: t.optim.Adadelta(p, lr=0.5, rho=0.9, eps=1e-4)),
        (lambda: nn.Adam(0.1, epsilon=1e-12), lambda t, p: t.optim.Adam(p, lr=0.1, eps=1e-12)),
    ],
)
def test_agrees_with_pytorch(torch, problem, ours, theirs):
    gradients, start = problem
    parameter = torch.tensor(start, requires_grad=True)
    optimizer = theirs(torch, [parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(run(ours(), gradients, start), parameter.detach().numpy(), rtol=1e-7)


@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_is_keras_3(problem, centered):
    gradients, w = problem
    ours = run(nn.RMSprop(centered=centered), gradients, w, np.float32)
    v = average = np.zeros_like(w)
    for g in gradients:
        v = 0.9 * v + 0.1 * g * g
        average = 0.9 * average + 0.1 * g
        w = w - 1e-3 * g / np.sqrt(v + 1e-7 - (average**2 if centered else 0))
    np.testing.assert_allclose(ours, w, rtol=1e-5, atol=1e-6)


def test_updates_in_place_and_skips_what_has_no_gradient(generator):
    a, b = (nn.Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))
    array = a.data
    optimizer = nn.SGD(0.5)
    optimizer.build([a, b])
    a.grad = np.ones(3, np.float32)
    optimizer.step()
    assert a.data is array
    assert (a.data.tolist(), b.data.tolist()) == ([0.5] * 3, [1.0] * 3)


def test_step_before_build():
    with pytest.raises(ValueError, match="rmsprop: expected build"):
        nn.RMSprop().step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.RMSprop(learning_rate=0), "learning_rate: expected a finite number above 0. Received: 0"),
        (lambda: nn.RMSprop(rho=1.5), r"rho: expected a number in \[0, 1\)"),
        (lambda: nn.SGD(momentum=-1), "momentum: expected"),
        (lambda: nn.Adam(epsilon=float("nan")), "epsilon: expected"),
        (lambda: nn.SGD().build([]), "parameters: expected at least one"),
        (lambda: nn.SGD().build([nn.Tensor([1.0])]), r"parameters\[0\]: expected a Tensor with requires_grad"),
        (lambda: nn.optimizers.get("rmsprob"), "Did you mean 'rmsprop'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_config_makes_the_same_optimizer():
    for optimizer in (
        nn.RMSprop(0.5, momentum=0.1, centered=True),
        nn.SGD(0.3, 0.2, True),
        nn.Adam(0.1),
        nn.Adadelta(),
    ):
        again = type(optimizer)(**optimizer.get_config())
        assert again.get_config() == optimizer.get_config()
