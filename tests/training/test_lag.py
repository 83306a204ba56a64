"""A lag of one population on one machine: what is learnt from when, and who goes on with what."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.digest import digest
from workhorse.environments import registry as environments
from workhorse.training.episodes import Episodes, make_player
from workhorse.training.evolve import Evolve
from workhorse.training.lanes import Lanes, LaneWork, lane_threads
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms
from workhorse.training.workforce import Local

CART_POLE = Plan("CartPole-v1", {"max_episode_steps": 30}, "openai-es", {"num_pairs": 6, "lag": 1}, 3, 3)


def loop_of(plan, num_lanes, wrap=lambda player, number: player):
    algorithm = plan.make_algorithm(plan.spec())
    env = environments.make(plan.task, plan.slots, **plan.task_options)
    players = [wrap(make_player(algorithm, env, plan.slots, plan.seed), number) for number in range(num_lanes)]
    programs = PopulationPrograms(algorithm, plan.seed)
    return Evolve(programs, Local(programs, Lanes(players), num_lanes))


def states_of(loop, iterations, goes_on=lambda env_steps: True, progress=None):
    progress, found = loop.start() if progress is None else progress, []
    for _ in range(iterations):
        progress, _, _ = loop.iterate(progress, goes_on)
        found.append(progress)
    return found


def test_a_population_acts_with_parameters_that_know_nothing_of_the_one_before():
    """The first iteration learns nothing, and the second what the first would have learnt without a lag."""
    settings = {"num_directions": 4, "num_top_directions": 2}
    plans = [Plan("CartPole-v1", {}, "ars", settings | {"lag": lag}, 0, 4) for lag in (0, 1)]
    prompt, late = (loop_of(plan, 1) for plan in plans)
    (first,) = states_of(prompt, 1)
    once, twice = states_of(late, 2)
    np.testing.assert_array_equal(once.state.params, late.start().state.params)
    np.testing.assert_array_equal(twice.state.params, first.state.params)
    np.testing.assert_array_equal(twice.state.observations.mean, first.state.observations.mean)
    assert jnp.abs(first.state.params).max() > 0
    prompt.close()
    late.close()


def test_lanes_and_interruptions_change_no_bit():
    """One lane has nothing begun ahead, two have; a run that goes on from a saved state begins it again."""
    one, two = loop_of(CART_POLE, 1), loop_of(CART_POLE, 2)
    alone = [digest(progress.state) for progress in states_of(one, 4)]
    found = states_of(two, 4)
    assert [digest(progress.state) for progress in found] == alone
    assert two.evaluate(found[1], 5).returns.tolist() == one.evaluate(found[1], 5).returns.tolist()
    again = states_of(two, 2, progress=found[1])
    assert [digest(progress.state) for progress in again] == alone[2:]
    one.close()
    two.close()


class Held:
    """A player that tells what it plays, and holds the first chunk back until it is told to go on."""

    def __init__(self, player, played, has_begun, release):
        self._player, self._played, self._has_begun, self._release = player, played, has_begun, release
        self.num_slots = player.num_slots

    def play(self, actor, works, stop=None):
        for number, work in works:
            first = not self._played
            self._played.append((work.iteration, self._release.is_set()))
            self._has_begun(work.iteration)
            if first:
                assert self._release.wait(60)
            yield from self._player.play(actor, [(number, work)], stop)

    def close(self):
        pass


@pytest.mark.parametrize("ends", [False, True])
def test_a_free_lane_goes_on_with_the_next_population_unless_the_run_ends(ends):
    played, release = [], threading.Event()

    def has_begun(iteration):
        if iteration == 1 or (ends and len(played) == 4):  # all chunks of the first population are begun
            threading.Timer(0.2, release.set).start()

    loop = loop_of(CART_POLE, 2, lambda player, number: Held(player, played, has_begun, release))
    progress = loop.start()
    for _ in range(2):
        progress, _, _ = loop.iterate(progress, lambda env_steps: not ends)
    loop.close()
    ahead = [iteration for iteration, released in played if not released]
    assert set(ahead) == ({0} if ends else {0, 1})
    assert [iteration for iteration, _ in played].count(0) == [iteration for iteration, _ in played].count(1) == 4


class Counting:
    """A player whose chunks are the numbers it was given."""

    num_slots = 1

    def __init__(self, order, gate=None):
        self._order, self._gate = order, gate

    def play(self, actor, works, stop=None):
        for number, work in works:
            self._order.append(work)
            if self._gate is not None:
                self._gate.wait(60)
            length = np.ones(1, np.int32)
            yield number, Episodes(np.full(1, float(work)), length, None, ())  # type: ignore[arg-type]

    def close(self):
        pass


def test_lanes_take_batches_in_turn_and_what_is_put_ahead_before_them():
    order, gate, allowed = [], threading.Event(), threading.Event()
    lanes = Lanes([Counting(order, gate)])
    first = lanes.give(LaneWork(None, [0, 1]))
    while not order:  # the lane has its first chunk
        pass
    after = lanes.give(LaneWork(None, [2, 3], allowed.is_set))
    now = lanes.give(LaneWork(None, [4]), ahead=True)
    gate.set()
    assert [found.returns[0] for found in [*now.results(), *first.results()]] == [4, 0, 1]
    assert order == [0, 4, 1] and first.steps == 2 and not any(future.done() for future in after.futures)
    allowed.set()
    lanes.look_again()
    assert [found.returns[0] for found in after.results()] == [2, 3]
    lanes.close()


def test_lanes_that_are_closed_give_up_what_has_not_begun():
    order = []
    lanes = Lanes([Counting(order)])
    waiting = lanes.give(LaneWork(None, [0, 1], lambda: False))
    lanes.close()
    assert order == [] and all(future.exception() for future in waiting.futures)


def test_lanes_share_the_threads():
    for threads in range(1, 40):
        for chunks in (1, 2, 3, 100):
            shares = lane_threads(threads, chunks)
            assert sum(shares) == threads and max(shares) - min(shares) <= 1 and len(shares) <= chunks
