"""SAC: its target, its three steps and their directions, its warm-up and its file, against NumPy and closed forms."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Rollout, Transitions
from workhorse.runs.policy import Policy

SPEC = EnvSpec("test", Box.unbounded(3), Box((-1.0, -2.0), (1.0, 2.0)), 100)
SMALL = {"hidden": (8,), "batch_size": 12, "warmup_env_steps": 20, "discount": 0.9, "temperature": 0.3}
KEY = jax.random.key(5)

# The algorithm is an argument of the programs, so that settings which differ in numbers alone share one.
begin = jax.jit(lambda algorithm, seed: algorithm.init(jax.random.key(seed)))
learn = jax.jit(lambda algorithm, state, batch, key: algorithm.learn(state, batch, key))


def made(**settings):
    return registry.make("sac", SPEC, SMALL | settings)


def batch_of(seed=0, count=12):
    """Transitions that are noise; every third terminates, and windows have one to three steps."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, count, 3)).astype(np.float32)
    terminated, steps = np.arange(count) % 3 == 0, 1 + np.arange(count) % 4 % 3
    discount = (0.9**steps * ~terminated).astype(np.float32)
    return Transitions(
        obs, rng.uniform(-1, 1, (count, 2)).astype(np.float32), rng.normal(size=count).astype(np.float32), discount,
        next_obs, terminated, ~terminated, steps.astype(np.int32), np.arange(count),
        rng.uniform(0.2, 1, count).astype(np.float32), np.arange(count),
    )  # fmt: skip


def state_of(algorithm, seed=0):
    """A state whose targets are not the critics that learn."""
    return begin(algorithm, seed)._replace(targets=begin(algorithm, seed + 1).critics)


# --- the same in NumPy, double precision ---


def run(network, x):
    *hidden, last = [(np.asarray(w, float), np.asarray(b, float)) for w, b in zip(network.weights, network.biases)]  # noqa: B905
    x = np.asarray(x, float)
    for weight, bias in hidden:
        x = np.maximum(x @ weight.T + bias, 0)
    return x @ last[0].T + last[1]


def values_of(critics, obs, action):
    rows = np.concatenate([obs, action], axis=1)
    return [run(critic, rows)[:, 0] for critic in critics]


def drawn(policy, obs, key):
    """Actions and their log densities, from the noise of a key: -log(1 - tanh(u)^2) is 2 log cosh(u)."""
    mean, spread = np.split(run(policy, obs), 2, axis=1)
    std = np.exp(-5 + 3.5 * (1 + np.tanh(spread)))
    noise = np.asarray(jax.random.normal(key, mean.shape, jnp.float32), float)
    u = mean + std * noise
    density = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi) + 2 * np.logaddexp(u, -u) - 2 * np.log(2)
    return np.tanh(u), density.sum(1)


def target_of(state, batch, reward_scale=1.0):
    next_action, log_prob = drawn(state.policy, batch.next_obs, jax.random.split(KEY)[0])
    value = np.minimum(*values_of(state.targets, batch.next_obs, next_action))
    soft = value - np.exp(float(state.log_temperature)) * log_prob
    return np.array([
        reward_scale * batch.reward[n] + batch.discount[n] * soft[n] for n in range(len(soft))
    ])  # fmt: skip


def policy_loss(state, policy, obs):
    action, log_prob = drawn(policy, obs, jax.random.split(KEY)[1])
    soft = np.exp(float(state.log_temperature)) * log_prob - np.minimum(*values_of(state.critics, obs, action))
    return soft.mean(), -log_prob.mean(), (np.abs(action) > 0.99).mean()


def test_target_and_metrics_are_what_numpy_makes_of_a_batch():
    algorithm, batch = made(reward_scale=0.5), batch_of()
    state = state_of(algorithm)
    expected = target_of(state, batch, 0.5)
    after, error, metrics = learn(algorithm, state, batch, KEY)
    value = values_of(state.critics, batch.obs, batch.action)[0]
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(metrics["target"], expected.mean(), **close)
    np.testing.assert_allclose(metrics["value"], value.mean(), **close)
    np.testing.assert_allclose(metrics["value_max"], value.max(), **close)
    np.testing.assert_allclose(metrics["critic_loss"], np.square(value - expected).mean(), **close)
    np.testing.assert_allclose(error, np.abs(value - expected), rtol=1e-3, atol=1e-4)
    loss, entropy, saturated = policy_loss(
        after._replace(log_temperature=state.log_temperature), state.policy, batch.obs
    )
    np.testing.assert_allclose(metrics["policy_loss"], loss, **close)
    np.testing.assert_allclose(metrics["entropy"], entropy, **close)
    np.testing.assert_allclose(metrics["saturated_actions"], saturated, atol=1e-6)
    assert float(metrics["temperature"]) == pytest.approx(float(np.exp(after.log_temperature)))
    least = min(one[0] for one in values_of(after.critics, batch.obs[:1], batch.action[:1]))
    assert float(algorithm.action_value(after, batch.obs[0], batch.action[0])) == pytest.approx(least / 0.5, rel=1e-4)


def slopes(loss, network, layer, entries, size=1e-5):
    """Central differences of a loss in entries of a layer's weights, in double precision."""
    found = []
    for entry in entries:
        pair = []
        for sign in (1, -1):
            weights = [np.array(weight, float) for weight in network.weights]
            weights[layer][entry] += sign * size
            pair.append(loss(SimpleNamespace(weights=weights, biases=network.biases)))
        found.append((pair[0] - pair[1]) / (2 * size))
    return np.array(found)


@pytest.mark.parametrize("layer", [0, 1])
def test_critics_go_down_their_weighted_errors_and_the_policy_up_the_smaller_new_critic(layer):
    """Adam's first step tells the sign of the gradient in each entry."""
    algorithm, batch = made(learning_rate=0.01), batch_of()
    state = state_of(algorithm)
    after, _, _ = learn(algorithm, state, batch, KEY)
    target, now = target_of(state, batch), after._replace(log_temperature=state.log_temperature)

    def critic_loss(critic):
        return np.mean(batch.weight * np.square(values_of([critic], batch.obs, batch.action)[0] - target))

    for loss, before, found in (
        (critic_loss, state.critics[0], after.critics[0]),
        (critic_loss, state.critics[1], after.critics[1]),
        (lambda policy: policy_loss(now, policy, batch.obs)[0], state.policy, after.policy),
    ):
        entries = list(np.ndindex(before.weights[layer].shape))
        slope = slopes(loss, before, layer, entries)
        step = (np.asarray(before.weights[layer], float) - np.asarray(found.weights[layer], float)) / 0.01
        clear = np.abs(slope) > 1e-3
        assert clear.sum() >= 5
        np.testing.assert_allclose(step[tuple(np.array(entries).T)][clear], np.sign(slope)[clear], atol=2e-2)


@pytest.mark.parametrize(("wanted", "sign"), [(-50.0, -1), (1.3, 1)])
def test_the_temperature_falls_where_the_entropy_is_above_its_target_and_rises_below(wanted, sign):
    algorithm = made(target_entropy=wanted, learning_rate=0.01)
    state = state_of(algorithm)
    after, _, metrics = learn(algorithm, state, batch_of(), KEY)
    assert np.sign(wanted - metrics["entropy"]) == sign
    assert float(after.log_temperature - state.log_temperature) == pytest.approx(sign * 0.01, rel=1e-3)
    assert float(made().wanted_entropy) == -2
    fixed = made(learn_temperature=False)
    assert learn(fixed, state, batch_of(), KEY)[0].log_temperature == state.log_temperature
    assert float(np.exp(state.log_temperature)) == pytest.approx(0.3)


def test_at_a_high_temperature_the_policy_goes_to_uniform_actions():
    """Their entropy is log 2 a component, the highest there is."""
    algorithm, batch = made(temperature=1e3, learn_temperature=False, learning_rate=3e-3, hidden=(16,)), batch_of()
    state = begin(algorithm, 0)
    for number in range(1500):
        state, _, metrics = learn(algorithm, state, batch, jax.random.key(number))
    assert float(metrics["entropy"]) == pytest.approx(2 * np.log(2), abs=0.25)


def bits(tree):
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))


def test_policy_and_temperature_wait_for_their_turn_to_the_bit():
    algorithm, every, batch = made(policy_every=3), made(), batch_of()
    state = state_of(algorithm)

    def of_policy(state):
        memory = state.optimisers
        return bits((state.policy, state.log_temperature, memory[0], memory[2]))

    for number in range(1, 7):
        after, _, metrics = learn(algorithm, state, batch, KEY)
        assert (of_policy(after) != of_policy(state)) == (number % 3 == 0)
        assert bits(after.critics) != bits(state.critics)
        once = learn(every, state, batch, KEY)[2]
        for name in (
            "policy_loss",
            "entropy",
            "saturated_actions",
        ):  # so that a mean over updates is one over those due
            assert float(metrics[name]) == pytest.approx(3 * float(once[name]) * (number % 3 == 0), rel=1e-4, abs=1e-6)
        state = after
    assert state.updates == 6


def test_the_targets_go_a_share_of_the_way_to_the_new_critics():
    algorithm = made(target_rate=0.25, learning_rate=0.05)
    state = state_of(algorithm)
    after, _, _ = learn(algorithm, state, batch_of(), KEY)
    leaves = map(jax.tree.leaves, (state.targets, after.targets, after.critics))
    for old, new, goal in zip(*leaves, strict=True):
        np.testing.assert_allclose(new, 0.75 * np.asarray(old) + 0.25 * np.asarray(goal), atol=1e-6)


def test_the_entropy_of_a_drawn_action_is_told_in_raw_rewards():
    algorithm, obs = made(reward_scale=0.5), jnp.asarray([0.3, -1.0, 2.0], jnp.float32)
    state, keys = state_of(algorithm), jax.random.split(KEY, 20_000)
    found = jax.jit(jax.vmap(lambda key: algorithm.entropy_bonus(state, obs, key)))(keys)
    mean, spread = np.split(run(state.policy, obs[None])[0], 2)
    grid, expected = np.linspace(-8, 8, 4_001), 0.0
    for middle, log_std in zip(mean, -5 + 3.5 * (1 + np.tanh(spread)), strict=True):
        u = middle + np.exp(log_std) * grid
        logs = -0.5 * grid**2 - log_std - 0.5 * np.log(2 * np.pi) + 2 * np.log(np.cosh(u))
        expected -= np.sum(np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi) * logs) * (grid[1] - grid[0])
    assert float(found.mean()) == pytest.approx(0.3 / 0.5 * expected, abs=0.03)


# --- acting ---


def actions_of(algorithm, env_steps, explore=True, count=5_000):
    state = begin(algorithm, 0)._replace(env_steps=jnp.int64(env_steps))
    actor, keys = algorithm.actor(state), jax.random.split(jax.random.key(1), count)
    act = jax.jit(jax.vmap(lambda key: algorithm.act(actor, (), jnp.ones(3), key, explore=explore)[0]))
    return state, np.asarray(act(keys))


def test_actions_are_uniform_during_the_warm_up_and_then_of_the_policy():
    algorithm = made()
    _, first = actions_of(algorithm, 19)
    assert first.std() == pytest.approx(1 / np.sqrt(3), rel=0.03) and abs(first.mean()) < 0.03
    state, later = actions_of(algorithm, 20)
    mean, spread = np.split(run(state.policy, np.ones((1, 3)))[0], 2)
    unsquashed = np.arctanh(np.clip(later.astype(float), -1 + 1e-7, 1 - 1e-7))
    std = np.exp(-5 + 3.5 * (1 + np.tanh(spread)))
    np.testing.assert_allclose(unsquashed.mean(0), mean, atol=5 * std.max() / np.sqrt(5_000))
    np.testing.assert_allclose(unsquashed.std(0), std, rtol=0.05)
    _, still = actions_of(algorithm, 20, explore=False, count=2)
    np.testing.assert_allclose(still, np.tanh([mean, mean]), rtol=1e-4)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_policy_file_does_what_the_policy_does_without_noise(normalise):
    algorithm, rng = made(normalise_observations=normalise), np.random.default_rng(0)
    obs, nothing = rng.normal(1, 3, (50, 1, 3)).astype(np.float32), np.zeros((50, 1))
    rollout = Rollout(obs, np.zeros((50, 1, 2)), nothing, nothing > 0, nothing > 0, obs, ())
    actor = algorithm.actor(jax.jit(algorithm.observe)(begin(algorithm, 0), rollout))
    policy = Policy(algorithm.policy_layers(actor), observation=SPEC.observation, action=SPEC.action, task="test")
    seen = rng.normal(0, 3, (20, 3)).astype(np.float32)
    act = jax.jit(jax.vmap(lambda one: algorithm.act(actor, (), one, KEY, explore=False)[0]))
    found = policy.predict(seen)[0]
    np.testing.assert_allclose(found, np.asarray(act(seen)) * [1.0, 2.0], atol=1e-5)
    assert found.std(0).min() > 0.01


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learn_temperature": False, "target_entropy": -1.0}, "SAC.target_entropy has no effect without"),
        ({"target_entropy": 1.4}, "SAC.target_entropy must be below 1.386 nats"),
        ({"policy_every": 0}, "SAC.policy_every must be a finite number above 0: got 0"),
        ({"temperature": 0.0}, "SAC.temperature must be a finite number above 0: got 0.0"),
        ({"batch_size": 30}, "SAC.batch_size must not exceed warmup_env_steps"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        made(**settings)


def test_choices_are_refused_and_the_discrete_one_is_named():
    spec = EnvSpec("test", Box.unbounded(3), Discrete(3), 100)
    with pytest.raises(UsageError, match=r"SAC needs continuous actions.*choose sac-discrete"):
        registry.make("sac", spec, {})
