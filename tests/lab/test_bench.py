"""`nnlite bench` as a user runs it: one's own algorithm from a file, refusals, files written, Ctrl-C."""

import csv
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import nnlite as nn
from nnlite import conv
from nnlite.__main__ import main
from nnlite.lab import bench as bench_module
from nnlite.lab import timing
from nnlite.lab.bench import bench
from nnlite.lab.shapes import resolve, slice_of

SMALL = ["--shapes", "2,3,8,9,4,3,3,1,0", "--rounds", "5"]
MINE = """
import numpy as np
import nnlite as nn
im2col = nn.conv.get("im2col")
class Mine(nn.conv.Algorithm):
    name = "mine"
    uses_blas = True
    def forward(self, x, weight, geometry):
        return im2col.forward(x, weight, geometry)
class Edge(Mine):
    name = "edge"
    def forward(self, x, weight, geometry):
        y = im2col.forward(x, weight, geometry)
        y[:, :, -1] += 1
        return y
class WrongWhereTimed(Mine):
    name = "wrong_where_timed"
    def forward(self, x, weight, geometry):
        y = im2col.forward(x, weight, geometry)
        if x.shape == (2, 8, 9, 3):
            y[1, 2, 3, 1] += 1
        return y
class Shy(Mine):
    name = "sh[y]"
    def supports(self, geometry):
        return "it wants [bold] geometries"
class Unnamed(nn.conv.Algorithm):
    pass
number = 3
"""


@pytest.fixture(autouse=True)
def few_geometries(monkeypatch):
    """What is checked before timing is test_check.py's: here the fixed geometries and two more will do."""
    monkeypatch.setattr("nnlite.lab.check.RANDOM", 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "leaves.py").write_text("import sys\n\nsys.exit(7)\n")
    before = nn.conv.names()
    yield tmp_path
    for name in set(nn.conv.names()) - set(before):
        nn.conv.unregister(name)


def test_ones_own_algorithm_from_a_file_is_checked_and_timed(folder, capsys):
    files = ["--json", "r.json", "--csv", "r.csv", "--figures", "pictures"]
    status = main(["bench", "--algorithm", "mine.py:Mine", "--only", "im2col,winograd", *SMALL, *files])
    text = capsys.readouterr().out
    assert status == 0
    assert max(map(len, text.splitlines())) <= 100
    run = json.loads((folder / "r.json").read_text())
    assert [check["algorithm"] for check in run["checks"]] == ["im2col", "winograd", "mine"]
    assert [row["pass"] for row in run["rows"]] == list(conv.PASSES)
    for row in run["rows"]:
        assert row["rounds"] == 5
        assert row["baseline"] == "im2col"
        assert row["noise"] >= 0.02
        assert [cell["status"] for cell in row["algorithms"]] == ["timed"] * 3
        assert sum(cell["best"] for cell in row["algorithms"]) == 1
        for cell in row["algorithms"]:
            assert len(cell["samples_ms"]) == 5
            assert cell["gflops"] == pytest.approx(2 * row["geometry"]["macs"] / cell["median_ms"] / 1e6)
            assert 0 < cell["error"] <= cell["error_bound"]
            assert cell["effective_rate"] == (cell["algorithm"] == "winograd")
            assert cell["ratio"]["low"] <= cell["ratio"]["value"] <= cell["ratio"]["high"]
    lines = list(csv.DictReader((folder / "r.csv").read_text().splitlines()))
    assert len(lines) == 9
    assert float(lines[2]["median_ms"]) == run["rows"][0]["algorithms"][2]["median_ms"]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [
        "bench-bars.png",
        "bench-bars.svg",
        "bench-heatmap.png",
        "bench-heatmap.svg",
    ]


def test_a_wrong_one_is_refused_and_not_timed(folder, capsys):
    status = main(["bench", "--algorithm", "mine.py:Edge", "--only", "im2col", *SMALL, "--json", "r.json"])
    assert status == 1
    assert "REFUSED edge: forward is wrong in float32" in capsys.readouterr().out
    for row in json.loads((folder / "r.json").read_text())["rows"]:
        assert [cell["status"] for cell in row["algorithms"]] == ["timed", "refused"]


def test_one_that_declines_everything_is_said_to_and_its_words_are_printed_as_they_are(folder, capsys):
    assert main(["bench", "--algorithm", "mine.py:Shy", "--only", "im2col", *SMALL, "--passes", "forward"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "sh[y] declines every geometry of the check: it wants [bold] geometries" in text
    assert "sh[y] declined" in text
    assert "sh[y] declines: it wants [bold] geometries." in text
    assert "sh[y] (0)" not in text


def test_numbas_threads_are_named(folder, capsys):
    source = """
import numba
import numpy as np
import nnlite as nn
@numba.njit(parallel=True)
def fill(y):
    for i in numba.prange(y.size):
        y[i] = 0
class Theirs(nn.conv.Algorithm):
    name = "theirs"
    def supports(self, geometry):
        return "never"
    def forward(self, x, weight, geometry):
        return fill(x)
"""
    (folder / "theirs.py").write_text(source)
    for text, named in ((source, True), (source.replace("parallel=True", ""), False)):
        (folder / "theirs.py").write_text(text)
        assert (
            main(["bench", "--algorithm", "theirs.py:Theirs", "--only", "im2col", *SMALL, "--passes", "forward"]) == 0
        )
        assert ("theirs: Numba's parallel=True" in capsys.readouterr().out) == named
        nn.conv.unregister("theirs")


def test_too_little_memory_is_not_the_algorithms_fault(folder, capsys, monkeypatch):
    def plan(algorithm, *arguments):
        raise MemoryError("1 PiB")

    monkeypatch.setattr(timing, "plan", plan)
    assert main(["bench", "--algorithm", "mine.py:Mine", "--only", "im2col", *SMALL]) == 0
    assert "mine declines: there is too little memory (1 PiB)." in " ".join(capsys.readouterr().out.split())


def test_a_stall_is_not_taken_for_the_time_of_a_call(monkeypatch):
    clock = iter([1.0, 1e-5, 1e-5, 1e-3])
    monkeypatch.setattr(timing, "timed", lambda call: lambda: next(clock))
    monkeypatch.setattr(timing.reference, "run_pass", lambda *arguments: None)
    geometry = conv.Geometry.of((64, 16, 16, 8), (3, 3, 8, 8))
    assert timing.plan(conv.get("im2col"), "forward", geometry, 0) == timing.Slice(geometry, 1)


def test_one_that_is_wrong_only_where_it_would_be_timed_is_refused_everywhere(folder, capsys):
    arguments = ["--algorithm", "mine.py:WrongWhereTimed", "--only", "im2col", "--shapes", "1,3,8,9,4,3,3,1,0"]
    assert main(["bench", *arguments, *SMALL, "--json", "r.json"]) == 1
    assert "y[n=1, oh=2, ow=3, k=1]" in " ".join(capsys.readouterr().out.split())
    rows = json.loads((folder / "r.json").read_text())["rows"]
    assert {row["algorithms"][1]["status"] for row in rows} == {"refused"}
    assert len(rows) == 6


def test_interrupted_keeps_what_was_measured(folder, capsys, monkeypatch):
    run_rounds, calls = bench_module.run_rounds, []

    def interrupted(candidates, *, progress, **options):
        calls.append(1)
        rounds = []

        def step():
            progress()
            rounds.append(1)
            if len(calls) == 2 and len(rounds) == 3:
                raise KeyboardInterrupt

        return run_rounds(candidates, progress=step, **options)

    monkeypatch.setattr(bench_module, "run_rounds", interrupted)
    assert main(["bench", "--only", "im2col,strided_view", *SMALL, "--json", "r.json", "--csv", "r.csv"]) == 130
    text = capsys.readouterr().out
    assert "Interrupted" in text
    assert "input gradient: " in text
    assert "weight gradient: " not in text  # nothing of it was measured
    run = json.loads((folder / "r.json").read_text())
    assert run["interrupted"]
    assert [row["rounds"] for row in run["rows"]] == [5, 3, 0]
    assert {cell["status"] for cell in run["rows"][2]["algorithms"]} == {"interrupted"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algorithm", "mine.py"], "--algorithm: expected FILE.py:CLASS"),
        (["--algorithm", "none.py:Mine"], "none.py"),
        (["--algorithm", "mine.py:Yours"], "expected the name 'Yours' in mine.py"),
        (["--algorithm", "mine.py:number"], "expected a subclass of nn.conv.Algorithm. Received: int"),
        (["--algorithm", "mine.py:Unnamed"], 'expected a line name = "..." in class Unnamed'),
        (["--only", "im2cow"], "unknown --only 'im2cow'"),
        (["--passes", "backward"], "unknown --passes 'backward'"),
        (["--shapes", "vgg16"], "unknown --shapes 'vgg16'"),
        (["--shapes", "1,2,3"], "expected nine integers N,C,H,W,K,R,S,stride,pad"),
        (["--shapes", "1,1,2,2,1,5,5,1,0"], "no larger than the padded input"),
        (["--baseline", "fft", "--only", "im2col"], "unknown --baseline 'fft'"),
        (["--algorithm", "leaves.py:Mine"], "leaves.py raised SystemExit in line 3: 7"),
        (["--rounds", "4"], "--rounds: expected an integer of at least 5"),
        (["--seconds", "0"], "--seconds: expected more than 0"),
        (["--json", "no/where.json"], "--json: expected an existing folder"),
        (["--json", "."], "--json: expected a file name"),
        (["--csv", "no/where.csv"], "--csv: expected an existing folder"),
        (["--figures", "mine.py"], "--figures: expected a writable folder. Received: 'mine.py'"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(folder, capsys, arguments, message):
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_what_takes_too_long_is_timed_on_a_slice_and_scaled(monkeypatch):
    shapes = resolve(["8,8,20,20,8,3,3,1,0"], 8)
    monkeypatch.setattr(timing, "LONGEST_CALL", float("inf"))
    (whole,) = bench([conv.get("im2col")], shapes, ["forward"], rounds=5).rows[0].cells
    monkeypatch.setattr(timing, "LONGEST_CALL", 1e-6)  # seconds
    monkeypatch.setattr(timing, "SLICE_SECONDS", 1e-6)
    (part,) = bench([conv.get("im2col")], shapes, ["forward"], rounds=5).rows[0].cells
    assert whole.scale == 1
    assert part.scale > 2
    assert part.to_dict()["scale"] == part.scale
    assert part.flops == whole.flops


@pytest.mark.parametrize("share", [1e-4, 0.01, 0.1, 0.5, 1.0])
def test_a_slice_is_about_that_share_of_the_work(share):
    (shape,) = resolve(["16,3,40,40,8,3,3,2,1"], 16)
    part = slice_of(shape.geometry, share)
    assert part.macs / shape.geometry.macs == pytest.approx(share, rel=0.6, abs=3e-4)
    assert part.weight_shape == shape.geometry.weight_shape


def test_an_inherited_gradient_has_the_threads_as_blas():
    class Mine(conv.Algorithm):
        name = "mine"

        def grad_input(self, dy, weight, geometry):
            return np.zeros(geometry.input_shape, dy.dtype)

    passes = ("forward", "grad_input", "grad_weight", "gradients")
    assert [timing.team(Mine(), name).owner for name in passes] == ["kernels", "kernels", "blas", "blas"]
    assert timing.team(conv.get("im2col"), "forward").owner == "blas"
    assert timing.team(conv.get("winograd"), "gradients").owner == "kernels"


def test_whatever_an_algorithm_is_called_the_control_has_times_of_its_own():
    class Other(type(conv.get("im2col"))):
        name = "im2col(control)"

    algorithms, shapes = [conv.get("im2col"), Other()], resolve(["1,2,5,5,3,3,3,1,0"], 1)
    (row,) = bench(algorithms, shapes, ["forward"], rounds=5).rows
    lists = [*(cell.seconds for cell in row.cells), row.control_seconds]
    assert [len(seconds) for seconds in lists] == [5, 5, 5]
    assert len(set(map(tuple, lists))) == 3


def test_extra_memory_is_what_a_call_needs_beside_its_result():
    """In a process of its own: memory that earlier tests have given back would be used again."""
    lines = [
        "import numpy as np",
        "from nnlite.lab.timing import extra_bytes",
        "def call():",
        "    scratch = np.ones(8 << 20, np.uint8)",
        "    return np.full(16 << 20, scratch[0])",
        "print(extra_bytes(call))",
    ]
    extra = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True).stdout
    if extra.strip() == "None":
        pytest.skip("the system does not tell")
    assert int(extra) == pytest.approx(8 << 20, rel=0.4)


def test_what_a_row_leaves_of_its_time_goes_to_those_after_it(monkeypatch):
    """Three rows with 9 s: the first takes 1 s, the second 2 s."""
    clock, given = [0.0], []

    def take(candidates, *, seconds, **options):
        given.append(seconds)
        clock[0] += len(given)

    monkeypatch.setattr(bench_module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(bench_module, "run_rounds", take)
    shapes = resolve([f"1,{c},5,5,3,3,3,1,0" for c in (1, 2, 3)], 1)
    bench([conv.get("im2col")], shapes, ["forward"], seconds=3.0)
    assert given == [3.0, 4.0, 6.0]


def test_a_broken_algorithm_of_an_installed_package_is_named(monkeypatch):
    from importlib.metadata import EntryPoint

    from nnlite.conv import registry

    entry = EntryPoint("theirs", "no_such_module:Theirs", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "_installed", lambda: {"theirs": entry})
    assert "theirs" in nn.conv.names()
    with pytest.raises(ImportError, match="algorithm 'theirs' of an installed package: ModuleNotFoundError"):
        nn.conv.get("theirs")


def test_an_installed_packages_algorithm_is_there_by_name(tmp_path, monkeypatch):
    """A package is what importlib.metadata finds on the path: a module and its dist-info."""
    from nnlite.conv import registry

    (tmp_path / "their_convolutions.py").write_text(MINE.replace('"mine"', '"theirs"'))
    info = tmp_path / "their_convolutions-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-convolutions\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nnlite.algorithms]\ntheirs = their_convolutions:Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._installed.cache_clear()
    try:
        assert "theirs" in nn.conv.names()
        assert type(nn.conv.get("theirs")).__name__ == "Mine"
        with pytest.raises(ValueError, match="'theirs', which an installed package offers"):
            nn.conv.unregister("theirs")
    finally:
        registry._installed.cache_clear()
        registry._loaded.pop("theirs", None)
