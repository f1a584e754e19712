"""The commands: what they print and write, and one line and status 2 for a request that is wrong."""

import json
import os
import subprocess
import sys

import pytest

from nnlite import models
from nnlite.cli import main
from nnlite.explain import question, request
from nnlite.lab import terminal
from nnlite.lab.terminal import Line

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
    status = main(["explain", "mine.py:tiny", "mlp", "--rounds", "5", "--batch-size", "16", "--json", "copy.json"])
    assert status == 0
    content = json.loads((folder / "nnlite-report" / "explain.json").read_text())
    assert content == json.loads((folder / "copy.json").read_text())
    assert content["schema"] == 1
    assert [m["name"] for m in content["models"]] == ["tiny", "mlp"]
    assert content["models"][1]["parameters"] == 669_706
    for model in content["models"]:
        assert sum(layer["ms"] for layer in model["layers"]) == pytest.approx(model["step_ms"]["median"])
        assert 1 <= len(model["step_ms"]["samples"]) <= 5  # rounds in another state are left out
        assert model["epoch_s_60000"] == pytest.approx(60_000 / 16 * model["step_ms"]["median"] / 1e3)
        parts = {layer["pass"] for layer in model["layers"]}
        assert {"forward", "grad_weight", "optimizer", "other"} <= parts
    text = capsys.readouterr().out
    assert "Which count predicts the time?" in text
    assert max(map(len, text.splitlines())) <= 100


def test_cautions_come_first(folder, monkeypatch):
    monkeypatch.setattr("nnlite.explain.measure.share_of_processors", lambda threads, blas: 0.6)
    assert main(["explain", "mine.py:tiny", "--rounds", "1", "--batch-size", "16"]) == 0
    (topic, (first, *_)), *others = json.loads((folder / "nnlite-report" / "explain.json").read_text())[
        "verdict"
    ].items()
    assert topic == "Cautions"
    assert first.startswith("CAUTION: other programs use the processor: 40% of it")
    assert others


def test_what_was_reported_is_not_said_of_a_network_that_only_has_the_name(folder, capsys):
    assert main(["explain", "mine.py:cnn", "mlp", "--rounds", "1", "--batch-size", "16"]) == 0
    content = json.loads((folder / "nnlite-report" / "explain.json").read_text())
    assert [m["name"] for m in content["models"]] == ["mine.py:cnn", "mlp"]
    assert "340" not in capsys.readouterr().out
    assert "340 s" not in (folder / "nnlite-report" / "report.html").read_text()
    assert "in the question" not in str(content["verdict"])


def test_a_network_that_is_the_questions_has_its_name(folder):
    own, other = (request.resolve_networks([spec])[0] for spec in ("mine.py:mlp", "mine.py:cnn"))
    assert (own.name, other.name) == ("mlp", "mine.py:cnn")


def test_the_question_gives_the_parameters_as_they_are_counted():
    for name, parameters in question.PARAMETERS.items():
        assert getattr(models, name)().count_params() == parameters
        assert f"{parameters:,}" in question.TEXT


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


def test_what_a_layer_raises_in_training_is_one_line(folder, capsys):
    assert main(["train", "mine.py:broken_layer", "--epochs", "1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "nnlite: MODEL broken_layer: a step raised ZeroDivisionError: division by zero"


def test_the_images_are_read_once(folder, monkeypatch):
    from nnlite import datasets

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
        (["explain", "mine.py:wrong_shape"], "expected an input shape of 784 elements"),
        (["explain", "mine.py:five_classes"], "expected at least 10 outputs, one a class of the data. Received: (5,)"),
        (["train", "mine.py:five_classes"], "expected at least 10 outputs, one a class of the data. Received: (5,)"),
        (["explain", "mine.py:stops"], "MODEL stops: a step raised SystemExit: 3"),
        (["explain", "mine.py:"], "MODEL mine.py:: expected a name after the colon. Received: nothing"),
        (["explain", "folder.py:f"], "expected a Python file. Received: 'folder.py', which is none"),
        (["explain", "folder.keras"], "expected a file. Received: 'folder.keras', which is none"),
        (["explain", "--out", ""], "--out: expected a folder to write in, made if need be. Received: ''"),
        (["explain", "weights.h5"], "expected a .keras file. Received: HDF5"),
        (["explain", "--threads", "0"], "--threads: expected an integer of at least 1"),
        (["explain", "--threads", "100000"], "--threads: expected at most"),
        (["explain", "--seed", "-1"], "--seed: expected an integer of at least 0. Received: -1"),
        (["explain", "--batch-size", "100000"], "--batch-size: expected 1 to 4000, the images of mnist5k"),
        (["explain", "--batch-size", "0"], "--batch-size: expected an integer of at least 1. Received: 0"),
        (["explain", "--rounds", "0"], "--rounds: expected an integer of at least 1. Received: 0"),
        (["explain", "mlp", "mlp"], "different names. Received: mlp and mlp, which are both called mlp"),
        (["train", "mlp", "--out", "no/where"], "--out: expected an existing folder"),
        (["train", "mlp", "--out", "mlp.keras"], "--out: expected a name that ends in .safetensors"),
        (["train", "mlp", "--optimizer", "sgdd"], "Did you mean 'sgd'"),
        (["summary", "mlp", "--batch-size", "0"], "--batch-size: expected an integer of at least 1"),
        (["explain", "--out", "mine.py"], "--out: expected a folder to write in, made if need be. Received: 'mine.py'"),
        (["explain", "--out", "mine.py/report"], "--out: expected a folder to write in"),
        (["explain", "--out", "/proc/report"], "--out: expected a folder to write in"),
        (["explain", "--json", "/proc/copy.json"], "--json: expected a file that may be written"),
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
    assert main(["explain", "mine.py:brackets", "--rounds", "1", "--batch-size", "4"]) == 0
    summary, explained = capsys.readouterr().out.split("Counted and measured")
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
