"""Cross-entropy against PyTorch and NumPy, and its stability."""

import numpy as np
import pytest

import nnlite as nn

LABELS = np.array([1, 0, 3, 3])


def test_from_logits_agrees_with_pytorch(torch, generator):
    logits = generator.standard_normal((4, 5)) * 3
    x = nn.Tensor(logits, requires_grad=True)
    loss = nn.losses.sparse_categorical_crossentropy(LABELS, x, from_logits=True)
    loss.backward()
    reference = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(reference, torch.tensor(LABELS))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(x.grad, reference.grad.numpy(), atol=1e-12)


def test_the_four_forms_agree(generator):
    logits = nn.Tensor(generator.standard_normal((4, 5)))
    probabilities, one_hot = nn.ops.softmax(logits), np.eye(5)[LABELS]
    forms = [
        nn.losses.sparse_categorical_crossentropy(LABELS, logits, from_logits=True),
        nn.losses.sparse_categorical_crossentropy(LABELS, probabilities),
        nn.losses.categorical_crossentropy(one_hot, logits, from_logits=True),
        nn.losses.categorical_crossentropy(one_hot, probabilities),
    ]
    assert [form.item() for form in forms] == pytest.approx([forms[0].item()] * 4, rel=1e-12)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_float32_stays_float32(generator, name, from_logits):
    x = nn.Tensor(generator.random((4, 5)).astype(np.float32), requires_grad=True)
    target = LABELS if name.startswith("sparse") else np.eye(5)[LABELS]
    loss = nn.losses.get(name)(target, x, from_logits=from_logits)
    loss.backward(np.float32(0.5))
    assert (loss.shape, loss.dtype, x.grad.dtype) == ((), np.float32, np.float32)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_large_logits_do_not_overflow(size):
    x = nn.Tensor(np.array([[size, -size], [-size, size]], np.float32), requires_grad=True)
    loss = nn.losses.sparse_categorical_crossentropy([0, 1], x, from_logits=True)
    loss.backward()
    assert loss.item() == 0
    assert np.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("loss_function", "target"),
    [(nn.losses.sparse_categorical_crossentropy, [0]), (nn.losses.categorical_crossentropy, [[1.0, 0.0]])],
)
def test_a_probability_of_0_is_clipped_as_in_keras(loss_function, target):
    p = nn.Tensor(np.array([[0.0, 1.0]]), requires_grad=True)
    loss = loss_function(target, p)
    loss.backward()
    assert loss.item() == pytest.approx(-np.log(1e-7))
    assert (p.grad == 0).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 5], "labels 0 to 4. Received: 5 at position 3"),
        ([0, -1, 2, 3], "labels 0 to 4. Received: -1 at position 1"),
        ([0, 1], "expected 4 labels"),
        ([0.5, 1, 2, 3], "expected integer labels"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError, match=f"y_true: .*{message}"):
        nn.losses.sparse_categorical_crossentropy(labels, nn.Tensor(np.ones((4, 5))))


def test_one_hot_rows_of_another_shape():
    with pytest.raises(ValueError, match=r"y_true: expected one-hot rows, shape \(4, 5\)"):
        nn.losses.categorical_crossentropy(np.ones((4, 3)), nn.Tensor(np.ones((4, 5))))


def test_an_unknown_loss_suggests_one():
    with pytest.raises(ValueError, match="Did you mean 'mse'"):
        nn.losses.get("mse2")


def test_mean_squared_error_agrees_with_its_definition(generator):
    y, x = generator.standard_normal((3, 4)), nn.Tensor(generator.standard_normal((3, 4)), requires_grad=True)
    loss = nn.losses.get("mse")(y, x)
    loss.backward(2.0)
    assert loss.item() == pytest.approx(((x.data - y) ** 2).mean(), rel=1e-12)
    np.testing.assert_allclose(x.grad, 4 * (x.data - y) / 12, rtol=1e-12)


def test_mean_squared_error_of_float32_stays_float32():
    assert nn.losses.mean_squared_error(np.ones((2, 3)), nn.Tensor(np.zeros((2, 3), np.float32))).dtype == np.float32


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy", "mse"])
def test_a_batch_of_nothing_has_no_mean(loss):
    y = np.zeros(0, np.int64) if loss.startswith("sparse") else np.zeros((0, 3))
    with pytest.raises(ValueError, match=r"y_pred: expected .* Received: shape \(0, 3\)"):
        nn.losses.get(loss)(y, nn.Tensor(np.zeros((0, 3))))


def test_softmax_of_logits_of_any_size_gives_no_warning():
    logits = np.array([[3e38, -3e38], [-3e38, -3e38]], np.float32)
    np.testing.assert_array_equal(nn.ops.softmax(logits).data, [[1, 0], [0.5, 0.5]])
