"""What a model refuses before it trains on it: NaN, masks, and functions of one's own that return something else."""

import numpy as np
import pytest

import nnlite as nn

X = np.random.default_rng(0).random((20, 4), dtype=np.float32)
ROWS = np.eye(3, dtype=np.float32)[np.arange(20) % 3]
LABELS = np.arange(20) % 3
METHODS = {
    "fit": lambda model, x, y: model.fit(x, y, batch_size=8, verbose=0),
    "validation": lambda model, x, y: model.fit(X, ROWS, validation_data=(x, y), verbose=0),
    "evaluate": lambda model, x, y: model.evaluate(x, y, batch_size=8, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
}


def network(loss="mse", metrics=()):
    model = nn.Sequential([nn.Input((4,)), nn.Dense(5, activation="relu"), nn.Dense(3, activation="softmax")])
    model.compile("sgd", loss, metrics)
    return model


def unchanged(model, before):
    return all(np.array_equal(now, then) for now, then in zip(model.get_weights(), before, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("loss", ["mse", "categorical_crossentropy"])
@pytest.mark.parametrize("method", METHODS)
def test_targets_that_are_not_finite_in_float32_are_refused_with_their_sample(method, loss, bad):
    model, y = network(loss), ROWS.astype(np.float64)
    before = model.get_weights()
    y[13, 1] = bad
    argument = r"validation_data\[1\]" if method == "validation" else "y"
    with pytest.raises(
        ValueError, match=f"^{argument}: expected finite numbers. Received: NaN or infinity in sample 13$"
    ):
        METHODS[method](model, X, y)
    assert unchanged(model, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300])
def test_train_on_batch_refuses_samples_that_are_not_finite_in_float32(bad, dtype):
    model = network()
    before = model.get_weights()
    with np.errstate(over="ignore"):
        x = X.astype(dtype)
        x[7, 2] = bad
    with pytest.raises(ValueError, match="^x: expected finite numbers. Received: NaN or infinity in sample 7$"):
        model.train_on_batch(x, ROWS)
    assert unchanged(model, before)


def test_train_on_batch_takes_numbers_whose_squares_are_infinite():
    assert np.isfinite(network("sparse_categorical_crossentropy").train_on_batch(np.full_like(X, 1e30), LABELS)["loss"])


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize("method", METHODS)
def test_a_mask_is_not_lost(method, which):
    masked = {"x": X, "y": ROWS} | {which: np.ma.masked_less({"x": X, "y": ROWS}[which], 0.5)}
    argument = f"validation_data\\[{int(which == 'y')}\\]" if method == "validation" else which
    with pytest.raises(ValueError, match=rf"^{argument}: expected an array without a mask.*Received: a masked array$"):
        METHODS[method](network(), **masked)


def loss(y_true, y_pred):
    return 0.0


def accuracy(y_true, y_pred):
    return 0.0


def val_accuracy(y_true, y_pred):
    return 0.0


@pytest.mark.parametrize(
    ("metrics", "received"),
    [
        ([lambda a, b: 1.0, lambda a, b: 2.0], "<lambda>, <lambda>"),
        ([loss], "loss"),
        (["accuracy", accuracy], "accuracy, accuracy"),
        (["accuracy", val_accuracy], "accuracy, val_accuracy"),
    ],
)
def test_no_metric_replaces_another_result(metrics, received):
    model = network()
    optimizer = model.optimizer
    with pytest.raises(ValueError, match=rf"^metrics: expected different names, .*Received: {received}\. A function's"):
        model.compile("adam", metrics=metrics)
    assert model.optimizer is optimizer


@pytest.mark.parametrize(
    "spread",
    [
        lambda y, p: np.abs(y - p).mean(),
        lambda y, p: np.abs(y - p).mean(axis=1),
        lambda y, p: nn.Tensor(np.abs(y - p).mean(axis=1)),
        lambda y, p: float(np.abs(y - p).mean()),
    ],
)
def test_a_metric_returns_its_mean_or_one_number_per_sample(spread):
    """The mean over all samples, of batches of 8, 8 and 4: NumPy's."""
    model = network(metrics=[spread])
    expected = np.abs(ROWS - model.predict(X)).mean()
    assert model.evaluate(X, ROWS, batch_size=8, verbose=0)[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "received"), [(None, "None"), ("0.5", "'0.5'"), (np.ones((20, 3)), r"shape \(20, 3\)"), (1j, "1j")]
)
def test_a_metric_that_returns_something_else_is_named(wrong, received):
    def spread(y_true, y_pred):
        return wrong

    message = rf"^metric 'spread': expected a mean, or one number per sample, shape \(20,\). Received: {received}$"
    with pytest.raises(ValueError, match=message):
        network(metrics=[spread]).evaluate(X, ROWS, verbose=0)


@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        (lambda y, p: None, "None"),
        (lambda y, p: np.mean(p.data), r".*float32\("),
        (lambda y, p: p, r"shape \(20, 3\)"),
    ],
)
def test_a_loss_that_is_no_tensor_with_one_element_is_refused(wrong, received):
    model = network(loss=wrong)
    before = model.get_weights()
    with pytest.raises(
        ValueError, match=f"^loss: expected a function that returns a Tensor with one.*Received: {received}"
    ):
        model.fit(X, ROWS, verbose=0)
    assert unchanged(model, before)


def test_one_hot_rows_for_labels_name_the_loss_that_takes_them():
    with pytest.raises(
        ValueError, match=r"^y: expected 20 labels.*one-hot rows: use the loss categorical_crossentropy$"
    ):
        network("sparse_categorical_crossentropy").fit(X, ROWS, verbose=0)


@pytest.mark.parametrize(
    "make",
    [lambda wrong: nn.Dense(3, activation=wrong), lambda wrong: nn.Conv2D(3, 3, activation=wrong), nn.Activation],
    ids=["Dense", "Conv2D", "Activation"],
)
@pytest.mark.parametrize(
    "wrong", [nn.Dense(3), nn.Dense, nn.Sequential([nn.Dense(3)])], ids=["layer", "class", "model"]
)
def test_no_layer_is_an_activation_because_its_parameters_would_not_be_trained(make, wrong):
    with pytest.raises(ValueError, match="^activation: expected a name or a function of a Tensor. Received: "):
        make(wrong)


@pytest.mark.parametrize("set_to", [nn.SGD(0.5), "sgd"], ids=["instance", "name"])
def test_a_model_trains_with_the_optimizer_that_it_is_given_later(set_to):
    model = network()
    model.optimizer = set_to
    before = model.get_weights()
    model.fit(X, ROWS, verbose=0)
    assert model.optimizer.iterations == 1
    assert not unchanged(model, before)


def test_another_models_optimizer_is_refused_and_the_own_remains():
    model, other = network(), network()
    own = model.optimizer
    with pytest.raises(ValueError, match="^parameters: expected those of the model"):
        model.optimizer = other.optimizer
    assert model.optimizer is own


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Dense(2, kernel_initializer="one").build((3,)), "unknown kernel_initializer 'one'"),
        (lambda: nn.Dense(2, kernel_initializer=lambda *_: np.ones(2)).build((3,)), "kernel_initializer: expected an"),
        (lambda: nn.Dense(2, bias_initializer=lambda *_: np.ones(3)).build((3,)), "bias_initializer: expected an"),
        (lambda: network().cost(-1), "batch_size: expected an integer of at least 1. Received: -1"),
        (lambda: nn.explain(network(), batch_size=0), "batch_size: expected an integer"),
        (lambda: nn.explain(network(), rounds=0), "rounds: expected an integer"),
        (lambda: nn.explain(network(), baseline="mlp"), "unknown baseline 'mlp': expected one of sequential"),
        (lambda: nn.explain(network(), data=(X, LABELS)), "batch_size: expected 1 to 20, the images of data"),
        (lambda: nn.explain(network(), data=3), r"data: expected \(images, labels\). Received: int"),
        (lambda: network().set_weights(np.array(1)), r"weights: expected a list of arrays. Received: array\(1\)"),
        (lambda: network().summary(print_fn=3), "print_fn: expected a function of a string. Received: 3"),
        (lambda: network().save("a\0b"), r"path: expected a file name. Received: 'a\\x00b', with a null character"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@pytest.mark.parametrize("initializer", ["zeros", "glorot_uniform", "he_normal"])
@pytest.mark.parametrize("units", [10**14, 10**30])
def test_a_parameter_that_does_not_fit_into_memory_says_its_size(units, initializer):
    expected = (
        rf"^weight: expected a parameter that fits into memory. Received: shape \(3, {units}\), {12 * units:,} bytes"
    )
    with pytest.raises(ValueError, match=expected):
        nn.Dense(units, kernel_initializer=initializer).build((3,))
