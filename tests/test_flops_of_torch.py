"""FLOPs, forward and backward, as PyTorch's FlopCounterMode counts them: four networks of Keras's and ten random ones.

`tests/data/torch_flops.json` holds PyTorch's counts, so that they are compared where PyTorch is not installed, too.
`python tests/test_flops_of_torch.py` writes it anew.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import nnlite as nn

STORED = Path(__file__).parent / "data" / "torch_flops.json"
BATCH = 4
RANDOM = [f"random_{i}" for i in range(10)]


def build(name):
    """A network by name; the random ones have one to three ungrouped convolutions and one or two dense layers."""
    if name not in RANDOM:
        return getattr(nn.models, name)()
    rng = np.random.default_rng(int(name.removeprefix("random_")))

    def number(low, high):
        return int(rng.integers(low, high))

    model = nn.Sequential([nn.Input((number(14, 24), number(14, 24), number(1, 5)))], name=name)
    for _ in range(number(1, 4)):
        dilation = number(1, 3)
        model.add(
            nn.Conv2D(
                number(1, 9),
                (number(1, 4), number(1, 4)),
                strides=number(1, 3) if dilation == 1 else 1,
                padding=("valid", "same")[number(0, 2)],
                dilation_rate=dilation,
                activation=("relu", None)[number(0, 2)],
                use_bias=bool(number(0, 2)),
            )
        )
        if number(0, 2) and min(model.output_shape[:2]) >= 4:
            model.add(nn.MaxPooling2D(2))
        if min(model.output_shape[:2]) < 6:
            break
    model.add(nn.Flatten())
    if number(0, 2):
        model.add(nn.Dense(number(2, 20), activation="relu"))
    model.add(nn.Dense(10, activation="softmax"))
    return model


def counted(model):
    """nnlite's FLOPs of a step: (forward, backward)."""
    passes = model.cost(BATCH).passes
    forward = sum(p.flops for p in passes if p.part == "forward")
    return {"forward": forward, "backward": sum(p.flops for p in passes) - forward}


def of_torch(model):
    """PyTorch's FLOPs of the same network: (forward, backward)."""
    import torch
    from torch.nn import functional
    from torch.utils.flop_counter import FlopCounterMode

    def run(x):
        for layer in model.layers:
            if isinstance(layer, nn.Conv2D):
                (_, oh, ow, _), (kh, kw) = layer.geometry(1).output_shape, layer.kernel_size
                (top, bottom), (left, right) = layer.geometry(1).pads
                weight = torch.ones(layer.filters, x.shape[1], kh, kw, requires_grad=True)
                x = functional.pad(x, (left, right, top, bottom))
                x = functional.conv2d(x, weight, None, layer.strides, 0, layer.dilation_rate)
                assert x.shape[2:] == (oh, ow)
            elif isinstance(layer, nn.MaxPooling2D):
                x = functional.max_pool2d(x, layer.pool_size)
            elif isinstance(layer, nn.Flatten):
                x = x.flatten(1)
            elif isinstance(layer, nn.Dense):
                x = functional.linear(x, torch.ones(layer.units, x.shape[1], requires_grad=True))
        return x.sum()

    shape = model.input_shape if len(model.input_shape) == 1 else (model.input_shape[2], *model.input_shape[:2])
    with FlopCounterMode(display=False) as forward:
        loss = run(torch.ones(BATCH, *shape))
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return {"forward": forward.get_total_flops(), "backward": backward.get_total_flops()}


@pytest.mark.parametrize("name", [*nn.models.NAMES, *RANDOM])
def test_flops_are_those_that_pytorch_once_counted(name):
    assert counted(build(name)) == json.loads(STORED.read_text())[name]


@pytest.mark.parametrize("name", [*nn.models.NAMES, *RANDOM])
def test_flops_are_those_that_pytorch_counts(name, torch):
    assert counted(build(name)) == of_torch(build(name))


if __name__ == "__main__":
    counts = {name: of_torch(build(name)) for name in (*nn.models.NAMES, *RANDOM)}
    STORED.write_text(json.dumps(counts, indent=1) + "\n")
