"""The question that nnlite answers, as it was asked: Keras's MNIST examples on a CPU, Theano backend, batch 128."""

from __future__ import annotations

#: network -> seconds an epoch of 60,000 images, as reported
REPORTED_SECONDS = {"mlp": 16.0, "cnn": 340.0, "small_cnn": 28.0}
EPOCH_IMAGES = 60_000
BASELINE = "mlp"
#: the accepted answer takes the images to have so many channels, and arrives at this ratio of multiplications
ACCEPTED_CHANNELS = 3
ACCEPTED_RATIO = 7.5
