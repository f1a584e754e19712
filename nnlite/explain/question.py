"""The question that nnlite answers, as it was asked: Keras's MNIST examples on a CPU, Theano backend, batch 128."""

from __future__ import annotations

#: network -> its parameters
PARAMETERS = {"mlp": 669_706, "cnn": 110_986, "small_cnn": 5_958}
#: network -> seconds an epoch of 60,000 images, as reported
REPORTED_SECONDS = {"mlp": 16.0, "cnn": 340.0, "small_cnn": 28.0}
EPOCH_IMAGES = 60_000
BASELINE = "mlp"
#: the accepted answer takes the images to have so many channels, and arrives at this ratio of multiplications
ACCEPTED_CHANNELS = 3
ACCEPTED_RATIO = 7.5

TEXT = (
    "Somebody trained Keras's MNIST examples on a CPU, batch 128: the fully connected network (mlp, "
    f"{PARAMETERS['mlp']:,} parameters) took {REPORTED_SECONDS['mlp']:.0f} s an epoch, the convolutional one (cnn, "
    f"{PARAMETERS['cnn']:,}) took {REPORTED_SECONDS['cnn']:.0f} s, and with 4 filters a layer (small_cnn, "
    f"{PARAMETERS['small_cnn']:,}) it still took {REPORTED_SECONDS['small_cnn']:.0f} s. Why?"
)


def pretends(name: str, parameters: int) -> bool:
    """Whether a network has the name of one of the question's, and is another one by its parameters."""
    return name in PARAMETERS and parameters != PARAMETERS[name]
