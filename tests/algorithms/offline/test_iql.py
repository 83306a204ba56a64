"""Implicit Q-learning against NumPy, and what expectiles tend to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.offline.setting import (
    BOX,
    CHOICES,
    CORNERS,
    acted,
    after_one,
    assert_slopes,
    bandit_log,
    batch_of,
    crossing,
    learnt_on,
    lifted,
    made,
    perceptron,
    shaken,
    values,
)
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Rollout, Transitions
from workhorse.training.plan import Plan
from workhorse.training.sources import Sources

KINDS = {"box": (BOX, {}), "choices": (CHOICES, {}), "deterministic": (BOX, {"deterministic": True})}


def begun(algorithm, seed=0):
    """A state whose networks are all different, with larger values than at the start."""
    state = algorithm.init(jax.random.key(seed))
    other = algorithm.init(jax.random.key(seed + 1))
    return state._replace(
        policy=shaken(state.policy, 1), value=shaken(state.value, 2), critics=shaken(state.critics, 3),
        target_critics=shaken(other.critics, 4),
    )  # fmt: skip


def inputs(batch, spec):
    """Actions as critics read them."""
    return np.eye(4)[batch.action] if spec is CHOICES else np.asarray(batch.action, np.float64)


def plain_cloning(policy, batch, spec):
    outputs = perceptron(policy.network, batch.obs)
    if spec is CHOICES:
        return -outputs[np.arange(len(outputs)), batch.action] + np.log(np.exp(outputs).sum(1))
    away = np.tanh(outputs) - batch.action
    if policy.log_std is None:
        return np.square(away).mean(1)
    log_std = np.asarray(policy.log_std, np.float64)
    return (0.5 * np.square(away / np.exp(log_std)) + log_std + 0.5 * np.log(2 * np.pi)).sum(1)


@pytest.mark.parametrize("kind", list(KINDS))
def test_losses_targets_and_slopes_are_those_of_numpy(kind):
    spec, settings = KINDS[kind]
    algorithm = made("iql", spec, scale_rewards=False, reward_scale=0.5, inverse_temperature=2.0, weight_clip=0.4,
                     expectile=0.8, **settings)  # fmt: skip
    batch, state = batch_of(spec), begun(algorithm)
    weight, rows = np.asarray(batch.weight, np.float64), inputs(batch, spec)
    state = state._replace(target_critics=crossing(state.target_critics, batch.obs, rows))
    aims = values(state.target_critics, batch.obs, rows)
    aim = aims.min(0)
    assert set(aims.argmin(0)) == {0, 1}, "else one critic would do"
    state = state._replace(value=lifted(state.value, np.median(aim - perceptron(state.value, batch.obs)[:, 0])))
    after, priority, metrics = after_one(algorithm, state, batch, jax.random.key(0))
    # a terminated row has no successor, a truncated one has
    target = np.array([
        0.5 * reward + (0.0 if terminated else 0.9**steps * ahead)
        for reward, terminated, steps, ahead in zip(
            batch.reward, batch.terminated, batch.steps, perceptron(state.value, batch.next_obs)[:, 0], strict=True
        )
    ])  # fmt: skip
    assert batch.terminated.sum() == 4 == batch.truncated.sum()
    np.testing.assert_allclose(metrics["target"], target.mean(), rtol=1e-5)
    first = values(state.critics, batch.obs, rows)[0]
    np.testing.assert_allclose(priority, np.abs(first - target), rtol=1e-4, atol=1e-5)
    policy_memory, value_memory, critic_memory = after.optimisers

    def critic_loss(critics):
        return np.mean(weight * np.square(values(critics, batch.obs, rows) - target).sum(0))

    assert_slopes(critic_memory, state.critics, critic_loss)

    def value_loss(value):
        error = aim - perceptron(value, batch.obs)[:, 0]
        return np.mean(weight * np.where(error > 0, 0.8, 0.2) * error**2)

    assert_slopes(value_memory, state.value, value_loss)
    advantage = aim - perceptron(state.value, batch.obs)[:, 0]
    assert (advantage > 0).any() and (advantage < 0).any()
    weights = np.minimum(np.exp(2 * advantage), 0.4)
    assert 0 < (weights == 0.4).sum() < 12
    np.testing.assert_allclose(metrics["advantage_weight"], weights.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["clipped_weights"], np.mean(weights == 0.4), rtol=1e-5)
    assert_slopes(
        policy_memory, state.policy, lambda policy: np.mean(weight * weights * plain_cloning(policy, batch, spec))
    )


def test_targets_follow_the_critics_in_every_update():
    algorithm = made("iql", target_rate=0.25, learning_rate=0.05)
    state = begun(algorithm)
    after, _, _ = after_one(algorithm, state, batch_of(), jax.random.key(0))
    trees = (state.target_critics, after.target_critics, after.critics)
    for old, new, learnt in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(new, 0.75 * np.asarray(old) + 0.25 * np.asarray(learnt), atol=1e-6)
    assert after.updates == 1


@pytest.mark.parametrize("expectile", [0.2, 0.5, 0.9])
def test_the_value_of_a_fair_coin_is_its_expectile(expectile):
    """Of 0 and 1 with equal chances the tau-expectile m solves tau (1 - m) = (1 - tau) m: it is tau."""
    algorithm = made("iql", expectile=expectile, learning_rate=0.02)
    state, obs = algorithm.init(jax.random.key(0)), jnp.ones((12, 3), jnp.float32)
    aim, weight = jnp.asarray(np.arange(12) % 2, jnp.float32), jnp.ones(12, jnp.float32)

    def step(carry, _):
        value, memory, _ = algorithm._value(*carry, obs, aim, weight)
        return (value, memory), None

    (value, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, None, 400))((state.value, state.optimisers[1]))
    assert perceptron(value, obs)[0, 0] == pytest.approx(expectile, abs=0.01)


# Three places in a row, and choices 0 and 1. The log never has choice 1 in place 2, which would pay 9.
FOLLOWING = {(0, 0): (0, 0.0), (0, 1): (1, 0.1), (1, 0): (0, 0.05), (1, 1): (2, 0.0), (2, 0): (None, 1.0)}
HOW_OFTEN = {(0, 0): 6, (0, 1): 2, (1, 0): 6, (1, 1): 2, (2, 0): 4}
GAMMA = 0.8


def tabular_batch():
    """Every step of the log once for each time that it was taken."""
    steps = [step for step, often in HOW_OFTEN.items() for _ in range(often)]
    eye, count = np.eye(3, dtype=np.float32), len(steps)
    ahead = [FOLLOWING[step][0] for step in steps]
    terminated = np.array([one is None for one in ahead])
    action = np.array([choice for _, choice in steps], np.int32)
    return Transitions(
        eye[[place for place, _ in steps]], action, np.array([FOLLOWING[step][1] for step in steps], np.float32),
        (GAMMA * ~terminated).astype(np.float32), eye[[0 if one is None else one for one in ahead]], terminated,
        np.zeros(count, bool), np.ones(count, np.int32), np.arange(count), np.ones(count, np.float32),
        np.arange(count), action, np.zeros(count, np.float32),
    )  # fmt: skip


def in_sample_values(combine):
    """Q of the log's steps by iteration, where V of a place is `combine` of the values and how often each was taken."""
    found = dict.fromkeys(FOLLOWING, 0.0)
    for _ in range(500):
        taken = {
            place: [(found[one], often) for one, often in HOW_OFTEN.items() if one[0] == place] for place in range(3)
        }
        ahead = {place: combine(*zip(*pairs, strict=True)) for place, pairs in taken.items()}
        found = {step: paid + GAMMA * (0.0 if to is None else ahead[to]) for step, (to, paid) in FOLLOWING.items()}
    return found


@jax.jit
def taught(algorithm, batch):
    def one(state, key):
        return algorithm.learn(state, batch, key)[0], None

    keys = jax.random.split(jax.random.key(1), 3000)
    return jax.lax.scan(one, algorithm.init(jax.random.key(0)), keys)[0]


def tabular(expectile, inverse_temperature):
    spec, batch = EnvSpec("row", Box((0.0,) * 3, (1.0,) * 3), Discrete(2), 100), tabular_batch()
    algorithm = made(
        "iql", spec, hidden=(32,), batch_size=20, discount=GAMMA, learning_rate=3e-3, target_rate=0.05,
        expectile=expectile, inverse_temperature=inverse_temperature, anneal_learning_rate=False,
    )  # fmt: skip
    state = taught(algorithm, batch)
    told = jax.vmap(lambda obs, action: algorithm.action_value(state, obs, action))(batch.obs, batch.action)
    found = {step: float(told[row]) for row, step in enumerate(step for step, n in HOW_OFTEN.items() for _ in range(n))}
    return found, acted(algorithm, state, np.eye(3))


def test_expectiles_go_from_the_mean_of_the_logs_actions_to_the_best_of_them():
    best = in_sample_values(lambda value, often: max(value))
    mean = in_sample_values(lambda value, often: np.average(value, weights=often))
    assert best[(0, 1)] > mean[(0, 1)] + 0.2, "so that the two differ"
    found, chosen = tabular(0.99, 10.0)
    assert found == pytest.approx(best, abs=0.05)
    assert chosen[:2].tolist() == [1, 1], "to the end, though the log seldom goes there"
    assert chosen[2] == 0, "what the log never did is not chosen, whatever it would pay"
    found, chosen = tabular(0.5, 0.0)
    assert found == pytest.approx(mean, abs=0.03)
    assert chosen.tolist() == [0, 0, 0], "without weights it does what the log did most"


def test_the_policys_rate_falls_along_half_a_cosine_over_the_budget_and_no_other_rate_does():
    plan = Plan("Pendulum-v1", {}, "iql", {}, 0).with_budget(200)
    assert plan.settings == {"anneal_env_steps": 200}
    goes_on = Plan("Pendulum-v1", {}, "iql", {}, 0, sources=Sources("mixed", begun_from="runs/from-log"))
    assert goes_on.with_budget(200).settings == {}, "its updates go on, and the other run's fall is over"
    algorithm = made("iql", anneal_env_steps=200, learning_rate=0.01)
    state = begun(algorithm)
    rates = [float(algorithm.rate(state._replace(updates=jnp.int64(done)))) for done in (0, 50, 100, 200, 300)]
    np.testing.assert_allclose(rates, 0.01 * np.array([1, (1 + np.sqrt(0.5)) / 2, 0.5, 0, 0]), atol=1e-8)
    after, _, _ = after_one(algorithm, state._replace(updates=jnp.int64(200)), batch_of(), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, after.policy, state.policy)
    pairs = zip(
        jax.tree.leaves((after.value, after.critics)), jax.tree.leaves((state.value, state.critics)), strict=True
    )
    assert all((new != old).any() for new, old in pairs)
    steady = made("iql", anneal_env_steps=200, anneal_learning_rate=False, learning_rate=0.01)
    assert float(steady.rate(state._replace(updates=jnp.int64(200)))) == pytest.approx(0.01)


def test_rewards_are_scaled_by_the_logs_returns_and_values_are_told_in_raw_ones():
    algorithm = made("iql")
    state = begun(algorithm)
    reward = jnp.array([[2.0, 1.0, 5.0, 5.0, 10.0, 4.0]], jnp.float32).T
    terminated = jnp.array([[0, 0, 0, 0, 1, 0]], bool).T  # returns 3, 20 and 4; the longest has three steps
    truncated = jnp.array([[0, 1, 0, 0, 0, 1]], bool).T
    obs, action = jnp.zeros((6, 1, 3), jnp.float32), jnp.zeros((6, 1, 2), jnp.float32)
    rollout = Rollout(obs, action, reward, terminated, truncated, obs, ())
    seen = algorithm.observe(state, rollout)
    factor = 3 / (20 - 3)
    assert float(algorithm.factor(state)) == 1 and float(algorithm.factor(seen)) == pytest.approx(factor)
    later = algorithm.observe(seen._replace(updates=jnp.int64(1)), rollout._replace(reward=reward * 9))
    assert float(algorithm.factor(later)) == pytest.approx(factor), "it stays once something was learnt"
    batch = batch_of()
    _, _, metrics = after_one(algorithm, seen, batch, jax.random.key(0))
    expected = factor * batch.reward + batch.discount * perceptron(state.value, batch.next_obs)[:, 0]
    np.testing.assert_allclose(metrics["target"], expected.mean(), rtol=1e-5)
    told = algorithm.action_value(seen, jnp.asarray(batch.obs[0]), jnp.asarray(batch.action[0]))
    plain = values(state.critics, batch.obs, batch.action).min(0)[0]
    np.testing.assert_allclose(told, plain / factor, rtol=1e-4)


@pytest.mark.parametrize("deterministic", [False, True])
def test_it_learns_the_better_actions_of_a_log(tmp_path, deterministic):
    path = bandit_log(tmp_path / "log")
    algorithm, state, metrics = learnt_on(
        path, "iql", learning_rate=3e-3, scale_rewards=False, inverse_temperature=10.0, deterministic=deterministic
    )
    np.testing.assert_allclose(acted(algorithm, state, CORNERS)[:, 0], 0.5 * np.sign(CORNERS)[:, 0], atol=0.15)
    assert metrics["action_gap"] > 0.3, "the mean of uniform actions loses 7 / 12"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"expectile": 1.0}, "IQL.expectile must be between 0 and 1, both excluded: got 1.0"),
        ({"inverse_temperature": -1.0}, "IQL.inverse_temperature must be a finite number of at least 0: got -1.0"),
        ({"weight_clip": 0.0}, "IQL.weight_clip must be a finite number above 0: got 0.0"),
        ({"reward_scale": 2.0}, "IQL.reward_scale adds nothing to scale_rewards, which is on"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        made("iql", **settings)
