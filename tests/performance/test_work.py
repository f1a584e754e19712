"""What algorithms declare that they move, against the arrays that NumPy is really asked to read and write."""

from math import prod

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.conv import PASSES as CONV_PASSES
from nnlite.conv import Epilogue, Geometry
from nnlite.conv.work import moved_bytes
from nnlite.performance.microbenchmarks import Microbenchmark, Rate, kinds
from nnlite.performance.microbenchmarks.passes import PASSES
from nnlite.performance.work import Array, Call
from nnlite.runtime import memory

GEOMETRIES = [
    Geometry.of((3, 7, 6, 2), (3, 3, 2, 5)),
    Geometry.of((2, 8, 8, 3), (3, 2, 3, 4), strides=2),
    Geometry.of((4, 5, 5, 3), (1, 1, 3, 2)),
]


class Counted(np.ndarray):
    """An array that notes each pass of NumPy over it: (what, the array it writes, the arrays it reads)."""

    log: list = []  # noqa: RUF012, shared by all of them on purpose

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        arrays = [a for a in inputs if isinstance(a, np.ndarray)]
        plain = [np.asarray(a) for a in inputs]
        if out:
            options["out"] = tuple(np.asarray(a) for a in out)
        result = getattr(ufunc, method)(*plain, **options)
        self.note(ufunc.__name__, out[0] if out else result, arrays)
        return out[0] if out else np.asarray(result).view(Counted)

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and not np.shares_memory(self, value):
            self.note("copy", np.asarray(self)[key], [value])
        super().__setitem__(key, value)

    def note(self, what, written, read):
        self.log.append((what, owner(written), [owner(a) for a in read]))


def owner(array):
    """(where the memory of an array begins, its bytes): of the whole array, however small the view."""
    array = np.asarray(array)
    while hasattr(array.base, "__array_interface__"):  # an array, or what stands for one under a view with strides
        array = array.base
    return array.__array_interface__["data"][0], array.nbytes


def counted_traffic(log, runs=True):
    """Bytes read and written, each array once for a run of equal passes, as an item counts them; or for each pass."""
    total, before, seen = 0, None, set()
    for what, written, read in log:
        if what != before or not runs:
            before, seen = what, set()
        for role, (address, nbytes) in [("written", written), *(("read", a) for a in read)]:
            if (role, address) not in seen:
                seen.add((role, address))
                total += nbytes
    return total


@pytest.fixture
def counting(monkeypatch):
    """memory.empty hands out arrays that count."""
    plain = memory.empty
    monkeypatch.setattr(memory, "empty", lambda shape, dtype=np.float32: plain(shape, dtype).view(Counted))
    Counted.log = []
    return Counted.log


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("pass_name", CONV_PASSES)
def test_im2col_moves_what_it_declares(geometry, pass_name, counting, generator):
    x, weight, dy = (
        generator.standard_normal(shape, np.float32).view(Counted)
        for shape in (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    )
    algorithm = nn.conv.get("im2col")
    operands = {"forward": (x, weight), "grad_input": (dy, weight), "grad_weight": (x, dy)}[pass_name]
    getattr(algorithm, pass_name)(*operands, geometry)
    counted = counted_traffic(counting)
    # adding to an array reads it as well; items count an array that is added to once
    added_to = 4 * prod(geometry.input_shape) if any(what == "add" for what, *_ in counting) else 0
    assert counted - added_to == moved_bytes(algorithm.work(geometry, pass_name))


@pytest.mark.parametrize("pass_name", CONV_PASSES)
@pytest.mark.parametrize("geometry", [GEOMETRIES[0], Geometry.of((3, 9, 8, 2), (2, 3, 2, 5), strides=2)], ids=str)
def test_theano2017_moves_what_it_declares(geometry, pass_name, counting, generator, monkeypatch):
    """Of twice as many images it moves more by as much as it declares; the patches of an image stay in cache."""
    kept, empty = [], memory.empty
    monkeypatch.setattr(memory, "empty", lambda *shape: kept.append(empty(*shape)) or kept[-1])  # no memory twice
    algorithm = nn.conv.get("theano2017")
    grown = []
    for batch in (geometry.with_batch(16), geometry.with_batch(32)):
        x, weight, dy = (
            generator.standard_normal(shape, np.float32).view(Counted)
            for shape in (batch.input_shape, batch.weight_shape, batch.output_shape)
        )
        counting.clear()
        operands = {"forward": (x, weight), "grad_input": (dy, weight), "grad_weight": (x, dy)}[pass_name]
        getattr(algorithm, pass_name)(*operands, batch)
        roles = {(what, "written", written) for what, written, _ in counting}
        roles |= {(what, "read", a) for what, _, read in counting for a in read}
        passes = [nbytes for what, role, (_, nbytes) in roles if (what, role) != ("add", "read")]
        images = [nbytes for nbytes in passes if nbytes in (x.nbytes, dy.nbytes)]
        grown.append((sum(images), moved_bytes(algorithm.work(batch, pass_name))))
    (counted, declared), (counted_twice, declared_twice) = grown
    assert counted_twice - counted == declared_twice - declared


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activations_move_what_they_declare(name, counting, generator):
    """Forward, and back, on arrays of a batch."""
    x, dy = (generator.standard_normal((6, 50), np.float32).view(Counted) for _ in range(2))
    operation = getattr(nn.ops, name)
    declared = Call("layer", operation, (Array(x.shape, x.dtype),), {}, (True,)).parts()
    _, backward = operation.__wrapped__(x)
    assert counted_traffic(counting, runs=False) == moved_bytes(declared["forward"])
    counting.clear()
    backward(dy)
    assert counted_traffic(counting, runs=False) == moved_bytes(declared["grad_input"])


@pytest.mark.parametrize(
    ("name", "part"), [(n, p) for n in ("relu", "tanh", "sigmoid") for p in ("forward", "grad_input")]
)
def test_the_rate_of_an_activation_is_for_as_many_bytes_as_it_declares(name, part):
    """The work of an item's own working set is the item's."""
    (item,) = Call("layer", getattr(nn.ops, name), (Array((64, 50), np.dtype(np.float32)),), {}, (True,)).parts()[part]
    rate = Rate(item.kind, item.size, item.working_set)
    assert Microbenchmark(rate).amount == pytest.approx(item.amount)


def test_the_count_sees_a_pass_that_is_not_declared(counting, generator):
    x = generator.standard_normal((8, 8), np.float32).view(Counted)
    np.add(x, 1, out=x)
    assert counted_traffic(counting) == 2 * 4 * 64


@pytest.mark.parametrize("name", ["direct", "grouped", "lanes", "winograd"])
def test_fused_passes_move_less_than_the_same_unfused(name):
    """A ReLU and a pooling of their own would read and write the convolution's whole result."""
    geometry = Geometry.of((32, 26, 26, 16), (3, 3, 16, 32))
    algorithm = nn.conv.get(name)
    epilogue = Epilogue(bias=True, relu=True, pool=name in ("lanes", "winograd"))
    unfused = moved_bytes(algorithm.work(geometry, "forward")) + 2 * 4 * prod(geometry.output_shape)
    assert moved_bytes(algorithm.work(geometry, "forward", epilogue)) < unfused


@pytest.mark.parametrize("name", ["im2col", "theano2017", "direct", "grouped", "lanes", "winograd"])
def test_stages_do_the_arithmetic_of_the_pass(name):
    geometry = Geometry.of((16, 9, 9, 4), (3, 3, 4, 8))
    for pass_name in CONV_PASSES:
        assert sum(s.flops for s in nn.conv.get(name).work(geometry, pass_name)) == geometry.flops


def smallest_sizes():
    """The sizes of work items that a rate can be measured for: of every kind the smallest of its sort."""
    sizes = dict.fromkeys(("gemm", "matmul", "tall_skinny"), (3, 2, 5, 1))
    sizes |= {"tall_skinny_gradients": (3, 2, 5, 2), "assign": (4, 2, 3, 6, 0), "accumulate": (4, 2, 3, 6, 2)}
    sizes |= dict.fromkeys(("max_pool", "max_pool_backward"), (3, 2, 2, 2, 2, 0)) | {"shuffle": (4, 3)}
    sizes |= {name: (3, 1, 1, 1) for name in kinds() if name.startswith("winograd")} | {"winograd_weight": (5,)}
    sizes |= {"transpose": (5,), "lane_pixels": (3,)}
    by_row = {name: (4,) for name, found in PASSES.items() if found.by_row}
    for item in smallest_items():
        sizes[item.kind] = item.problem or sizes.get(item.kind, item.size)
    return {name: (sizes | by_row).get(name, ()) for name in kinds()}


def smallest_items():
    """Those of the compiled algorithms, for a small convolution."""
    for name in ("direct", "lanes", "winograd", "grouped"):
        for pass_name in ("forward", "gradients"):
            yield from nn.conv.get(name).work(Geometry.of((2, 6, 6, 2), (3, 3, 2, 2)), pass_name)


@pytest.mark.skipif(not compilation.ENABLED, reason="rates are measured with compiled kernels")
@pytest.mark.parametrize("name", kinds() if compilation.ENABLED else ())
def test_every_kind_of_work_can_be_measured(name):
    benchmark = Microbenchmark(Rate(name, smallest_sizes()[name], 1 << 16, 1 << 16))
    assert benchmark.sample() > 0
    assert benchmark.amount > 0
