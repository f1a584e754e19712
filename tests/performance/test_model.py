"""The time model: its terms against a hand calculation, on given samples."""

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.conv import Geometry
from nnlite.conv.work import WorkItem
from nnlite.performance import overhead
from nnlite.performance.microbenchmarks import Rate
from nnlite.performance.microbenchmarks.base import MOST_BYTES
from nnlite.performance.model import Microbenchmarks, PassTime, StepModel, WorkTime, _largest
from nnlite.performance.profiler import OTHER
from nnlite.performance.rounds import Team
from nnlite.performance.work import Array, Call
from nnlite.runtime.processor import cache_sizes

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="rates are measured with compiled kernels")
TEAM = Team()


def item(kind, amount, moved, calls=1):
    return WorkItem("", kind, (), amount, moved, moved, moved, calls)


class Given(Microbenchmarks):
    """Rates as a test gives them: seconds per unit by kind; overheads of 1 us forward, 10 us of the tape."""

    def __init__(self, **seconds):
        super().__init__()
        self.seconds = seconds

    def add_rate(self, team, rate):
        return team, "", rate

    def add_overhead(self, team, algorithm, key, run, evicted):
        return team, algorithm, key.split()[0]

    def seconds_per_unit(self, name, samples):
        return np.array(self.seconds[name[2].kind])

    def overhead(self, name):
        parts = {"calling": {("x", "forward"): 1e-6, ("x", "other"): 10e-6}, "least": {OTHER: 25e-6}}[name[2]]
        if name[2] == "least":
            parts = parts | {("rmsprop", "optimizer"): 4e-6}
        found = overhead.Overhead(lambda: None, 0)
        found.profile.parts = {key: [value] for key, value in parts.items()}
        return found


def modelled(calls, rates=None):
    parameters = [nn.Tensor(np.zeros((5, 4), np.float32), requires_grad=True)]
    return StepModel(calls, "rmsprop", parameters, lambda: None, 0, TEAM, "auto", rates or GIVEN, False)


GIVEN = Given(tall_skinny=[1e-9, 2e-9], tall_skinny_gradients=[1e-9, 1e-9], bias_gradient=[1e-15, 1e-15],
              rmsprop=[1e-9, 1e-9], copy=[1e-15, 1e-15], numpy_call=[1e-6, 1e-6])  # fmt: skip


def dense_call(*needs, layer="dense"):
    arrays = [Array(shape, np.dtype(np.float32)) for shape in ((4, 6), (6, 3), (3,))]
    return Call(layer, nn.ops.dense, tuple(arrays), {}, needs)


def test_a_working_set_beyond_the_last_level_cache_is_measured_on_a_part_after_all_of_the_cache_was_evicted():
    for rate in (Rate.of(item("maximum", 1 << 40, 1 << 40), 1 << 41), Rate.of_bandwidth(1 << 40)):
        assert rate.evicted == cache_sizes()["L3"] >= rate.working_set == MOST_BYTES


@pytest.mark.parametrize(("moved", "expected", "bound"), [(1, [3, 2], "compute"), (4, [4, 8], "memory")])
def test_the_larger_of_arithmetic_and_traffic_counts(moved, expected, bound):
    """A product at 3 and at 1 s per FLOP, whose operands come at 1 and at 2 s per byte."""
    model = modelled([], Given(gemm=[3.0, 1.0], copy=[1.0, 2.0], rmsprop=[1.0, 1.0]))
    model._declare(("layer", "forward"), [item("gemm", 1, moved)], TEAM, 0)
    part = model.predict({})["layer", "forward"]
    assert part.seconds.tolist() == expected
    assert max(part.terms, key=part.terms.get) == bound


def test_each_round_gives_a_prediction():
    """A tall-skinny product of 4 x 6 x 3: 144 FLOPs at 1 and at 2 ns each, and a microsecond for the call."""
    parts = modelled([dense_call(False, False, False)]).predict({})
    assert parts["dense", "forward"].seconds == pytest.approx([144e-9 + 1e-6, 288e-9 + 1e-6])


def test_the_optimizer_reads_three_and_writes_two_arrays():
    parts = modelled([]).predict({})
    assert parts["rmsprop", "optimizer"].seconds == pytest.approx([5 * 4 * 20 * 1e-9 + 4e-6] * 2)


def test_calls_beyond_the_first_are_added():
    model = modelled([])
    model._declare(("layer", "forward"), [item("copy", 0, 0, calls=11)], TEAM, 0)
    assert model.predict({})["layer", "forward"].seconds == pytest.approx([10e-6] * 2)


def test_the_tape_of_each_operation_is_other_and_the_smallest_steps_own_is_not_counted_twice(monkeypatch):
    monkeypatch.setattr(overhead, "trace", lambda step: [dense_call(True, True, True)] * 2)
    parts = modelled([dense_call(True, True, True)] * 3).predict({})
    assert parts[OTHER].seconds == pytest.approx(3 * 10e-6 + (25e-6 - 2 * 10e-6))


def test_what_needs_no_gradient_has_none():
    assert set(modelled([dense_call(False, False, False)]).predict({})) == {
        ("dense", "forward"), ("rmsprop", "optimizer"), OTHER,
    }  # fmt: skip
    assert ("dense", "gradients") in modelled([dense_call(True, True, True)]).predict({})


def test_what_does_not_declare_its_work_is_named_with_its_gradients():
    def strange(x):
        return x

    for needed in (True, False):
        model = modelled([Call("dense", strange, dense_call().arguments, {}, (needed,))])
        assert model.missing == ["operation 'strange'"]
        assert model.moved_bytes is None
        of_layer = {part for (layer, part), found in model.predict({}).items() if found.missing}
        assert of_layer == ({"forward", "grad_input", "grad_weight", "gradients"} if needed else {"forward"})


def test_in_a_round_without_a_sample_the_one_before_counts():
    benchmarks = Microbenchmarks()
    name = benchmarks.add_rate(TEAM, Rate("numpy_call"))
    per_unit = benchmarks.seconds_per_unit(name, {name: [2.0, np.nan, np.nan, 4.0]})
    assert per_unit * benchmarks._found[name].amount == pytest.approx([2.0, 2.0, 2.0, 4.0])


def test_one_microbenchmark_serves_all_steps_of_the_same_threads():
    benchmarks = Microbenchmarks()
    names = [benchmarks.add_rate(team, Rate("numpy_call")) for team in (TEAM, TEAM, Team("blas"))]
    assert names[0] == names[1] != names[2]
    assert len(benchmarks.candidates()) == 2


def test_the_rates_of_most_of_the_time_are_sampled_in_every_round():
    assert list(_largest({"a": 1.0, "b": 50.0, "c": 8.0, "d": 41.0}, 0.9)) == ["b", "d"]
    benchmarks = Microbenchmarks()
    names = [benchmarks.add_rate(TEAM, Rate(kind)) for kind in ("numpy_call", "copy")]
    benchmarks.often(names[:1])
    assert [c.every for c in benchmarks.candidates()] == [1, 4]


def test_the_terms_of_a_pass_add_up_what_bounds_its_work():
    bounds = [("compute", 3.0), ("memory", 5.0), ("overhead", 0.5)]
    part = PassTime([WorkTime(item("gemm", 1, 1), 1.0, np.array([ms]), bound) for bound, ms in bounds], overhead=1.0)
    assert part.terms == {"compute": 3.0, "memory": 5.0, "overhead": 1.5}
    assert part.seconds == pytest.approx([9.5])


def test_the_smallest_convolution_runs_the_same_code():
    """Strides, dilation, taps and groups as they are; one pixel, or those of a pool; of the channels the fewest."""
    geometry = Geometry((8, 30, 30, 12), (3, 2, 6, 64), strides=(2, 3), dilation_rate=(1, 2), groups=2)
    least = overhead._smallest_geometry(geometry, overhead._fewest_channels(geometry), 1, 2)
    assert least.output_shape[:3] == (1, 1, 2)
    assert (least.strides, least.dilation_rate, least.groups) == ((2, 3), (1, 2), 2)
    (kh, kw, c, k), fewest = least.weight_shape, overhead._fewest
    assert (kh, kw, c, k) == (3, 2, fewest(6), 2 * fewest(32))
