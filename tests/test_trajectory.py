"""Ten training steps give the losses that Keras and PyTorch give, to 1e-4."""

import json

import oracles
import pytest


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("oracle", ["keras", "torch"])
def test_losses_are_the_stored_ones(oracle, name, fuse):
    expected = json.loads(oracles.STORED.read_text())[oracle][name]
    ours = oracles.nnlite_losses(name, epsilon_inside_root=oracle == "keras", fuse=fuse)
    assert len(ours) == oracles.STEPS
    assert ours == pytest.approx(expected, abs=1e-4)
    assert max(ours) - min(ours) > 0.2  # it learned: a constant would prove nothing


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
@pytest.mark.parametrize("oracle", ["keras", "torch"])
def test_the_stored_ones_are_what_the_oracle_gives(oracle, name):
    pytest.importorskip(oracle)
    stored = json.loads(oracles.STORED.read_text())[oracle][name]
    assert oracles.ORACLES[oracle](name) == pytest.approx(stored, abs=1e-4)
