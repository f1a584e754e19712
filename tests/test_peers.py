"""benchmarks/peers: the checks that make its numbers worth reading, and a run of nnlite alone."""

import json

import numpy as np
import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import frameworks, session
from benchmarks.peers.networks import NETWORKS
from nnlite.network import models


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
    ("option", "value"), [("--rounds", "0"), ("--peers", "caffe"), ("--models", "vgg"), ("--threads", "0")]
)
def test_a_wrong_request_is_refused_in_one_line(capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        command.main([option, value])
    assert stopped.value.code == 2
    assert f"Received: {value}" in capsys.readouterr().err.replace("'", "")


def test_nnlite_alone(tmp_path):
    arguments = ["--peers", "nnlite", "--models", "small_cnn", "--only", "step,inference", "--rounds", "2"]
    assert command.main([*arguments, "--threads", "1", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "peers.json").read_text())
    for task in ("step", "inference"):
        found = document[task]["small_cnn"]
        assert found["failed"] == found["differing"] == {}
        assert len(found["peers"]["nnlite"]["samples_ms"]) == 2
    assert (tmp_path / "peers.png").stat().st_size > 0
