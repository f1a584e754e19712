"""The compiled array kernels that are not convolution. Importing one of these modules imports Numba."""
