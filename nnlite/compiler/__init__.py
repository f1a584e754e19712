"""Numba: SIMD values, register tiles, the jit decorator, kernels and their threads, compiled code on disk."""
