"""Sweeps: what they find in points that are known, and that each runs and says something."""

import json

import pytest

from nnlite.__main__ import main
from nnlite.explain import sweeps
from nnlite.lab import ladder


@pytest.fixture(autouse=True)
def one_round(monkeypatch):
    """What is measured does not matter to these tests."""
    monkeypatch.setattr(sweeps, "ROUNDS", 1)


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


@pytest.fixture
def made_up_times(monkeypatch):
    """The MLP takes 2 ms and a CNN 1 ms per filter, with im2col ten times that; other programs take half."""
    times = {("mlp", "auto"): 2.0, ("mlp", "im2col"): 20.0, ("CNN", "auto"): 1.0, ("CNN", "im2col"): 10.0}

    def measured(varied, algorithm, seed):
        return [
            {
                "x": x,
                "network": network,
                "algorithm": algorithm,
                "ms": times[network, algorithm] * max(x, 1),
                "training_macs_per_image": 1,
            }
            for network, x, *_ in varied
        ]

    monkeypatch.setattr(sweeps, "_measure", measured)
    monkeypatch.setattr(sweeps.Contention, "share", lambda self: 0.5)
    monkeypatch.setattr(sweeps, "FILTERS", (1, 4))


def test_a_network_that_does_not_vary_is_a_baseline_however_few_points_others_have(made_up_times):
    sweep = sweeps.run("filters", algorithm="im2col", batch_size=2)
    assert [base["network"] for base in sweep["baselines"]] == ["mlp"]
    assert [(p["network"], p["x"]) for p in sweep["points"]] == [("CNN", 1), ("CNN", 4)]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([3, 4, 5], "always takes longer than the mlp (2.00 ms) with 1 to 8"),
        ([1, 1, 1], "never takes longer than the mlp (2.00 ms) with 1 to 8"),
        ([2, 1, 1], "never takes longer than the mlp (2.00 ms) with 1 to 8"),
        (
            [3, 1, 1.5],
            "takes longer than the mlp (2.00 ms) only with 1",
        ),
        (
            [3, 4, 1],
            "takes longer than the mlp (2.00 ms) only with 1, 4",
        ),
    ],
)
def test_always_is_said_of_what_was_so_at_every_point(times, said):
    points = line(*zip((1, 4, 8), times, strict=True))
    base = line((0, 2.0), network="mlp")
    assert sweeps._filter_findings(points, base, []) == [
        f"With algorithm auto, the cnn {said} filters per convolution."
    ]


def test_a_network_is_compared_under_its_own_algorithm_and_a_busy_machine_comes_first(made_up_times):
    sweep = sweeps.run("filters", algorithm="auto", batch_size=2)
    assert [(base["network"], base["ms"]) for base in sweep["baselines"]] == [("mlp", 2.0), ("mlp", 20.0)]
    assert [(c["algorithm"], pytest.approx(c["x"])) for c in sweep["crossings"]] == [("auto", 2.0), ("im2col", 2.0)]
    caution, auto, im2col = sweep["findings"]
    assert caution.startswith("Other programs used 50% of the CPU")
    assert auto.startswith("With algorithm auto, the CNN takes longer")
    assert "with more than 2.0 filters" in auto
    assert "(2.00 ms)" in auto
    assert im2col.startswith("With algorithm im2col, the CNN takes longer")
    assert "(20.00 ms)" in im2col


def test_each_network_has_the_median_of_its_rounds(monkeypatch):
    monkeypatch.setattr(sweeps, "FILTERS", (1, 4))
    times = {0: [1e-3, 9e-3, 2e-3], 1: [3e-3] * 3, 2: [4e-3] * 3}
    monkeypatch.setattr(sweeps, "run_rounds", lambda candidates, **options: {c.name: times[c.name] for c in candidates})
    assert [point["ms"] for point in sweeps._measure(sweeps._filters(2), "im2col", 0)] == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("name", sweeps.names())
def test_each_runs(name, measured_before, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for values in ("FILTERS", "BATCHES", "KERNELS", "IMAGES"):
        monkeypatch.setattr(sweeps, values, (9, 11, 13))
    command = ["explain", "mlp", "--rounds", "1", "--batch-size", "4", "--algorithm", "im2col", "--sweep", name]
    assert main(command) == 0
    (sweep,) = json.loads((tmp_path / "nnlite-report" / "explain.json").read_text())["sweeps"]
    assert {p["x"] for p in sweep["points"]} == {9, 11, 13}
    assert [b["network"] for b in sweep["baselines"]] == (["mlp"] if name == "filters" else [])
    findings = [text for text in sweep["findings"] if not text.startswith("Other programs")]
    assert len(findings) == len(sweeps.groups(sweep["points"])) + (name == "batch")
    assert f"sweep-{name}" in (tmp_path / "nnlite-report" / "report.html").read_text()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (ValueError, 2)])
def test_what_was_measured_before_a_sweep_or_a_ladder_fails_is_written(
    measured_before, tmp_path, monkeypatch, capsys, error, status
):
    def fails(*arguments, **options):
        raise error("no more")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeps, "BATCHES", (1, 2, 3))
    monkeypatch.setattr(ladder, "climb", fails)
    command = ["explain", "mlp", "--rounds", "1", "--batch-size", "4", "--algorithm", "im2col", "--sweep", "batch"]
    assert main([*command, "--ladder"]) == status
    content = json.loads((tmp_path / "nnlite-report" / "explain.json").read_text())
    assert content["models"]
    assert [sweep["name"] for sweep in content["sweeps"]] == ["batch"]
    assert content["ladder"] is None
    assert "sweep-batch" in (tmp_path / "nnlite-report" / "report.html").read_text()
    assert capsys.readouterr().out.count("all numbers: ") == 1
    monkeypatch.setattr(sweeps, "run", fails)
    assert main(command) == status
    assert json.loads((tmp_path / "nnlite-report" / "explain.json").read_text())["sweeps"] == []


def test_the_ladder_is_of_the_batch_asked_for(measured_before, tmp_path, monkeypatch):
    def climb(shape):
        assert str(shape.geometry) == "3x26x26x32 -> 64, 3x3"
        raise ValueError("asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ladder, "climb", climb)
    assert main(["explain", "mlp", "--rounds", "1", "--batch-size", "3", "--ladder"]) == 2
