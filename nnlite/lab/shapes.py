"""The layers that algorithms are timed on: those of the question, and those of other projects' benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nnlite.conv import Geometry
from nnlite.runtime.errors import unknown

#: batch size for layers of large images: with their published batch they would take minutes
LARGE_BATCH = 4


class Shape(NamedTuple):
    """A layer to time. `published_batch` differs from the geometry's batch if that was reduced."""

    name: str
    geometry: Geometry
    published_batch: int

    @property
    def cut(self) -> bool:
        return self.published_batch != self.geometry.input_shape[0]


#: set -> (N, C, H, W, K, R, S, stride, pad) of its layers, as published; grouped ones end in the number of groups
SETS: dict[str, tuple[tuple[int, ...], ...]] = {
    "seed": (
        (128, 1, 28, 28, 32, 3, 3, 1, 0),
        (128, 32, 26, 26, 64, 3, 3, 1, 0),
        (128, 1, 28, 28, 4, 3, 3, 1, 0),
        (128, 4, 26, 26, 4, 3, 3, 1, 0),
    ),
    "vgg": (
        (64, 3, 224, 224, 64, 3, 3, 1, 1),
        (64, 64, 224, 224, 64, 3, 3, 1, 1),
        (64, 128, 56, 56, 256, 3, 3, 1, 1),
        (64, 512, 28, 28, 512, 3, 3, 1, 1),
    ),
    "resnet": (
        (50, 3, 224, 224, 64, 7, 7, 2, 3),
        (50, 64, 56, 56, 64, 3, 3, 1, 1),
        (50, 256, 56, 56, 512, 1, 1, 2, 0),
        (50, 256, 14, 14, 256, 3, 3, 1, 1),
        (50, 512, 7, 7, 512, 3, 3, 1, 1),
    ),
    "googlenet": ((96, 32, 28, 28, 96, 5, 5, 1, 2),),
    "alexnet": ((256, 3, 227, 227, 96, 11, 11, 4, 0),),
    "deepbench": ((16, 1, 48, 480, 16, 3, 3, 1, 1),),
    # slow in PyTorch (issue 13716, and the same with fewer channels), TensorFlow (19390) and OpenCV (14190)
    "grouped": (
        (16, 256, 56, 56, 256, 3, 3, 1, 1, 256),
        (8, 128, 64, 64, 128, 3, 3, 1, 1, 128),
        (32, 64, 32, 32, 64, 3, 3, 1, 1, 16),
        (64, 16, 64, 64, 16, 3, 3, 1, 1, 16),
    ),
}
#: the names of the question's layers in their networks
_SEED_NAMES = ("cnn conv2d", "cnn conv2d_1", "small_cnn conv2d", "small_cnn conv2d_1")


def resolve(requests: Sequence[str], batch_size: int, most_images: int = LARGE_BATCH) -> list[Shape]:
    """The shapes of all requests without duplicates. A request is a set's name, "all", or N,C,H,W,K,R,S,stride,pad.

    `batch_size` is that of the question's layers; published batches are cut to `most_images`. Raises ValueError, which
    names the request, for any other.
    """
    found: dict[Geometry, Shape] = {}
    for request in requests:
        for shape in _shapes(request, batch_size, most_images):
            found.setdefault(shape.geometry, shape)
    return list(found.values())


def _shapes(request: str, batch_size: int, most_images: int) -> list[Shape]:
    if "," in request:
        return [_parse(request)]
    if request not in (*SETS, "all"):
        raise unknown("--shapes", request, [*SETS, "all", "N,C,H,W,K,R,S,stride,pad"])
    names = SETS if request == "all" else [request]
    return [shape for name in names for shape in _of_set(name, batch_size, most_images)]


def _of_set(name: str, batch_size: int, most_images: int) -> list[Shape]:
    shapes = []
    for i, numbers in enumerate(SETS[name]):
        published = batch_size if name == "seed" else numbers[0]
        batch = batch_size if name == "seed" else min(published, most_images)
        label = _SEED_NAMES[i] if name == "seed" else f"{name} {i + 1}"
        shapes.append(Shape(label, _geometry((batch, *numbers[1:])), published))
    return shapes


def _parse(request: str) -> Shape:
    try:
        numbers = tuple(int(part) for part in request.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 9 or min(numbers) < 0 or 0 in numbers[:8]:
        raise ValueError(f"--shapes: expected nine integers N,C,H,W,K,R,S,stride,pad. Received: {request!r}")
    try:
        return Shape(request, _geometry(numbers), numbers[0])
    except ValueError as error:
        raise ValueError(f"--shapes {request}: {error}") from error


def _geometry(numbers: tuple[int, ...]) -> Geometry:
    n, c, h, w, k, r, s, stride, pad = numbers[:9]
    groups = numbers[9] if len(numbers) > 9 else 1
    return Geometry.of((n, h, w, c), (r, s, c // groups, k), strides=stride, padding=pad, groups=groups)


def slice_of(geometry: Geometry, share: float) -> Geometry:
    """A geometry with about that share of the work: fewer images, or rows and columns of one image."""
    n, h, w, c = geometry.input_shape
    _, oh, ow, _ = geometry.output_shape
    images = max(1, int(n * share))
    rest = min(1.0, n * share)  # of one image
    rows = max(1, int(oh * rest))
    columns = max(1, int(ow * min(1.0, oh * rest)))

    def cut(size: int, out: int, keep: int, axis: int) -> int:
        return size if keep == out else max(1, size - (out - keep) * geometry.strides[axis])

    shape = (images, cut(h, oh, rows, 0), cut(w, ow, columns, 1), c)
    return Geometry(
        shape, geometry.weight_shape, geometry.strides, geometry.pads, geometry.dilation_rate, geometry.groups
    )
