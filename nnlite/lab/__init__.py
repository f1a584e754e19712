"""The laboratory: check and time convolution algorithms against each other."""
