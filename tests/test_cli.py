"""The commands: what they print and write, and one line and status 2 for a request that is wrong."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import documents
import numpy as np
import pytest

from nnlite import conv
from nnlite.__main__ import COMMANDS, command_parser, main
from nnlite.explain import case_study, request
from nnlite.lab import terminal
from nnlite.lab.loading import load_algorithms
from nnlite.lab.table import Table
from nnlite.lab.terminal import Line
from nnlite.network import models
from nnlite.network.sequential import Sequential
from nnlite.runtime import encoding, threads

MODEL = """
import nnlite as nn
def tiny():
    convolution = nn.Conv2D(2, 5, strides=3, activation="relu")
    return nn.Sequential([nn.Input((28, 28, 1)), convolution, nn.Flatten(), nn.Dense(10, activation="softmax")])
def unbuilt():
    return nn.Sequential([nn.Dense(1)])
def wrong_shape():
    return nn.Sequential([nn.Input((5,)), nn.Dense(10)])
def too_many():
    return nn.Sequential([nn.Input((28, 28, 1)), nn.MaxPooling2D(16), nn.MaxPooling2D(2), nn.Flatten()])
def five_classes():
    return nn.Sequential([nn.Input((784,)), nn.Dense(5)])
def raises():
    raise RuntimeError("no luck")
def leaves():
    raise SystemExit(0)
def with_a_layer(call):
    layer = type("Mine", (nn.Layer,), {"call": call})()
    return nn.Sequential([nn.Input((28, 28, 1)), nn.Flatten(), layer, nn.Dense(10)])
def cnn():
    return tiny()
def mlp():
    return nn.models.mlp()
def broken_layer():
    return with_a_layer(lambda self, x, training: 1 / 0)
def stops():
    return with_a_layer(lambda self, x, training: exit(3))
def no_tensor():
    return with_a_layer(lambda self, x, training: x.numpy())
def brackets():
    layers = [nn.Input((784,)), nn.Dense(4, name="a[/b]"), nn.Dense(10, activation="softmax", name="red :x:")]
    return nn.Sequential(layers, name="net[v2]")
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    for name in ("folder.py", "folder.keras"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_explain_of_the_users_own_model(folder, capsys):
    status = main(["explain", "mine.py:tiny", "mlp", "--rounds", "3", "--batch-size", "16", "--json", "copy.json"])
    assert status == 0
    content = json.loads((folder / "nnlite-report" / "explain.json").read_text())
    assert content == json.loads((folder / "copy.json").read_text())
    assert content["schema"] == 1
    assert [m["name"] for m in content["models"]] == ["tiny", "mlp"]
    assert content["models"][1]["parameters"] == 669_706
    for model in content["models"]:
        assert sum(layer["ms"] for layer in model["layers"]) == pytest.approx(model["step_ms"]["median"])
        assert len(model["step_ms"]["samples"]) == 3
        assert model["epoch_s_60000"] == pytest.approx(60_000 / 16 * model["step_ms"]["median"] / 1e3)
        parts = {layer["pass"] for layer in model["layers"]}
        assert {"forward", "grad_weight", "optimizer", "other"} <= parts
    lines = capsys.readouterr().out.splitlines()
    assert "mlp" in lines[0]
    assert max(map(len, lines[:-1])) <= 80
    assert len(lines) <= 40


def test_details_print_every_layer(folder, measured_before, capsys):
    assert main(["explain", "mine.py:tiny", "--rounds", "1", "--batch-size", "4", "--details"]) == 0
    text = capsys.readouterr().out
    assert "Algorithm auto" in text
    assert "Predicted and measured" in text
    assert max(map(len, text.splitlines()[:-1])) <= 100


def test_cautions_are_on_the_first_screen(folder, monkeypatch, capsys):
    monkeypatch.setattr("nnlite.explain.measure.Contention.share", lambda self: 0.4)
    assert main(["explain", "mine.py:tiny", "--rounds", "1", "--batch-size", "4"]) == 0
    said = "Other programs used 40% of the CPU: do not trust these times."
    assert f"CAUTION: {said}" in " ".join(capsys.readouterr().out.split())
    assert said in json.loads((folder / "nnlite-report" / "explain.json").read_text())["cautions"]


def test_what_was_reported_is_not_said_of_a_network_that_only_has_the_name(folder, capsys):
    assert main(["explain", "mine.py:cnn", "mlp", "--rounds", "1", "--batch-size", "4"]) == 0
    content = json.loads((folder / "nnlite-report" / "explain.json").read_text())
    assert [m["name"] for m in content["models"]] == ["mine.py:cnn", "mlp"]
    assert not content["case_study"]
    for text in (capsys.readouterr().out, (folder / "nnlite-report" / "report.html").read_text()):
        assert "Theano" not in text


def test_an_algorithm_of_the_users_own_is_checked_and_then_timed(folder, registered_anew, capsys):
    (folder / "tiled.py").write_text(TILED)
    command = ["explain", "mine.py:tiny", "--rounds", "1", "--batch-size", "4", "--algorithm", "tiled.py:Tiled"]
    assert main(command) == 0
    content = json.loads((folder / "nnlite-report" / "explain.json").read_text())
    assert content["algorithm"] == "tiled"
    assert content["comparisons"] == {}
    (folder / "tiled.py").write_text(
        TILED.replace(".forward(x, weight, geometry)", ".forward(x, weight, geometry) + 1")
    )
    assert main(command) == 1
    assert "is refused: forward is wrong" in capsys.readouterr().err


def test_a_network_that_is_the_questions_has_its_name(folder):
    own, other = (request.resolve_networks([spec])[0] for spec in ("mine.py:mlp", "mine.py:cnn"))
    assert (own.name, other.name) == ("mlp", "mine.py:cnn")


def test_the_question_gives_the_parameters_as_they_are_counted():
    for name, parameters in case_study.PARAMETERS.items():
        assert getattr(models, name)().count_params() == parameters


def test_a_line_that_says_what_goes_on_is_for_terminals_alone(monkeypatch, capsys):
    for is_one, expected in ((False, ""), (True, "\r\x1b[2Kmeasuring\r\x1b[2K")):
        monkeypatch.setattr("sys.stderr.isatty", lambda is_one=is_one: is_one)
        with Line() as line:
            line.say("measuring")
        assert capsys.readouterr().err == expected


def test_train_saves_a_model_that_can_be_loaded(folder, capsys):
    import nnlite as nn

    assert main(["train", "mine.py:tiny", "--epochs", "1", "--out", "tiny.safetensors", "--json", "history.json"]) == 0
    assert nn.load_model("tiny.safetensors").count_params() == 52 + 128 * 10 + 10
    assert len(json.loads((folder / "history.json").read_text())["val_accuracy"]) == 1
    assert "Epoch 1/1" in capsys.readouterr().out


def test_what_a_step_raises_in_training_is_one_line(folder, monkeypatch, capsys):
    def too_large(*_):
        raise MemoryError("1 TiB")

    monkeypatch.setattr(Sequential, "_train_step", too_large)
    assert main(["train", "mine.py:tiny", "--epochs", "1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "nnlite: MODEL tiny: a step raised MemoryError: 1 TiB"


def test_the_images_are_read_once(folder, measured_before, monkeypatch):
    from nnlite.network import datasets

    load, loaded = datasets.load, []
    monkeypatch.setattr(datasets, "load", lambda *a, **b: loaded.append(a) or load(*a, **b))
    assert main(["explain", "mlp", "--rounds", "1", "--batch-size", "4"]) == 0
    assert len(loaded) == 1


def test_summary_counts(folder, capsys):
    assert main(["summary", "cnn", "--json", "counts.json"]) == 0
    assert "10,903,680" in capsys.readouterr().out
    assert json.loads((folder / "counts.json").read_text())["training_macs_per_image"] == 32_516_352


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "resnet"], "unknown model 'resnet'"),
        (["explain", "--algorithm", "im2cow"], "unknown algorithm 'im2cow'"),
        (["explain", "--data", "cifar"], "unknown data set 'cifar'"),
        (["explain", "--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (["explain", "--sweep", "filtres"], "unknown sweep 'filtres'"),
        (["explain", "none.py:f"], "none.py"),
        (["explain", "mine.py:nothing"], "nothing"),
        (["explain", "mine.py:number"], "expected a function"),
        (["explain", "mine.py:unbuilt"], "expected it to return a built Sequential"),
        (["explain", "mine.py:too_many"], "pool_size: expected a window no larger than the padded input"),
        (["explain", "mine.py:raises"], "it raised RuntimeError in line 15: no luck"),
        (["explain", "mine.py:leaves"], "it raised SystemExit in line 17: 0"),
        (["explain", "mine.py:broken_layer"], "MODEL broken_layer: a step raised ZeroDivisionError: division by zero"),
        (["explain", "mine.py:no_tensor"], "layer 'mine': expected call to return a Tensor. Received: ndarray"),
        (["train", "mine.py:wrong_shape"], "expected an input shape of 784 elements"),
        (["explain", "mlp", "--baseline", "mpl"], "Did you mean 'mlp'"),
        (["train", "mine.py:five_classes"], "expected at least 10 outputs, one per class of the data. Received: (5,)"),
        (["explain", "mine.py:stops"], "MODEL stops: a step raised SystemExit: 3"),
        (["explain", "mine.py:"], "MODEL mine.py:: expected a name after the colon, or"),
        (["explain", "folder.py:f"], "expected a Python file. Received: 'folder.py', which is not a file"),
        (["explain", "folder.keras"], "expected a file. Received: 'folder.keras', which is not a file"),
        (["explain", "--out", ""], "--out: expected a writable folder. Received: ''"),
        (["explain", "weights.h5"], "weights.h5"),
        (["explain", "--threads", "0"], "--threads: expected an integer of at least 1"),
        (["explain", "--threads", "100000"], "--threads: expected at most"),
        (["explain", "--seed", "-1"], "--seed: expected an integer of at least 0. Received: -1"),
        (["explain", "--batch-size", "100000"], "--batch-size: expected 1 to 4000, the images of mnist5k"),
        (["explain", "--batch-size", "0"], "--batch-size: expected an integer of at least 1. Received: 0"),
        (["explain", "--rounds", "0"], "--rounds: expected an integer of at least 1. Received: 0"),
        (["explain", "mlp", "mlp"], "MODEL: expected different networks. Received: mlp twice"),
        (["explain", "mine.py:tiny", "mine.py:tiny"], "expected different networks. Received: mine.py:tiny twice"),
        (["train", "mlp", "--out", "no/where"], "--out: expected an existing folder"),
        (["train", "mlp", "--out", "mlp.keras"], "--out: expected a name that ends in .safetensors"),
        (["train", "mlp", "--optimizer", "sgdd"], "Did you mean 'sgd'"),
        (["summary", "mlp", "--batch-size", "0"], "--batch-size: expected an integer of at least 1"),
        (["explain", "--out", "mine.py"], "--out: expected a writable folder. Received: 'mine.py'"),
        (["explain", "--out", "mine.py/report"], "--out: expected a writable folder"),
        (["explain", "--out", "/proc/report"], "--out: expected a writable folder"),
        (["explain", "--json", "/proc/copy.json"], "--json: expected a writable file"),
        (["train", "mlp", "--epochs", "0"], "--epochs: expected an integer of at least 1. Received: 0"),
        (["train", "mlp", "--batch-size", "0"], "--batch-size: expected an integer of at least 1. Received: 0"),
        (["summary", "mlpp"], "Did you mean 'mlp'"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(folder, capsys, arguments, message):
    assert main(arguments) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    assert error.startswith("nnlite: ")
    assert message in error


@pytest.mark.parametrize("arguments", [["explode"], ["explain", "--rounds", "many"], []])
def test_what_argparse_refuses_is_one_line_too(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_names_are_printed_as_they_are(folder, capsys):
    assert main(["summary", "mine.py:brackets"]) == 0
    assert main(["explain", "mine.py:brackets", "--rounds", "1", "--batch-size", "4", "--details"]) == 0
    summary, explained = capsys.readouterr().out.split("Where does the time of")
    for text in (summary, explained):
        assert "net[v2]" in text
        assert "a[/b]" in text
        assert ":x:" in text


def test_a_terminal_prints_names_as_they_are_too(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console = terminal.console()
    with console.capture() as captured:
        console.print("a[/b] :x:")
    assert captured.get() == "a[/b] :x:\n"


# Every option of every command has an effect ------------------------------------------------------------------------


#: what `nnlite inspect` measures
MEASURED = ("ms", "gflops", "peak_gflops", "percent_of_peak", "others_share")


class Seen:
    """What a command did, with its heavy work replaced: told by `note`."""

    def __init__(self):
        self.notes = []

    def note(self, name, result=None):
        def replaced(*arguments, **options):
            self.notes.append(f"{name} {arguments} {options}")
            return result(*arguments) if callable(result) else result

        return replaced


def observed(command, arguments, folder, monkeypatch, capsys):
    """All that a command prints, writes and asks of the libraries below it; the same twice for the same arguments."""
    import nnlite as nn
    from nnlite import conv
    from nnlite.compiler import cache as jit_cache
    from nnlite.explain import command as explain
    from nnlite.explain import train_command
    from nnlite.lab import command as bench
    from nnlite.lab import figures, machine_command
    from nnlite.lab.inspect import command as inspect
    from nnlite.lab.inspect.compiling import Compiled
    from nnlite.runtime import threads

    seen = Seen()
    before = threads.get_num_threads()
    images = np.zeros((256, 28, 28, 1), np.float32), np.arange(256) % 10
    monkeypatch.setattr("nnlite.network.datasets.load", seen.note("load", (images, images)))
    for module in (explain, train_command, bench, machine_command):
        monkeypatch.setattr(module, "announce_compilation", lambda: None)
    monkeypatch.setattr(conv, "autotune", seen.note("autotune"))
    monkeypatch.setattr(nn.Sequential, "fit", lambda model, *a, **b: seen.notes.append(f"fit {a[2:]}") or nn.History())
    monkeypatch.setattr(
        nn.Sequential, "save", lambda model, path: seen.notes.append(f"{path} {model.get_weights()[0]}")
    )
    monkeypatch.setattr(nn.optimizers, "get", lambda name, **b: seen.notes.append(f"{name} {b}") or nn.SGD())
    run = SimpleNamespace(refused=[], interrupted=False, rows=[], to_dict=dict)
    monkeypatch.setattr(bench, "bench", seen.note("bench", run))
    monkeypatch.setattr(bench, "_print", lambda *_: None)
    monkeypatch.setattr(figures, "draw", lambda result, path: seen.notes.append(f"draw {path}") or [])
    monkeypatch.setattr(machine_command.peaks, "measure", seen.note("machine", SimpleNamespace(to_dict=dict)))
    monkeypatch.setattr(jit_cache, "clear_cache", seen.note("clear", 0))
    for name in ("rates", "bandwidths"):
        monkeypatch.setattr(machine_command, name, lambda machine: Table("", ["a"], []))
    monkeypatch.setattr(machine_command, "remarks", lambda machine: [])

    def explained(networks, data, **options):
        weights = [n.get_weights()[0] for n in networks]
        seen.notes.append(f"explain {[n.name for n in networks]} {weights} {options}")
        return documents.single(rounds=options["rounds"])

    monkeypatch.setattr(explain, "explain_networks", explained)
    monkeypatch.setattr(
        "nnlite.explain.report.write", lambda document, out, png: seen.notes.append(f"report {out} {png}") or [out]
    )
    monkeypatch.setattr(explain.sweeps, "run", seen.note("sweep", documents.sweep("filters")))
    monkeypatch.setattr(explain, "_ladder", seen.note("ladder", {}))
    compiled = Compiled("this", 8, (SimpleNamespace(name="loop"),), "")
    monkeypatch.setattr(inspect, "compile_for", seen.note("compile", [compiled]))
    monkeypatch.setattr(inspect, "report", seen.note("report", SimpleNamespace(to_dict=dict)))
    monkeypatch.setattr(inspect, "_print", seen.note("print"))
    monkeypatch.setattr(inspect, "_measure", seen.note("measure", dict.fromkeys(MEASURED, 1.0)))
    try:
        status = main([command, *arguments])
        count = threads.get_num_threads()
    finally:
        threads.set_num_threads(before)
    printed = capsys.readouterr()
    files = {path.name: path.read_text() for path in folder.glob("written*")}
    for path in folder.glob("written*"):
        path.unlink()
    text = re.sub(r"0x[0-9a-f]+|\d+\.\d+ s", "", f"{status} {count} {seen.notes} {files} {printed.out} {printed.err}")
    assert status == 0, text
    return text


#: command -> (its arguments, option -> the arguments that are added to them)
OPTIONS = {
    "explain": (
        ["mlp"],
        {
            "--threads": ["1"],
            "--batch-size": ["16"],
            "--seed": ["5"],
            "--json": ["written.json"],
            "--algorithm": ["im2col"],
            "--rounds": ["7"],
            "--sweep": ["filters"],
            "--details": [],
            "--baseline": ["mlp"],
            "--ladder": [],
            "--out": ["elsewhere"],
            "--png": [],
            "--autotune": [],
            "--data": ["mnist"],
            "--data-dir": ["there"],
        },
    ),
    "train": (
        ["mlp"],
        {
            "--threads": ["1"],
            "--batch-size": ["16"],
            "--seed": ["5"],
            "--json": ["written.json"],
            "--epochs": ["7"],
            "--optimizer": ["sgd"],
            "--learning-rate": ["0.5"],
            "--out": ["elsewhere.safetensors"],
            "--autotune": [],
            "--data": ["mnist"],
            "--data-dir": ["there"],
        },
    ),
    "bench": (
        [],
        {
            "--threads": ["1"],
            "--batch-size": ["16"],
            "--seed": ["5"],
            "--json": ["written.json"],
            "--algorithm": ["tiled.py:Tiled"],
            "--only": ["im2col"],
            "--sweep": ["least_tiles", "--only", "winograd"],
            "--shapes": ["1,1,8,8,4,3,3,1,0"],
            "--passes": ["forward"],
            "--baseline": ["direct"],
            "--rounds": ["9"],
            "--seconds": ["3"],
            "--csv": ["written.csv"],
            "--figures": ["pictures"],
            # shown by tests/lab/test_versions.py, test_watch.py and test_roofline.py
            **dict.fromkeys(["--roofline", "--save", "--compare", "--fail-slower", "--watch", "--diff"]),
        },
    ),
    "inspect": (
        ["direct"],
        {
            "--json": ["written.json"],
            "--shape": ["1,1,8,8,4,3,3,1,0"],
            "--pass": ["dx"],
            "--cpu": ["haswell"],
            "--signature": None,  # refused with an algorithm, as below
            "--loops": ["1"],
            "--asm": [],
        },
    ),
    "machine": ([], {"--threads": ["1"], "--json": ["written.json"], "--clear-cache": []}),
    "summary": (["cnn"], {"--batch-size": ["1"], "--json": ["written.json"]}),
}
EVERYWHERE = {"-h", "--help", "--version"}
TILED = """
import nnlite as nn
class Tiled(nn.conv.Algorithm):
    name = "tiled"
    def forward(self, x, weight, geometry):
        return nn.conv.get("im2col").forward(x, weight, geometry)
"""


@pytest.fixture
def registered_anew():
    yield
    for name in [name for name in conv.names() if name.startswith("tiled")]:
        conv.unregister(name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_shown_to_do_something(command):
    offered = {option for action in command_parser(command)._actions for option in action.option_strings}
    assert offered == EVERYWHERE | set(OPTIONS[command][1])


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, o) for command in COMMANDS for o, added in OPTIONS[command][1].items() if added is not None],
)
def test_an_option_has_an_effect(command, option, folder, monkeypatch, capsys, registered_anew):
    (folder / "tiled.py").write_text(TILED)
    arguments, options = OPTIONS[command]
    if option == "--threads" and threads.get_num_threads() == 1:
        pytest.skip("one processor")
    without, again, with_it = (
        observed(command, [*arguments, *added], folder, monkeypatch, capsys)
        for added in ([], [], [option, *options[option]])
    )
    assert without == again
    assert without != with_it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["summary", "mlp", "--seed", "3"], "unrecognized arguments: --seed 3"),
        (["summary", "mlp", "--threads", "1"], "unrecognized arguments: --threads 1"),
        (["machine", "--seed", "3"], "unrecognized arguments: --seed 3"),
        (["machine", "--batch-size", "3"], "unrecognized arguments: --batch-size 3"),
    ],
)
def test_an_option_that_would_mean_nothing_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["machine", "--clear-cache", "--threads", "1"], "--clear-cache: expected no other option"),
        (["machine", "--clear-cache", "--json", "a.json"], "--clear-cache: expected no other option"),
        (
            ["bench", "--shapes", "vgg", "--batch-size", "8"],
            "--batch-size: expected only with --shapes seed or all. Received: 8",
        ),
        (["inspect", "direct", "--signature", "int64"], "--signature: expected only with FILE.py:FUNCTION"),
        (["explain", "--algorithm", "im2col", "--autotune"], "--autotune: expected only with --algorithm auto"),
    ],
)
def test_options_that_would_mean_nothing_together_are_refused(arguments, message, folder, monkeypatch, capsys):
    for work in (
        "lab.command.bench",
        "explain.command.explain_networks",
        "performance.peaks.measure",
        "compiler.cache.clear_cache",
    ):
        monkeypatch.setattr(f"nnlite.{work}", Seen().note(work, 0))
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


# Models and algorithms from files -----------------------------------------------------------------------------------


def test_what_train_wrote_is_a_model_everywhere(folder, capsys):
    import nnlite as nn

    model = nn.models.small_cnn()
    model.layers[0].trainable = False
    model.save("small_cnn.safetensors")
    assert main(["summary", "small_cnn.safetensors"]) == 0
    assert "Non-trainable params: 40 " in capsys.readouterr().out
    first, second = request.resolve_networks(["small_cnn", "small_cnn.safetensors"])
    assert (first.name, second.name) == ("small_cnn", "small_cnn.safetensors")
    assert (second.get_weights()[0] == model.get_weights()[0]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "expected a file written by model.save"), (b"text", "expected a safetensors file. Received: 'm.safe")],
)
def test_a_file_that_is_no_saved_model_is_one_line(content, message, folder, capsys):
    if content is not None:
        (folder / "m.safetensors").write_bytes(content)
    assert main(["summary", "m.safetensors"]) == 2
    assert capsys.readouterr().err.startswith(f"nnlite: MODEL m.safetensors: {message}")


def test_networks_of_one_name_are_told_apart_by_their_files(folder):
    for path in ("old.py", "new/mine.py", "new/deep/mine.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(MODEL)
    specs = ["mine.py:tiny", "old.py:tiny", "new/mine.py:tiny", "new/deep/mine.py:tiny"]
    names = [model.name for model in request.resolve_networks(specs)]
    assert names == ["tiny", "old.py:tiny", "mine.py:tiny", "new/deep/mine.py:tiny"]


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["old.py:Tiled", "new.py:Tiled"], ["tiled@old", "tiled@new"]),
        (["old.py:Tiled"], ["tiled"]),
        (["old.py:Tiled", "old.py:Tiled"], ["tiled"]),
        (["old.py:Tiled", "deep/old.py:Tiled"], ["tiled@old:Tiled", "tiled@deep/old:Tiled"]),
        (["old.py:Tiled", "old.py:Other"], ["tiled@old:Tiled", "tiled@old:Other"]),
        (["old.py:Tiled", "itself.py:Tiled"], ["tiled@old", "tiled@itself"]),
        (["old.py:BuiltIn"], ["im2col@old"]),
    ],
)
def test_algorithms_of_one_name_are_told_apart_by_their_files(specs, names, folder, registered_anew):
    (folder / "deep").mkdir()
    more = '\nclass Other(Tiled):\n    pass\nclass BuiltIn(Tiled):\n    name = "im2col"\n'
    for path in ("old.py", "new.py", "deep/old.py"):
        (folder / path).write_text(TILED + more)
    (folder / "itself.py").write_text(TILED + "\nnn.conv.register(Tiled())\n")
    found = load_algorithms(specs)
    assert [algorithm.name for algorithm in found] == [name.format(folder.name) for name in names]
    assert all(conv.get(algorithm.name) is algorithm for algorithm in found)
    assert type(conv.get("im2col")).__name__ == "Im2col"
    for algorithm in found:
        conv.unregister(algorithm.name)


@pytest.mark.parametrize("stopped_in", ["validation", "the first step"])
def test_a_training_that_is_interrupted_saves_what_was_learnt_and_nothing_else(folder, capsys, monkeypatch, stopped_in):
    import nnlite as nn

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(nn.Sequential, "_evaluate" if stopped_in == "validation" else "_train_step", interrupt)
    path = folder / "mlp.safetensors"
    path.write_bytes(b"of before")
    assert main(["train", "mlp", "--epochs", "9"]) == 130
    error = capsys.readouterr().err
    if stopped_in == "validation":
        assert "stopped after 1.0 of 9 epochs; saved as mlp.safetensors" in error
        assert nn.load_model(path).count_params() == nn.models.mlp().count_params()
    else:
        assert "saved" not in error
        assert path.read_bytes() == b"of before"


def test_a_training_whose_output_nobody_reads_any_more_saves_what_was_learnt(folder):
    import nnlite as nn

    command = [sys.executable, "-m", "nnlite", "train", "mlp", "--epochs", "1000"]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered) as training:
        training.stdout.readline()
        training.stdout.close()
        error = training.stderr.read()
    assert training.returncode == 128 + 13
    assert "of 1000 epochs; saved as mlp.safetensors" in error.splitlines()[-1]
    assert nn.load_model(folder / "mlp.safetensors").optimizer.learning_rate == 1e-3


def test_a_file_in_an_error_gives_a_terminal_no_commands(folder, capsys):
    assert main(["summary", "\x1b[2Jmine.py:tiny"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_a_terminal_of_any_encoding_is_printed_to(name):
    printed = subprocess.run(
        [sys.executable, "-m", "nnlite", "summary", "cnn"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": name},
    )
    assert printed.stderr == b""
    lines = printed.stdout.decode(name).splitlines()
    assert lines[1][0] == ("┏" if name == "utf-8" else "+")
    assert "?" not in printed.stdout.decode(name)


def test_characters_that_an_encoding_lacks_have_their_nearest_in_ascii():
    text = "3× – 5 µs… │─┼━╭"
    assert text.encode("ascii", encoding.IN_ASCII) == b"3x - 5 us... |-+-+"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_behind_standard_output_is_said():
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-m", "nnlite", "summary", "mlp"], stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 2
    assert ended.stderr == b"nnlite: [Errno 28] No space left on device: 'standard output'\n"
