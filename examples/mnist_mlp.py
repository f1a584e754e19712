"""Trains a simple deep NN on the MNIST dataset.

Keras's examples/mnist_mlp.py, in its order and with its names; what had to differ is commented.
Gets to about 95% test accuracy on the 5,000 digits after 8 epochs.
"""

import argparse

import numpy as np

import nnlite as nn
from nnlite import Dense, Dropout, RMSprop, Sequential

parser = argparse.ArgumentParser(description="Trains on the MNIST digits that come with nnlite.")
parser.add_argument("--epochs", type=int, default=8, metavar="N", help="default: 8; Keras: 20, on 60,000 digits")
options = parser.parse_args()
if options.epochs < 1:
    parser.error(f"--epochs: expected an integer of at least 1. Received: {options.epochs}")

batch_size = 128
num_classes = 10
epochs = options.epochs

# the data, split between train and test sets
# Keras: mnist.load_data(); here the 5,000 digits that come with the package, already in [0, 1]
(x_train, y_train), (x_test, y_test) = nn.datasets.load("mnist5k")

x_train = x_train.reshape(len(x_train), 784)
x_test = x_test.reshape(len(x_test), 784)
print(x_train.shape[0], "train samples")
print(x_test.shape[0], "test samples")

# convert class vectors to binary class matrices
# Keras: keras.utils.to_categorical
y_train = np.eye(num_classes, dtype="float32")[y_train]
y_test = np.eye(num_classes, dtype="float32")[y_test]

model = Sequential()
model.add(nn.Input((784,)))  # Keras: input_shape=(784,) of the first layer
model.add(Dense(512, activation="relu"))
model.add(Dropout(0.2))
model.add(Dense(512, activation="relu"))
model.add(Dropout(0.2))
model.add(Dense(num_classes, activation="softmax"))

model.summary()

model.compile(loss="categorical_crossentropy", optimizer=RMSprop(), metrics=["accuracy"])

history = model.fit(x_train, y_train, batch_size=batch_size, epochs=epochs, verbose=1, validation_data=(x_test, y_test))
score = model.evaluate(x_test, y_test, verbose=0)
print("Test loss:", score[0])
print("Test accuracy:", score[1])
