"""The autograd without fit, and without layers: two matrices, a loop, 4,000 digits."""

import numpy as np

import nnlite as nn

(x_train, y_train), (x_test, y_test) = nn.datasets.load("mnist5k")
x_train, x_test = x_train.reshape(-1, 784), x_test.reshape(-1, 784)

generator = np.random.default_rng(0)


def parameter(*shape):
    """A weight that gradients are wanted for, small and random."""
    values = generator.standard_normal(shape) / np.sqrt(shape[0])
    return nn.Tensor(values.astype(np.float32), requires_grad=True)


w1, w2 = parameter(784, 128), parameter(128, 10)
optimizer = nn.SGD(learning_rate=0.1, momentum=0.9)
optimizer.build([w1, w2])

for epoch in range(5):
    order = generator.permutation(len(x_train))
    total = 0.0
    for start in range(0, len(order), 128):
        batch = order[start : start + 128]
        logits = nn.ops.relu(nn.Tensor(x_train[batch]) @ w1) @ w2
        loss = nn.losses.sparse_categorical_crossentropy(y_train[batch], logits, from_logits=True)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)

    with nn.no_grad():
        guesses = (nn.ops.relu(nn.Tensor(x_test) @ w1) @ w2).numpy().argmax(axis=1)
    print(f"epoch {epoch + 1}: loss {total / len(order):.4f}, test accuracy {(guesses == y_test).mean():.3f}")
