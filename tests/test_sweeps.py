"""Sweeps: what they find in points that are known, and that each runs and says something."""

import json

import pytest

from nnlite.cli import main
from nnlite.explain import sweeps


def line(*pairs, network="cnn"):
    return [{"x": x, "network": network, "algorithm": "auto", "ms": ms} for x, ms in pairs]


def test_the_intercept_is_what_does_not_depend_on_the_batch():
    assert sweeps.line_fit([1, 10, 100], [2.5, 7, 52]) == pytest.approx((2, 0.5))


def test_a_line_is_crossed_between_two_points_straight_on_log_axes():
    (crossing,) = sweeps.crossings(line((1, 1), (10, 100), (100, 10_000)), 1000)
    assert crossing["x"] == pytest.approx(10**1.5)
    assert sweeps.crossings(line((1, 1), (10, 100)), 0.5) == []
    (last,) = sweeps.crossings(line((1, 1), (2, 4), (4, 1), (8, 4)), 2)
    assert last["x"] == pytest.approx(2**2.5)


def test_names():
    assert sweeps.chosen(["batch", "filters", "batch"]) == ["filters", "batch"]
    assert sweeps.chosen(["all"]) == sweeps.names()
    with pytest.raises(ValueError, match="Did you mean 'filters'"):
        sweeps.chosen(["filter"])


@pytest.mark.parametrize("name", sweeps.names())
def test_each_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for values in ("FILTERS", "BATCHES", "KERNELS", "IMAGES"):
        monkeypatch.setattr(sweeps, values, (9, 11, 13))
    command = ["explain", "mlp", "--rounds", "1", "--batch-size", "4", "--algorithm", "im2col", "--sweep", name]
    assert main(command) == 0
    (sweep,) = json.loads((tmp_path / "nnlite-report" / "explain.json").read_text())["sweeps"]
    assert {p["x"] for p in sweep["points"]} == {9, 11, 13}
    assert [b["network"] for b in sweep["baselines"]] == (["mlp"] if name == "filters" else [])
    assert len(sweep["findings"]) == len(sweeps.groups(sweep["points"]))
    assert f'id="sweep-{name}"' in (tmp_path / "nnlite-report" / "report.html").read_text()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
