"""What model.save keeps, what it refuses, and what it says it does not keep."""

import json

import numpy as np
import pytest

import nnlite as nn
from nnlite.__main__ import main
from nnlite.network import saving


def network(**first):
    return nn.Sequential(
        [
            nn.Input((6, 6, 1)),
            nn.Conv2D(4, 3, activation=first.pop("activation", "relu"), **first),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Dense(3, activation="softmax"),
        ]
    )


@pytest.fixture
def data(generator):
    return generator.standard_normal((64, 6, 6, 1)).astype(np.float32), generator.integers(0, 3, 64)


OPTIMIZERS = {
    "rmsprop": nn.RMSprop(0.01),
    "centered rmsprop with momentum": nn.RMSprop(0.01, momentum=0.9, centered=True),
    "sgd": nn.SGD(0.1),
    "sgd with momentum": nn.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": nn.Adam(0.01),
    "adadelta": nn.Adadelta(1.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_after_loading_as_without_it(name, data, tmp_path):
    nn.seed(1)
    model = network()
    model.compile(type(OPTIMIZERS[name])(**OPTIMIZERS[name].get_config()))
    model.layers[0].trainable = False  # a parameter that has no state yet
    model.fit(*data, shuffle=False, verbose=0)
    model.layers[0].trainable = True
    model.fit(*data, shuffle=False, verbose=0)
    model.save(tmp_path / "m")
    again = nn.load_model(tmp_path / "m")
    assert again.optimizer.iterations == model.optimizer.iterations == 4
    for goes_on in (model, again):
        goes_on.fit(*data, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_a_file_of_the_format_before_lacks_starts_anew(data, tmp_path):
    model = network()
    model.compile("adam")
    described = json.loads(saving.describe(model))
    del described["compile"]["optimizer"]["iterations"]
    described["layers"] = [{k: v for k, v in entry.items() if k != "masks"} for entry in described["layers"]]
    arrays = {f"{i:06d}": weight for i, weight in enumerate(model.get_weights())}
    metadata = {"format": "nnlite-sequential-2", "model": json.dumps(described)}
    (tmp_path / "m").write_bytes(saving.sealed(arrays, metadata))
    again = nn.load_model(tmp_path / "m")
    assert again.optimizer.iterations == 0
    np.testing.assert_array_equal(again.predict(data[0]), model.predict(data[0]))


@pytest.mark.parametrize("name", ["optimizer/speed/0", "optimizer/mean/9", "optimizer/mean/1", "optimizer/mean"])
def test_state_that_does_not_fit_the_optimizer_is_refused(name, tmp_path):
    model = network()
    model.compile("adam")
    arrays = {f"{i:06d}": weight for i, weight in enumerate(model.get_weights())}
    arrays[name] = np.zeros((3, 3, 1, 4), np.float32)  # of the first parameter
    metadata = {"format": saving.FORMAT, "model": saving.describe(model)}
    (tmp_path / "m").write_bytes(saving.sealed(arrays, metadata))
    with pytest.raises(ValueError, match="^path: expected a description of a model"):
        nn.load_model(tmp_path / "m")


class MySGD(nn.SGD):
    pass


def my_loss(y_true, y_pred):
    return (y_pred * y_pred).mean()


def my_metric(y_true, y_pred):
    return 0.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"optimizer": MySGD()}, "the optimizer MySGD"),
        ({"loss": my_loss}, "the loss my_loss"),
        ({"metrics": [my_metric]}, "the metric my_metric"),
    ],
)
def test_what_is_not_saved_is_said(arguments, named, tmp_path):
    model = network()
    model.compile(**arguments)
    with pytest.warns(UserWarning, match=f"saved without its compile arguments, because {named} is not nnlite's own"):
        model.save(tmp_path / "m")
    assert nn.load_model(tmp_path / "m").optimizer is None


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5", ".json", ".onnx", ".ONNX"])
def test_a_name_that_load_model_reads_as_another_format_is_refused(suffix, tmp_path):
    with pytest.raises(ValueError, match="path: expected a name that ends in .safetensors"):
        network().save(tmp_path / f"m{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dense", None])
def test_names_that_are_not_unique_are_refused(name, tmp_path):
    model = network()
    model.layers[0].name = name
    with pytest.raises(ValueError, match=f"model: expected a unique name for each layer. Received: {name!r} for"):
        model.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


OWN = """
import nnlite as nn

class Scale(nn.Layer):
    def call(self, x, training):
        return x * 2.0

def network(layer):
    return nn.Sequential([nn.Input((28, 28, 1)), layer, nn.Flatten(), nn.Dense(10, activation="softmax")])

def layer():
    return network(Scale())

def activation():
    return network(nn.Conv2D(4, 3, activation=lambda v: v * v))
"""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("layer", "MODEL own.py:layer: model: expected only layers of nn.layers"),
        ("activation", "MODEL own.py:activation: layer 'conv2d': expected a built-in activation"),
    ],
)
def test_a_network_that_cannot_be_saved_is_refused_before_training(function, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    assert main(["train", f"own.py:{function}", "--epochs", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"nnlite: {said}")
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch, capsys):
    def read_only(dir):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "m.safetensors").touch()  # may be written, but not replaced
    monkeypatch.setattr("nnlite.runtime.errors.TemporaryFile", read_only)
    assert main(["train", "mlp", "--epochs", "1", "--out", str(tmp_path / "m.safetensors")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nnlite: --out: expected a writable file")
