"""The ladder that `nnlite explain --ladder` and examples/ladder.py climb."""

import pytest

from nnlite import conv
from nnlite.lab import ladder


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(conv, "names", lambda: ["im2col", "strided_view"])


def test_every_right_algorithm_is_a_rung_at_the_shape_asked_for(few):
    shape = ladder.usual_shape(2)
    assert str(shape.geometry) == "2x26x26x32 -> 64, 3x3"
    rungs, run = ladder.climb(shape)
    assert {rung.cell.algorithm for rung in rungs} == {"im2col", "strided_view"}
    assert run.rows[0].shape is shape


@pytest.mark.parametrize("interrupted", ["bench.run_rounds", "timing.plan"])
def test_a_part_of_a_ladder_is_none(few, monkeypatch, interrupted):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"nnlite.lab.{interrupted}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ladder.climb(ladder.usual_shape(1))
