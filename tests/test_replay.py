"""Replay: what is done again without Python is what would have been computed, bit for bit, or is computed."""

import copy
import threading
from contextlib import nullcontext

import numpy as np
import pytest

import nnlite as nn
from nnlite import conv, ops
from nnlite.network import models
from nnlite.network.layers import (
    Activation,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Input,
    Layer,
    MaxPooling2D,
)
from nnlite.performance.profiler import StepProfile
from nnlite.runtime import replay, scopes, threads
from nnlite.runtime.replay import TRIALS, Repeated, noted

LABELS = 10


def network(*layers, shape=(8, 8, 3), loss="sparse_categorical_crossentropy", optimizer="rmsprop"):
    model = nn.Sequential([Input(shape), *layers, Flatten(), Dense(LABELS, activation="softmax")])
    model.compile(optimizer, loss, ["accuracy"])
    return model


def batch(model, size, number, loss="sparse_categorical_crossentropy"):
    generator = np.random.default_rng(number)
    y = generator.integers(0, LABELS, size)
    if loss == "categorical_crossentropy":
        y = np.eye(LABELS, dtype=np.float32)[y]
    return generator.random((size, *model.input_shape), np.float32), y


def assert_same_without_replays(train):
    """`train()` returns a model, whose weights must be the same. Returns the one that was replayed."""
    found = []
    for replays in (False, True):
        nn.seed(2)
        with nullcontext() if replays else replay.off():
            model = train()
        found.append([weight.tobytes() for weight in model.get_weights()])
    assert found[0] == found[1]
    return model


def history(make, size, steps, replays, loss="sparse_categorical_crossentropy"):
    """Losses, predictions and final weights of a training, each step on another batch."""
    nn.seed(3)
    model = make()
    found = []
    for number in range(steps):
        x, y = batch(model, size, number, loss)
        with nullcontext() if replays else replay.off():
            found.append((model.train_on_batch(x, y), model.predict(x, batch_size=size).tobytes()))
    return model, found, [weight.tobytes() for weight in model.get_weights()]


def trained(model, size=4, steps=TRIALS + 1):
    """The model after so many steps on other batches that it is replayed."""
    for number in range(steps):
        model.train_on_batch(*batch(model, size, number))
    return model


def of_2017(make):
    model = make()
    model.compile("rmsprop", metrics=["accuracy"])
    return model


REPLAYED = {
    "mlp": lambda: of_2017(models.mlp),
    "cnn": lambda: of_2017(models.cnn),
    "small_cnn": lambda: of_2017(models.small_cnn),
    "padding and strides": lambda: network(Conv2D(5, 3, strides=2, padding="same", activation="relu"), Dropout(0.2)),
    "5x5 and pooling": lambda: network(Conv2D(4, 5, padding="same"), MaxPooling2D(2), Conv2D(6, 1)),
    "depthwise": lambda: network(Conv2D(3, 3, groups=3, activation="relu"), Conv2D(6, 3, groups=3)),
    "many channels": lambda: network(Conv2D(40, 3, activation="relu"), Conv2D(40, 3, padding="same")),
    "sigmoid and tanh": lambda: network(Conv2D(4, 3, activation="sigmoid"), Flatten(), Dense(20, activation="tanh")),
    "overlapping pooling": lambda: network(Conv2D(4, 3), MaxPooling2D(3, 2), Activation("relu")),
    "adam": lambda: network(Conv2D(4, 3, activation="relu"), Dropout(0.5), optimizer="adam"),
}


@pytest.fixture
def replayed(monkeypatch):
    """The records that are replayed, each as often as that happens."""
    seen, original = [], replay.Record.replay

    def spied(record, inputs):
        seen.append(record)
        return original(record, inputs)

    monkeypatch.setattr(replay.Record, "replay", spied)
    return seen


def test_each_step_and_prediction_after_the_trial_is_replayed(replayed):
    model = network(Conv2D(4, 3, activation="relu"), Dropout(0.5))
    trained(model, steps=TRIALS + 5)
    assert len(replayed) == 1 + 5  # one is the trial
    replayed.clear()
    x, _ = batch(model, 4 * (TRIALS + 5), 0)
    for _ in range(2):
        model.predict(x, batch_size=4)
    assert len(replayed) == 1 + 5 + TRIALS + 5


def test_a_step_is_computed_while_a_gradient_is_held(replayed):
    model = trained(network(Conv2D(4, 3)))
    held = model.layers[0].weight.grad
    replayed.clear()
    trained(model, steps=2)
    assert not replayed
    del held
    trained(model, steps=2)
    assert len(replayed) == 2


@pytest.mark.parametrize("size", [1, 3, 32])
@pytest.mark.parametrize("make", REPLAYED.values(), ids=REPLAYED)
def test_replayed_steps_and_predictions_have_the_bits_of_computed_ones(make, size):
    model, *replayed = history(make, size, TRIALS + 3, replays=True)
    assert [repeated.is_replayed for *_, repeated in model._repeated.values()] == [True, True]
    _, *computed = history(make, size, TRIALS + 3, replays=False)
    assert replayed == computed


ONE_HOT = {
    "float32": lambda y: y,
    "float64": lambda y: y.astype(np.float64),
    "int64": lambda y: y.astype(np.int64),
    "smoothed, in Fortran order": lambda y: np.asfortranarray(y * np.float32(0.87) + np.float32(0.013)),
}


@pytest.mark.parametrize("targets", ONE_HOT.values(), ids=ONE_HOT)
def test_one_hot_targets_are_replayed(targets):
    loss = "categorical_crossentropy"

    def train():
        model = network(Conv2D(4, 3), loss=loss)
        for number in range(TRIALS + 2):
            x, y = batch(model, 4, number, loss)
            model.train_on_batch(x, targets(y))
        return model

    assert assert_same_without_replays(train).is_replayed


def test_evaluation_is_replayed():
    model = network(Conv2D(4, 3), Dropout(0.5))
    x, y = batch(model, 4 * (TRIALS + 2) + 1, 0)
    together = model.evaluate(x, y, batch_size=4, verbose=0)
    assert model.is_replayed
    with replay.off():
        assert together == model.evaluate(x, y, batch_size=4, verbose=0)


# What is not replayed ------------------------------------------------------------------------------------------------


def test_a_computation_that_numpy_does_is_not_replayed():
    """Not even if it is always called with the same numbers."""
    repeated = Repeated()
    for _ in range(TRIALS + 3):
        assert repeated(lambda x: [x + 1], np.ones(5, np.float32))[0].tolist() == [2.0] * 5
    assert not repeated.is_replayed


def test_what_numpy_does_between_noted_calls_is_found():
    def compute(x):
        y, z = np.empty_like(x), np.empty_like(x)
        noted(np.add, x, 1, y)
        y *= 2
        noted(np.add, y, 1, z)
        return [z]

    repeated = Repeated()
    for _ in range(TRIALS + 3):
        assert repeated(compute, np.ones(5, np.float32))[0].tolist() == [5.0] * 5
    assert not repeated.is_replayed


@pytest.mark.parametrize("constant", [np.zeros, np.ones])
def test_integers_made_without_a_note_are_found(constant):
    """Indices are wiped to 0, where they are valid: a 0 made by NumPy is one too, and stays one."""

    def compute(x):
        y = np.empty(1, np.float32)
        noted(np.take, x, constant(1, np.int64), None, y)
        return [y]

    repeated = Repeated()
    for number in range(TRIALS + 3):
        x = np.arange(3, dtype=np.float32) + number
        assert repeated(compute, x)[0].tolist() == [x[int(constant(1)[0])]]
    assert repeated.is_replayed is (constant is np.zeros)


def test_a_number_that_python_draws_is_found():
    drawn = [0]

    def compute():
        drawn[0] += 1
        y = np.empty(1, np.float32)
        noted(y.fill, drawn[0])
        return [y]

    def put_back(number):
        drawn[0] = number

    repeated = Repeated(lambda: drawn[0], put_back)
    for number in range(1, TRIALS + 4):
        assert repeated(compute)[0].tolist() == [number]
    assert not repeated.is_replayed


def test_a_number_that_depends_on_the_inputs_is_found():
    def compute(x):
        y = np.empty_like(x)
        noted(np.multiply, x, float(x[0]), y)
        return [y]

    repeated = Repeated()
    for number in range(TRIALS + 3):
        assert repeated(compute, np.full(1, number, np.float32))[0].tolist() == [number**2]
    assert not repeated.is_replayed


@pytest.mark.parametrize("algorithm", ["im2col", "numba_blocked"])
def test_an_algorithm_that_numpy_computes_in_part_is_computed(algorithm):
    assert not trained(network(Conv2D(4, 3, algorithm=algorithm))).is_replayed


def _doubled(x):
    return ops.relu(x) * 2


class _Own(Layer):
    def call(self, x, training):
        return x * 2


class _OwnAlgorithm(type(conv.get("direct"))):
    name = "own"


@pytest.mark.parametrize("layer", [_Own(), Dense(3, activation=_doubled)], ids=["layer", "activation"])
def test_layers_and_activations_of_the_user_are_computed(layer):
    model = trained(network(Flatten(), layer))
    assert not model.is_replayed


def test_a_method_of_the_user_is_computed():
    class Own(nn.Sequential):
        def __call__(self, x, training=False):
            return super().__call__(x if np.mean(x) > 0 else -x, training)

    own, patched = Own([Input((4,)), Activation("tanh")]), nn.Sequential([Input((4,)), Activation("relu")])
    patched.layers[0].call = lambda x, training: x if x.numpy().mean() > 0 else ops.relu(x)
    x = np.ones((2, 4), np.float32)
    for model in (own, patched):
        for _ in range(TRIALS + 1):
            model.predict(x)
    assert not patched.is_replayed
    np.testing.assert_array_equal(own.predict(-x), own.predict(x))


def test_an_algorithm_of_the_user_that_serves_the_gradients_is_computed():
    conv.register(type("Mine", (type(conv.get("winograd")),), {"__module__": __name__})(), replace=True)
    try:
        assert not trained(network(Conv2D(4, 3))).is_replayed
    finally:
        conv.unregister("winograd")


def test_an_algorithm_of_the_user_is_computed():
    conv.register(_OwnAlgorithm())
    try:
        assert not trained(network(Conv2D(4, 3, algorithm="own"))).is_replayed
        with conv.use("own"):
            assert not trained(network(Conv2D(4, 3))).is_replayed
    finally:
        conv.unregister("own")


def test_a_large_computation_is_not_recorded(monkeypatch):
    monkeypatch.setattr(replay, "LARGEST", 1000)
    assert not trained(network(Conv2D(4, 3))).is_replayed


# What changes between steps ----------------------------------------------------------------------------------------


CHANGES = {
    "weights set": lambda model: model.set_weights([weight + 1 for weight in model.get_weights()]),
    "weights in place": lambda model: model.layers[0].weight.data.__imul__(2),
    "another array": lambda model: setattr(model.layers[0].weight, "data", model.layers[0].weight.data * 2),
    "frozen": lambda model: setattr(model.layers[0], "trainable", False),
    "rate of dropout": lambda model: setattr(model.layers[1], "rate", 0.1),
    "learning rate": lambda model: setattr(model.optimizer, "learning_rate", 0.5),
    "optimizer": lambda model: setattr(model, "optimizer", "sgd"),
    "algorithm": lambda model: setattr(model.layers[0], "algorithm", "im2col"),
    "not fused": lambda model: setattr(model, "fuse", False),
    "loss": lambda model: setattr(model, "loss", lambda y, z: ops.sparse_categorical_crossentropy(z, labels=y)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_between_steps_has_its_effect(change):
    def train():
        model = trained(network(Conv2D(4, 3, activation="relu"), Dropout(0.5)))
        change(model)
        return trained(model)

    assert_same_without_replays(train)


@pytest.mark.parametrize("dtype", [np.int8, np.uint32, np.uint64, np.float32])
def test_labels_of_any_dtype_are_followed(dtype):
    """Also where the first ones are all 0, as in sorted data."""

    def train():
        model = network(Conv2D(4, 3))
        for number in range(TRIALS + 2):
            x, y = batch(model, 4, number)
            model.train_on_batch(x, (y * (number > TRIALS)).astype(dtype))
        return model

    assert assert_same_without_replays(train).is_replayed


def test_units_that_were_switched_off_in_the_trial_are_followed():
    """Their gradients were 0, whatever came from above."""

    def train():
        model = network(Conv2D(4, 3, activation="relu"), Activation("softmax"), optimizer="sgd")
        weights = model.get_weights()
        model.set_weights([weights[0], weights[1] - 100, *weights[2:]])
        trained(model)
        model.set_weights(weights)
        return trained(model)

    assert_same_without_replays(train)


def test_a_loss_that_numpy_computes_is_not_recorded(replayed):
    """A trial would not tell it: the network had diverged, and NaN hides everything."""

    def train():
        model = network(Conv2D(4, 3), optimizer="sgd")
        model.compile("sgd", fuse=False)
        weights = model.get_weights()
        model.set_weights([np.full_like(weight, np.nan) for weight in weights])
        trained(model)
        model.set_weights(weights)
        return trained(model)

    assert_same_without_replays(train)
    assert not replayed


def test_a_replay_inside_no_grad_is_refused_as_a_step_is():
    model = trained(network(Conv2D(4, 3)))
    with nn.no_grad(), pytest.raises(ValueError, match="expected a layer with trainable parameters"):
        model.train_on_batch(*batch(model, 4, 1))


def test_another_number_of_threads_is_followed(monkeypatch):
    model = trained(network(Conv2D(4, 3)))
    before = next(iter(model._repeated.values()))
    with threads.using(2 if threads.get_num_threads() == 1 and threads.available_cpus() > 1 else 1):
        trained(model)
        after = next(iter(model._repeated.values()))
    assert threads.get_num_threads() == 1 or after is not before


# What others see -----------------------------------------------------------------------------------------------------


def test_a_gradient_or_result_that_somebody_holds_is_not_overwritten():
    for held_of in (lambda model: model.layers[0].weight.grad, lambda model: model.layers[0].weight.grad[0]):
        model = trained(network(Conv2D(4, 3)), steps=TRIALS + 2)
        held = held_of(model)
        before = held.copy()
        model.train_on_batch(*batch(model, 4, 99))
        np.testing.assert_array_equal(held, before)
        assert not np.array_equal(held_of(model), before)


def test_metrics_get_targets_as_they_were_given():
    seen = []
    model = network(Conv2D(4, 3))
    model.compile("sgd", metrics=[lambda y_true, y_pred: seen.append(y_true.dtype) or 0.0])
    x, y = batch(model, 4, 0)
    for _ in range(TRIALS + 1):
        model.train_on_batch(x, y.astype(np.uint8))
    assert seen == [np.uint8] * (TRIALS + 1)


def test_gradients_of_all_steps_may_be_kept():
    model, kept = network(Conv2D(4, 3)), []
    for _ in range(TRIALS + 3):
        trained(model, steps=1)
        kept.append((model.layers[0].weight.grad, model.layers[0].weight.grad.copy()))
    assert all(np.array_equal(array, as_it_was) for array, as_it_was in kept)


def test_outputs_that_a_metric_keeps_are_not_overwritten():
    kept = []

    def keep(y_true, y_pred):
        kept.append((y_pred, y_pred.copy()))
        return 0.0

    model = network(Conv2D(4, 3))
    model.compile("sgd", metrics=[keep])
    trained(model, steps=TRIALS + 4)
    assert all(np.array_equal(array, as_it_was) for array, as_it_was in kept)


def test_predictions_of_several_batches_are_all_returned():
    model = network(Conv2D(4, 3))
    x, _ = batch(model, 4 * (TRIALS + 3) + 1, 0)
    together = model.predict(x, batch_size=4)
    assert model.is_replayed
    with replay.off():
        np.testing.assert_array_equal(together, model.predict(x, batch_size=4))


def test_a_wrong_label_is_named_and_changes_nothing():
    model = trained(network(Conv2D(4, 3)))
    assert model.is_replayed
    x, y = batch(model, 4, 5)
    before = model.get_weights()
    y[2] = LABELS
    with pytest.raises(ValueError, match="y_true: expected labels 0 to 9. Received: 10 at position 2"):
        model.train_on_batch(x, y)
    for weight, as_it_was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, as_it_was)


def test_a_copy_of_a_replayed_model_goes_on_as_its_original():
    model = trained(network(Conv2D(4, 3), Dropout(0.5)))
    twin = copy.deepcopy(model)
    for number in range(TRIALS + 1):
        assert model.train_on_batch(*batch(model, 4, number)) == twin.train_on_batch(*batch(model, 4, number))


def test_several_python_threads_predict_at_once():
    model = network(Conv2D(4, 3), Dense(30, activation="relu"))
    inputs = [batch(model, 2, number)[0] for number in range(3)]
    with replay.off():
        expected = [model.predict(x) for x in inputs]
    wrong = []

    def predict(x, y):
        for _ in range(TRIALS + 30):
            if not np.array_equal(model.predict(x), y):
                wrong.append(x)

    workers = [threading.Thread(target=predict, args=pair) for pair in zip(inputs, expected, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_an_interrupted_trial_leaves_random_streams_where_they_were():
    position, drawn = [0], []

    def draw(y):
        position[0] += 1
        drawn.append(position[0])
        if len(drawn) == TRIALS + 1:
            raise KeyboardInterrupt

    def compute():
        y = np.zeros(1, np.float32)
        noted(draw, y)
        return [y]

    repeated = Repeated(lambda: position[0], lambda value: position.__setitem__(0, value))
    for _ in range(TRIALS - 1):
        repeated(compute)
    with pytest.raises(KeyboardInterrupt):
        repeated(compute)
    assert drawn == [*range(1, TRIALS + 1), TRIALS]  # the trial draws what the call drew
    assert position == [TRIALS]


@pytest.mark.parametrize("last", range(TRIALS))
def test_a_wrong_record_is_found_after_an_interrupt(last):
    interrupts = [False]

    def compute(x):
        y, z = np.empty_like(x), np.empty_like(x)
        noted(np.add, x, 1, y)
        y *= 2
        noted(interrupt, y, z)
        return [z]

    def interrupt(y, z):
        if interrupts[0]:
            raise KeyboardInterrupt
        np.add(y, 1, z)

    repeated = Repeated()
    for number in range(2 * TRIALS):
        interrupts[0] = number == last
        with pytest.raises(KeyboardInterrupt) if interrupts[0] else nullcontext():
            assert repeated(compute, np.full(3, number, np.float32))[0].tolist() == [2 * number + 3] * 3
    assert not repeated.is_replayed


def test_a_call_inside_a_replay_is_computed():
    """As a signal handler makes it."""
    repeated, inside = Repeated(), []

    def also(y):
        if inside:
            y_inside = inside.pop()
            assert repeated(compute, y_inside)[0].tolist() == (y_inside + 2).tolist()

    def compute(x):
        y, z = np.empty_like(x), np.empty_like(x)
        noted(np.add, x, 1, y)
        noted(also, y)
        noted(np.add, y, 1, z)
        return [z]

    for number in range(TRIALS):
        repeated(compute, np.full(3, number, np.float32))
    inside.append(np.full(3, 50, np.float32))
    assert repeated(compute, np.full(3, 7, np.float32))[0].tolist() == [9.0] * 3
    assert not inside
    assert repeated.is_replayed


def test_a_profile_of_a_replayed_step_has_the_passes_of_a_computed_one():
    model = network(Conv2D(4, 3, activation="relu"), MaxPooling2D(2), Dense(20, activation="relu"), Dropout(0.5))
    found = []
    for _ in range(TRIALS + 2):
        profile = StepProfile()
        profile.record(lambda: model.train_on_batch(*batch(model, 4, 1)))
        found.append(set(profile.parts))
    assert model.is_replayed
    assert found[-1] <= found[0]
    assert {layer for layer, _ in found[0] - found[-1]} <= {"conv2d+max_pooling2d", "flatten"}  # not its input gradient


def test_a_traced_step_is_computed():
    model = trained(network(Conv2D(4, 3)))
    names = []
    with scopes.tracing(lambda operation, *_: names.append(operation.__name__)):
        model.train_on_batch(*batch(model, 4, 1))
    assert "conv2d" in names
