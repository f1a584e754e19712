"""Keras's files: the same shapes, counts and, with their weights, the same predictions; else one line."""

import io
import json
import struct
import tracemalloc
import zipfile
from inspect import signature

import numpy as np
import pytest
from damage import damaged, refusal

import nnlite as nn
from nnlite.__main__ import main


def keras_layer(kind, name, /, **config):
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}}


LAYERS = [
    keras_layer("InputLayer", "in", batch_shape=[None, 28, 28, 1]),
    keras_layer("Conv2D", "c", filters=3, kernel_size=[3, 3], padding="same", data_format="channels_last"),
    keras_layer("ReLU", "r", max_value=None, negative_slope=0.0, threshold=0.0),
    keras_layer("MaxPooling2D", "p", pool_size=[2, 2], strides=[2, 2], padding="valid", data_format="channels_last"),
    keras_layer("Dropout", "d", rate=0.5, seed=None, noise_shape=None),
    keras_layer("Flatten", "f", data_format="channels_last"),
    keras_layer("Dense", "out", units=10, activation="softmax", use_bias=True),
]
SHAPES = [(3, 3, 1, 3), (3,), (588, 10), (10,)]


def described(layers, kind="Sequential"):
    return {"module": "keras", "class_name": kind, "config": {"name": "net", "layers": layers}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder, content, name="net.json"):
    (folder / name).write_text(json.dumps(content))
    return folder / name


def hdf5(arrays, attributes=()):
    """The bytes of an HDF5 file with these arrays."""
    h5py = pytest.importorskip("h5py")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        for (path, attribute), value in dict(attributes).items():
            file[path].attrs[attribute] = value
    return content.getvalue()


def archive(path, config, weights=None):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        if weights is not None:
            file.writestr("model.weights.h5", weights)
    return path


def arrays_of(generator):
    return [generator.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def assert_weights(model, expected):
    for mine, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# What is understood --------------------------------------------------------------------------------------------------


def test_a_sequential_keras_model_from_json(folder, capsys):
    model = nn.load_model(written(folder, described(LAYERS)))
    assert model.name == "net"
    assert [type(layer).__name__ for layer in model.layers] == [
        *("Conv2D", "Activation", "MaxPooling2D", "Dropout", "Flatten", "Dense")
    ]
    assert model.count_params() == 3 * 9 + 3 + 14 * 14 * 3 * 10 + 10
    assert main(["summary", "net.json"]) == 0
    printed = capsys.readouterr()
    assert "net" in printed.out
    assert printed.err == ""


def functional(*sources, **config):
    """The layers as a functional model writes them: each reads those named, in order, of `sources`."""
    layers = []
    for layer, names in zip(LAYERS, sources, strict=True):
        tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}} for name in names]
        layers.append({**layer, "name": layer["config"]["name"], "inbound_nodes": [{"args": tensors}] if names else []})
    content = described(layers, "Functional")
    content["config"].update(config)
    return content


CHAIN = [[], ["in"], ["c"], ["r"], ["p"], ["d"], ["f"]]


@pytest.mark.parametrize("outputs", [["out", 0, 0], [["out", 0, 0]]])
def test_a_functional_model_that_is_a_chain(folder, outputs):
    path = written(folder, functional(*CHAIN, output_layers=outputs))
    assert nn.load_model(path).output_shape == (10,)


def test_a_functional_model_that_branches_is_refused(folder):
    path = written(folder, functional([], ["in"], ["c"], ["c"], ["p"], ["d"], ["f", "d"]))
    with pytest.raises(
        ValueError, match=r"MaxPooling2D 'p' with inputs c \(not a chain\); Dense 'out' with inputs f, d"
    ):
        nn.load_model(path)


@pytest.mark.parametrize("outputs", [[["f", 0, 0]], [["f", 0, 0], ["out", 0, 0]]])
def test_a_functional_model_with_other_outputs_than_its_last_layer_is_refused(folder, outputs):
    with pytest.raises(ValueError, match="the outputs f"):
        nn.load_model(written(folder, functional(*CHAIN, output_layers=outputs)))


#: as Keras 1.2 wrote its examples/mnist_cnn.py
KERAS_1 = [
    {
        "class_name": "Convolution2D",
        "config": {
            **{"name": "convolution2d_1", "trainable": True, "batch_input_shape": [None, 28, 28, 1]},
            **{"nb_filter": 8, "nb_row": 3, "nb_col": 5, "border_mode": "same", "subsample": [2, 1]},
            **{"dim_ordering": "tf", "bias": False, "init": "glorot_uniform", "activation": "relu"},
            **{"W_regularizer": None, "b_regularizer": None, "activity_regularizer": None, "W_constraint": None},
            **{"b_constraint": None, "input_dtype": "float32"},
        },
    },
    {
        "class_name": "MaxPooling2D",
        "config": {
            **{"name": "maxpooling2d_1", "trainable": True, "pool_size": [2, 3], "strides": [2, 2]},
            **{"border_mode": "same", "dim_ordering": "tf"},
        },
    },
    {"class_name": "Dropout", "config": {"name": "dropout_1", "trainable": True, "p": 0.25}},
    {"class_name": "Flatten", "config": {"name": "flatten_1", "trainable": True}},
    {
        "class_name": "Dense",
        "config": {
            **{"name": "dense_1", "trainable": True, "output_dim": 10, "bias": True, "init": "glorot_uniform"},
            **{"activation": "linear", "input_dim": None, "W_regularizer": None, "W_constraint": None},
        },
    },
    {"class_name": "Activation", "config": {"name": "activation_1", "trainable": True, "activation": "softmax"}},
]


def test_a_model_of_keras_1(folder):
    content = {"class_name": "Sequential", "config": KERAS_1, "keras_version": "1.2.2"}
    conv, pool, dropout, _, dense, softmax = nn.load_model(written(folder, content)).layers
    assert (conv.filters, conv.kernel_size, conv.strides, conv.padding) == (8, (3, 5), (2, 1), "same")
    assert conv.activation is nn.ops.relu
    assert not conv.use_bias
    assert (pool.pool_size, pool.strides, pool.padding) == ((2, 3), (2, 2), "same")
    assert dropout.rate == 0.25
    assert (dense.units, dense.use_bias, dense.input_shape) == (10, True, (7 * 14 * 8,))
    assert softmax.activation is nn.ops.softmax


def test_theano_s_order_of_dimensions_is_refused_by_name(folder):
    layer = {"class_name": "Convolution2D", "config": {**KERAS_1[0]["config"], "dim_ordering": "th"}}
    with pytest.raises(ValueError, match="Conv2D 'convolution2d_1' with data_format 'channels_first'"):
        nn.load_model(written(folder, {"class_name": "Sequential", "config": [layer]}))


MLP_OF_KERAS_2_1 = [  # examples/mnist_mlp.py; before 2.2.3 the config of a Sequential was a list
    {"class_name": "Dense", "config": {"name": "dense_1", "batch_input_shape": [None, 784], "units": 512}},
    {"class_name": "Dense", "config": {"name": "dense_2", "units": 10, "activation": "softmax"}},
]


@pytest.mark.parametrize(
    "content",
    [
        {"class_name": "Sequential", "config": MLP_OF_KERAS_2_1, "keras_version": "2.1.6"},
        {"modelTopology": {"class_name": "Sequential", "config": MLP_OF_KERAS_2_1}},
        {"modelTopology": {"keras_version": "2.1.6", "model_config": described(MLP_OF_KERAS_2_1)}},
        {"model_config": described(MLP_OF_KERAS_2_1)},
    ],
)
def test_where_a_description_is_in_the_json(folder, content):
    model = nn.load_model(written(folder, content))
    assert (model.input_shape, model.count_params()) == ((784,), 785 * 512 + 513 * 10)


@pytest.mark.parametrize(
    "given",
    [
        {"class_name": "Dense", "config": {"name": "d", "units": 3, "input_dim": 784}},
        {"class_name": "Dense", "config": {"name": "d", "units": 3, "batch_input_shape": [32, 784]}},
    ],
)
def test_where_the_input_shape_is(folder, given):
    assert nn.load_model(written(folder, described([given]))).input_shape == (784,)


def test_the_shape_that_a_model_was_built_for(folder):
    content = described([keras_layer("Dense", "d", units=3)])
    content["config"]["build_input_shape"] = [None, 784]
    assert nn.load_model(written(folder, content)).input_shape == (784,)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("relu", "relu"),
        ({"module": "builtins", "class_name": "function", "config": "tanh", "registered_name": "function"}, "tanh"),
        ({"class_name": "Activation", "config": {"name": "a", "activation": "sigmoid"}}, "sigmoid"),
        (
            {"module": "keras.layers", "class_name": "ReLU", "config": {"max_value": None, "negative_slope": 0.0}},
            "relu",
        ),
        ({"module": "keras.layers", "class_name": "Softmax", "config": {"axis": -1}}, "softmax"),
    ],
)
def test_an_activation_is_a_name_or_an_object(folder, given, name):
    model = nn.load_model(
        written(folder, described([*LAYERS[:2], keras_layer("Dense", "x", units=2, activation=given)]))
    )
    assert model.layers[-1].activation is getattr(nn.ops, name)


def scaling(scale, mode, distribution):
    return {"class_name": "VarianceScaling", "config": {"scale": scale, "mode": mode, "distribution": distribution}}


@pytest.mark.parametrize(
    ("written_as", "name"),
    [
        ("he_normal", "he_normal"),
        ("uniform", "random_uniform"),  # Keras 1
        ({"module": "keras.initializers", "class_name": "LecunNormal", "config": {"seed": None}}, "lecun_normal"),
        (scaling(1.0, "fan_avg", "uniform"), "glorot_uniform"),
        (scaling(2, "fan_in", "truncated_normal"), "he_normal"),
        ({"class_name": "RandomNormal", "config": {"mean": 0.0, "stddev": 0.05}}, "random_normal"),
        ({"class_name": "RandomNormal", "config": {"mean": 0.0, "stddev": 0.5}}, None),
        (scaling(3, "fan_in", "uniform"), None),
        (scaling(1, "fan_in", "untruncated_normal"), None),
        ({"class_name": "VarianceScaling", "config": {}}, "lecun_normal"),
        ({"module": "mine", "class_name": "HeNormal", "config": {}}, None),
        ("orthogonal", None),
    ],
)
def test_weights_that_are_not_in_the_file_come_from_its_initializer(folder, written_as, name):
    layer = keras_layer("Dense", "x", units=2, use_bias=False, kernel_initializer=written_as, bias_initializer="mine")
    path = written(folder, described([*LAYERS[:2], layer]))
    if name is None:
        with pytest.raises(ValueError, match="Dense 'x' with the kernel_initializer"):
            nn.load_model(path)
    else:
        assert nn.load_model(path).layers[-1].kernel_initializer == name


def test_an_initializer_does_not_matter_if_the_weights_are_in_the_file(folder, generator):
    first, *others = LAYERS[1:]
    other = keras_layer("Conv2D", "c", **first["config"] | {"kernel_initializer": "orthogonal"})
    weights = arrays_of(generator)
    names = ("conv2d/vars/0", "conv2d/vars/1", "dense/vars/0", "dense/vars/1")
    stored = hdf5({f"layers/{name}": array for name, array in zip(names, weights, strict=True)})
    path = archive(folder / "net.keras", described([LAYERS[0], other, *others]), stored)
    assert_weights(nn.load_model(path), weights)


@pytest.mark.parametrize("module", ["keras.layers", "keras.layers.core", "keras.src.layers.core.dense", None])
def test_the_modules_of_keras_are_known(folder, module):
    layer = keras_layer("Dense", "x", units=2) | {"module": module, "registered_name": "Dense"}
    assert nn.load_model(written(folder, described([*LAYERS[:2], layer]))).output_shape == (28, 28, 2)


@pytest.mark.skipif("trainable" not in signature(nn.Dense).parameters, reason="layers are always trained")
def test_a_layer_that_was_not_trained_is_not_trained_here(folder):
    frozen = [*LAYERS[:1], keras_layer("Dense", "a", units=2, trainable=False), keras_layer("Dense", "b", units=2)]
    model = nn.load_model(written(folder, described(frozen)))
    assert [layer.trainable for layer in model.layers] == [False, True]


# Weights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conv", "dense"),
    [
        ("layers/conv2d", "layers/dense"),
        ("_layer_checkpoint_dependencies/conv2d", "_layer_checkpoint_dependencies/dense"),
        ("layers\\conv2d", "layers\\dense"),
        ("_layer_checkpoint_dependencies\\conv2d", "_layer_checkpoint_dependencies\\dense"),
    ],
)
def test_where_the_weights_of_a_keras_file_are(folder, generator, conv, dense):
    arrays = arrays_of(generator)
    names = [f"{conv}/vars/0", f"{conv}/vars/1", f"{dense}/vars/0", f"{dense}/vars/1"]
    others = {"optimizer/vars/0": np.zeros(3), "layers/dropout/seed_generator/vars/0": np.zeros(2)}
    path = archive(folder / "net.keras", described(LAYERS), hdf5({**dict(zip(names, arrays, strict=True)), **others}))
    assert_weights(nn.load_model(path), arrays)


def test_weights_in_nested_models_and_of_more_than_ten_layers_of_a_class(folder, generator):
    """By number, not in the order of the alphabet."""
    inner = [keras_layer("InputLayer", "in", batch_shape=[None, 2])]
    inner += [keras_layer("Dense", f"d{i}", units=2, use_bias=False) for i in range(12)]
    nested = [{**described(inner), "name": "a"}, {**described(inner[1:]), "name": "b"}]
    arrays = generator.standard_normal((24, 2, 2)).astype(np.float32)
    names = [
        f"layers/{model}/layers/dense{f'_{i}' if i else ''}/vars/0"
        for model in ("sequential", "sequential_1")
        for i in range(12)
    ]
    path = archive(folder / "net.keras", described(nested), hdf5(dict(zip(names, arrays, strict=True))))
    assert_weights(nn.load_model(path), arrays)


def whole_model(arrays, backend="tensorflow"):
    """A model in HDF5 as Keras 2 saved it."""
    names = ["c/c/kernel:0", "c/c/bias:0", "out/out/kernel:0", "out/out/bias:0"]
    return hdf5(
        {f"model_weights/{name}": array for name, array in zip(names, arrays, strict=True)},
        {
            ("/", "model_config"): json.dumps(described(LAYERS)),
            ("/", "backend"): backend,
            ("model_weights/c", "weight_names"): [b"c/kernel:0", b"c/bias:0"],
            ("model_weights/out", "weight_names"): [b"out/kernel:0", b"out/bias:0"],
        },
    )


def test_a_whole_model_in_hdf5(folder, generator):
    arrays = arrays_of(generator)
    (folder / "net.h5").write_bytes(whole_model(arrays))
    assert_weights(nn.load_model(folder / "net.h5"), arrays)


def test_kernels_of_theano_are_mirrored(folder, generator):
    """Theano's convolution was one, not a cross-correlation; Keras 2 turned kernels round as it read them."""
    arrays = arrays_of(generator)
    (folder / "net.h5").write_bytes(whole_model(arrays, "theano"))
    assert_weights(nn.load_model(folder / "net.h5"), [arrays[0][::-1, ::-1], *arrays[1:]])


def tensorflow_js(folder, arrays, **changes):
    names = ["c/kernel", "c/bias", "out/kernel", "out/bias"]
    weights = [{"name": n, "shape": a.shape, "dtype": "float32"} for n, a in zip(names, arrays, strict=True)]
    group = {"paths": ["group1-shard1of2.bin", "group1-shard2of2.bin"], "weights": weights, **changes}
    content = b"".join(a.tobytes() for a in arrays)
    for path, part in zip(group["paths"], (content[:999], content[999:]), strict=True):
        (folder / path).write_bytes(part)
    topology = {"keras_version": "tfjs-layers 1.7.0", "backend": "tensor_flow.js", "model_config": described(LAYERS)}
    return written(folder, {"modelTopology": topology, "weightsManifest": [group]}, "model.json")


def test_the_weights_of_tensorflow_js(folder, generator):
    arrays = arrays_of(generator)
    assert_weights(nn.load_model(tensorflow_js(folder, arrays)), arrays)


@pytest.mark.parametrize(
    "weights",
    [
        {"weightData": "AAAA", "weightSpecs": []},
        {"weightSpecs": []},
        {"weightsManifest": None},
        {"weightsManifest": []},
        {"weightsManifest": [{"weights": []}]},
        {"weightsManifest": [{"paths": ["none.bin"], "weights": []}]},
    ],
)
def test_weights_of_tensorflow_js_that_are_not_in_files_beside_it_are_not_new_without_a_word(folder, capsys, weights):
    path = written(folder, {"modelTopology": {"model_config": described(LAYERS)}, **weights}, "model.json")
    with pytest.raises(ValueError, match="expected weights that can be read"):
        nn.load_model(path)
    assert main(["summary", "model.json"]) == 0
    assert capsys.readouterr().err.startswith("model.json: weights newly initialised: ")


def test_weights_of_tensorflow_js_are_in_its_folder_alone(folder, generator):
    (folder / "sub").mkdir()
    path = tensorflow_js(folder / "sub", arrays_of(generator), paths=["../one.bin", "../two.bin"])
    with pytest.raises(ValueError, match="paths outside of its folder"):
        nn.load_model(path)


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        (None, "no item named 'model.weights.h5'"),
        (b"no HDF5", "damaged"),
        ({}, "'c' have shapes [] instead of"),
        ({"c": np.zeros((3, 3, 1, 4))}, "'c' have shapes [(3, 3, 1, 4), (3,)] instead of [(3, 3, 1, 3), (3,)]"),
        ({"c": np.zeros((3, 3, 1, 3), np.uint16)}, "'c' are of uint16"),
    ],
)
def test_counts_need_no_weights_but_load_model_does(folder, capsys, generator, weights, why):
    if isinstance(weights, dict):
        names = ["layers/conv2d/vars/0", "layers/conv2d/vars/1", "layers/dense/vars/0", "layers/dense/vars/1"]
        arrays = dict(zip(names, arrays_of(generator), strict=True)) if weights else {}
        weights = hdf5({**arrays, **({names[0]: weights["c"]} if weights else {})})
    path = archive(folder / "net.keras", described(LAYERS), weights)
    with pytest.raises(ValueError, match="path: expected weights that can be read") as caught:
        nn.load_model(path)
    assert why in str(caught.value)
    assert main(["summary", "net.keras"]) == 0
    printed = capsys.readouterr()
    assert "5,920" in printed.out
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("net.keras: weights newly initialised: ")
    assert why in printed.err


def test_links_to_other_files_are_not_followed(folder, generator):
    h5py = pytest.importorskip("h5py")
    arrays = arrays_of(generator)
    (folder / "secret.h5").write_bytes(hdf5({"layers/conv2d/vars/0": arrays[0], "layers/conv2d/vars/1": arrays[1]}))
    content = io.BytesIO(hdf5({"layers/dense/vars/0": arrays[2], "layers/dense/vars/1": arrays[3]}))
    with h5py.File(content, "a") as file:
        file["layers/conv2d"] = h5py.ExternalLink(str(folder / "secret.h5"), "layers/conv2d")
    with pytest.raises(ValueError, match=r"'c' have shapes \[\]"):
        nn.load_model(archive(folder / "net.keras", described(LAYERS), content.getvalue()))


@pytest.mark.parametrize("kind", ["sequential", "nested", "functional"])
def test_keras_itself_predicts_the_same(folder, kind):
    keras = pytest.importorskip("keras")
    layers = keras.layers
    head = [
        keras.Input((14, 14, 1)),
        layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(6, (3, 2), use_bias=False, groups=2, activation=layers.ReLU()),
    ]
    tail = [
        layers.Activation("tanh"),
        layers.MaxPooling2D(3, strides=2, padding="same"),
        layers.Flatten(),
        layers.Dense(7, activation="sigmoid", name="b"),
        layers.Dense(7, name="a", trainable=False),
        layers.Dense(7, name="c"),
        layers.Dense(10, activation="softmax", name="head"),
    ]
    if kind == "functional":
        y = x = head[0]
        for layer in [*head[1:], *tail]:
            y = layer(y)
        theirs = keras.Model(x, y)
    elif kind == "nested":
        theirs = keras.Sequential([keras.Sequential(head), *tail[:3], keras.Sequential(tail[3:6]), tail[6]])
    else:
        theirs = keras.Sequential([*head, *tail])
    x = np.random.default_rng(0).random((5, 14, 14, 1), np.float32)
    expected = theirs.predict(x, verbose=0)
    theirs.save(folder / "net.keras")
    theirs.save(folder / "net.h5")
    (folder / "net.json").write_text(theirs.to_json())
    for name in ("net.keras", "net.h5"):
        np.testing.assert_allclose(nn.load_model(folder / name).predict(x), expected, rtol=1e-4, atol=1e-6)
    assert nn.load_model(folder / "net.json").count_params() == theirs.count_params()


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (keras_layer("BatchNormalization", "bn"), "BatchNormalization 'bn'"),
        (keras_layer("Dense", "x", units=1, activation="gelu"), "Dense 'x' with the activation gelu"),
        (keras_layer("Dense", "x", units=1, activation={"class_name": "ELU", "config": {}}), "of the class 'ELU'"),
        (keras_layer("Dense", "x", units=1, activation={"class_name": "ReLU", "config": {"max_value": 6}}), "'ReLU'"),
        (keras_layer("ReLU", "x", max_value=6.0), "ReLU 'x' with max_value 6.0"),
        (keras_layer("Flatten", "x", data_format="channels_first"), "with data_format 'channels_first'"),
        (keras_layer("Dense", "x", units=1, kernel_regularizer={"a": 1}), "Dense 'x' with a kernel_regularizer"),
        (keras_layer("Dropout", "x", rate=0.1, dtype={"config": {"name": "mixed_float16"}}), "dtype 'mixed_float16'"),
        (keras_layer("Dense", "x", units=1, lora_rank=4), "Dense 'x' with the unknown option lora_rank 4"),
        (keras_layer("Dense", "x", units=1) | {"module": "mine.layers"}, "Dense 'x' of the class mine.layers.Dense"),
        (keras_layer("Dense", "x", units=1) | {"registered_name": "mine>Dense"}, "Dense 'x' of the class mine>Dense"),
        (
            keras_layer("Dense", "x", units=1, activation={"class_name": "ReLU", "module": "mine", "config": {}}),
            "Dense 'x' with the activation of the class 'ReLU'",
        ),
        (
            keras_layer("Dense", "x", units=1, kernel_initializer={"class_name": "Orthogonal", "config": {"gain": 2}}),
            "Dense 'x' with the kernel_initializer Orthogonal(gain=2)",
        ),
    ],
)
def test_what_does_not_exist_here_is_listed_whole_in_one_line(folder, capsys, layer, said):
    other = keras_layer("LSTM", "memory")
    written(folder, described([*LAYERS[:2], layer, other, *LAYERS[2:]]))
    assert main(["summary", "net.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert "LSTM 'memory'" in error
    assert "supported layers (Conv2D, Dense, MaxPooling2D, Dropout, Flatten, Activation, ReLU, Softmax)" in error


def test_of_a_long_list_the_beginning_is_said(folder):
    path = written(folder, described([LAYERS[0], *(keras_layer("LSTM", f"l{i}") for i in range(50))]))
    with pytest.raises(ValueError, match="LSTM 'l19'; 30 more$"):
        nn.load_model(path)


def test_files_that_can_not_be_read_are_one_line_each(folder, capsys):
    (folder / "text.keras").write_text("no archive")
    with zipfile.ZipFile(folder / "empty.keras", "w") as file:
        file.writestr("readme", "")
    (folder / "broken.json").write_text("{")
    written(folder, [1], "other.json")
    written(folder, described([keras_layer("Flatten", "f")]), "unknown.json")
    written(folder, described([LAYERS[0]]), "none.json")
    written(folder, described([LAYERS[0], keras_layer("MaxPooling2D", "p", pool_size=[40, 40])]), "pooled.json")
    written(folder, described([LAYERS[0], keras_layer("Dense", "d", units="many")]), "units.json")
    (folder / "torn.json").write_text('{"class_name": "Sequential", "config": {"layers": 3}}')
    (folder / "weights.h5").write_bytes(hdf5({"dense/kernel:0": np.zeros(3)}))
    (folder / "text.h5").write_text("no HDF5")
    for name, said in {
        "text.keras": "a zip archive",
        "empty.keras": "config.json",
        "broken.json": "JSON of a Keras model",
        "other.json": "without class_name",
        "unknown.json": "an input shape without unknown sizes",
        "none.json": "expected at least one layer",
        "pooled.json": "a window no larger than the padded input",
        "none.keras": "does not exist",
        "units.json": "Dense 'd': units: expected an integer of at least 1. Received: 'many'",
        "torn.json": "expected a consistent file. Received: one with TypeError",
        "weights.h5": "HDF5 with weights only",
        "text.h5": "expected an HDF5 file",
    }.items():
        assert main(["explain", name]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert name in error
        assert said in error


def test_without_the_package_h5py_one_line_says_how_to_get_it(folder, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (folder / "net.h5").write_text("")
    assert main(["summary", "net.h5"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nnlite-conv[keras]" in error


# Hostile files -------------------------------------------------------------------------------------------------------


def hostile(name, folder):
    """A file that means harm."""
    path = folder / "net.keras"
    if name == "deep":
        return archive(path, "[" * 200_000)
    if name == "deep_config":
        layer = json.dumps(described([]))
        return archive(path, layer.replace("[]", "[" + layer.replace("[]", "[" * 5000 + "]" * 5000) + "]"))
    if name == "huge":
        return archive(path, described([LAYERS[0], keras_layer("Dense", "d", units=10**9)]), hdf5({"a": np.zeros(3)}))
    if name == "huge_input":
        return archive(path, described([keras_layer("InputLayer", "i", batch_shape=[None, 10**9]), *LAYERS[5:]]))
    if name == "huge_result":
        return archive(path, described([LAYERS[0], keras_layer("Dense", "d", units=10**6)]))
    if name == "many_layers":
        return archive(path, described([LAYERS[0], *[keras_layer("Flatten", "f")] * 1000]))
    if name == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("config.json", " " * 50_000_000)
        return path
    archive(path, described(LAYERS))
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\1\2")
    if name == "crc":
        content[100] ^= 1
    elif name == "encrypted":
        content[6] |= 1
        content[central + 8] |= 1
    elif name == "compression":
        struct.pack_into("<H", content, 8, 97)
        struct.pack_into("<H", content, central + 10, 97)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deep", "nested too deep"),
        ("deep_config", "expected"),
        ("huge", "expected at most 4,194,304 parameters. Received: 2,000,000,000"),
        ("huge_input", "numbers in the input"),
        ("huge_result", "expected at most 16,777,216 numbers in the result of Dense"),
        ("many_layers", "expected at most 1,000 layers"),
        ("bomb", "inflates from"),
        ("crc", "Bad CRC-32"),
        ("encrypted", "encrypted"),
        ("compression", "compression"),
    ],
)
def test_a_hostile_file_is_refused_in_a_few_megabytes(folder, name, said):
    path = hostile(name, folder)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="path") as caught:
            nn.load_model(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert said in str(caught.value)
    assert most < 64 * 2**20


def test_a_bomb_in_the_place_of_the_weights_is_not_inflated(folder):
    path = archive(folder / "net.keras", described(LAYERS))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="inflates from"):
            nn.load_model(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 * 2**20


def test_a_file_s_names_do_not_reach_the_terminal_as_commands(folder, capsys):
    written(folder, described([LAYERS[0], keras_layer("\x1b[2J\x07LSTM", "\x1b]0;owned\x07")]))
    assert main(["summary", "net.json"]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert "\x07" not in error
    assert "\\x1b[2J" in error


VALUES = (None, True, -1, 0, 3, 1e30, 10**40, float("nan"), "", "relu", "\x1b", [], {}, [None], {"config": 1}, [[1, 2]])


def replaced(node, generator):
    """JSON with one value exchanged for another."""
    if not isinstance(node, (dict, list)) or not node or generator.random() < 0.1:
        return VALUES[int(generator.integers(len(VALUES)))]
    keys = list(node) if isinstance(node, dict) else range(len(node))
    key = list(keys)[int(generator.integers(len(node)))]
    changed = node.copy()
    changed[key] = replaced(node[key], generator)
    return changed


def fuzz_keras(folder, times, seed):
    """Damages valid files; anything but a model or a ValueError escapes. The lines that the errors are."""
    said = []
    generator = np.random.default_rng(seed)
    arrays = arrays_of(generator)
    names = ["layers/conv2d/vars/0", "layers/conv2d/vars/1", "layers/dense/vars/0", "layers/dense/vars/1"]
    weights = hdf5(dict(zip(names, arrays, strict=True)))
    keras = archive(folder / "whole.keras", described(LAYERS), weights).read_bytes()
    model = whole_model(arrays)
    descriptions = [functional(*CHAIN, output_layers=["out", 0, 0]), {"class_name": "Sequential", "config": KERAS_1}]
    for i in range(times):
        match i % 4:
            case 0:
                path = folder / "fuzz.keras"
                path.write_bytes(damaged(keras, generator))
            case 1:
                path = folder / "fuzz.h5"
                path.write_bytes(damaged(model, generator))
            case 2:
                path = written(folder, replaced(descriptions[i // 4 % 2], generator), "fuzz.json")
            case 3:
                path = archive(folder / "fuzz.keras", replaced(descriptions[0], generator), damaged(weights, generator))
        said += refusal(path)
    return said


def test_damaged_files_end_in_a_value_error_of_one_line(folder):
    said = fuzz_keras(folder, times=80, seed=0)
    assert len(said) > 40
    assert all(line.isprintable() for line in said)
