"""Wrong kinds of arguments: an error that names the argument, what was expected and what was received."""

import numpy as np
import pytest

import nnlite as nn

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
