"""ONNX files: the model predicts what onnxruntime does; else one line says what does not exist here."""

import tracemalloc
import warnings
from math import prod

import numpy as np
import pytest
from damage import damaged, refusal

import nnlite as nn
from nnlite.__main__ import main
from nnlite.network.importing.onnx_operators import Reader

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
helper = onnx.helper


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Graph:
    """A chain of ONNX operators, made step by step."""

    def __init__(self, shape, batch="n", opset=17, dtype=onnx.TensorProto.FLOAT):
        self.nodes, self.constants, self.last = [], [], "x"
        self.input = helper.make_tensor_value_info("x", dtype, [batch, *shape])
        self.outputs = None
        self.opset = opset
        self.random = np.random.default_rng(0)

    def add(self, operator, *operands, **attributes):
        """An operator that reads the last tensor and `operands`: constants, or tensors by name ("" is left out)."""
        self.last = self.side(operator, self.last, *operands, **attributes)
        return self

    def side(self, operator, *operands, **attributes):
        """An operator beside the chain; the name of its result."""
        names = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        output = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], output, **attributes))
        return output

    def constant(self, array):
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(array), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def weight(self, *shape):
        return (self.random.normal(size=shape) / prod(shape[1:]) ** 0.5).astype(np.float32)

    def proto(self):
        outputs = self.outputs or [self.last]
        values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", [self.input], values, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def save(self, path):
        onnx.save(self.proto(), path)


def assert_predicts_the_same(path, batch=3):
    """As onnxruntime, for images that are channels first there and channels last here; the model."""
    model = nn.load_model(path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    x = np.random.default_rng(1).standard_normal((batch, *given.shape[1:])).astype(np.float32)
    (expected,) = session.run(None, {given.name: x})
    if x.ndim == 4 and model.input_shape == (*x.shape[2:], x.shape[1]):
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    found = model.predict(x.reshape(batch, *model.input_shape))
    if found.ndim == 4:
        found = found.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    return model


# What is understood --------------------------------------------------------------------------------------------------


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
    g = Graph([28, 28, 2])
    g.add("Transpose", perm=[0, 3, 1, 2]).add("Conv", g.weight(4, 2, 3, 3)).add("Relu")
    g.add("Transpose", perm=[0, 2, 3, 1]).add("Reshape", np.array([-1, 26 * 26 * 4]))
    return g.add("Gemm", g.weight(26 * 26 * 4, 10)).add("Softmax")


def flattened_as_it_is():
    g = Graph([6, 5, 3]).add("Flatten")
    return g.add("Gemm", g.weight(90, 10))


def flattened_by_reshape_with_an_activation_behind():
    """The order of channels first lasts until a product puts it right."""
    g = Graph([3, 6, 5])
    g.add("Conv", g.weight(4, 3, 3, 3)).add("Relu").add("Reshape", np.array([0, -1])).add("Tanh").add("Dropout")
    return g.add("Gemm", g.weight(48, 10))


def one_channel_by_reshape():
    g = Graph([28, 28, 1]).add("Reshape", np.array([-1, 1, 28, 28]))
    return g.add("Conv", g.weight(4, 1, 3, 3)).add("Flatten").add("Gemm", g.weight(26 * 26 * 4, 10))


def flat_input():
    g = Graph([784]).add("Reshape", np.array([-1, 1, 28, 28]))
    return g.add("Conv", g.weight(4, 1, 3, 3)).add("Flatten").add("Gemm", g.weight(26 * 26 * 4, 10))


def shape_of_the_tensor():
    """As PyTorch writes x.view(x.size(0), -1)."""
    g = Graph([3, 6, 5])
    g.add("Conv", g.weight(4, 3, 3, 3)).add("Relu")
    size = g.side("Gather", g.side("Shape", g.last), np.array(0))
    target = g.side("Concat", g.side("Unsqueeze", size, np.array([0])), np.array([-1]), axis=0)
    return g.add("Reshape", target).add("Gemm", g.weight(48, 10))


def shape_of_the_input():
    """As PyTorch's newer exporter writes it."""
    g = Graph([3, 6, 5])
    size = g.side("Squeeze", g.side("Shape", "x", start=0, end=1))
    minus_one = g.side("Constant", value_ints=[-1])
    g.add("Conv", g.weight(4, 3, 3, 3))
    target = g.side("Concat", g.side("Reshape", size, minus_one), np.array([48]), axis=0)
    return g.add("Reshape", target, allowzero=1).add("Identity").add("Gemm", g.weight(48, 10))


def constants_computed():
    """As the ONNX zoo's mnist-8: a bias that is added, weights that are reshaped, or transposed."""
    g = Graph([1, 12, 12])
    g.add("Conv", g.weight(8, 1, 5, 5), auto_pad="SAME_UPPER").add("Add", g.weight(8, 1, 1)).add("Relu")
    g.add("MaxPool", kernel_shape=[3, 3], strides=[3, 3]).add("Reshape", np.array([-1, 128]))
    g.add("MatMul", g.side("Reshape", g.weight(8, 4, 4, 10), np.array([128, 10]))).add("Add", g.weight(1, 10))
    return g.add("MatMul", g.side("Transpose", g.weight(4, 10), perm=[1, 0]))


def bias_channels_last():
    """As converters from TensorFlow write BiasAdd behind a convolution."""
    g = Graph([6, 5, 3]).add("Transpose", perm=[0, 3, 1, 2])
    g.add("Conv", g.weight(4, 3, 3, 3)).add("Transpose", perm=[0, 2, 3, 1]).add("Add", g.weight(4, 1)[:, 0])
    g.add("Relu").add("Transpose", perm=[0, 3, 1, 2]).add("Conv", g.weight(2, 4, 2, 2))
    return g.add("Add", g.weight(2, 1, 1))


def gemm_of_every_kind():
    g = Graph([7])
    g.add("Gemm", g.weight(7, 6), g.weight(6, 1)[:, 0], alpha=0.5, beta=3.0).add("Tanh")
    g.add("Gemm", g.weight(5, 6), g.weight(1, 5), transB=1, alpha=2.0).add("Tanh")
    return g.add("Gemm", g.weight(5, 4), np.float32(0.5), beta=2.0).add("Tanh").add("Gemm", g.weight(4, 3), "")


def batch_normalization():
    g = Graph([3, 6, 5])

    def numbers(n):
        return [g.weight(n, 1)[:, 0], g.weight(n, 1)[:, 0], g.weight(n, 1)[:, 0], np.abs(g.weight(n, 1)[:, 0])]

    g.add("Conv", g.weight(4, 3, 3, 3)).add("BatchNormalization", *numbers(4), epsilon=0.1).add("Relu")
    g.add("Conv", g.weight(4, 4, 1, 1), g.weight(4, 1)[:, 0]).add("BatchNormalization", *numbers(4)).add("Flatten")
    return g.add("MatMul", g.weight(48, 10)).add("BatchNormalization", *numbers(10))


def arithmetic_behind_a_product():
    g = Graph([7])
    g.add("MatMul", g.weight(7, 6)).add("Sub", g.weight(6, 1)[:, 0]).add("Mul", g.weight(6, 1)[:, 0])
    g.add("Div", np.float32(3)).add("Add", g.weight(1, 6)).add("Relu").add("MatMul", g.weight(6, 3))
    g.add("Mul", np.float32(2))
    g.nodes[-1].input.reverse()
    return g


def operands_left_out():
    """The empty name is an operand that is left out; the one behind it is not in its place."""
    g = Graph([3, 6, 5])
    g.add("Conv", g.weight(4, 3, 3, 3), "").add("Flatten").add("Dropout", "", np.array(False))
    return g.add("Gemm", g.weight(48, 10), "")


def nodes_behind_the_output():
    g = channels_last()
    g.outputs = [g.last]
    g.add("Relu").add("Elu").add("Flatten")
    g.side("Exp", "x")
    return g


def product_over_the_last_axis():
    g = Graph([4, 5, 6])
    return g.add("MatMul", g.weight(6, 3)).add("Tanh").add("Flatten").add("Gemm", g.weight(60, 2))


def axes_of_one():
    g = Graph([1, 6, 1]).add("Squeeze", np.array([1, 3]))
    g.add("MatMul", g.weight(6, 4))
    return g.add("Unsqueeze", np.array([1])).add("Squeeze", np.array([1])).add("Softmax", axis=1)


def softmax_over_channels():
    g = Graph([3, 6, 5])
    return g.add("Conv", g.weight(4, 3, 3, 3)).add("Softmax", axis=1)


def image_to_image():
    g = Graph([3, 6, 5])
    return g.add("Conv", g.weight(4, 3, 3, 3)).add("MaxPool", kernel_shape=[2, 2])


GRAPHS = [
    *(channels_first, channels_last, flattened_as_it_is, flattened_by_reshape_with_an_activation_behind),
    *(one_channel_by_reshape, flat_input, shape_of_the_tensor, shape_of_the_input, constants_computed),
    *(bias_channels_last, gemm_of_every_kind, batch_normalization, arithmetic_behind_a_product, operands_left_out),
    *(nodes_behind_the_output, product_over_the_last_axis, axes_of_one),
    *(softmax_over_channels, image_to_image),
]


@pytest.mark.parametrize("make", GRAPHS, ids=lambda make: make.__name__)
def test_onnx_runtime_predicts_the_same(folder, make):
    make().save(folder / "net.onnx")
    assert_predicts_the_same(folder / "net.onnx")


def test_an_operand_that_is_left_out_has_its_default(folder):
    Graph([7]).add("MatMul", np.ones((7, 4), np.float32)).add("Dropout", "", np.array(True)).save(folder / "net.onnx")
    assert nn.load_model(folder / "net.onnx").layers[1].rate == 0.5


def test_dropout_is_a_layer_that_does_nothing_when_the_network_is_used(folder):
    g = Graph([7]).add("MatMul", np.ones((7, 4), np.float32)).add("Dropout", np.float32(0.25), np.array(True))
    g.save(folder / "net.onnx")
    model = nn.load_model(folder / "net.onnx")
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "Dropout"]
    assert model.layers[1].rate == 0.25
    np.testing.assert_allclose(model.predict(np.ones((2, 7))), np.full((2, 4), 7.0))


def test_a_network_that_torch_exports(folder, torch):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1, stride=2),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
        torch.nn.Softmax(1),
    )
    x = torch.randn(5, 3, 16, 16)
    net(x)  # moves the statistics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), x, folder / "net.onnx", dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"]
        )
    found = nn.load_model(folder / "net.onnx").predict(x.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("batch", "rows"), [("n", -1), (1, 1), (4, 4), (4, -1), ("n", 0)])
def test_a_batch_that_is_open_or_fixed(folder, batch, rows):
    g = Graph([3, 6, 5], batch)
    g.add("Conv", g.weight(4, 3, 3, 3)).add("Reshape", np.array([rows, 48])).add("Gemm", g.weight(48, 10))
    g.save(folder / "net.onnx")
    assert_predicts_the_same(folder / "net.onnx", batch if isinstance(batch, int) else 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [((3, 6, 5), (6, 5, 3)), ((6, 5, 3), (6, 5, 3)), ((1, 6, 5), (6, 5, 1)), ((6, 5, 1), (6, 5, 1))],
)
@pytest.mark.parametrize("first", ["Flatten", "Relu", "Dropout"])
def test_an_image_that_no_convolution_reads_is_channels_last(folder, given, expected, first):
    g = Graph(list(given)).add(first)
    g = g if first == "Flatten" else g.add("Flatten")
    size = int(np.prod(given))
    g.add("Gemm", g.weight(size, 2)).save(folder / "net.onnx")
    assert assert_predicts_the_same(folder / "net.onnx").input_shape == expected


def test_an_image_whose_channels_cannot_be_told_is_refused(folder):
    g = Graph([6, 6, 6]).add("Flatten")
    g.add("Gemm", g.weight(216, 2)).save(folder / "net.onnx")
    with pytest.raises(ValueError, match=r"expected images whose channel axis is known.*of shape \(6, 6, 6\)"):
        nn.load_model(folder / "net.onnx")


def test_a_pooling_tells_the_channels_of_the_input(folder):
    Graph([7, 6, 5]).add("MaxPool", kernel_shape=[2, 2]).save(folder / "pool.onnx")
    assert nn.load_model(folder / "pool.onnx").input_shape == (6, 5, 7)


def test_a_network_of_float64_is_read_as_float32(folder):
    g = Graph([3, 6, 5], dtype=onnx.TensorProto.DOUBLE)  # onnxruntime has no Conv of float64
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3))
    g.add("Conv", weight).save(folder / "net.onnx")
    (found,) = nn.load_model(folder / "net.onnx").get_weights()
    np.testing.assert_array_equal(found, weight.transpose(2, 3, 1, 0).astype(np.float32))


def test_opsets_before_operands_took_the_place_of_attributes(folder):
    g = Graph([3, 6, 5], opset=9)
    g.add("Conv", g.weight(4, 3, 3, 3)).add("Dropout", ratio=0.25).add("Unsqueeze", axes=[1]).add("Squeeze", axes=[1])
    g.add("Flatten").add("Gemm", g.weight(48, 10), g.weight(10, 1)[:, 0]).add("Softmax").save(folder / "net.onnx")
    model = assert_predicts_the_same(folder / "net.onnx")
    assert model.layers[1].rate == 0.25


# The check of what was read ------------------------------------------------------------------------------------------


def test_a_softmax_over_all_axes_is_refused(folder):
    """Before opset 13 a softmax was over all axes from its own on."""
    g = Graph([3, 6, 5], opset=11)
    g.add("Conv", g.weight(4, 3, 3, 3)).add("Softmax", axis=1).save(folder / "net.onnx")
    with pytest.raises(ValueError, match="Softmax 'Softmax1': expected a softmax over 4 channels. Received: axis 1"):
        nn.load_model(folder / "net.onnx")


@pytest.mark.parametrize("make", [channels_first, channels_last])
def test_a_mistake_of_the_reader_is_found_by_the_check(folder, monkeypatch, make):
    honest = Reader._dense
    monkeypatch.setattr(Reader, "_dense", lambda self, weight: honest(self, weight[::-1]))
    make().save(folder / "net.onnx")
    with pytest.raises(ValueError, match="different results of dense"):
        nn.load_model(folder / "net.onnx")


def test_onnx_s_own_evaluator_checks_where_onnxruntime_is_not_installed(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    channels_first().save(folder / "net.onnx")
    assert nn.load_model(folder / "net.onnx").output_shape == (10,)
    honest = Reader._dense
    monkeypatch.setattr(Reader, "_dense", lambda self, weight: honest(self, weight[::-1]))
    with pytest.raises(ValueError, match="different results of dense"):
        nn.load_model(folder / "net.onnx")


# Weights in a file of their own --------------------------------------------------------------------------------------


def external(folder):
    proto = channels_first().proto()
    onnx.save(proto, folder / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    return folder / "net.onnx.data"


def test_weights_in_a_file_of_their_own(folder):
    assert external(folder).is_file()
    assert_predicts_the_same(folder / "net.onnx")


@pytest.mark.parametrize(("damage", "said"), [("remove", "does not exist"), ("cut", "cannot be read")])
def test_weights_that_are_missing_are_told_by_the_name_of_their_file(folder, capsys, damage, said):
    data = external(folder)
    data.write_bytes(data.read_bytes()[:100])
    if damage == "remove":
        data.unlink()
    with pytest.raises(ValueError, match=f"expected weights that can be read.*'net.onnx.data', {said}"):
        nn.load_model(folder / "net.onnx")
    assert main(["summary", "net.onnx"]) == 0
    printed = capsys.readouterr()
    assert f"net.onnx: weights newly initialised: the file of its weights, 'net.onnx.data', {said}." in printed.err
    assert printed.err.count("\n") == 1
    channels_first().save(folder / "net.onnx")
    assert main(["summary", "net.onnx"]) == 0
    assert capsys.readouterr().out == printed.out


# What is refused -----------------------------------------------------------------------------------------------------


def test_operators_that_do_not_exist_here_are_listed(folder, capsys):
    g = Graph([1, 28, 28])
    g.add("Conv", g.weight(4, 1, 3, 3)).add("Elu").add("GlobalAveragePool").add("Flatten").save(folder / "net.onnx")
    assert main(["explain", "net.onnx"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Elu 'Elu1'; GlobalAveragePool 'GlobalAveragePool2'" in error
    assert "supported layers (Conv, Gemm, MatMul, " in error


@pytest.mark.parametrize(
    ("operator", "operands", "attributes", "said"),
    [
        ("MaxPool", [], {"kernel_shape": [2, 2], "ceil_mode": 1}, "expected neither ceil_mode nor dilations"),
        ("MaxPool", [], {"kernel_shape": [40, 40]}, "no larger than the padded input"),
        ("MaxPool", [], {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}, "Received: SAME_LOWER"),
        ("Transpose", [], {"perm": [0, 1, 3, 2]}, "in an unsupported order"),
        ("Transpose", [], {"perm": [1, 0, 2, 3]}, "sample by sample"),
        ("Softmax", [], {"axis": 2}, "expected a softmax over 4 channels. Received: axis 2"),
        ("Softmax", [], {"axis": 0}, "expected a softmax over 4 channels. Received: axis 0"),
        ("Flatten", [], {"axis": 2}, "sample by sample"),
        ("Flatten", [], {}, "in an unsupported order"),
        ("Reshape", [np.array([-1, 26])], {}, "sample by sample"),
        ("Reshape", [np.array([2, 2, -1])], {}, "in an unsupported order"),
        ("Reshape", [np.array([5, -1])], {}, "onnx cannot compute it"),
        ("Add", [np.ones(1, np.float32)], {}, "expected a Conv, Gemm or MatMul right before it"),
        ("Sub", [np.ones((3, 4, 26, 26), np.float32)], {}, "expected a Conv, Gemm or MatMul right before it"),
        ("Mul", ["x"], {}, "reads Relu1, x (not a chain)"),
        ("Gather", [np.array(0)], {}, "expected constant operands"),
    ],
)
def test_options_of_onnx_that_do_not_exist_here(folder, operator, operands, attributes, said):
    g = Graph([1, 28, 28])
    g.add("Conv", g.weight(4, 1, 3, 3)).add("Relu").add(operator, *operands, **attributes).save(folder / "net.onnx")
    with pytest.raises(ValueError, match="path") as caught:
        nn.load_model(folder / "net.onnx")
    assert said in str(caught.value)


def test_a_reshape_at_the_end_that_changes_the_batch_is_refused(folder):
    g = Graph([784]).add("MatMul", np.ones((784, 10), np.float32)).add("Reshape", np.array([-1, 5]))
    g.save(folder / "net.onnx")
    with pytest.raises(ValueError, match=r"sample by sample. Received: a result \(4, 5\)"):
        nn.load_model(folder / "net.onnx")


@pytest.mark.parametrize(
    ("operator", "attributes", "said"),
    [
        ("Transpose", {"perm": [1, 0]}, "sample by sample"),
        ("Softmax", {"axis": 0}, "expected a softmax over 2 channels. Received: axis 0"),
    ],
)
def test_what_mixes_the_samples_of_a_batch_is_refused(folder, operator, attributes, said):
    g = Graph([784]).add("MatMul", np.ones((784, 2), np.float32)).add(operator, **attributes)
    g.save(folder / "net.onnx")
    with pytest.raises(ValueError, match=said):
        nn.load_model(folder / "net.onnx")


@pytest.mark.parametrize("bias", [np.ones((10, 1), np.float32), np.ones(3, np.float32)])
def test_a_bias_is_one_number_a_channel(folder, bias):
    Graph([784]).add("MatMul", np.ones((784, 10), np.float32)).add("Add", bias).save(folder / "net.onnx")
    with pytest.raises(ValueError, match="expected one number for each of 10 channels"):
        nn.load_model(folder / "net.onnx")


def test_a_bias_that_differs_from_place_to_place_is_refused(folder):
    g = Graph([1, 5, 5])
    g.add("Conv", g.weight(4, 1, 3, 3)).add("Add", g.weight(1, 3, 3)).save(folder / "net.onnx")
    with pytest.raises(ValueError, match=r"expected one number for each of 4 channels. Received: shape \(1, 3, 3\)"):
        nn.load_model(folder / "net.onnx")


@pytest.mark.parametrize("operator", ["MatMul", "Sub", "Div"])
def test_a_constant_on_the_left_is_refused(folder, operator):
    g = (
        Graph([10])
        .add("Gemm", np.ones((10, 10), np.float32))
        .add(operator, np.ones((10, 10), np.float32)[: 1 + 9 * (operator == "MatMul")])
    )
    g.nodes[-1].input.reverse()
    g.save(folder / "net.onnx")
    with pytest.raises(ValueError, match=f"{operator} '{operator}1': expected a computed first operand"):
        nn.load_model(folder / "net.onnx")


def test_an_input_whose_channels_lie_in_another_order_is_refused(folder):
    g = Graph([28, 28, 3]).add("Reshape", np.array([-1, 3, 28, 28]))
    g.add("Conv", g.weight(4, 3, 3, 3)).save(folder / "net.onnx")
    with pytest.raises(ValueError, match="Conv 'Conv1': expected channels first"):
        nn.load_model(folder / "net.onnx")


@pytest.mark.parametrize(
    ("dtype", "name"), [(onnx.TensorProto.BFLOAT16, "bfloat16"), (onnx.TensorProto.FLOAT8E4M3FN, "float8_e4m3fn")]
)
def test_numbers_of_other_sizes_are_refused(folder, dtype, name):
    g = Graph([7]).add("MatMul", np.ones((7, 4), np.float32))
    g.constants[0] = helper.make_tensor("c0", dtype, (7, 4), np.ones(28))
    g.save(folder / "weights.onnx")
    with pytest.raises(ValueError, match=f"expected weights of float32. Received: dtype {name}"):
        nn.load_model(folder / "weights.onnx")
    Graph([7], dtype=dtype).add("Relu").save(folder / "input.onnx")
    with pytest.raises(ValueError, match=f"an input of {name}"):
        nn.load_model(folder / "input.onnx")


def test_graphs_that_are_no_chain(folder):
    g = Graph([1, 28, 28]).add("Relu")
    g.add("Add", g.side("Tanh", "x")).save(folder / "branch.onnx")
    two = Graph([1, 28, 28]).add("Relu")
    two.outputs = [two.last, two.side("Tanh", two.last)]
    two.save(folder / "outputs.onnx")
    circle = Graph([7]).add("Relu").add("Add", "Tanh2").add("Tanh")
    circle.save(folder / "circle.onnx")
    twice = Graph([7]).add("Relu").add("Tanh")
    twice.nodes[0].output[0] = twice.last
    twice.save(folder / "twice.onnx")
    Graph([1, 28, 28]).save(folder / "nothing.onnx")
    (folder / "bad.onnx").write_text("no")
    (folder / "empty.onnx").write_text("")
    for name, said in {
        "branch.onnx": "not a chain",
        "outputs.onnx": "2 outputs",
        "circle.onnx": "Add 'Add1' that reads Relu0, Tanh2 (not a chain)",
        "twice.onnx": "not a chain",
        "nothing.onnx": "expected at least one layer. Received: none",
        "bad.onnx": "expected an ONNX file",
        "empty.onnx": "expected an ONNX file. Received: a file without a graph",
    }.items():
        with pytest.raises(ValueError, match="path") as caught:
            nn.load_model(folder / name)
        assert said in str(caught.value)


def test_without_the_package_onnx_one_line_says_how_to_get_it(folder, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    (folder / "net.onnx").write_text("")
    assert main(["summary", "net.onnx"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nnlite-conv[onnx]" in error


# Hostile files -------------------------------------------------------------------------------------------------------


def doubling():
    """Each tensor twice the one before: 2 ** 60 numbers."""
    g = Graph([7])
    name = g.constant(np.zeros(8, np.int64))
    for _ in range(60):
        name = g.side("Concat", name, name, axis=0)
    return g.add("Reshape", name)


def product_of_constants():
    g = Graph([7])
    return g.add("Add", g.side("Add", np.zeros((900, 1), np.float32), np.zeros((1, 900), np.float32)))


def dimensions_without_numbers():
    g = Graph([7]).add("MatMul", np.ones((7, 4), np.float32))
    g.constants[0].dims[:] = [7, 2**40]
    return g


def external_without_end():
    g = Graph([7]).add("MatMul", np.ones((7, 4), np.float32))
    g.constants[0].dims[:] = [7, 2**40]
    onnx.external_data_helper.set_external_data(g.constants[0], "/dev/zero")
    g.constants[0].ClearField("raw_data")
    return g


def many_layers():
    g = Graph([7])
    for _ in range(1001):
        g.add("Relu")
    return g


def many_operators():
    g = Graph([7])
    for _ in range(5001):
        g.add("Identity")
    return g


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Graph([2**40]).add("Relu"), "numbers in the input"),
        (lambda: Graph([7], batch=2**40).add("Flatten"), "numbers in a batch. Received: 7,696"),
        (lambda: Graph([1, 9, 9]).add("MaxPool", kernel_shape=[2**40, 2**40]), "no larger than the padded input"),
        (
            lambda: Graph([1, 9, 9]).add("Conv", np.ones((4, 1, 3, 3), np.float32), pads=[10**6] * 4),
            "numbers in the result",
        ),
        (lambda: Graph([7]).add("Reshape", np.array([2, -1, 2**40])), "onnx cannot compute it"),
        (doubling, "expected small constant operands"),
        (product_of_constants, "expected small constant operands"),
        (dimensions_without_numbers, "cannot reshape array of size 28"),
        (external_without_end, "expected at most 268,435,456 numbers"),
        (many_layers, "expected at most 1,000 layers"),
        (many_operators, "expected at most 5,000 operators"),
        (lambda: Graph([7]).add("\x1b]0;owned\x07"), "\\x1b]0;owned"),
    ],
)
def test_a_hostile_file_is_refused_in_a_few_megabytes(folder, make, said):
    make().save(folder / "net.onnx")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="path") as caught:
            nn.load_model(folder / "net.onnx")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert most < 32 * 2**20


def fuzz_onnx(folder, times, seed):
    """Damages valid files; anything but a model or a ValueError escapes. The lines that the errors are."""
    generator = np.random.default_rng(seed)
    small = Graph([1, 6, 6], opset=13)
    small.add("Conv", small.weight(2, 1, 3, 3), "", pads=[1, 1, 1, 1]).add("Add", small.weight(2, 1, 1)).add("Relu")
    small.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).add("Transpose", perm=[0, 2, 3, 1])
    size = small.side("Gather", small.side("Shape", small.last), np.array([0]))
    small.add("Reshape", small.side("Concat", size, np.array([-1]), axis=0)).add("Dropout", np.float32(0.5))
    small.add("Gemm", small.weight(18, 3), small.weight(3, 1)[:, 0], alpha=0.5).add("Softmax")
    whole = small.proto().SerializeToString()
    said = []
    for _ in range(times):
        (folder / "fuzz.onnx").write_bytes(damaged(whole, generator))
        said += refusal(folder / "fuzz.onnx")
    return said


def test_damaged_files_end_in_a_value_error_of_one_line(folder):
    said = fuzz_onnx(folder, times=80, seed=0)
    assert len(said) > 40
    assert all(line.isprintable() for line in said)
