"""Ten training steps of a network of the question, by nnlite, by Keras and by PyTorch, from the same weights.

No shuffling, no dropout, batches of 128 digits. Keras runs its own RMSprop; PyTorch's puts epsilon outside of the
root, where one as small as Keras's makes so much of the rounding of tiny gradients that float32 runs drift apart by
2e-3: PyTorch computes in float64, and both with an epsilon of 1e-4.
`python tests/oracles.py` writes tests/data/trajectories.json with whichever of the two is installed; the tests compare
with that file where the oracle is absent.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import nnlite as nn

STORED = Path(__file__).parent / "data" / "trajectories.json"
STEPS, BATCH = 10, 128
LEARNING_RATE, RHO = 1e-3, 0.9
EPSILON_INSIDE_ROOT, EPSILON_OUTSIDE_ROOT = 1e-7, 1e-4


def network(name):
    """mlp or small_cnn, with every dropout rate 0 and weights that depend on nothing but NumPy."""
    model = getattr(nn.models, name)()
    for layer in model.layers:
        if isinstance(layer, nn.Dropout):
            layer.rate = 0.0
    generator = np.random.default_rng(42)
    glorot = nn.initializers.get("glorot_uniform")
    model.set_weights([glorot(w.shape, generator) if w.ndim > 1 else w for w in model.get_weights()])
    return model


def batches(name):
    (x, y), _ = nn.datasets.load("mnist5k")
    x = x.reshape(len(x), *nn_shape(name))
    return [(x[i * BATCH : (i + 1) * BATCH], y[i * BATCH : (i + 1) * BATCH]) for i in range(STEPS)]


def nn_shape(name):
    return (784,) if name == "mlp" else (28, 28, 1)


def nnlite_losses(name, *, epsilon_inside_root, fuse=True):
    model = network(name)
    epsilon = EPSILON_INSIDE_ROOT if epsilon_inside_root else EPSILON_OUTSIDE_ROOT
    optimizer = nn.RMSprop(LEARNING_RATE, RHO, epsilon=epsilon, epsilon_inside_root=epsilon_inside_root)
    model.compile(optimizer, "sparse_categorical_crossentropy", fuse=fuse)
    return [model.train_on_batch(x, y)["loss"] for x, y in batches(name)]


def torch_losses(name):
    import torch

    def layout(w):  # ours to PyTorch's
        return torch.tensor(np.ascontiguousarray(w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T)).double()

    parameters = [layout(w).requires_grad_() for w in network(name).get_weights()]
    optimizer = torch.optim.RMSprop(parameters, lr=LEARNING_RATE, alpha=RHO, eps=EPSILON_OUTSIDE_ROOT)
    F = torch.nn.functional

    def forward(x):
        if name == "mlp":
            w1, b1, w2, b2, w3, b3 = parameters
            return F.linear(F.relu(F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)), w3, b3)
        w1, b1, w2, b2, w3, b3 = parameters
        x = F.relu(F.conv2d(F.relu(F.conv2d(x.permute(0, 3, 1, 2), w1, b1)), w2, b2))
        return F.linear(F.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1), w3, b3)

    losses = []
    for x, y in batches(name):
        loss = F.cross_entropy(forward(torch.tensor(x).double()), torch.tensor(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def keras_losses(name):
    import keras

    ours = network(name)
    layers = [keras.layers.Input(nn_shape(name))]
    for layer in ours.layers:
        if isinstance(layer, nn.Conv2D):
            layers.append(keras.layers.Conv2D(layer.filters, layer.kernel_size, activation="relu"))
        elif isinstance(layer, nn.Dense):
            layers.append(keras.layers.Dense(layer.units, activation=nn.ops.activation_name(layer.activation)))
        elif isinstance(layer, nn.MaxPooling2D):
            layers.append(keras.layers.MaxPooling2D(layer.pool_size))
        elif isinstance(layer, nn.Flatten):
            layers.append(keras.layers.Flatten())
    model = keras.Sequential(layers)
    model.set_weights(ours.get_weights())
    optimizer = keras.optimizers.RMSprop(LEARNING_RATE, rho=RHO, epsilon=EPSILON_INSIDE_ROOT)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return [float(model.train_on_batch(x, y)) for x, y in batches_reset(model, name)]


def batches_reset(model, name):
    """The batches; Keras's train_on_batch averages over calls unless its metrics are reset before each."""
    for batch in batches(name):
        model.reset_metrics()
        yield batch


ORACLES = {"keras": keras_losses, "torch": torch_losses}


def main():
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    for oracle, losses in ORACLES.items():
        try:
            module = __import__(oracle)
        except ImportError:
            continue
        stored[oracle] = {"version": module.__version__} | {name: losses(name) for name in ("mlp", "small_cnn")}
    STORED.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
