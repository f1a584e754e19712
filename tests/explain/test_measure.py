"""From networks to the document: what is counted, timed and predicted, on small networks and few rounds."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from documents import coloured, wide

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.explain.case import RANDOM, Case, batches, loss_of, random_batch
from nnlite.explain.measure import _beyond_peak, _first_step, _model, explain_networks
from nnlite.performance.model import Microbenchmarks
from nnlite.performance.overhead import Overhead

BATCH = 8


@pytest.fixture(scope="module")
def explained():
    """Two networks of different inputs, with auto and im2col."""
    return nn.explain(wide(), coloured(), batch_size=BATCH, rounds=2).document


def test_networks_of_any_input_shape_are_compared(explained):
    assert [(n.name, n.input_shape, n.data) for n in explained.models] == [
        ("wide", [20], "random"), ("coloured", [12, 12, 3], "random"),
    ]  # fmt: skip
    assert list(explained.comparisons) == ["im2col"]
    assert explained.baseline == "wide"
    assert not explained.case_study


def test_the_rows_add_up_to_the_step_and_none_is_negative(explained):
    for n in explained.everything:
        assert sum(row.ms for row in n.layers) == pytest.approx(n.step_ms.median)
        assert min(row.ms for row in n.layers) >= 0
        assert len(n.step_ms.samples) == 2


@pytest.mark.skipif(not compilation.ENABLED, reason="rates are measured with compiled kernels")
def test_every_part_of_the_step_is_predicted_from_its_work(explained):
    for n in explained.everything:
        assert n.not_predicted == []
        assert n.predicted_ms > 0
        for row in n.layers:
            assert row.predicted_ms is not None
            assert sum(row.terms_ms.values()) == pytest.approx(row.predicted_ms)
        assert sum(item.flops for row in n.layers for item in row.work) == 2 * BATCH * n.training_macs_per_image


@pytest.mark.skipif(not compilation.ENABLED, reason="rates are measured with compiled kernels")
def test_im2col_transfers_more_than_auto(explained):
    assert explained.find("coloured", "im2col").moved_bytes_per_step > explained.models[1].moved_bytes_per_step


def test_with_too_few_rounds_there_is_no_interval_and_the_count_is_said(explained):
    assert explained.models[1].ratio.low is None
    assert any("Too few rounds (2 of 15)" in caution for caution in explained.cautions)


def test_the_document_is_json_with_the_keys_that_others_read(explained):
    content = json.loads(json.dumps(explained.to_json()))
    assert content["schema"] == 1
    assert {"pass", "flops", "bytes", "ms", "predicted_ms", "bound"} <= content["models"][0]["layers"][0].keys()
    assert content["models"][1]["ratio"]["value"] == explained.models[1].ratio.value
    assert content["comparisons"]["im2col"][1]["structure"][0]["operations"][0]["kind"] == "conv2d"


def test_it_shows_itself(explained):
    from nnlite.explain import Explanation

    shown = Explanation(explained)
    assert "coloured" in str(shown)
    assert "coloured" in shown._repr_html_()


def test_the_networks_are_not_changed():
    network = coloured()
    before = [w.copy() for w in network.get_weights()]
    nn.explain(network, batch_size=2, rounds=1, algorithm="im2col")
    assert network.optimizer is None
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rounds", [1, 3])
def test_as_many_rounds_are_timed_as_were_asked_for(rounds):
    found = nn.explain(wide(), batch_size=2, rounds=rounds).document
    assert found.rounds == found.rounds_asked == len(found.models[0].step_ms.samples) == rounds


def test_interrupted_it_keeps_whole_rounds_and_says_so():
    rounds = []

    def say(text):
        rounds.extend([text] if text.startswith("timing: round") else [])
        if len(rounds) == 4:  # after three rounds
            raise KeyboardInterrupt

    found = explain_networks([wide()], None, batch_size=2, rounds=9, say=say)
    assert found.rounds == len(found.models[0].step_ms.samples) == 3
    assert "Interrupted after 3 of 9 rounds: no intervals, which need 15. Run it again." in found.cautions


def test_what_does_not_declare_its_work_is_named_and_not_predicted():
    @nn.differentiable
    def strange(x):
        return x * 2, lambda dy: dy * 2

    class Strange(nn.layers.Layer):
        def call(self, x, training):
            return strange(x)

    model = nn.Sequential([nn.Input((4,)), Strange(), nn.Dense(3)], name="odd")
    (n,) = nn.explain(model, batch_size=2, rounds=1).document.models
    if compilation.ENABLED:
        assert n.not_predicted == ["operation 'strange'"]
    assert n.predicted_ms is None
    assert n.moved_bytes_per_step is None


def test_what_a_layer_raises_is_one_line_that_names_the_network():
    class Broken(nn.layers.Layer):
        def call(self, x, training):
            raise RuntimeError("not today")

    model = nn.Sequential([nn.Input((4,)), Broken(), nn.Dense(3)], name="odd")
    with pytest.raises(ValueError, match="MODEL odd: a step raised RuntimeError: not today"):
        nn.explain(model, rounds=1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "networks: expected at least one built Sequential"),
        ((3,), {}, r"networks\[0\]: expected a built Sequential"),
        ((nn.Sequential(),), {}, r"networks\[0\]: expected a built Sequential"),
        ((wide(), wide()), {}, "expected different names"),
        ((wide(),), {"baseline": "wild"}, "Did you mean 'wide'"),
        ((wide(),), {"rounds": 0}, "rounds"),
        ((wide(),), {"algorithm": "im2cow"}, "Did you mean 'im2col'"),
    ],
)
def test_a_wrong_request_says_what_was_expected(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        nn.explain(*arguments, **options)


def test_the_baseline_may_be_another_than_the_first():
    found = nn.explain(wide(), coloured(), baseline="coloured", algorithm="im2col", batch_size=2, rounds=1).document
    assert found.models[1].ratio is None
    assert found.models[0].ratio.value == pytest.approx(found.models[0].step_ms.median / found.models[1].step_ms.median)


# Data --------------------------------------------------------------------------------------------------------------


def test_a_network_that_fits_is_trained_on_the_data_sets_images(digits):
    name, (images, labels) = batches(nn.models.mlp(), "mnist5k", digits[0], BATCH, 0)
    assert (name, images.shape, len(labels)) == ("mnist5k", (4000, 784), 4000)


@pytest.mark.parametrize("outputs", [5, 10])
def test_other_networks_are_trained_on_a_seeded_random_batch_of_their_shape(digits, outputs):
    model = nn.Sequential([nn.Input((32, 32, 3)), nn.Flatten(), nn.Dense(outputs)])
    name, (images, labels) = batches(model, "mnist5k", digits[0], BATCH, seed=3)
    assert (name, images.shape, images.dtype) == ("random", (BATCH, 32, 32, 3), np.float32)
    assert set(labels) <= set(range(outputs))
    again = batches(model, "mnist5k", digits[0], BATCH, seed=3)[1]
    np.testing.assert_array_equal(images, again[0])


def test_a_network_with_too_few_outputs_for_the_labels_is_trained_on_random_ones(digits):
    model = nn.Sequential([nn.Input((784,)), nn.Dense(4)])
    assert batches(model, "mnist5k", digits[0], BATCH, 0)[0] == "random"


def test_a_network_that_does_not_classify_has_numbers_as_targets():
    model = nn.Sequential([nn.Input((6, 6, 2)), nn.Conv2D(3, 3)])
    _, targets = random_batch(model, BATCH, 0)
    assert (targets.shape, targets.dtype) == ((BATCH, 4, 4, 3), np.float32)
    assert loss_of(model) is nn.losses.mean_squared_error


def test_a_network_that_ends_in_logits_is_trained_on_logits(digits):
    logits = nn.Sequential([nn.Input((784,)), nn.Dense(10)])
    probabilities = nn.Sequential([nn.Input((784,)), nn.Dense(10, activation="softmax")])
    probabilities.set_weights(logits.get_weights())
    x, y = digits[0][0][:8].reshape(8, 784), digits[0][1][:8]
    losses = [loss_of(model)(y, model(x)).item() for model in (logits, probabilities)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.skipif(not compilation.ENABLED, reason="rates are measured with compiled kernels")
@pytest.mark.parametrize("algorithm", ["auto", "im2col"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "small_cnn"])
def test_the_networks_of_the_question_are_predicted_whole(name, algorithm):
    """Each of their operations declares its work, and runs on its smallest input, as a fused pair does."""
    model = getattr(nn.models, name)()
    case = Case(model, algorithm, RANDOM, *random_batch(model, 4, 0), 4)
    benchmarks = Microbenchmarks()
    found = _model(case, *_first_step(case), benchmarks)
    assert found.missing == []
    smallest = [b for b in benchmarks._found.values() if isinstance(b, Overhead)]
    assert len(smallest) > len(model.layers) / 2
    with case.at_work():
        for operation in smallest:
            operation.run()


@pytest.mark.parametrize(("reached", "said"), [(103.0, ["the CPUs shared a core"]), (200.0, [])])
def test_two_threads_that_reach_the_peak_of_one_shared_a_core(reached, said):
    machine = SimpleNamespace(threads=2, fma_gflops_one=102.0, fma_gflops_all=reached)
    cautions = _beyond_peak([], machine)
    assert len(cautions) == len(said)
    assert all(words in caution for words, caution in zip(said, cautions, strict=True))
