"""Measures of a run from a log, against plain loops over the log and an algorithm whose values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.algorithms.actor_critic.ddpg import DDPG
from workhorse.algorithms.value_based.dqn import DQN
from workhorse.core.configuration import configuration
from workhorse.core.randomness import root_key
from workhorse.core.spec import Box, Discrete
from workhorse.data.dataset import Dataset
from workhorse.training.log_measures import MOST_TAIL, PLACES, action_distance, log_measures, probe_of

GAMMA = 0.9


@configuration
class Known(DDPG):
    """Q(s, a) = `slope` a + s_0, the policy always does `choice`, and the error of a row is its observation."""

    slope: float = 10.0
    choice: float = 0.5

    def action_value(self, state, obs, action):
        return (jnp.asarray(self.slope) * action[0] + obs[0]).astype(jnp.float32)

    def act(self, actor, carry, obs, key, *, explore):
        return jnp.full(1, jnp.asarray(self.choice, jnp.float32)), carry, ()

    def learn(self, state, experience, key):
        assert experience.obs.shape[0] == self.batch_size
        return state, jnp.abs(experience.obs[:, 0]) + experience.reward * 0, {}


@configuration
class KnownSoft(Known):
    def entropy_bonus(self, state, obs, key):
        return jnp.float32(0.25)


def made_log(rng, episodes=40, task="", scale=1.0, noise=0.1, actions=None):
    """A log of 5 to 30 steps an episode, of which two thirds terminate; actions follow the state."""
    lengths = rng.integers(5, 31, episodes)
    begins, total = np.append(0, np.cumsum(lengths)[:-1]), lengths.sum()
    obs = rng.normal(size=(total, 2)).astype(np.float32)
    last, ends = begins + lengths - 1, rng.uniform(size=episodes) < 2 / 3
    terminated, truncated = np.zeros(total, bool), np.zeros(total, bool)
    terminated[last], truncated[last] = ends, ~ends
    action = np.clip(0.1 * obs[:, :1] + noise * rng.normal(size=(total, 1)), -1, 1).astype(np.float32)
    space = Box((-1.0,), (1.0,))
    if actions is not None:
        action, space = actions(obs), Discrete(3)
    return Dataset.of(
        "made", Box.unbounded(2), space, task=task, obs=obs, action=action, reward=scale * rng.normal(size=total),
        terminated=terminated, truncated=truncated, final_obs=rng.normal(size=(episodes, 2)).astype(np.float32),
        begins=begins,
    )  # fmt: skip


def split(log):
    held = np.arange(log.begins[-10], log.num_steps)
    return np.arange(log.begins[-10]), held


def measured(algorithm, log, updates=None, discount=GAMMA):
    train, held = split(log)

    def read(numbers):
        return log.rows(numbers, n_steps=1, discount=discount, spec=algorithm.spec)

    probe = probe_of(log, train, held, read, 3, discount)
    state = algorithm.init(root_key(0))
    found = log_measures(algorithm, state, probe, root_key(1), updates)
    return {name: float(value) for name, value in found.items()}, probe


def algorithm_for(log, kind=Known, **options):
    return kind(spec=log.spec(), hidden=(4,), batch_size=8, discount=GAMMA, **options)


def followed(log, step, value, bonus=0.0):
    """Plain loop over the episode: the return that followed a step, and the weight of the value that ends it."""
    total, weight, end = 0.0, 1.0, int(log.ends[log.episode_of(np.array([step]))[0]])
    for now in range(step, end):
        if now > step:
            total += weight * bonus
        if now == end - 1 and not log.terminated[now]:
            return total + weight * value(now), weight
        total, weight = total + weight * log.reward[now], weight * GAMMA
    return total, 0.0


@pytest.mark.parametrize("kind", [Known, KnownSoft])
def test_values_and_returns_are_those_of_a_plain_loop(kind):
    log = made_log(np.random.default_rng(1))
    found, _ = measured(algorithm_for(log, kind), log)
    held, bonus = split(log)[1], 0.25 if kind is KnownSoft else 0.0

    def value(step):
        return 10.0 * log.action[step, 0] + log.obs[step, 0]

    values = np.array([value(step) for step in held])
    assert found["data_value"] == pytest.approx(values.mean(), rel=1e-4)
    assert found["policy_value"] == pytest.approx(5.0 + log.obs[held, 0].mean(), rel=1e-4)
    assert found["action_gap"] == pytest.approx(np.mean(5.0 - 10.0 * log.action[held, 0]), rel=1e-4)
    pairs = [followed(log, int(step), value, bonus) for step in held]
    known = np.array([weight <= MOST_TAIL for _, weight in pairs])
    assert 0 < known.sum() < len(known), "some are too near to a cut"
    gaps = values - np.array([total for total, _ in pairs])
    assert found["return_gap"] == pytest.approx(gaps[known].mean(), rel=1e-4, abs=1e-5)
    totals = np.array([total for total, _ in pairs])[known]
    assert found["data_return"] == pytest.approx(totals.mean(), rel=1e-4, abs=1e-5)
    assert found["data_return_spread"] == pytest.approx(totals.std(), rel=1e-3)
    assert found.get("entropy_bonus") == (0.25 if bonus else None)


def test_a_value_that_rewards_do_not_allow_is_no_witness_of_itself():
    """Costs alone, of which a value of 500 makes the return after a cut no higher than the least cost allows."""
    log = made_log(np.random.default_rng(1), task="Pendulum-v1")
    log.reward[:] = -1.0
    log.action[:] = 0.5
    found, _ = measured(algorithm_for(log, slope=1000.0), log)
    pairs = [followed(log, int(step), lambda now: 0.0) for step in split(log)[1]]
    wanted = np.mean([total for total, weight in pairs if weight <= MOST_TAIL])
    assert found["data_return"] == pytest.approx(wanted, rel=1e-4)
    assert found["return_gap"] == pytest.approx(500.0 + log.obs[split(log)[1], 0].mean() - wanted, rel=0.02)


def test_errors_are_those_of_whole_batches_of_the_held_out_and_the_other_steps():
    log = made_log(np.random.default_rng(2))
    found, probe = measured(algorithm_for(log), log)
    held = np.asarray(probe.rows.obs)[:, 0]
    whole = held[: len(held) // 8 * 8]
    assert found["held_out_error"] == pytest.approx(np.square(whole).mean(), rel=1e-5)
    other = np.asarray(probe.trained.obs)[: len(whole), 0]
    assert found["trained_error"] == pytest.approx(np.square(other).mean(), rel=1e-5)
    train, held_out = split(log)
    assert set(np.asarray(probe.trained.index)) <= set(train) and len(probe.trained.index) == len(held_out)
    assert set(np.asarray(probe.rows.index)) == set(held_out)
    assert np.ptp(np.asarray(probe.trained.index)) > 0.9 * len(train), "spread over the whole log"


def test_a_long_log_is_measured_on_a_bounded_number_of_steps():
    log = made_log(np.random.default_rng(2), episodes=400)
    train, held = np.arange(1000), np.arange(1000, log.num_steps)
    algorithm = algorithm_for(log)
    probe = probe_of(log, train, held, lambda n: log.rows(n, n_steps=1, discount=GAMMA, spec=log.spec()), 3, GAMMA)
    assert len(held) > PLACES == len(probe.rows.reward)
    assert jax.tree.leaves(log_measures(algorithm, algorithm.init(root_key(0)), probe, root_key(1)))


def test_bounds_of_the_log_and_of_the_task():
    """A value of 5 + s_0 is above 0, the bound of Pendulum, and below that of rewards as large as 10."""
    algorithm = algorithm_for(made_log(np.random.default_rng(3)))
    unknown = made_log(np.random.default_rng(3), scale=10.0)
    found, _ = measured(algorithm, unknown)
    assert np.isnan(found["value_bound"])
    assert found["seen_value_bound"] == pytest.approx(unknown.reward.max() / (1 - GAMMA), rel=1e-5)
    assert found["value_floor"] == pytest.approx(unknown.reward.min() / (1 - GAMMA), rel=1e-5)
    assert found["above_bound"] == found["below_floor"] == 0
    known = made_log(np.random.default_rng(3), scale=10.0, task="Pendulum-v1")
    found, _ = measured(algorithm, known)
    held = split(known)[1]
    assert found["value_bound"] == 0 and found["seen_value_bound"] > 100, "the task's rules, whatever was seen"
    assert found["above_bound"] == pytest.approx(np.mean(5.0 + known.obs[held, 0] > 0.17), abs=1e-6)
    assert found["value_floor"] == pytest.approx(-16.2736 / (1 - GAMMA), rel=1e-4)
    low, _ = measured(algorithm_for(known, choice=-1.0, slope=200.0), known)
    assert low["below_floor"] == pytest.approx(np.mean(-200.0 + known.obs[held, 0] < low["value_floor"]))


def test_a_log_of_costs_alone_allows_no_value_above_its_smallest_cost():
    log = made_log(np.random.default_rng(4))
    log = Dataset(log.card, log.obs, log.action, -np.abs(log.reward) - 2, *(getattr(log, name) for name in (
        "terminated", "truncated", "final_obs", "begins")))  # fmt: skip
    found, _ = measured(algorithm_for(log), log)
    assert found["seen_value_bound"] == pytest.approx(log.reward.max(), rel=1e-6), "an end may come at once"


def test_a_soft_value_may_hold_the_most_entropy_of_all_later_steps():
    log = made_log(np.random.default_rng(3), scale=1.0, task="Pendulum-v1")
    updates = {"temperature": jnp.float32(0.2), "reward_factor": jnp.float32(0.5), "policy_loss": jnp.float32(7.0)}
    found, _ = measured(algorithm_for(log, KnownSoft), log, updates)
    assert found["value_bound"] == pytest.approx(0.2 / 0.5 * np.log(2) * GAMMA / (1 - GAMMA), rel=1e-5)
    assert "value_floor" not in found and "below_floor" not in found, "a density's entropy has no lower bound"
    hard, _ = measured(algorithm_for(log), log, updates)
    assert hard["value_bound"] == 0, "a value that is not soft holds none"


def plain_distances(rows, states, actions, others):
    """The distance of each action to the nearest of those in the ten nearest states, one loop."""
    found = []
    for number, (state, action) in enumerate(rows):
        far = np.square(states - state).sum(1)
        if others:
            far[number] = np.inf
        near = np.argsort(far, kind="stable")[:10]
        found.append(min(np.sqrt(np.mean((action - actions[one]) ** 2)) for one in near))
    return np.array(found)


def test_support_is_that_of_a_plain_loop():
    log = made_log(np.random.default_rng(5), episodes=60)
    train, held = split(log)
    scale = log.obs[train].astype(np.float64).std(0)
    states, actions = log.obs[train] / scale, log.action[train]
    own = plain_distances(list(zip(states, actions, strict=True)), states, actions, others=True)
    for choice in (0.0, 0.3, 0.9):
        found, probe = measured(algorithm_for(log, choice=choice), log)
        assert probe.neighbours is not None
        assert float(probe.neighbours.threshold) == pytest.approx(np.quantile(own, 0.95), rel=1e-3)
        rows = [(log.obs[step] / scale, np.array([choice])) for step in held]
        wanted = plain_distances(rows, states, actions, others=False) > np.quantile(own, 0.95)
        assert found["outside_support"] == pytest.approx(wanted.mean(), abs=0.011)
    assert found["outside_support"] > 0.95, "the log holds hardly any action of .9"


def test_a_log_without_noise_supports_what_is_a_hair_away():
    log = made_log(np.random.default_rng(5), episodes=60, noise=0.0)
    log.action[:] = 0.3
    for choice, outside in ((0.31, 0.0), (0.4, 1.0)):
        found, probe = measured(algorithm_for(log, choice=choice), log)
        assert found["outside_support"] == outside and float(probe.neighbours.threshold) == pytest.approx(0.05)


def test_the_logs_own_choices_are_inside_and_others_are_not():
    """An expert that takes 0 or 1 by the sign of the state: 2 is never taken."""
    log = made_log(np.random.default_rng(6), episodes=100, actions=lambda obs: (obs[:, 0] > 0).astype(np.int64))

    @configuration
    class Chooses(DQN):
        always: int = 2

        def act(self, actor, carry, obs, key, *, explore):
            own = (obs[0] > 0).astype(jnp.int32)
            return own if self.always < 0 else jnp.int32(self.always), carry, ()

    for always, least, most in ((2, 1.0, 1.0), (-1, 0.0, 0.1), (0, 0.35, 0.65)):
        found, _ = measured(algorithm_for(log, Chooses, always=always), log)
        assert least <= found["outside_support"] <= most


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_distance_is_zero_only_for_an_action_of_the_log(seed):
    rng = np.random.default_rng(seed)
    near = rng.uniform(-1, 1, (4, 3, 2)).astype(np.float32)
    assert not np.asarray(action_distance(jnp.asarray(near[:, 1]), jnp.asarray(near), is_choice=False)).any()
    moved = action_distance(jnp.asarray(near[:, 1] + 5), jnp.asarray(near), is_choice=False)
    assert (np.asarray(moved) >= 3).all()


def test_a_policy_without_values_is_measured_by_its_actions_alone():
    log = made_log(np.random.default_rng(7))

    @configuration
    class Silent(Known):
        action_value = DDPG.__mro__[2].action_value  # that of OffPolicy, which tells none

    found, _ = measured(algorithm_for(log, Silent), log)
    assert found.keys() == {"outside_support"}


def test_a_discount_of_one_allows_any_value():
    log = made_log(np.random.default_rng(8), task="CartPole-v1")
    found, _ = measured(algorithm_for(log), log, discount=1.0)
    assert np.isnan(found["value_bound"]) and np.isnan(found["seen_value_bound"])
    assert found["value_floor"] == found["above_bound"] == 0, "no reward of that task is below 0"
