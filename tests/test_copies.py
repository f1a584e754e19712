"""Whatever a user holds can be copied and pickled, and shares nothing with its copy; or it refuses, with the reason."""

import copy
import inspect
import io
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import nnlite as nn
from nnlite.network import fusion

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "oldest pickle": lambda thing: pickle.loads(pickle.dumps(thing, 2)),
}
OPTIMIZERS = {
    "rmsprop": lambda: nn.RMSprop(momentum=0.5, centered=True),
    "sgd": lambda: nn.SGD(momentum=0.5),
    "adam": nn.Adam,
    "adadelta": lambda: nn.Adadelta(1.0),
}
X = np.random.default_rng(0).random((16, 8, 8, 1), np.float32)
Y = np.arange(16) % 3


def network(optimizer="rmsprop"):
    layers = [nn.Conv2D(4, 3, activation="relu"), nn.Conv2D(4, 3, activation="relu"), nn.MaxPooling2D(2)]
    layers += [nn.Dropout(0.25), nn.Flatten(), nn.Dense(5), nn.Activation("tanh"), nn.Dense(3, activation="softmax")]
    model = nn.Sequential([nn.Input((8, 8, 1)), *layers])
    if optimizer is not None:
        model.compile(optimizer, metrics=["accuracy"])
    return model


def fitted(optimizer="rmsprop"):
    model = network(optimizer)
    model.fit(X, Y, batch_size=8, verbose=0)
    return model


def train(model):
    """The weights after training, which no more than the model and the seed decide."""
    nn.seed(1)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    return model.get_weights()


def tensor():
    w = nn.Tensor(np.ones((2, 3)), requires_grad=True, name="w")
    (w * w).sum().backward()
    return w


def algorithm(name):
    chosen = nn.conv.get(name)
    geometry = nn.conv.Geometry.of((2, 6, 6, 4), (3, 3, 4, 4))
    chosen.forward(np.ones(geometry.input_shape, np.float32), np.ones(geometry.weight_shape, np.float32), geometry)
    chosen.fuses_pair(pair(), nn.conv.get("lanes"))
    return chosen


def pair():
    first = nn.conv.Geometry.of((2, 8, 8, 1), (3, 3, 1, 4))
    second = nn.conv.Geometry.of(first.output_shape, (3, 3, 4, 4))
    return nn.conv.FusedPair(first, True, second, nn.conv.Epilogue(bias=True, relu=True, pool=True), 0.25)


def geometry():
    made = nn.conv.Geometry.of((2, 8, 8, 4), (3, 3, 2, 6), padding="same", strides=2, groups=2)
    hash(made)  # which it keeps
    return made


THINGS = {
    "an unbuilt model": lambda: nn.Sequential([nn.Flatten(), nn.Dense(2)]),
    "a model": lambda: network(None),
    "a compiled model": network,
    "a fitted model": fitted,
    "an imported loss": lambda: fitted().loss,
    "Input": lambda: nn.Input((8, 8, 1)),
    **{f"layer {i}": lambda i=i: fitted().layers[i] for i in range(len(network().layers))},
    "an unbuilt layer": lambda: nn.Conv2D(4, 3, kernel_initializer="he_normal"),
    **{f"a new {name}": make for name, make in OPTIMIZERS.items()},
    **{f"a used {name}": lambda name=name: fitted(name).optimizer for name in OPTIMIZERS},
    "Tensor": tensor,
    "History": lambda: fitted().fit(X, Y, verbose=0),
    "Geometry": geometry,
    "FusedPair": pair,
    "Epilogue": lambda: nn.conv.Epilogue(bias=True),
    "PairWeights": lambda: nn.conv.PairWeights(*(np.ones(3, np.float32) for _ in range(4))),
    "Fused": lambda: nn.conv.Fused(np.ones(3), None, np.ones(2), (np.ones(4),)),
    "algorithms": lambda: fitted().algorithms(),
    "cost": lambda: fitted().cost(),
    "autotune": lambda: nn.conv.autotune(False),
    **{f"algorithm {name}": lambda name=name: algorithm(name) for name in nn.conv.names()},
}


def arrays(thing):
    """Every array that belongs to it, as pickle finds them."""
    found = []

    class Pickler(pickle.Pickler):
        def reducer_override(self, part):
            if isinstance(part, np.ndarray):
                found.append(part)
            return NotImplemented

    Pickler(io.BytesIO()).dump(thing)
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", THINGS)
def test_a_copy_is_alike_and_shares_no_array(name, way):
    thing = THINGS[name]()
    made = WAYS[way](thing)
    assert type(made) is type(thing)
    ours, others = arrays(thing), arrays(made)
    assert len(ours) == len(others)
    for our, other in zip(ours, others, strict=True):
        np.testing.assert_array_equal(our, other)
    immutable = way == "copy" and isinstance(thing, (tuple, dict))  # a tuple's copy is itself, as Python has it
    assert immutable or not any(np.shares_memory(a, b) for a in ours for b in others)


def test_every_public_class_is_among_them():
    made = [make() for make in THINGS.values()]
    kinds = {cls for thing in made for cls in type(thing).__mro__}
    kinds |= {cls for layer in fitted().layers for cls in type(layer).__mro__} | {nn.conv.Choice, nn.conv.Algorithm}
    public = {
        value for module in (nn, nn.conv) for name in module.__all__ if inspect.isclass(value := getattr(module, name))
    }
    assert {cls for cls in public if not issubclass(cls, Exception)} - kinds - {nn.no_grad} == set()


@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trained_model_and_its_copy_go_on_as_each_would_alone(name, way):
    model = fitted(OPTIMIZERS[name]())
    made = WAYS[way](model)
    before = [array.copy() for array in arrays(model)]
    of_copy = train(made)
    for array, kept in zip(arrays(model), before, strict=True):  # weights, gradients, what the optimizer remembers
        np.testing.assert_array_equal(array, kept)
    for ours, theirs in zip(train(model), of_copy, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_copy_of_an_optimizer_has_parameters_of_its_own():
    parameter = nn.Tensor(np.ones(3, np.float32), requires_grad=True)
    optimizer = nn.SGD(0.5, momentum=0.5)
    optimizer.build([parameter])
    parameter.grad = np.ones(3, np.float32)
    optimizer.step()
    made = copy.copy(optimizer)
    made.step()
    assert parameter.data.tolist() == [0.5] * 3
    assert made.parameters[0].data.tolist() == [-0.25] * 3  # speed: 0.5 * -0.5 - 0.5


def test_a_layer_more_in_a_copy_is_none_in_the_original():
    model = network()
    copy.copy(model).add(nn.Dense(2))
    assert len(model.layers) == 8


def test_an_epoch_more_in_a_copied_history_is_none_in_the_original():
    history = nn.History()
    history.append(0, {"loss": 1.0})
    copy.copy(history).append(1, {"loss": 2.0})
    assert (history.epoch, history.history) == ([0], {"loss": [1.0]})


def use(things):
    """In another process: train the models, and give back what the others became."""
    return {name: train(thing) if isinstance(thing, nn.Sequential) else thing for name, thing in things.items()}


def check(results, model):
    for ours, theirs in zip(train(model), results["model"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)  # it may have fewer threads
    assert results["geometry"] == geometry()
    assert hash(results["geometry"]) == hash(geometry())


def sent(model):
    return {"model": model, "geometry": geometry(), "algorithm": algorithm("winograd"), "tensor": tensor()}


def test_a_fitted_model_trains_on_in_a_process_that_was_spawned():
    model = fitted()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        check(pool.submit(use, sent(model)).result(), model)


def test_a_fitted_model_trains_on_in_joblibs_workers():
    joblib = pytest.importorskip("joblib")
    model = fitted()
    first, second = joblib.Parallel(n_jobs=2)(joblib.delayed(use)(sent(model)) for _ in range(2))
    for ours, theirs in zip(first["model"], second["model"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    check(first, model)


@pytest.mark.parametrize("way", WAYS)
def test_a_computed_tensor_refuses(way):
    y = tensor() * 2.0
    with pytest.raises(nn.GraphError, match=r"was computed, whose graph cannot be copied. Copy detach\(\) of it"):
        WAYS[way](y)
    np.testing.assert_array_equal(WAYS[way](y.detach()).data, y.data)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_of_layers_refuses(way):
    run = fusion.Run((nn.Flatten(),), lambda x: x)
    with pytest.raises(TypeError, match="Copy the model and call its fused"):
        WAYS[way](run)
