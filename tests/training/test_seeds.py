"""Seeds that share a process: what they learn is what each learns alone, and none waits for one that is gone."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from workhorse.core.digest import digest
from workhorse.runs import train
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics
from workhorse.training.evolve import Evolve
from workhorse.training.plan import Plan, local_workforce
from workhorse.training.seeds import SeedsGather, measure, together

pytestmark = pytest.mark.usefixtures("compiled_once")

SEEDS = (3, 5, 8, 13)
TINY = {"openai-es": {"num_pairs": 4}, "ars": {"num_directions": 4, "num_top_directions": 2}}
STEPS = {"max_episode_steps": 20}
PATIENCE_S = 90.0
TOLERANCE = 1e-4
"""Of vectorised runs on Pendulum-v1 after ten short iterations; measured: see `SeedsGather`."""


def plan(task="CartPole-v1", algorithm="openai-es", seed=0, **settings):
    return Plan(task, STEPS, algorithm, TINY[algorithm] | settings, seed)


def in_time(function, *given):
    """What the function returns; a test that hangs fails instead."""
    outcome = []

    def run():
        try:
            outcome.append((function(*given), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert outcome, f"still waiting after {PATIENCE_S} s"
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def learners(own, learning, workforce, iterations):
    """The learner after each iteration, and the returns of an evaluation at the end."""
    loop, found = Evolve(learning, workforce), []
    try:
        progress = loop.start()
        for _ in range(iterations):
            progress, _, _ = loop.iterate(progress)
            found.append(progress.learner)
        return found, loop.evaluate(progress, 5).returns
    finally:
        workforce.close()


def grouped(common, iterations=lambda seed: 10, vectorised=True, group=None):
    group = group or SeedsGather(common, SEEDS, vectorised=vectorised)

    def one(seed, recruit):
        own = replace(common, seed=seed)
        learning = own.learning(group.algorithm.spec)
        return learners(own, learning, recruit(own, learning), iterations(seed))

    return in_time(together, group, one)


def alone(common, seed, iterations=10):
    own = replace(common, seed=seed)
    learning = own.learning(own.spec())
    return learners(own, learning, local_workforce(own, learning, 1), iterations)


def digests(found):
    return [digest(learner) for learner in found[0]]


@pytest.mark.parametrize("algorithm", list(TINY))
@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_seeds_together_learn_what_each_learns_alone(task, algorithm):
    common = plan(task, algorithm)
    shared, vectorised = grouped(common, vectorised=False), grouped(common)
    assert len({digests(found)[-1] for found in shared.values()}) == len(SEEDS), "different seeds must differ"
    for seed in SEEDS[:2]:
        expected = alone(common, seed)
        assert digests(shared[seed]) == digests(expected)
        np.testing.assert_array_equal(shared[seed][1], expected[1])
    for seed in SEEDS:
        (given, scores), (wanted, expected_scores) = vectorised[seed], shared[seed]
        if task == "CartPole-v1":
            assert digests(vectorised[seed]) == digests(shared[seed])
        for one, other in zip(given, wanted, strict=True):
            np.testing.assert_allclose(one.params, other.params, rtol=TOLERANCE, atol=TOLERANCE)
            np.testing.assert_array_equal(one.observations.count, other.observations.count)
            np.testing.assert_allclose(one.observations.mean, other.observations.mean, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(scores, expected_scores, rtol=TOLERANCE)


def test_who_takes_part_changes_no_bit_of_the_others_and_compiles_nothing():
    common = plan("Pendulum-v1")
    group = SeedsGather(common, SEEDS)
    straight = grouped(common, group=group)
    programs = group._rendezvous.run.programs.values()
    assert [program._cache_size() for program in programs] == [1, 1]
    some = grouped(common, lambda seed: 3 if seed == 5 else 7 if seed == 13 else 10, group=group)
    assert [program._cache_size() for program in programs] == [1, 1]
    for seed, iterations in zip(SEEDS, (10, 3, 10, 7), strict=True):
        assert digests(some[seed]) == digests(straight[seed])[:iterations]


def test_a_run_that_raises_leaves_the_others_alone():
    common = plan()

    def iterations(seed):
        if seed == 5:
            raise ZeroDivisionError("planted")
        return 4

    found = grouped(common, iterations)
    assert isinstance(found[5], ZeroDivisionError)
    for seed in (3, 8, 13):
        assert digests(found[seed]) == digests(alone(common, seed, 4))


@pytest.mark.parametrize("vectorised", [True, False])
def test_a_program_that_fails_is_everyones_failure_in_that_round(vectorised, monkeypatch):
    group = SeedsGather(plan(), SEEDS, vectorised=vectorised)

    def broken(*given):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(group._rendezvous, "run", broken)
    monkeypatch.setattr(group._alone, "_run", {True: broken, False: broken})
    found = grouped(plan(), group=group)
    assert all(isinstance(outcome, ZeroDivisionError) for outcome in found.values())


QUICK = train.Schedule(evaluate_every=0, final_episodes=4, checkpoint_every_s=1000)


def started(root, seed, recruit=None, observer=None):
    return train.start(
        task="CartPole-v1",
        task_options=STEPS,
        algorithm="openai-es",
        settings=TINY["openai-es"],
        env_steps=1500,
        seed=seed,
        threads=1,
        schedule=QUICK,
        root=root,
        id=str(seed),
        recruit=recruit,
        observer=observer,
    )


class StopsAll(train.Observer):
    def __init__(self, group, after):
        self._group, self._after = group, after

    def iterated(self, row):
        if row["iteration"] == self._after:
            self._group.stop.set()


@pytest.mark.parametrize("vectorised", [True, False])
def test_runs_that_were_stopped_go_on_to_the_bits_of_runs_that_were_not(tmp_path, vectorised):
    common, seeds = plan(), SEEDS[:2]
    straight = {seed: started(tmp_path / "straight", seed) for seed in seeds}
    group = SeedsGather(common, seeds, vectorised=vectorised)
    observer = StopsAll(group, 3)
    found = in_time(together, group, lambda seed, recruit: started(tmp_path / "stopped", seed, recruit, observer))
    stopped = {seed for seed, outcome in found.items() if isinstance(outcome, KeyboardInterrupt)}
    assert stopped and (stopped == set(seeds) or not vectorised), "only runs that share a chunk keep step"
    for seed in seeds:
        status = status_of(tmp_path / "stopped" / str(seed))
        assert status.state == ("stopped" if seed in stopped else "finished")
        assert not vectorised or status.iteration in (2, 3, 4)
    train.resume(tmp_path / "stopped" / str(seeds[0]), threads=1)
    again = SeedsGather(common, seeds, vectorised=vectorised)
    found = in_time(
        together,
        again,
        lambda seed, recruit: train.resume(tmp_path / "stopped" / str(seed), recruit=recruit),
    )
    for seed in seeds:
        folder, summary = found[seed]
        expected, uninterrupted = straight[seed]
        assert read_metrics(folder)["digest"].to_list() == read_metrics(expected)["digest"].to_list()
        assert summary.episode_returns == uninterrupted.episode_returns
        assert folder.status().state == "finished"


def status_of(path):
    status = RunFolder.open(path).status()
    assert status is not None
    return status


def test_a_run_is_charged_its_share_of_the_process(tmp_path):
    group = SeedsGather(plan(), SEEDS)
    begun, computed = time.monotonic(), time.process_time()
    found = in_time(together, group, lambda seed, recruit: started(tmp_path, seed, recruit))
    held = max(time.monotonic() - begun, time.process_time() - computed)
    charged = [3600 * summary.core_hours for _, summary in found.values()]
    assert all(share > 0 for share in charged)
    assert 0.5 * held < sum(charged) < 1.3 * held


def test_what_cannot_share_a_program_is_refused():
    with pytest.raises(ValueError, match="Hopper-v5 is stepped on the host"):
        SeedsGather(Plan("Hopper-v5", {}, "openai-es", {}, 0), SEEDS)
    with pytest.raises(ValueError, match="distinct"):
        SeedsGather(plan(), (1, 1))
    group = SeedsGather(plan(), SEEDS)
    with pytest.raises(ValueError, match="Seed 4 is not of this group"), group.member(4):
        pass
    others = {
        "task 'CartPole-v1': got 'Pendulum-v1'": plan("Pendulum-v1", seed=3),
        "task options": Plan("CartPole-v1", {}, "openai-es", TINY["openai-es"], 3),
        "slots": Plan("CartPole-v1", STEPS, "openai-es", TINY["openai-es"], 3, slots=7),
        "seed 3: got 5": plan(seed=5),
        "algorithm and settings": plan(seed=3, learning_rate=0.5),
    }
    for sentence, other in others.items():
        with group.member(3) as recruit, pytest.raises(ValueError, match=sentence):
            recruit(other, other.learning(other.spec()))


@pytest.mark.parametrize("vectorised", [True, False])
def test_an_interrupt_of_the_main_thread_stops_every_run(vectorised, monkeypatch):
    group = SeedsGather(plan(), SEEDS, vectorised=vectorised)
    waited, join = [], threading.Thread.join

    def interrupted(thread, timeout=None):
        if thread.name.startswith("seed-") and not waited:
            waited.append(thread)
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grouped(plan(), lambda seed: 10**9, group=group)
    assert group.stop.is_set() and not [t for t in threading.enumerate() if t.name.startswith("seed-")]


def test_measuring_says_how_long_each_way_takes():
    measured = in_time(measure, plan(), 2, 2)
    assert measured.num_seeds == 2
    assert min(measured.vectorised_s, measured.shared_s, measured.alone_s) > 0
