"""benchmarks/peers: the checks that make its numbers worth reading, and a run of nnlite alone."""

import dataclasses
import json

import numpy as np
import psutil
import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import frameworks, isa, report, session
from benchmarks.peers.busy import busy_programs
from benchmarks.peers.frameworks.nnlite_peer import NnlitePeer
from benchmarks.peers.networks import NETWORKS, read_batches, write_data
from benchmarks.peers.process import PeerFailed, PeerProcess
from nnlite.conv.geometry import PASSES, Geometry
from nnlite.lab import shapes
from nnlite.network import models
from nnlite.runtime.threads import get_num_threads


@pytest.fixture(autouse=True)
def _peak(monkeypatch):
    monkeypatch.setattr(session.Session, "peak_gflops", lambda self: 100.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_shapes_of_nnlites_own(name):
    shapes = [weight.shape for weight in getattr(models, name)().get_weights()]
    assert NETWORKS[name].weight_shapes() == shapes


def test_weights_for_channels_first_give_the_same_logits():
    network = NETWORKS["small_cnn"]
    h, w, c = network.pooled
    features = np.random.default_rng(0).standard_normal((2, h, w, c), np.float32)
    last, changed = network.first_weights()[-2], network.channels_first(network.first_weights())[-2]
    expected = features.reshape(2, -1) @ last
    np.testing.assert_allclose(features.transpose(0, 3, 1, 2).reshape(2, -1) @ changed, expected, rtol=1e-4, atol=1e-5)


def test_a_peer_whose_loss_stays_is_named():
    assert list(session.differing_losses({"a": (2.3, 0.5), "b": (2.3, 0.51), "c": (2.3, 0.9)})) == ["c"]


def test_a_peer_whose_loss_is_not_a_number_is_named():
    assert list(session.differing_losses({"a": (2.3, 0.5), "b": (2.3, 0.51), "c": (2.3, float("nan"))})) == ["c"]


def test_a_peer_whose_results_differ_is_named():
    right = np.random.default_rng(0).random((128, 10))
    distances, differing = session.distances({"a": right, "b": right * (1 + 1e-6), "c": right * 1.01})
    assert list(differing) == ["c"]
    assert distances["b"] < 1e-5


def test_a_missing_peer_is_named(monkeypatch, capsys, tmp_path):
    entry = frameworks.Entry("absent", "absent_peer", "AbsentPeer", ("no_such_package",))
    monkeypatch.setitem(frameworks.PEERS, "absent", entry)
    command.main(["--peers", "absent", "--only", "step", "--models", "mlp", "--rounds", "1", "--out", str(tmp_path)])
    assert "skipped: absent (not installed: no_such_package)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--rounds", "0"),
        ("--peers", "caffe"),
        ("--models", "vgg"),
        ("--threads", "0"),
        ("--batch-size", "0"),
        ("--batch-size", "401"),
        ("--shape-batch", "0"),
        ("--busy", "-1"),
        ("--isa", "sse"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        command.main([option, value])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert option in line
    assert f"Received: {value}" in line.replace("'", "")


def test_batches_hold_as_many_images_as_asked_for(tmp_path):
    write_data(tmp_path / "data.npz")
    batches = read_batches(tmp_path / "data.npz", NETWORKS["small_cnn"], 96)
    assert len(batches) == 41  # of 4000 images
    assert {(images.shape, labels.shape) for images, labels in batches} == {((96, 28, 28, 1), (96,))}


@pytest.mark.parametrize(("batch_size", "steps"), [(128, 31), (400, 10), (1, 1000)])
def test_losses_are_compared_over_an_epoch_or_1000_steps(batch_size, steps):
    assert session.loss_steps(batch_size) == steps


def test_grouped_layers_have_their_published_sizes():
    found = [shape.geometry for shape in shapes.resolve(command.GROUPED_SETS, 128, command.NOT_CUT)]
    assert [(g.input_shape, g.weight_shape[2:], g.groups) for g in found] == [
        ((16, 56, 56, 256), (1, 256), 256),
        ((8, 64, 64, 128), (1, 128), 128),
        ((32, 32, 32, 64), (4, 64), 16),
        ((64, 64, 64, 16), (1, 16), 16),
    ]


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 2), (8, 1)])
def test_pytorch_and_nnlite_are_asked_for_the_same_pass(pass_name, groups, stride):
    pytest.importorskip("torch")
    from benchmarks.peers.frameworks.torch_peer import TorchPeer

    geometry = Geometry.of((2, 7, 9, 8), (3, 3, 8 // groups, 16), strides=stride, padding=1, groups=groups)
    generator = np.random.default_rng(0)
    sizes = (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    arrays = [generator.standard_normal(size, np.float32) for size in sizes]
    results = []
    for peer in (TorchPeer(1, "channels_last"), NnlitePeer(get_num_threads(), "")):
        peer.prepare_convolution({"stride": stride, "padding": 1, "groups": groups}, pass_name, arrays)
        results.append(peer.convolve(1))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", frameworks.PEERS)
def test_each_peer_is_held_to_avx2_or_says_why_not(name, monkeypatch):
    monkeypatch.setattr(isa, "processor_has", lambda feature: True)
    assert bool(frameworks.PEERS[name].avx2) != bool(isa.why_unheld(name, "avx2"))
    assert isa.environment(name, "native") == {}
    assert isa.why_unheld(name, "native") == ""


def test_a_peer_that_cannot_be_held_to_avx2_is_named_where_the_processor_has_more(monkeypatch, capsys, tmp_path):
    arguments = ["--peers", "onnxruntime", "--isa", "avx2", "--only", "inference", "--models", "mlp", "--rounds", "1"]
    monkeypatch.setattr(frameworks.Entry, "missing", lambda self: [])
    monkeypatch.setattr(isa, "processor_has", lambda feature: True)
    monkeypatch.setattr(command, "processor_has", lambda feature: True)
    command.main([*arguments, "--out", str(tmp_path)])
    assert "skipped: onnxruntime (cannot be held to AVX2" in capsys.readouterr().out


def test_a_processor_without_avx512_leaves_no_peer_out(monkeypatch):
    monkeypatch.setattr(isa, "processor_has", lambda feature: feature != "avx512f")
    assert [name for name in frameworks.PEERS if isa.why_unheld(name, "avx2")] == []


def test_a_peers_process_gets_the_variables_that_hold_it(tmp_path):
    write_data(tmp_path / "data.npz")
    process = PeerProcess("nnlite", 1, tmp_path / "data.npz", {"OPENBLAS_CORETYPE": "Sandybridge"})
    try:
        assert "openblas: Sandybridge" in process.ask("instruction_sets")
    finally:
        process.close()


def test_the_nnlite_of_another_checkout_is_driven_by_this_ones_benchmarks(monkeypatch, tmp_path):
    (tmp_path / "nnlite").mkdir()
    another = "__version__ = 'another'\nset_num_threads = seed = lambda number: None\n"
    (tmp_path / "nnlite" / "__init__.py").write_text(another)
    entry = dataclasses.replace(frameworks.PEERS["nnlite"], checkout=(str(tmp_path),))
    monkeypatch.setitem(frameworks.PEERS, report.BEFORE, entry)
    process = PeerProcess(report.BEFORE, 1, tmp_path / "data.npz", {})
    process.close()
    assert process.versions["nnlite-conv"] == "another"


def test_a_peer_that_ended_while_it_was_asked_can_be_closed(tmp_path):
    process = PeerProcess("nnlite", 1, tmp_path / "data.npz", {})
    with pytest.raises(PeerFailed, match="KeyError"):
        process.ask("prepare", task="step", model="no such network", batch_size=1)
    process._process.wait()
    process._process.stdin.write("left unsent")
    process.close()


def test_busy_programs_end_when_the_run_is_interrupted():
    before = set(psutil.Process().children())

    def interrupted():
        with busy_programs(2) as cpus:
            assert cpus() >= 0
            found.extend(set(psutil.Process().children()) - before)
            raise KeyboardInterrupt

    found = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(found) == 2
    assert not any(program.is_running() for program in found)


def test_the_fastest_peer_is_of_those_that_do_the_same_work():
    ratio = {"low": None, "high": None}
    peers = {
        "nnlite": {"median_ms": 1.0, "times_nnlite": None},
        "quick": {"median_ms": 0.5, "times_nnlite": {"value": 0.5, **ratio}},
        "torch": {"median_ms": 3.0, "times_nnlite": {"value": 3.0, **ratio}},
        "right": {"median_ms": 2.0, "times_nnlite": {"value": 2.0, **ratio}},
    }
    found = {"peers": peers, "differing": {"quick": "results differ"}}
    assert report.beside(found)[0] == "right"
    assert report.beside(found, ("torch", "quick"))[0] == "torch"
    assert report.beside(found, ("quick",)) is None


def test_nnlite_alone(tmp_path):
    arguments = [
        "--peers",
        "nnlite",
        "--models",
        "small_cnn",
        "--only",
        "step,inference",
        "--rounds",
        "2",
        "--busy",
        "1",
    ]
    assert command.main([*arguments, "--threads", "1", "--busy", "1", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "peers.json").read_text())
    for task in ("step", "inference"):
        found = document[task]["small_cnn"]
        assert found["failed"] == found["differing"] == {}
        assert len(found["peers"]["nnlite"]["samples_ms"]) == 2
    assert document["conditions"] == "1 thread, 1 busy program beside"
    assert (tmp_path / "peers.png").stat().st_size > 0
