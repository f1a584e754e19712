"""Paired rounds: whole, in random order, with the threads that each candidate needs."""

import gc
from math import isnan

import numpy as np
import pytest

import nnlite as nn
from nnlite.performance import rounds
from nnlite.performance.rounds import Candidate, Team, run_rounds, timed
from nnlite.runtime import threads


@pytest.fixture(autouse=True)
def never_wait(monkeypatch):
    monkeypatch.setattr(rounds, "wait_until_idle", lambda: None)


def noting(order, name, **options):
    return Candidate(name, lambda: order.append(name) or 1.0, **options)


def test_rounds_are_whole_interleaved_and_in_random_order():
    order = []
    samples = run_rounds([noting(order, name) for name in "abcd"], rounds=20)
    assert order[:4] == list("abcd")  # warmed
    found = [tuple(order[4 + i * 4 : 8 + i * 4]) for i in range(20)]
    assert all(sorted(each) == list("abcd") for each in found)
    assert len(set(found)) > 10
    assert {name: len(values) for name, values in samples.items()} == dict.fromkeys("abcd", 20)


def test_the_order_follows_from_the_seed():
    orders = []
    for seed in (0, 0, 1):
        orders.append([])
        run_rounds([noting(orders[-1], name) for name in "abcdef"], rounds=4, seed=seed)
    assert orders[0] == orders[1] != orders[2]


def test_what_takes_part_in_every_fourth_round_has_no_sample_in_the_others():
    samples = run_rounds([noting([], "often"), noting([], "seldom", every=4)], rounds=9)
    assert [isnan(value) for value in samples["seldom"]] == [i % 4 != 0 for i in range(9)]
    assert samples["often"] == [1.0] * 9


def test_what_runs_before_a_sample_is_not_timed_and_each_sample_has_its_surroundings():
    seen = []

    class Around:
        def __enter__(self):
            seen.append("in")

        def __exit__(self, *error):
            seen.append("out")

    candidate = noting(seen, "a", before=lambda: seen.append("before"), around=Around)
    assert run_rounds([candidate], rounds=1, warm=False) == {"a": [1.0]}
    assert seen == ["in", "before", "a", "out"]


def test_blas_has_the_threads_while_its_candidates_run_and_only_then():
    nn.set_num_threads(threads.available_cpus())
    seen = {"blas": set(), "kernels": set(), "one": set()}

    def candidate(name, team):
        return Candidate(name, lambda: seen[name].add((threads.owner(), threads.kernel_parts())) or 1.0, team)

    run_rounds(
        [candidate("blas", Team("blas")), candidate("kernels", Team()), candidate("one", Team("kernels", 1))], rounds=3
    )
    assert seen == {"blas": {("blas", 1)}, "kernels": {("kernels", threads.available_cpus())}, "one": {("kernels", 1)}}


def test_a_round_begins_with_the_threads_that_the_last_one_ended_with():
    order = []
    teams = {"kernels": Team(), "blas": Team("blas")}
    run_rounds([noting(order, name, team=team) for name, team in teams.items()], rounds=3, warm=False)
    assert order == ["kernels", "blas", "blas", "kernels", "kernels", "blas"]


@pytest.mark.parametrize(("fewest", "done"), [(0, 0), (5, 5)])
def test_rounds_end_with_the_time_but_not_before_the_fewest(fewest, done):
    assert len(run_rounds([noting([], "a")], rounds=20, fewest=fewest, seconds=-1)["a"]) == done


def test_whoever_interrupts_has_all_whole_rounds_until_then():
    samples, order = {}, []

    def interrupted():
        if len(order) == 5:
            raise KeyboardInterrupt
        return order.append(1) or 2.0

    with pytest.raises(KeyboardInterrupt):
        run_rounds([Candidate("a", interrupted), Candidate("b", interrupted)], rounds=9, warm=False, samples=samples)
    assert samples == {"a": [2.0, 2.0], "b": [2.0, 2.0]}


def test_no_garbage_is_collected_meanwhile():
    states = []
    run_rounds([Candidate("a", lambda: states.append(gc.isenabled()) or 1.0)], rounds=3)
    assert states == [True, False, False, False]
    assert gc.isenabled()


def test_what_a_call_returns_is_read_and_dies():
    class Read(np.ndarray):
        died = 0

        def __del__(self):
            Read.died += 1

    assert timed(lambda: np.ones(4).view(Read))() > 0
    assert Read.died
