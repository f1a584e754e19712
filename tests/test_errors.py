"""Wrong kinds of arguments: an error that names the argument, what was expected and what was received."""

import numpy as np
import pytest

import nnlite as nn
from nnlite.runtime.errors import printable

X, Y = np.zeros((4, 3), np.float32), np.zeros(4, np.int64)


def model():
    made = nn.Sequential([nn.Input((3,)), nn.Dense(2, activation="softmax")])
    made.compile()
    return made


BOOLEANS = {
    "fuse": lambda wrong: model().compile(fuse=wrong),
    "training": lambda wrong: model()(X, training=wrong),
    "training of a layer": lambda wrong: nn.Dense(2)(X, training=wrong),
    "shuffle": lambda wrong: model().fit(X, Y, shuffle=wrong, verbose=0),
    "use_bias": lambda wrong: nn.Dense(2, use_bias=wrong),
    "use_bias of Conv2D": lambda wrong: nn.Conv2D(2, 3, use_bias=wrong),
    "requires_grad": lambda wrong: nn.Tensor(X, requires_grad=wrong),
    "retain_graph": lambda wrong: nn.Tensor(X, requires_grad=True).sum().backward(retain_graph=wrong),
    "keepdims": lambda wrong: nn.Tensor(X).sum(keepdims=wrong),
    "keepdims of mean": lambda wrong: nn.Tensor(X).mean(keepdims=wrong),
    "keepdims of max": lambda wrong: nn.Tensor(X).max(keepdims=wrong),
    "from_logits": lambda wrong: nn.losses.sparse_categorical_crossentropy(Y, nn.Tensor(X), from_logits=wrong),
    "from_logits, dense": lambda wrong: nn.losses.categorical_crossentropy(X, nn.Tensor(X), from_logits=wrong),
    "nesterov": lambda wrong: nn.SGD(momentum=0.9, nesterov=wrong),
    "centered": lambda wrong: nn.RMSprop(centered=wrong),
    "epsilon_inside_root": lambda wrong: nn.RMSprop(epsilon_inside_root=wrong),
    "on": nn.conv.autotune,
    "relu": lambda wrong: nn.ops.conv2d(np.zeros((1, 4, 4, 1)), np.zeros((3, 3, 1, 1)), relu=wrong),
    "relu of dense": lambda wrong: nn.ops.dense(X, np.zeros((3, 2), np.float32), relu=wrong),
    "max_pool": lambda wrong: nn.ops.conv2d(np.zeros((1, 4, 4, 1)), np.zeros((3, 3, 1, 1)), max_pool=wrong),
    "from_logits of ops": lambda wrong: nn.ops.sparse_categorical_crossentropy(X, labels=Y, from_logits=wrong),
    "replace": lambda wrong: nn.conv.register(nn.conv.get("im2col"), replace=wrong),
}


@pytest.mark.parametrize("wrong", [3, "yes", None, 1.0, [True]])
@pytest.mark.parametrize("name", BOOLEANS)
def test_nothing_stands_for_true_or_false(name, wrong):
    argument = name.split()[0].strip(",")
    with pytest.raises(ValueError, match=f"^{argument}: expected True or False. Received: ") as caught:
        BOOLEANS[name](wrong)
    assert str(caught.value).endswith(repr(wrong))


def test_numpys_booleans_are_booleans():
    assert nn.Dense(2, use_bias=np.bool_(False)).use_bias is False


@pytest.mark.parametrize("wrong", ["loud", 3, None, [1], -1])
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_verbose_is_one_of_keras(method, wrong):
    arguments = (X,) if method == "predict" else (X, Y)
    with pytest.raises(ValueError, match='verbose: expected 0, 1, 2 or "auto". Received: '):
        getattr(model(), method)(*arguments, verbose=wrong)


@pytest.mark.parametrize("wrong", [3, None, "accuracy"])
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("layers", nn.Sequential),
        ("metrics", lambda wrong: model().compile(metrics=wrong)),
        ("weights", lambda wrong: model().set_weights(wrong)),
        ("passes", lambda wrong: nn.conv.autotune(passes=wrong)),
    ],
)
def test_a_list_is_expected_where_there_are_several(argument, call, wrong):
    with pytest.raises(ValueError, match=f"^{argument}: expected a list of .*Received: {wrong!r}$"):
        call(wrong)


def test_a_layers_name_is_a_string():
    with pytest.raises(ValueError, match="name: expected a string. Received: 3"):
        nn.Dense(2, name=3)


IMAGES, KERNEL, MATRIX = np.ones((1, 4, 4, 1), np.float32), np.ones((3, 3, 1, 2), np.float32), np.ones((3, 2))
OPERANDS = {
    "x of conv2d": lambda wrong: nn.ops.conv2d(wrong(IMAGES), KERNEL),
    "weight of conv2d": lambda wrong: nn.ops.conv2d(nn.Tensor(IMAGES), wrong(KERNEL)),
    "bias of conv2d": lambda wrong: nn.ops.conv2d(IMAGES, KERNEL, wrong(np.ones(2, np.float32))),
    "x of conv2d, with a weight alike": lambda wrong: nn.ops.conv2d(wrong(IMAGES), wrong(KERNEL)),
    "x of dense": lambda wrong: nn.ops.dense(wrong(X), MATRIX),
    "weight of dense, by name": lambda wrong: nn.ops.dense(X, weight=wrong(MATRIX)),
    "x of max_pool2d": lambda wrong: nn.ops.max_pool2d(wrong(IMAGES)),
    "x of dropout": lambda wrong: nn.ops.dropout(wrong(X), rate=0.5),
    "predictions of a loss": lambda wrong: nn.ops.sparse_categorical_crossentropy(wrong(X), labels=Y),
    "predictions of a dense loss": lambda wrong: nn.ops.categorical_crossentropy(wrong(X), targets=X),
    "x of relu": lambda wrong: nn.ops.relu(wrong(X)),
    "x of softmax": lambda wrong: nn.ops.softmax(wrong(X)),
    "x of exp": lambda wrong: nn.ops.exp(wrong(X)),
    "x of mean": lambda wrong: nn.ops.mean(wrong(X)),
    "x of flatten": lambda wrong: nn.ops.flatten(wrong(X)),
    "y of add": lambda wrong: nn.ops.add(X, wrong(X)),
    "x of matmul": lambda wrong: nn.ops.matmul(wrong(X), MATRIX),
}
WRONG = {
    "a list": lambda array: array.tolist(),
    "a string": lambda array: "array",
    "integers": lambda array: array.astype(np.int64),
    "float16": lambda array: array.astype(np.float16),
    "longdouble": lambda array: array.astype(np.longdouble),
    "another byte order": lambda array: array.astype(">f4"),
    "complex": lambda array: array.astype(np.complex64),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", OPERANDS)
def test_an_operation_takes_tensors_and_arrays_of_its_two_dtypes(name, kind):
    message = f"^{name.split()[0]}: expected a Tensor or array of float32 or float64. Received: ."
    with pytest.raises(ValueError, match=message):
        OPERANDS[name](WRONG[kind])


def test_none_is_no_operand_but_where_there_may_be_none():
    with pytest.raises(ValueError, match=r"^weight: expected a Tensor or array.*Received: None$"):
        nn.ops.conv2d(IMAGES, None)
    assert nn.ops.conv2d(IMAGES, KERNEL, None).shape == (1, 2, 2, 2)


@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        (X.astype(np.float64), r"float64 of shape \(4, 3\)"),
        (X.astype(">f4"), "float32 in another byte order"),
        (X.T, r"float32 of shape \(3, 4\)"),
        (np.ma.masked_less(X, 0), "a masked array"),
        ([1], r"\[1\]"),
        (None, "None"),
    ],
)
def test_a_tensors_data_is_replaced_only_by_its_dtype_and_shape(wrong, received):
    x = nn.Tensor(X, name="weight")
    expected = r"data of weight: expected a float32 array of shape \(4, 3\), as the tensor has. Received: "
    with pytest.raises(ValueError, match=f"^{expected}{received}"):
        x.data = wrong
    assert x.data is X
    x.data = np.asfortranarray(X)
    assert x.data.flags.c_contiguous
    assert np.array_equal(x.data, X)


def test_the_elementwise_take_numbers():
    assert nn.ops.multiply(nn.Tensor(X + 1), 2).numpy().tolist() == (X + 2).tolist()
    assert nn.ops.add(2.0, nn.Tensor(X)).dtype == np.float32


RAGGED, TEXT = [[1.0, 2.0, 3.0], [4.0]], np.full((4, 3), "a")


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("x", lambda wrong: model().fit(wrong, Y[:2], verbose=0)),
        ("x", lambda wrong: model().predict(wrong)),
        ("x", lambda wrong: model()(wrong)),
        ("x", lambda wrong: nn.Dense(2)(wrong)),
        ("y", lambda wrong: model().fit(X, wrong, verbose=0)),
        ("y", lambda wrong: model().train_on_batch(X, wrong)),
        ("y", lambda wrong: model().evaluate(X, wrong, verbose=0)),
        ("y_true", lambda wrong: nn.losses.mean_squared_error(wrong, nn.Tensor(X))),
        ("y_true", lambda wrong: nn.ops.categorical_crossentropy(X, targets=wrong)),
        ("y_true", lambda wrong: nn.ops.sparse_categorical_crossentropy(X, labels=wrong)),
        (r"weights\[0\]", lambda wrong: model().set_weights([wrong, np.zeros(2)])),
        ("kernel_initializer", lambda wrong: nn.Dense(2, kernel_initializer=lambda *_: wrong).build((3,))),
        ("operand", lambda wrong: nn.Tensor(X) + wrong),
        ("gradient", lambda wrong: (nn.Tensor(X, requires_grad=True) * 2).backward(wrong)),
    ],
)
@pytest.mark.parametrize("wrong", [RAGGED, TEXT, np.ones((4, 3), np.complex64)], ids=["ragged", "text", "complex"])
def test_numbers_are_expected_in_rows_of_one_length(argument, call, wrong):
    with pytest.raises(ValueError, match=f"^{argument}: expected (an array|rows of the same|.* labels)"):
        call(wrong)


def test_a_ragged_list_is_no_tensor():
    with pytest.raises(ValueError, match="data: expected rows of the same length. Received: a list"):
        nn.Tensor(RAGGED)


@pytest.mark.parametrize("wrong", [3.0, [1.0], np.ones(2, np.complex64), np.array(["a", "b"])])
def test_a_gradient_is_an_array_of_numbers(wrong):
    parameter = nn.Tensor(np.ones(2, np.float32), requires_grad=True)
    optimizer = nn.SGD()
    optimizer.build([parameter])
    with pytest.raises(
        ValueError, match=r"^grad: expected None or an array of numbers of shape \(2,\), as the tensor has"
    ):
        parameter.grad = wrong
    parameter._grad = wrong
    with pytest.raises(ValueError, match=r"parameters\[0\]: expected an array of numbers as grad. Received: "):
        optimizer.step()
    assert parameter.data.tolist() == [1, 1]


def test_a_gradient_that_comes_back_complex_is_refused():
    @nn.differentiable
    def turned(x):
        return x, lambda dy: dy * 1j

    with pytest.raises(ValueError, match="gradient: expected an array of numbers. Received: dtype complex64"):
        turned(nn.Tensor(X, requires_grad=True)).backward(X)


@pytest.mark.parametrize("wrong", [["x"], None, {}, 3])
@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("optimizer", lambda wrong: model().compile(wrong)),
        ("loss", lambda wrong: model().compile(loss=wrong)),
        ("metric", lambda wrong: model().compile(metrics=[wrong])),
        ("activation", lambda wrong: nn.Activation(wrong) if wrong is not None else nn.Activation(["x"])),
        ("kernel_initializer", lambda wrong: nn.Dense(2, kernel_initializer=wrong).build((3,))),
        ("algorithm", nn.conv.get),
        ("algorithm", lambda wrong: nn.ops.conv2d(IMAGES, KERNEL, algorithm=wrong)),
    ],
)
def test_a_name_is_expected_where_there_are_names(kind, call, wrong):
    with pytest.raises(ValueError, match=f"^unknown {kind} .*: expected one of "):
        call(wrong)


@pytest.mark.parametrize("wrong", [np.float16, np.longdouble, "f5", [1], np.int32])
def test_auto_computes_in_two_dtypes(wrong):
    geometry = nn.conv.Geometry(IMAGES.shape, KERNEL.shape)
    with pytest.raises(ValueError, match="^dtype: expected float32 or float64. Received: "):
        nn.conv.why(geometry, wrong)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("a\r\nb\x9b31m", r"a\r\nb\x9b31m"),  # CSI in one byte, as some terminals take it
        ("a\u202eb\u200b", r"a\u202eb\u200b"),  # text turned around, and a space that is not seen
        ("lone \ud800", r"lone \ud800"),
        ("größe 大 [b]x[/b] \\", "größe 大 [b]x[/b] \\"),
    ],
)
def test_a_name_from_a_file_gives_a_terminal_no_commands(name, shown):
    assert printable(name) == shown
