"""The library: layers, Sequential, optimizers, losses, data, saving and importing."""
