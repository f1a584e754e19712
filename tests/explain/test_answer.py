"""The sentences of the answer, on documents whose numbers are known."""

import re

import numpy as np
import pytest
from documents import all_samples, document, few_rounds, no_machine, odd_names, question, single

import nnlite as nn
from nnlite.explain import answer, case_study, screen
from nnlite.explain.document import Samples, WorkItem
from nnlite.lab.numbers import short
from nnlite.performance.statistics import Ratio


@pytest.mark.parametrize("name", all_samples())
def test_the_first_screen_has_no_more_than_40_lines_of_80_columns(name):
    from io import StringIO

    from rich.console import Console

    out = Console(file=StringIO(), width=100, markup=False, emoji=False, highlight=False)
    screen.show(all_samples()[name], out)
    lines = out.file.getvalue().splitlines()
    assert len(lines) <= screen.HEIGHT
    assert max(len(line.rstrip()) for line in lines) <= screen.WIDTH


@pytest.mark.parametrize("name", all_samples())
def test_the_answer_is_three_to_five_plain_sentences(name):
    said = answer.sentences(all_samples()[name])
    assert 2 <= len(said) <= 6
    for sentence in said:
        assert re.fullmatch(r"[0-9A-Za-z<\"x].*\.", sentence)
        assert "None" not in sentence


def test_the_answer_is_made_from_this_runs_numbers():
    d = question()
    cnn = d.find("cnn", "auto")
    said = " ".join(answer.sentences(d))
    then = d.find("cnn", "theano2017")
    assert f"(theano2017: {then.ratio.value:.3g}" in said
    assert "98 times per image on average (mlp: once). That makes 16.3 times the MACs" in said
    assert "forward and 20.3 times in training. It took 21.2 times as long in 2017" in said
    faster = np.median(np.divide(then.step_ms.samples, cnn.step_ms.samples))
    assert f"cnn {short(faster)} times." in said


def test_what_avoids_the_time_of_2017_names_the_threads_that_differ():
    (said,) = [s for s in answer.sentences(question()) if "avoidable" in s]
    assert "auto copies no patches, fuses layers and uses 2 threads. " in said


def test_fewer_multiplications_are_said_of_winograd():
    d = question()
    d.models[1].convolutions[1].algorithm = "winograd"
    (said,) = [s for s in answer.sentences(d) if "avoidable" in s]
    assert "; in cnn, Winograd needs a quarter of conv2d_1's multiplications. " in said


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (Ratio(2.0, 1.5, 2.5), "takes 2.00 times the time of mlp. It has 1.79 times the parameters"),
        (Ratio(0.5, 0.4, 0.6), "takes 1/2 of the time of mlp. It has"),
        (Ratio(1.1, 0.9, 1.3), "takes about the time of mlp. It has"),
    ],
)
def test_a_ratio_is_claimed_only_if_its_interval_leaves_out_1(interval, said):
    d = document([nn.models.mlp(), nn.models.mnist_cnn()], algorithms=("auto",))
    d.find("mnist_cnn", "auto").ratio = interval
    assert said in answer.sentences(d)[0]


def test_with_too_few_rounds_no_ratio_of_times_is_claimed():
    said = " ".join(answer.sentences(few_rounds()))
    assert "takes" not in said
    assert "16.3 times the MACs forward and 20.3 times in training" in said


def test_the_question_is_the_networks_own_unless_they_are_those_of_2017():
    assert answer.question(question()) == case_study.QUESTION
    assert answer.question(single()) == "Where does the time of cnn go, and what would make it faster?"
    two = document([nn.models.mlp(), nn.models.mnist_cnn()], algorithms=("auto",))
    assert answer.question(two) == "How long does mnist_cnn take compared with mlp, and why?"


def test_what_is_said_about_2017_is_said_only_of_its_networks():
    assert list(case_study.sections(question())) == [
        "A reconstruction of the 2017 Theano run", "The accepted answer",
    ]  # fmt: skip
    assert case_study.sections(odd_names()) == {}
    said = " ".join(answer.sentences(odd_names()))
    assert not re.search(r"2017|Theano|MNIST", said)


def test_the_case_study_counts_what_the_accepted_answer_miscounts():
    said = " ".join(case_study.sections(question())["The accepted answer"])
    assert "194,688 MACs per image, not 584,064" in said
    assert "16.3 times in the forward pass, 20.3 times in training" in said
    assert "0.20 times the time of mlp; 1.75 times was reported" in said


def test_one_network_is_told_where_its_time_goes_and_what_would_make_it_faster():
    d = single()
    top = max(d.models[0].layers, key=lambda row: row.ms)
    said = answer.sentences(d)
    assert f"{100 * top.ms / d.models[0].step_ms.median:.0f}% of the step" in said[0]
    assert any("To reduce it, use" in sentence for sentence in said)


def test_without_the_compiler_nothing_is_said_of_bounds():
    said = " ".join(answer.sentences(no_machine()))
    assert "limited by" not in said


def test_no_limit_is_named_of_a_pass_of_which_less_than_half_is_predicted():
    d = single()
    top = max(d.models[0].layers, key=lambda row: row.ms)
    assert "limited by" in answer.sentences(d)[0]
    top.predicted_ms = 0.49 * top.ms
    assert "limited by" not in answer.sentences(d)[0]


def test_no_change_is_advised_if_the_step_is_not_predicted():
    d = single()
    d.models[0].predicted_ms = None
    assert "To reduce it" not in " ".join(answer.sentences(d))


def test_why_im2col_takes_longer_than_the_reconstruction_is_in_the_rates_of_its_copies():
    d = question()
    ours, then = d.find("small_cnn", "im2col"), d.find("small_cnn", "theano2017")
    for n, size, rate in ((ours, [24, 4, 4, 36, 0], 3.2e9), (then, [24, 1, 1, 1, 0], 13e9)):
        n.layers[0].work = [WorkItem("patches", "assign", size, 1, 0, 0, 1, rate, 1)]
    ours.step_ms, then.step_ms = Samples.of([2.0]), Samples.of([1.0])
    said = case_study.sections(d)["A reconstruction of the 2017 Theano run"][-1]
    assert "4 channels at a time, at 3.20 GB/s. theano2017 copies rows of 24 pixels, at 13.0 GB/s." in said
    then.step_ms = Samples.of([3.0])
    assert "channels at a time" not in " ".join(case_study.sections(d)["A reconstruction of the 2017 Theano run"])


def test_random_images_are_said_unless_they_were_asked_for():
    d = question()
    d.models[1].data = "random"
    assert answer.sentences(d)[-1] == "cnn was timed on random images: the images or labels of mnist5k do not fit."
    d.data = "random"
    assert "random" not in answer.sentences(d)[-1]


def test_the_largest_difference_is_found_in_its_layer():
    d = question()
    cnn, mlp = d.find("cnn", "auto"), d.find("mlp", "auto")
    row = next(row for row in cnn.layers if row.part == "gradients")
    row.ms += 1000
    cnn.step_ms = Samples.of([ms + 1000 for ms in cnn.step_ms.samples])
    (said,) = [s for s in answer.sentences(d) if "longer than" in s]
    assert f"cnn takes {cnn.step_ms.median - mlp.step_ms.median:,.0f} ms longer than mlp, all in" in said
    assert "in the fused layers conv2d to dropout (both gradients)" in said
