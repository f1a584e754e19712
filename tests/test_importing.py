"""Networks of Keras and ONNX: the same shapes, counts and, with their weights, the same predictions; else one line."""

import json
import zipfile
from math import prod

import numpy as np
import pytest

from nnlite.cli import main
from nnlite.explain import importing


def keras_layer(kind, name, **config):
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


def described(layers, kind="Sequential"):
    return {"module": "keras", "class_name": kind, "config": {"name": "net", "layers": layers}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sequential_keras_model_from_json(folder, capsys):
    (folder / "net.json").write_text(json.dumps(described(LAYERS)))
    model = importing.load(folder / "net.json")
    assert model.name == "net"
    assert [type(layer).__name__ for layer in model.layers] == [
        *("Conv2D", "Activation", "MaxPooling2D", "Dropout", "Flatten", "Dense")
    ]
    assert model.count_params() == 3 * 9 + 3 + 14 * 14 * 3 * 10 + 10
    assert main(["summary", "net.json"]) == 0
    assert "net" in capsys.readouterr().out


def functional(*sources):
    """The layers as a functional model writes them: each reads those named, in order, of `sources`."""
    layers = []
    for layer, names in zip(LAYERS, sources, strict=True):
        tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}} for name in names]
        layers.append({**layer, "name": layer["config"]["name"], "inbound_nodes": [{"args": tensors}] if names else []})
    return described(layers, "Functional")


def test_a_functional_model_that_is_a_chain(folder):
    (folder / "net.json").write_text(json.dumps(functional([], ["in"], ["c"], ["r"], ["p"], ["d"], ["f"])))
    assert importing.load(folder / "net.json").output_shape == (10,)


def test_a_functional_model_that_branches_is_refused(folder):
    (folder / "net.json").write_text(json.dumps(functional([], ["in"], ["c"], ["c"], ["p"], ["d"], ["f", "d"])))
    with pytest.raises(
        ValueError, match=r"MaxPooling2D 'p' with inputs c \(not a chain\); Dense 'out' with inputs f, d"
    ):
        importing.load(folder / "net.json")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (keras_layer("BatchNormalization", "bn"), "BatchNormalization 'bn'"),
        (keras_layer("Dense", "x", units=1, activation="gelu"), "Dense 'x' with the activation gelu"),
        (keras_layer("ReLU", "x", max_value=6.0), "ReLU 'x' with max_value 6.0"),
        (keras_layer("Flatten", "x", data_format="channels_first"), "with data_format 'channels_first'"),
        (keras_layer("Dense", "x", units=1, kernel_regularizer={"a": 1}), "Dense 'x' with a kernel_regularizer"),
        (keras_layer("Dropout", "x", rate=0.1, dtype={"config": {"name": "mixed_float16"}}), "dtype 'mixed_float16'"),
    ],
)
def test_what_does_not_exist_here_is_listed_whole_in_one_line(folder, capsys, layer, said):
    other = keras_layer("LSTM", "memory")
    (folder / "net.json").write_text(json.dumps(described([*LAYERS[:2], layer, other, *LAYERS[2:]])))
    assert main(["summary", "net.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert "LSTM 'memory'" in error


def test_files_that_can_not_be_read_are_one_line_each(folder, capsys):
    (folder / "text.keras").write_text("no archive")
    with zipfile.ZipFile(folder / "empty.keras", "w") as file:
        file.writestr("readme", "")
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text("[1]")
    (folder / "unknown.json").write_text(json.dumps(described([keras_layer("Flatten", "f")])))
    pooled = [LAYERS[0], keras_layer("MaxPooling2D", "p", pool_size=[40, 40])]
    (folder / "pooled.json").write_text(json.dumps(described(pooled)))
    (folder / "units.json").write_text(json.dumps(described([LAYERS[0], keras_layer("Dense", "d", units="many")])))
    (folder / "torn.json").write_text('{"class_name": "Sequential", "config": {"layers": 3}}')
    for name, said in {
        "text.keras": "a zip archive",
        "empty.keras": "config.json",
        "broken.json": "JSON of a Keras model",
        "other.json": "without class_name",
        "unknown.json": "an input shape without unknown sizes",
        "pooled.json": "a window no larger than the padded input",
        "none.keras": "does not exist",
        "units.json": "Dense 'd': units: expected an integer of at least 1. Received: 'many'",
        "torn.json": "expected a file that holds together. Received: one with TypeError",
    }.items():
        assert main(["explain", name]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert name in error
        assert said in error


def test_the_weights_of_a_keras_file_go_to_their_layers(folder):
    h5py = pytest.importorskip("h5py")
    arrays = {
        "layers/conv2d/vars/0": np.random.rand(3, 3, 1, 3),
        "layers/conv2d/vars/1": np.random.rand(3),
        "layers/dense/vars/0": np.random.rand(588, 10),
        "layers/dense/vars/1": np.random.rand(10),
    }
    with h5py.File(folder / "w.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    content = (folder / "w.h5").read_bytes()
    config = json.dumps(described(LAYERS))
    with zipfile.ZipFile(folder / "net.keras", "w") as file:
        file.writestr("config.json", config)
        file.writestr("model.weights.h5", content)
    for mine, theirs in zip(importing.load(folder / "net.keras").get_weights(), arrays.values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_keras_itself_predicts_the_same(folder):
    keras = pytest.importorskip("keras")
    layers = keras.layers
    theirs = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(6, (3, 2), use_bias=False, groups=2),
            layers.Activation("tanh"),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(7, activation="sigmoid"),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    theirs.save(folder / "net.keras")
    x = np.random.default_rng(0).random((5, 28, 28, 1), np.float32)
    mine = importing.load(folder / "net.keras")
    assert mine.count_params() == theirs.count_params()
    np.testing.assert_allclose(mine.predict(x, verbose=0), theirs.predict(x, verbose=0), rtol=1e-4, atol=1e-6)


# ONNX --------------------------------------------------------------------------------------------------------------


class Graph:
    """A chain of ONNX operators, made step by step."""

    def __init__(self, shape):
        self.onnx = pytest.importorskip("onnx")
        self.nodes, self.constants, self.last = [], [], "x"
        self.input = self.onnx.helper.make_tensor_value_info("x", self.onnx.TensorProto.FLOAT, ["n", *shape])
        self.random = np.random.default_rng(0)

    def add(self, operator, *arrays, **attributes):
        names = []
        for array in arrays:
            names.append(f"c{len(self.constants)}")
            self.constants.append(self.onnx.numpy_helper.from_array(array, names[-1]))
        output = f"{operator}{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, [self.last, *names], [output], output, **attributes))
        self.last = output
        return self

    def weight(self, *shape):
        return (self.random.normal(size=shape) / prod(shape[1:]) ** 0.5).astype(np.float32)

    def save(self, path):
        helper = self.onnx.helper
        output = helper.make_tensor_value_info(self.last, self.onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "g", [self.input], [output], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        self.onnx.save(model, path)


def channels_first():
    g = Graph([1, 28, 28])
    g.add("Conv", g.weight(4, 1, 3, 3), g.weight(4, 1)[:, 0], pads=[1, 1, 0, 2], strides=[2, 1]).add("Relu")
    g.add("Conv", g.weight(6, 2, 3, 3), group=2, auto_pad="SAME_UPPER").add("Tanh").add("Sigmoid")
    g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).add("Flatten")
    features = 6 * 7 * 14
    g.add("Gemm", g.weight(20, features), g.weight(20, 1)[:, 0], transB=1).add("Relu")
    return g.add("MatMul", g.weight(20, 10)).add("Add", g.weight(10, 1)[:, 0]).add("Softmax", axis=-1)


def channels_last():
    """As converters from TensorFlow write it: transposed to channels first and back."""
    g = Graph([28, 28, 1])
    g.add("Transpose", perm=[0, 3, 1, 2]).add("Conv", g.weight(4, 1, 3, 3)).add("Relu")
    g.add("Transpose", perm=[0, 2, 3, 1]).add("Reshape", np.array([-1, 26 * 26 * 4]))
    return g.add("Gemm", g.weight(26 * 26 * 4, 10)).add("Softmax")


@pytest.mark.parametrize("make", [channels_first, channels_last])
def test_onnx_runtime_predicts_the_same(folder, make):
    runtime = pytest.importorskip("onnxruntime")
    graph = make()
    graph.save(folder / "net.onnx")
    model = importing.load(folder / "net.onnx")
    x = np.random.default_rng(1).random((5, 28, 28, 1), np.float32)
    given = x.reshape(5, 1, 28, 28) if make is channels_first else x
    session = runtime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": given})
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-6)


def test_operators_that_do_not_exist_here_are_listed(folder, capsys):
    g = Graph([1, 28, 28])
    g.add("Conv", g.weight(4, 1, 3, 3)).add("Elu").add("GlobalAveragePool").add("Flatten").save(folder / "net.onnx")
    assert main(["explain", "net.onnx"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Elu 'Elu1'; GlobalAveragePool 'GlobalAveragePool2'" in error


@pytest.mark.parametrize(
    ("operator", "attributes", "said"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1}, "expected neither ceil_mode nor dilations"),
        ("MaxPool", {"kernel_shape": [40, 40]}, "no larger than the padded input"),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}, "auto_pad SAME_LOWER"),
        ("Transpose", {"perm": [0, 1, 3, 2]}, "expected perm"),
        ("Softmax", {"axis": 2}, "axis of the channels"),
        ("Flatten", {"axis": 2}, "(n, ...) -> (n, features)"),
    ],
)
def test_options_of_onnx_that_do_not_exist_here(folder, operator, attributes, said):
    g = Graph([1, 28, 28])
    g.add("Conv", g.weight(4, 1, 3, 3)).add("Relu").add(operator, **attributes).save(folder / "net.onnx")
    with pytest.raises(ValueError, match="MODEL") as caught:
        importing.load(folder / "net.onnx")
    assert said in str(caught.value)


def test_what_follows_an_activation_is_not_the_bias_of_the_product_before_it(folder):
    g = Graph([784]).add("MatMul", np.ones((784, 10), np.float32)).add("Relu")
    g.add("Add", np.ones(10, np.float32)).save(folder / "net.onnx")
    with pytest.raises(ValueError, match="Add 'Add2': expected the bias of a MatMul right before it"):
        importing.load(folder / "net.onnx")


@pytest.mark.parametrize("bias", [np.ones((10, 1), np.float32), np.ones(1, np.float32)])
def test_a_bias_is_one_number_a_unit(folder, bias):
    Graph([784]).add("MatMul", np.ones((784, 10), np.float32)).add("Add", bias).save(folder / "net.onnx")
    with pytest.raises(ValueError, match=r"expected a bias of shape \(10,\)"):
        importing.load(folder / "net.onnx")


def test_a_product_whose_weight_is_on_the_left_is_refused(folder):
    g = Graph([10]).add("MatMul", np.ones((10, 10), np.float32))
    g.nodes[-1].input.reverse()
    g.save(folder / "net.onnx")
    with pytest.raises(ValueError, match="MatMul 'MatMul0' whose first operand is constant"):
        importing.load(folder / "net.onnx")


def test_what_would_read_another_axis_than_here_is_refused(folder):
    Graph([1, 28, 28]).add("MatMul", np.ones((28, 10), np.float32)).save(folder / "product.onnx")
    with pytest.raises(ValueError, match=r"expected \(n, features\) by a matrix. Received: \(n, 28, 28, 1\)"):
        importing.load(folder / "product.onnx")
    g = Graph([1, 28, 28]).add("Conv", np.ones((4, 1, 3, 3), np.float32)).add("Flatten").add("Relu")
    g.save(folder / "flat.onnx")
    with pytest.raises(ValueError, match="a Flatten that no product follows"):
        importing.load(folder / "flat.onnx")
    g = Graph([28, 28, 4]).add("Transpose", perm=[0, 3, 1, 2]).add("Transpose", perm=[0, 2, 3, 1])
    g.add("MaxPool", kernel_shape=[2, 2]).save(folder / "pool.onnx")
    with pytest.raises(ValueError, match="MaxPool 'MaxPool2': expected channels first"):
        importing.load(folder / "pool.onnx")


def test_onnx_that_branches_or_is_no_onnx(folder):
    g = Graph([1, 28, 28])
    g.add("Relu").last = "x"
    g.add("Tanh").save(folder / "net.onnx")
    with pytest.raises(ValueError, match="not a chain"):
        importing.load(folder / "net.onnx")
    Graph([1, 28, 28]).save(folder / "nothing.onnx")
    with pytest.raises(ValueError, match="expected at least one layer. Received: none"):
        importing.load(folder / "nothing.onnx")
    (folder / "bad.onnx").write_text("no")
    with pytest.raises(ValueError, match="expected an ONNX file"):
        importing.load(folder / "bad.onnx")
    (folder / "empty.onnx").write_text("")
    with pytest.raises(ValueError, match="expected an ONNX file. Received: a file without a graph"):
        importing.load(folder / "empty.onnx")


def test_without_the_package_onnx_one_line_says_how_to_get_it(folder, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    (folder / "net.onnx").write_text("")
    assert main(["summary", "net.onnx"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nnlite-conv[onnx]" in error
