"""Values of actions against exact re-rolls, on tasks whose values are known."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.algorithm import OffPolicy
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.diagnostics.action_values import StatesPlan, _Reroll, measure_action_values, plan_within
from workhorse.diagnostics.store import plain_json
from workhorse.environments import registry as environments
from workhorse.environments.batch import JaxBatch, episode_keys
from workhorse.environments.probes import SlotIdentityProbe, TabularProbe, TerminationProbe, TimeLimitProbe


@configuration
class TableOfValues(OffPolicy):
    """Knows a table of values, and acts by another; the state holds both. The place is read off the observation."""

    name = "table-of-values"
    summary = "for tests"

    num_envs: int = 1
    rollout_steps: int = 1
    learn_every: int = 1
    replay_ratio: float = 1.0
    batch_size: int = 1
    warmup_env_steps: int = 1
    replay_capacity: int = 10
    n_steps: int = 1
    discount: float = 0.5

    def init(self, key):
        raise NotImplementedError

    def actor(self, state):
        return state

    def place(self, obs):
        return jnp.argmax(obs) if obs.size > 1 else jnp.round(obs[0] * 6).astype(jnp.int32)

    def act(self, actor, carry, obs, key, *, explore):
        scores = actor["scores"][self.place(obs)]
        return (jax.random.categorical(key, scores) if explore else jnp.argmax(scores)), carry, ()

    def action_value(self, state, obs, action):
        return state["value"][self.place(obs), action].astype(jnp.float32)

    def learn(self, state, experience, key):
        raise NotImplementedError

    def policy_layers(self, actor):
        raise NotImplementedError

    def validate(self):
        pass


@configuration
class SoftTable(TableOfValues):
    """Earns alpha times its entropy as well."""

    def entropy_bonus(self, state, obs, key):
        log_prob = jax.nn.log_softmax(state["scores"][self.place(obs)])
        return -(state["alpha"] * jnp.exp(log_prob) * log_prob).sum()


FEW = StatesPlan(states=14, visited=6, horizon=60, returns=3)


def measured(env, values, scores=None, numbers=FEW, kind=TableOfValues, **more):
    algorithm = kind(spec=env.spec, discount=more.pop("discount", 0.5))
    state = {
        "value": jnp.asarray(values),
        "scores": jnp.asarray(np.zeros(np.shape(values)) if scores is None else scores),
    }
    state |= {name: jnp.asarray(value) for name, value in more.items()}
    return measure_action_values(JaxBatch(env, numbers.states), algorithm, state, 5, 0, numbers)


class CountdownState(NamedTuple):
    """Steps that are left, and the clock, of which the task does not know."""

    left: Any
    clock: Any


@dataclass(frozen=True)
class Countdown:
    """Pays 1 a step and terminates after six; a clock of eight never fires. `value` as of `TerminationProbe`."""

    @property
    def spec(self):
        return EnvSpec("Countdown", Box((0.0,), (1.0,)), Discrete(2), 8)

    def value(self, discount, steps_taken=0):
        return TerminationProbe(6).value(discount, steps_taken)

    def reset(self, key):
        return CountdownState(jnp.int32(6), jnp.int32(0)), jnp.zeros(1, jnp.float32)

    def step(self, state, action, key):
        left, clock = state.left - 1, state.clock + 1
        obs = ((6 - left) / 6).astype(jnp.float32)[None]
        return CountdownState(left, clock), Step(obs, jnp.ones(()), left == 0, clock >= 8, obs, {})


@pytest.mark.parametrize("probe", [TimeLimitProbe, Countdown])
@pytest.mark.parametrize("planted", [0.0, 0.75, -0.25])
def test_what_is_planted_everywhere_is_found_to_the_bit(probe, planted):
    """The clock of six steps must not cut what follows, or the planted value would stand for it."""
    env = probe(6) if probe is TimeLimitProbe else probe()
    exact = [env.value(0.5) if probe is TimeLimitProbe else env.value(0.5, t) for t in range(7)]
    found = measured(env, np.tile(np.array(exact)[:, None] + planted, (1, 2)))
    assert found.over_estimate == pytest.approx(planted, abs=1e-6)
    assert found.over_estimate_error == pytest.approx(0.0, abs=1e-6)
    assert found.truth_mean == pytest.approx(np.mean([exact[t] for t in found.step]), abs=1e-6)
    assert sorted(set(found.step)) == list(range(6)), "states are of all ages"
    assert found.returns == 2, "nothing is random: two equal returns are enough"
    assert found.share_too_high == (planted > 0) or planted == 0
    if probe is Countdown:
        spread = np.std([exact[t] for t in found.step], ddof=1)
        assert found.share_of_spread == pytest.approx(planted / spread, abs=1e-5)
        assert found.truth_explained == pytest.approx(1 - (planted / spread) ** 2, abs=1e-5)
    else:
        assert np.isnan(found.share_of_spread) and np.isnan(found.truth_explained)
        assert plain_json(found)["share_of_spread"] is None


def test_the_worst_states_are_named_with_their_step():
    env = Countdown()
    exact = np.array([env.value(0.5, t) for t in range(7)])
    exact[4] += 3.0
    found = measured(env, np.tile(exact[:, None], (1, 2)), numbers=StatesPlan(12, 6, 60, 3))
    assert [one["step"] for one in found.worst[:2]] == [4, 4] and found.worst[2]["step"] != 4
    assert found.worst[0]["value"] - found.worst[0]["truth"] == pytest.approx(3.0, abs=1e-6)
    assert found.worst[0]["observation"] == pytest.approx([4 / 6])
    assert found.over_estimate == pytest.approx(3.0 * 2 / 12, abs=1e-6)
    assert found.share_too_high == pytest.approx(2 / 12)


def test_returns_go_on_from_the_very_state_of_their_slot():
    """Every slot pays its own number for ever: a state that came back in another slot would pay another's."""
    env = SlotIdentityProbe(6)
    algorithm = TableOfValues(spec=env.spec)
    state = {"value": jnp.zeros((7, 2)), "scores": jnp.zeros((7, 2))}
    play = _Reroll(JaxBatch(env, 14), algorithm, state, 3)
    stand = play.visited(12, lambda env_steps: None)  # beyond the first episodes
    first, _, _ = play.chosen(stand.obs, 0, 0)
    found = play.returned(stand, first, 0, 60, lambda env_steps: None)
    np.testing.assert_allclose(found, 2.0 * stand.obs[:, 0], rtol=1e-6)
    assert len(set(stand.obs[:, 0].tolist())) == 14
    assert play.steps == 14 * 12 + 14 * 60


GREEDY = 1e3 * np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])


@pytest.mark.slow
@pytest.mark.parametrize("planted", [0.0, 0.5])
def test_a_task_that_draws_is_averaged_over(planted):
    env, discount = TabularProbe(), 0.8
    values = np.array(env.rewards) + discount * np.array(env.transitions) @ env.values(GREEDY, discount)
    numbers = StatesPlan(60, 8, 60, 100)
    found = measured(env, values + planted, GREEDY, numbers, discount=discount)
    assert found.returns == 100 and found.return_spread > 0.5
    assert found.over_estimate == pytest.approx(planted, abs=4 * found.return_spread / np.sqrt(60 * 100))
    squared = (1 - found.truth_explained) * found.truth_spread**2
    assert squared == pytest.approx(planted**2, abs=0.1)


@pytest.mark.slow
def test_a_soft_value_is_compared_with_the_return_that_holds_its_entropy():
    """V = sum_a pi (r + gamma P V) + alpha H, Q = r + gamma P V: the entropy of the given action does not count."""
    env, discount, alpha = TabularProbe(), 0.8, 0.7
    scores = np.array([[0.3, -0.4], [0.0, 1.0], [0.5, 0.5]])
    policy = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    entropy = -(policy * np.log(policy)).sum(1)
    followed = np.einsum("sa,san->sn", policy, np.array(env.transitions))
    paid = (policy * np.array(env.rewards)).sum(1) + alpha * entropy
    soft = np.linalg.solve(np.eye(3) - discount * followed, paid)
    values = np.array(env.rewards) + discount * np.array(env.transitions) @ soft
    numbers = StatesPlan(60, 8, 60, 100)
    found = measured(env, values, scores, numbers, SoftTable, discount=discount, alpha=alpha)
    error = found.return_spread / np.sqrt(60 * 100)
    assert found.soft == 1
    assert found.over_estimate == pytest.approx(0.0, abs=4 * error)
    assert alpha * entropy.min() * discount > 8 * error, "to leave it out would be seen"


def test_a_simulator_is_put_back_to_the_bit():
    """A pendulum that nobody holds falls after a number of steps that its start alone decides."""
    count, discount = 4, 0.9
    env = environments.make("InvertedPendulum-v5", count, 1)
    try:

        def act(self, actor, carry, obs, key, *, explore):
            return jnp.zeros(1, jnp.float32), carry, ()

        kind = configuration(
            type(
                "Idle",
                (TableOfValues,),
                {"act": act, "action_value": lambda self, state, obs, action: jnp.float32(0.0)},
            )
        )
        algorithm = kind(spec=env.spec, discount=discount)
        play = _Reroll(env, algorithm, {}, 7)
        stand = play.visited(8, lambda env_steps: None)
        first, _, _ = play.chosen(stand.obs, 0, 0)
        found = play.returned(stand, first, 0, 400, lambda env_steps: None)
        again = play.returned(stand, first, 1, 400, lambda env_steps: None)
        np.testing.assert_array_equal(found, again)
        env.reset(episode_keys(env, 7, "reset", 0, 0, np.arange(count)))
        fallen, running = np.zeros(count, np.int64), np.ones(count, bool)
        while running.any():
            rows = np.flatnonzero(running)
            step = env.step(np.zeros((len(rows), 1), np.float32), rows)
            fallen[rows] += 1
            running[rows[step.terminated]] = False
        assert stand.step.tolist() == [0, 2, 4, 6] and fallen.min() > 6
        left = fallen - stand.step - 1  # the step in which it falls pays nothing
        np.testing.assert_allclose(found, (1 - discount**left) / (1 - discount), rtol=1e-12)
    finally:
        env.close()


def test_too_few_steps_are_refused_with_the_number_that_is_enough():
    with pytest.raises(UsageError, match=r"--budget must be at least 47,232 steps .* got 47,231"):
        plan_within(47_231, 0.99, 200)
    assert plan_within(47_232, 0.99, 200) == StatesPlan(16, 200, 688, 4)
