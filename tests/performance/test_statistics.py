"""Differences are found where there are any, and not where there are none: on samples whose truth is known."""

import numpy as np
import pytest

from nnlite.lab.results import Cell, Row
from nnlite.lab.shapes import resolve
from nnlite.performance.statistics import Ratio, interval, noise, paired_ratio, verdict

ROUNDS, RUNS = 20, 20


def samples(generator, factor, noise):
    """Times of a round as machines have them: a drift that all share, noise of one's own, now and then an outlier."""
    shared = 1 + 0.1 * generator.random(ROUNDS)

    def one(factor):
        times = factor * shared * (1 + np.abs(generator.normal(0, noise, ROUNDS)))
        times[generator.random(ROUNDS) < 0.05] *= 1.5
        return times

    return one(1.0), one(1.0), one(factor)


def verdicts(factor, spread=0.02):
    generator = np.random.default_rng(0)
    found = []
    for _ in range(RUNS):
        base, control, other = samples(generator, factor, spread)
        found.append(verdict(paired_ratio(other, base), noise(paired_ratio(control, base))))
    return found


@pytest.mark.parametrize("spread", [0.002, 0.02, 0.1])
def test_two_copies_show_no_difference(spread):
    assert verdicts(1.0, spread).count("no difference") >= RUNS - 1


@pytest.mark.parametrize("spread", [0.002, 0.02])
def test_ten_percent_slower_is_found(spread):
    assert verdicts(1.1, spread).count("slower") >= RUNS - 2
    assert verdicts(1 / 1.1, spread).count("faster") >= RUNS - 2


def test_a_difference_below_two_percent_is_none_however_quiet():
    assert verdicts(1.015, 1e-5) == ["no difference"] * RUNS


def test_the_floor_is_what_the_control_shows():
    assert noise(Ratio(1, 0.999, 1.001)) == 0.02
    assert noise(Ratio(1, 0.93, 1.01)) == pytest.approx(0.07)
    assert verdict(Ratio(1.1, 1.08, 1.12), 0.07) == "slower"
    assert verdict(Ratio(1.1, 1.06, 1.12), 0.07) == "no difference"


def test_the_interval_covers_the_truth():
    """About 95 of 100 intervals of the median ratio hold the true one."""
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(100):
        base, other = np.exp(generator.normal(0, 0.05, (2, 30)))
        ratio = paired_ratio(1.3 * other, base)
        inside += ratio.low <= 1.3 <= ratio.high
    assert 88 <= inside <= 100


def test_a_rate_above_the_peak_is_a_defect_unless_the_algorithm_multiplies_less():
    def cell(effective):
        return Cell("a", "timed", seconds=[1.0], flops=int(104e9), peak_gflops=100.0, effective_rate=effective)

    assert cell(effective=False).over_peak
    assert not cell(effective=True).over_peak
    assert cell(effective=True).percent_of_peak == pytest.approx(104)


def test_a_row_marks_the_best_and_compares_with_the_baseline():
    (shape,) = resolve(["1,1,3,3,1,1,1,1,0"], 1)
    slow, quick = Cell("slow", "timed", seconds=[2.0] * 5), Cell("quick", "timed", seconds=[1.0] * 5)
    row = Row(shape, "forward", [slow, quick], baseline="slow", control_seconds=[2.0] * 5)
    row.compare()
    assert (slow.verdict, quick.verdict) == ("baseline", "faster")
    assert (slow.best, quick.best) == (False, True)
    assert quick.ratio == Ratio(0.5, 0.5, 0.5)


@pytest.mark.parametrize(("rounds", "fewest", "told"), [(4, 5, False), (5, 5, True), (14, 15, False), (15, 15, True)])
def test_with_too_few_rounds_there_is_no_interval_and_nothing_is_called_faster(rounds, fewest, told):
    ratio = paired_ratio([1.0] * rounds, [2.0] * rounds, fewest=fewest)
    assert ratio == Ratio(0.5, *([0.5, 0.5] if told else [None, None]))
    assert verdict(ratio, 0.02) == ("faster" if told else "too few rounds")
    assert noise(ratio) == (0.5 if told else None)


def test_an_interval_is_of_the_median():
    values = np.array([1.0] * 9 + [100.0])
    assert interval(values).value == 1.0
    assert interval(values).high < 100
