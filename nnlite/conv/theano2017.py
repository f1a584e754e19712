"""How Keras on Theano is thought to have computed a convolution on a CPU in 2017: a hypothesis, made measurable.

Keras's images were channels last, Theano's convolution (CorrMM) channels first: so its inputs were shuffled before
each convolution and its result after it. The convolution itself went image by image: copy the patches of one image
into a matrix, multiply it with the weights by BLAS. All of it on one thread, with nothing fused.

What it leaves out: Theano's own compiled elementwise code, its graph optimizer, and the BLAS and processor of then.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite.conv import work
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.conv.work import ITEMSIZE, WorkItem
from nnlite.runtime import memory


class Theano2017(Algorithm):
    """Layout shuffles around each convolution, im2col and BLAS image by image, one thread."""

    name = "theano2017"
    one_thread = True

    def supports(self, geometry: Geometry) -> str | None:
        return None if geometry.groups == 1 else "Theano's convolution of 2017 had no groups"

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """y = weight @ patches, an image at a time"""
        filters, patches = _filters(weight), _empty_patches(x, geometry)
        n, oh, ow, k = geometry.output_shape
        y = memory.empty((n, k, oh * ow), x.dtype)
        for image, y_image in zip(_windows(_padded(x, geometry), geometry), y, strict=True):
            patches[...] = image
            np.matmul(filters, _matrix(patches), out=y_image)  # (k, c * kh * kw) @ (c * kh * kw, oh * ow)
        return _channels_last(y.reshape(n, k, oh, ow))

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dx = col2im(weight' @ dy), an image at a time"""
        filters, dpatches = _filters(weight).T, _empty_patches(dy, geometry)
        n, h, w, _ = geometry.input_shape
        (top, bottom), (left, right) = geometry.pads
        dx = memory.zeros((n, weight.shape[2], top + h + bottom, left + w + right), dy.dtype)
        # windows overlap, so they are added tap by tap: for each its place in all images, and its part of the patches
        into = _windows(dx, geometry, writeable=True)
        taps = [(into[:, :, r, s], dpatches[:, r, s]) for r, s in np.ndindex(weight.shape[:2])]
        for i, dy_image in enumerate(_matrices(_channels_first(dy))):
            np.matmul(filters, dy_image, out=_matrix(dpatches))  # (c * kh * kw, k) @ (k, oh * ow)
            for images, part in taps:
                np.add(images[i], part, out=images[i])  # (c, oh, ow)
        return _channels_last(dx[:, :, top : top + h, left : left + w])

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dweight = the sum over images of dy @ patches'"""
        patches = _empty_patches(x, geometry)
        kh, kw, c, k = geometry.weight_shape
        total = memory.zeros((k, c * kh * kw), x.dtype)
        dys = _matrices(_channels_first(dy))
        for image, dy_image in zip(_windows(_padded(x, geometry), geometry), dys, strict=True):
            patches[...] = image
            total += dy_image @ _matrix(patches).T  # (k, oh * ow) @ (oh * ow, c * kh * kw)
        return np.ascontiguousarray(total.reshape(k, c, kh, kw).transpose(2, 3, 1, 0))

    def work(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[WorkItem]:
        n, oh, ow, k = geometry.output_shape
        kh, kw, c, _ = geometry.weight_shape
        length, pixels = c * kh * kw, oh * ow
        result, weights = ITEMSIZE * prod(geometry.output_shape), ITEMSIZE * prod(geometry.weight_shape)
        shuffle_x, shuffle_y = _shuffle("images", geometry.input_shape), _shuffle("results", geometry.output_shape)
        sizes = {
            "forward": (k, pixels, length, 0),
            "grad_input": (length, pixels, k, 1),
            "grad_weight": (k, length, pixels, 2),
        }[pass_name]
        multiply = work.product("product", "gemm", *sizes[:3], count=n, layout=sizes[3], moved=result + weights)
        if pass_name == "forward":
            return [shuffle_x, _copies(geometry, adding=False), multiply, shuffle_y]
        if pass_name == "grad_input":
            return [shuffle_y, multiply, _copies(geometry, adding=True), shuffle_x]
        return [shuffle_x, shuffle_y, _copies(geometry, adding=False), multiply]


def _copies(geometry: Geometry, adding: bool) -> WorkItem:
    """Pixels copied to an image's patches, or the patches' gradients added to pixels; the patches stay in cache."""
    n, oh, ow, _ = geometry.output_shape
    kh, kw, c, _ = geometry.weight_shape
    lines = c * oh if adding else 0  # of a call; the rate holds what the calls cost
    image, patches = ITEMSIZE * prod(geometry.input_shape), ITEMSIZE * c * kh * kw * oh * ow
    return work.move(
        "patches' gradients to pixels" if adding else "patches",
        "accumulate" if adding else "assign",
        (ow, 1, geometry.strides[1], 1, lines),
        touched=(3 if adding else 2) * n * patches,
        arrays=image + n * patches,
        moved=image,
        working_set=patches + image // max(n, 1),
        calls=1 if adding else n,
    )


def _channels_first(x: np.ndarray) -> np.ndarray:
    """(n, h, w, c) -> (n, c, h, w), copied."""
    n, h, w, c = x.shape
    result = memory.empty((n, c, h, w), x.dtype)
    result[...] = x.transpose(0, 3, 1, 2)
    return result


def _padded(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(n, h, w, c) -> (n, c, h, w), copied into a border of zeros where there is padding."""
    if geometry.pads == ((0, 0), (0, 0)):
        return _channels_first(x)
    n, h, w, c = x.shape
    (top, bottom), (left, right) = geometry.pads
    result = memory.zeros((n, c, top + h + bottom, left + w + right), x.dtype)
    result[:, :, top : top + h, left : left + w] = x.transpose(0, 3, 1, 2)
    return result


def _channels_last(y: np.ndarray) -> np.ndarray:
    """(n, k, oh, ow) -> (n, oh, ow, k), copied."""
    n, k, oh, ow = y.shape
    result = memory.empty((n, oh, ow, k), y.dtype)
    result[...] = y.transpose(0, 2, 3, 1)
    return result


def _filters(weight: np.ndarray) -> np.ndarray:
    """(kh, kw, c, k) -> (k, c * kh * kw)"""
    kh, kw, c, k = weight.shape
    return np.ascontiguousarray(weight.transpose(3, 2, 0, 1)).reshape(k, c * kh * kw)


def _windows(images: np.ndarray, geometry: Geometry, writeable: bool = False) -> np.ndarray:
    """The windows of images (n, c, h, w), one for each tap and output pixel, as a view (n, c, kh, kw, oh, ow)."""
    kh, kw = geometry.weight_shape[:2]
    (dh, dw), (sh, sw) = geometry.dilation_rate, geometry.strides
    span = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    view = np.lib.stride_tricks.sliding_window_view(images, span, axis=(2, 3), writeable=writeable)
    return view[:, :, ::sh, ::sw, ::dh, ::dw].transpose(0, 1, 4, 5, 2, 3)


def _empty_patches(like: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Room for the patches of one image: (c, kh, kw, oh, ow)."""
    kh, kw, c, _ = geometry.weight_shape
    return memory.empty((c, kh, kw, *geometry.output_shape[1:3]), like.dtype)


def _matrix(patches: np.ndarray) -> np.ndarray:
    """(c, kh, kw, oh, ow) as (c * kh * kw, oh * ow): a view."""
    return patches.reshape(prod(patches.shape[:3]), prod(patches.shape[3:]))


def _matrices(images: np.ndarray) -> np.ndarray:
    """(n, k, oh, ow) as (n, k, oh * ow): a view."""
    return images.reshape(*images.shape[:2], prod(images.shape[2:]))


def _shuffle(what: str, shape: tuple[int, int, int, int]) -> WorkItem:
    """Images from one layout to the other."""
    n, h, w, c = shape
    nbytes = 2 * ITEMSIZE * n * h * w * c
    return work.move(f"shuffle {what}", "shuffle", (h * w, c), touched=nbytes, arrays=nbytes)
