"""Trains a simple convnet on the MNIST dataset.

Keras's examples/mnist_cnn.py as the question changed it (no hidden Dense, RMSprop), in its order and with its names;
what had to differ is commented. Gets to about 96% test accuracy on the 5,000 digits after 8 epochs.
"""

import argparse

import numpy as np

import nnlite as nn
from nnlite import Conv2D, Dense, Dropout, Flatten, MaxPooling2D, Sequential

parser = argparse.ArgumentParser(description="Trains on the MNIST digits that come with nnlite.")
parser.add_argument("--epochs", type=int, default=8, metavar="N", help="default: 8; Keras: 12, on 60,000 digits")
options = parser.parse_args()
if options.epochs < 1:
    parser.error(f"--epochs: expected an integer of at least 1. Received: {options.epochs}")

batch_size = 128
num_classes = 10
epochs = options.epochs

# input image dimensions
img_rows, img_cols = 28, 28

# the data, split between train and test sets
# Keras: mnist.load_data(), reshaped to channels first or last and divided by 255; here it comes channels last in [0, 1]
(x_train, y_train), (x_test, y_test) = nn.datasets.load("mnist5k")
input_shape = (img_rows, img_cols, 1)

print("x_train shape:", x_train.shape)
print(x_train.shape[0], "train samples")
print(x_test.shape[0], "test samples")

# convert class vectors to binary class matrices
# Keras: keras.utils.to_categorical
y_train = np.eye(num_classes, dtype="float32")[y_train]
y_test = np.eye(num_classes, dtype="float32")[y_test]

model = Sequential()
model.add(nn.Input(input_shape))  # Keras: input_shape=input_shape of the first layer
model.add(Conv2D(32, kernel_size=(3, 3), activation="relu"))
model.add(Conv2D(64, (3, 3), activation="relu"))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Dropout(0.25))
model.add(Flatten())
# Keras has Dense(128, activation="relu") and Dropout(0.5) here; the question left them out
model.add(Dense(num_classes, activation="softmax"))

# Keras: Adadelta(); the question compares it with mnist_mlp, which uses RMSprop
model.compile(loss="categorical_crossentropy", optimizer=nn.RMSprop(), metrics=["accuracy"])

model.fit(x_train, y_train, batch_size=batch_size, epochs=epochs, verbose=1, validation_data=(x_test, y_test))
score = model.evaluate(x_test, y_test, verbose=0)
print("Test loss:", score[0])
print("Test accuracy:", score[1])
