"""Probes of tasks whose answers are known."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from workhorse.advice.branching import _after_end, action_horizon, greedy_on_random, is_repeatable
from workhorse.advice.play import Guesses, Played, guess, play_randomly
from workhorse.advice.probe import MEASURES, _rewards, probe_task
from workhorse.advice.short_runs import climb, clusters
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments import registry
from workhorse.environments.batch import JaxBatch, as_batch


class EchoState(NamedTuple):
    owed: Array
    clock: Array


@dataclass(frozen=True)
class Echo:
    """Pays 0, 1 or 2 for the choice that was made `delay` steps ago; nothing else happens."""

    delay: int = 0
    length: int = 12

    @property
    def spec(self):
        return EnvSpec("Echo", Box((0.0,), (1.0,)), Discrete(3), self.length)

    def reset(self, key):
        return EchoState(jnp.zeros(self.delay + 1), jnp.zeros((), jnp.int32)), jnp.zeros(1, jnp.float32)

    def step(self, state, action, key):
        owed = jnp.append(state.owed[1:], action.astype(jnp.float64))
        clock = state.clock + 1
        obs = (clock / self.length).astype(jnp.float32)[None]
        return EchoState(owed, clock), Step(obs, owed[0], jnp.zeros((), bool), clock >= self.length, obs, {})


def test_the_reach_of_an_action_is_the_delay_of_its_reward():
    for delay in (0, 5):
        found = action_horizon(JaxBatch(Echo(delay, 100), 16), 20)
        assert (found.half, found.ninth, found.any) == (delay, delay, 1.0)
    never = action_horizon(JaxBatch(Echo(30, 100), 16), 20)
    assert (never.half, never.ninth, never.any) == (20, 20, 0.0)


def test_one_step_of_look_ahead_finds_a_reward_that_it_sees_and_no_other():
    near = greedy_on_random(JaxBatch(Echo(3, 12), 4), 8, 2, 6, 12)
    np.testing.assert_array_equal(near.returns, 2 * 9)  # what is chosen in the last three steps is never paid
    assert near.random.mean() == pytest.approx(9, abs=5)
    far = greedy_on_random(JaxBatch(Echo(3, 12), 4), 8, 2, 3, 12)
    np.testing.assert_array_equal(far.returns, 0)  # nothing differs within three steps: the first choice is taken


def test_what_comes_after_an_end_is_told_from_the_end_itself():
    ended = np.array([[False, True, False, True], [False, False, False, False], [True, False, False, False]])
    assert _after_end(ended).tolist() == [[False, False, True, True], [False] * 4, [False, True, True, True]]


class Leaky(JaxBatch):
    """Draws noise from a generator of its own, outside any seed."""

    generator = np.random.default_rng(0)

    def rollout(self, states, plans, keys=None, *, observed=False):
        tried = super().rollout(states, plans, keys, observed=observed)
        return tried._replace(reward=tried.reward + 1e-9 * self.generator.standard_normal(tried.reward.shape))


def test_randomness_outside_the_seed_is_found():
    assert is_repeatable(JaxBatch(Echo(), 4))
    assert not is_repeatable(Leaky(Echo(), 4))
    env = registry.make("Hopper-v5", 4, 1)
    assert is_repeatable(env)
    env.close()


def test_random_play_ends_where_the_task_does():
    played = play_randomly(as_batch(registry.make("CartPole-v1"), 8), 500)
    assert np.isnan(played.reward[~played.alive]).all() and (played.returns == played.lengths).all()
    assert (played.terminated.sum(0) == 1).all()
    last = played.lengths - 1
    assert played.terminated[last, np.arange(8)].all()
    following = played.next_obs[:-1][played.alive[1:]]
    np.testing.assert_array_equal(following, played.obs[1:][played.alive[1:]])


def test_luck_is_told_from_policies():
    policies = np.arange(50.0)[:, None]
    assert Guesses(np.repeat(policies, 4, axis=1), 0).share_of_variance == 1.0
    noise = np.random.default_rng(0).standard_normal((400, 4))
    assert Guesses(noise, 0).share_of_variance < 0.1
    both = np.random.default_rng(1).standard_normal((400, 1)) + noise
    assert 0.4 < Guesses(both, 0).share_of_variance < 0.6


def test_guesses_hold_a_pole_as_often_as_published():
    """1.95 % of N(0, 1) linear policies hold it for 475 steps in the mean: here those without a constant."""
    found = guess(as_batch(registry.make("CartPole-v1"), 12_000), 12, 500)
    share = (found.means[::2] >= 475).mean()
    assert 0.008 < share < 0.045 and found.steps == found.returns.sum()


def test_climbers_are_judged_on_other_episodes_and_grouped():
    found = climb(JaxBatch(Echo(0, 12), 16), 10, 12)
    assert found.returns.shape == (8,) and set(found.returns) <= {
        0.0,
        11.0,
        22.0,
    }  # of an observation that is 0 at first
    assert found.groups == len(set(found.returns)) and found.steps == 16 * 12 * 11
    assert found.share_of_best == (found.returns == found.returns.max()).mean()
    assert clusters(np.array([1.0, 1.0])).tolist() == [0, 0]


def played_with(reward):
    alive = ~np.isnan(reward)
    nothing = np.zeros((*reward.shape, 1))
    return Played(nothing, nothing, reward, nothing, alive, np.zeros_like(alive))


def test_when_the_first_reward_comes():
    reward = np.zeros((10, 4))
    reward[3, 0] = reward[4, 0] = 1.0
    reward[9, 1] = 1.0
    found = _rewards(played_with(reward))
    assert found["reward_density"] == 3 / 40 and found["reward_seen"] == 0.5
    assert found["first_reward_steps"] == (4 + 10 + 10 + 10) / 2
    never = _rewards(played_with(np.zeros((10, 4))))
    assert never["first_reward_steps"] == np.inf and never["reward_seen"] == 0
    assert never["first_reward_low"] == pytest.approx(40 / 3.689, rel=1e-3)  # the exact bound of no event in 40 steps


def test_the_interval_of_the_first_reward_covers():
    generator, inside = np.random.default_rng(0), 0
    for _ in range(200):
        found = _rewards(played_with((generator.random((200, 8)) < 0.02).astype(float)))
        inside += found["first_reward_low"] <= 50 <= found["first_reward_high"]
    assert inside >= 180


def test_a_card_says_what_was_left_out_and_why():
    card = probe_task("FrozenLake-v1", {"is_slippery": False}, budget_s=1e-9, threads=1)
    assert set(card.skipped) >= {"guessing", "policy gradients"} and "no time left" in card.skipped["guessing"]
    card = probe_task("CartPole-v1", {}, budget_s=1e-9, simulator_available=False, threads=1)
    assert "no simulator" in card.skipped["look-ahead"] and set(card.numbers) <= set(MEASURES)
    with pytest.raises(UsageError, match=r"must be a positive number of seconds: got 0"):
        probe_task("CartPole-v1", {}, budget_s=0)
