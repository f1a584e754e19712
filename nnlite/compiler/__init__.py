"""Numba: SIMD values, register tiles, the jit decorator, parallel launches, compiled code on disk."""
