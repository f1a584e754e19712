"""Convolution in the frequency domain: transform, multiply, transform back.

M. Mathieu, M. Henaff, Y. LeCun: Fast Training of Convolutional Networks through FFTs, 2013. By the convolution
theorem a correlation of x and weight is irfft2(X * conj(W)). At each frequency that is a matrix product over the
channels, whatever the size of the kernel: the larger the kernel, the better the bargain. Dilation is a kernel with
zeros between its taps; with strides all outputs are computed and most thrown away.
"""

from __future__ import annotations

from functools import lru_cache
from math import log2, prod
from typing import Any

import numpy as np

from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.patches import pad_image

#: the spectra of x, weight and y together may not be larger
_MOST_BYTES = 1 << 30


class Fft(Algorithm):
    """Products of spectra, by numpy.fft."""

    name = "fft"
    uses_blas = True
    fewer_multiplications = True

    def supports(self, geometry: Geometry) -> str | None:
        """Declines where the spectra, above all that of the weights, would not fit in a gigabyte."""
        spectra = sum(_spectra_bytes(geometry))
        if spectra > _MOST_BYTES:
            return f"its spectra would take {spectra / 2**30:.1f} GiB, more than the {_MOST_BYTES >> 30} it may use"
        return None

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Y = X conj(W), summed over c"""
        X, W = _of_pixels(pad_image(x, geometry), geometry), _of_weight(weight, geometry)
        Y = X @ W.conj()  # (u, v, groups, n, k / groups)
        (sh, sw), (_, oh, ow, _) = geometry.strides, geometry.output_shape
        return np.ascontiguousarray(_to_pixels(Y, geometry, x.dtype)[:, : oh * sh : sh, : ow * sw : sw])

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """DX = DY W, summed over k: where the forward pass correlates, its transposition convolves"""
        DY, W = _of_pixels(_spread(dy, geometry), geometry), _of_weight(weight, geometry)
        DX = DY @ W.swapaxes(-1, -2)  # (u, v, groups, n, c / groups)
        (top, _), (left, _) = geometry.pads
        _, h, w, _ = geometry.input_shape
        return np.ascontiguousarray(_to_pixels(DX, geometry, dy.dtype)[:, top : top + h, left : left + w])

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        """DW = X conj(DY), summed over n: x correlated with dy"""
        X, DY = _of_pixels(pad_image(x, geometry), geometry), _of_pixels(_spread(dy, geometry), geometry)
        DW = X.swapaxes(-1, -2) @ DY.conj()  # (u, v, groups, c / groups, k / groups)
        (kh, kw, c, k), (dh, dw) = geometry.weight_shape, geometry.dilation_rate
        # (u, v, c / groups, groups, k / groups) -> (h, w, c / groups, groups, k / groups)
        dweight = np.fft.irfft2(DW.transpose(0, 1, 3, 2, 4), s=_lengths(geometry), axes=(0, 1))
        taps = dweight[: kh * dh : dh, : kw * dw : dw]  # (kh, kw, c / groups, groups, k / groups)
        return np.ascontiguousarray(taps.reshape(kh, kw, c, k), x.dtype)

    def error_bound(self, geometry: Geometry, pass_name: str, dtype: Any = np.float32) -> float:
        """That of any sum, plus what the levels of the three transforms add."""
        levels = 3 * log2(prod(_lengths(geometry)) + 1)
        return super().error_bound(geometry, pass_name, dtype) + 16 * float(np.finfo(dtype).eps) * levels

    def moved_bytes(self, geometry: Geometry, pass_name: str) -> int:
        """The least, plus each spectrum written and read by the transform's two axes and by the product: 3 times."""
        return geometry.least_bytes(pass_name) + 3 * 2 * sum(_spectra_bytes(geometry))


def _of_pixels(pixels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The spectrum of (n, h, w, channels), with zeros to the right and below: (u, v, groups, n, channels / groups)."""
    spectrum = np.fft.rfft2(pixels, s=_lengths(geometry), axes=(1, 2))  # (n, u, v, channels)
    n, u, v, channels = spectrum.shape
    return spectrum.reshape(n, u, v, geometry.groups, channels // geometry.groups).transpose(1, 2, 3, 0, 4)


def _of_weight(weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The spectrum of weight (kh, kw, c / groups, k), its taps apart: (u, v, groups, c / groups, k / groups)."""
    kh, kw, c, k = weight.shape
    dh, dw = geometry.dilation_rate
    dilated = np.zeros(((kh - 1) * dh + 1, (kw - 1) * dw + 1, c, k), weight.dtype)
    dilated[::dh, ::dw] = weight
    spectrum = np.fft.rfft2(dilated, s=_lengths(geometry), axes=(0, 1))  # (u, v, c / groups, k)
    return spectrum.reshape(*spectrum.shape[:3], geometry.groups, k // geometry.groups).transpose(0, 1, 3, 2, 4)


def _to_pixels(spectrum: np.ndarray, geometry: Geometry, dtype: np.dtype) -> np.ndarray:
    """The image (n, h, w, channels) of a spectrum (u, v, groups, n, channels / groups)."""
    u, v, groups, n, channels = spectrum.shape
    by_image = spectrum.transpose(3, 0, 1, 2, 4).reshape(n, u, v, groups * channels)  # (n, u, v, channels)
    return np.fft.irfft2(by_image, s=_lengths(geometry), axes=(1, 2)).astype(dtype, copy=False)


def _spread(dy: np.ndarray, geometry: Geometry) -> np.ndarray:
    """dy (n, oh, ow, k) on the grid of the padded input, zeros where strides skip: (n, (oh-1)*sh+1, (ow-1)*sw+1, k)."""
    if geometry.strides == (1, 1):
        return dy
    (n, oh, ow, k), (sh, sw) = dy.shape, geometry.strides
    spread = np.zeros((n, (oh - 1) * sh + 1, (ow - 1) * sw + 1, k), dy.dtype)
    spread[:, ::sh, ::sw] = dy
    return spread


def _lengths(geometry: Geometry) -> tuple[int, int]:
    """The transform's sizes: as large as the padded input, so that nothing wraps around onto a result that counts."""
    _, h, w, _ = geometry.input_shape
    return _good_length(h + sum(geometry.pads[0])), _good_length(w + sum(geometry.pads[1]))


@lru_cache(maxsize=256)
def _good_length(least: int) -> int:
    """The next number without a prime factor above 5, for which the FFT is quick."""
    length = least
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def _spectra_bytes(geometry: Geometry) -> tuple[int, int, int]:
    """The sizes of the spectra of x, weight and y in complex64."""
    u, v = _lengths(geometry)[0], _lengths(geometry)[1] // 2 + 1
    n, _, _, c = geometry.input_shape
    k = geometry.weight_shape[3]
    return tuple(8 * u * v * count for count in (n * c, geometry.weight_shape[2] * k, n * k))  # type: ignore[return-value]
