"""The compiled array kernels that are not convolution. Import the module that is needed: importing one imports Numba."""
