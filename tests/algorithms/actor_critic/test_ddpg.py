"""DDPG: its target, its two steps, its noise and its warm-up, against loops in NumPy and closed forms."""

import pickle
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step, Transitions
from workhorse.networks.mlp import MLP
from workhorse.training.rollouts import make_collector

SPEC = EnvSpec("test", Box.unbounded(3), Box((-1.0, -2.0), (1.0, 2.0)), 100)
SMALL = {"hidden": (8,), "batch_size": 12, "warmup_env_steps": 20, "discount": 0.9}


def made(**settings):
    return registry.make("ddpg", SPEC, SMALL | settings)


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


def with_other_targets(algorithm, seed=0):
    """A state whose target networks are not those that learn."""
    state, other = (algorithm.init(jax.random.key(number)) for number in (seed, seed + 1))
    return state._replace(target_policy=other.policy, target_critic=other.critic)


def relu_network(network, x):
    *hidden, last = [(np.asarray(w, float), np.asarray(b, float)) for w, b in zip(network.weights, network.biases)]  # noqa: B905
    for weight, bias in hidden:
        x = np.maximum(weight @ x + bias, 0)
    return last[0] @ x + last[1]


def critic_value(critic, obs, action):
    return relu_network(critic, np.concatenate([obs, action]))[0]


def targets_by_hand(state, batch, reward_scale):
    found = []
    for number in range(len(batch.reward)):
        best = np.tanh(relu_network(state.target_policy, batch.next_obs[number]))
        value = critic_value(state.target_critic, batch.next_obs[number], best)
        found.append(reward_scale * batch.reward[number] + batch.discount[number] * value)
    return np.array(found)


def test_the_target_is_that_of_the_target_networks_in_a_loop_over_transitions():
    algorithm, batch = made(reward_scale=0.5), batch_of()
    state = with_other_targets(algorithm)
    expected = targets_by_hand(state, batch, 0.5)
    np.testing.assert_allclose(algorithm.target(state, batch, batch.next_obs), expected, rtol=2e-5)
    _, priority, metrics = algorithm.learn(state, batch, jax.random.key(0))
    value = [critic_value(state.critic, *pair) for pair in zip(batch.obs, batch.action, strict=True)]
    np.testing.assert_allclose(priority, np.abs(value - expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["target"], expected.mean(), rtol=2e-5)
    np.testing.assert_allclose(metrics["value"], np.mean(value), rtol=2e-5)
    np.testing.assert_allclose(metrics["value_max"], np.max(value), rtol=2e-5)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean((value - expected) ** 2), rtol=1e-4)


def first_step(before, after, rate):
    """The sign of the gradient in each entry, which is all that Adam's first step tells."""
    return (np.asarray(before, float) - np.asarray(after, float)) / rate


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
def test_the_critic_goes_down_its_weighted_error_and_the_policy_up_the_new_critic(layer):
    algorithm, batch = made(learning_rate=0.01), batch_of()
    state = with_other_targets(algorithm)
    after, _, metrics = algorithm.learn(state, batch, jax.random.key(0))
    target = targets_by_hand(state, batch, 1.0)

    def critic_loss(critic):
        values = [critic_value(critic, *pair) for pair in zip(batch.obs, batch.action, strict=True)]
        return np.mean(batch.weight * (np.array(values) - target) ** 2)

    def policy_loss(policy):
        return -np.mean([critic_value(after.critic, obs, np.tanh(relu_network(policy, obs))) for obs in batch.obs])

    for loss, before, now in (
        (critic_loss, state.critic, after.critic),
        (policy_loss, state.policy, after.policy),
    ):
        entries = list(np.ndindex(before.weights[layer].shape))
        slope = slopes(loss, before, layer, entries)
        step = first_step(before.weights[layer], now.weights[layer], 0.01)
        clear = np.abs(slope) > 1e-3
        assert clear.sum() >= 5
        np.testing.assert_allclose(step[tuple(np.array(entries).T)][clear], np.sign(slope)[clear], atol=1e-2)
    np.testing.assert_allclose(metrics["policy_loss"], policy_loss(state.policy), rtol=1e-4)


def test_the_targets_go_a_share_of_the_way_to_the_new_networks():
    algorithm = made(target_rate=0.25, learning_rate=0.05)
    state = with_other_targets(algorithm)
    after, _, _ = algorithm.learn(state, batch_of(), jax.random.key(0))
    for old, new, learnt in (
        (state.target_policy, after.target_policy, after.policy),
        (state.target_critic, after.target_critic, after.critic),
    ):
        for leaf, moved, goal in zip(*map(jax.tree.leaves, (old, new, learnt)), strict=True):
            np.testing.assert_allclose(moved, 0.75 * np.asarray(leaf) + 0.25 * np.asarray(goal), atol=1e-6)
    assert after.updates == 1


def tent(best):
    """A critic that is -sum |a - best|, whatever the observation, exactly."""
    count = len(best)
    first = np.zeros((2 * count, 3 + count), np.float32)
    first[:count, 3:], first[count:, 3:] = np.eye(count), -np.eye(count)
    offsets = np.concatenate([-np.asarray(best), best]).astype(np.float32)
    weights = (jnp.asarray(first), -jnp.ones((1, 2 * count), jnp.float32))
    return MLP(weights, (jnp.asarray(offsets), jnp.zeros(1, jnp.float32)), "relu")


def test_the_policy_climbs_to_the_top_of_a_critic_made_by_hand():
    best, algorithm = np.array([0.5, -0.7]), made(learning_rate=0.01, hidden=(4,))
    critic, state = tent(best), algorithm.init(jax.random.key(0))
    state = state._replace(critic=critic, target_critic=critic)
    batch = batch_of()
    value = -np.abs(batch.action - best).sum(-1)  # the critic is right already, so that it stays as it is
    batch = batch._replace(reward=value.astype(np.float32), discount=np.zeros(12, np.float32))
    learn = jax.jit(algorithm.learn)
    for number in range(400):
        state, _, metrics = learn(state, batch, jax.random.key(number))
    assert metrics["critic_loss"] < 1e-3
    np.testing.assert_allclose(jnp.tanh(jax.vmap(state.policy)(batch.obs)), np.tile(best, (12, 1)), atol=0.1)


def silent(algorithm):
    """A state after the warm-up whose policy says 0 everywhere, so that what is done is the noise."""
    state = algorithm.init(jax.random.key(0))
    return state._replace(policy=jax.tree.map(jnp.zeros_like, state.policy), env_steps=jnp.int64(20))


def noise_of(algorithm, steps, slots, seed=0):
    """What `slots` slots do in an episode, (T, B, A)."""
    actor = algorithm.actor(silent(algorithm))

    def step(carry, key):
        keys = jax.random.split(key, slots)
        action, carry, _ = jax.vmap(
            lambda carry, key: algorithm.act(actor, carry, jnp.zeros(3), key, explore=True)
        )(carry, keys)  # fmt: skip
        return carry, action

    carry = jax.vmap(lambda slot: algorithm.begin(actor, slot))(jnp.arange(slots))
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, carry, jax.random.split(jax.random.key(seed), steps))[1])())


@pytest.mark.parametrize("reversion", [0.15, 0.5])
def test_correlated_noise_grows_to_its_stationary_deviation_and_forgets_at_its_rate(reversion):
    noise = noise_of(made(noise="ou", noise_std=0.1, noise_reversion=reversion), 60, 4000)
    kept = 1 - reversion
    expected = 0.1 * np.sqrt((1 - kept ** (2 * np.arange(1, 61))) / (1 - kept**2))
    np.testing.assert_allclose(noise.std(axis=(1, 2)), expected, rtol=0.05)
    assert np.abs(noise.mean(axis=(1, 2))).max() < 5 * expected[-1] / np.sqrt(8000)
    assert expected[-1] == pytest.approx(0.1 / np.sqrt(reversion * (2 - reversion)), rel=1e-3)
    for lag in (1, 3):
        found = np.mean(noise[40:] * noise[40 - lag : -lag]) / np.mean(noise[40:] ** 2)
        assert found == pytest.approx(kept**lag, abs=0.02)
    across = np.mean(noise[..., 0] * noise[..., 1]) / np.mean(noise**2)
    assert abs(across) < 0.02


def test_gaussian_noise_has_its_deviation_and_no_memory_and_without_noise_there_is_none():
    noise = noise_of(made(noise="gaussian", noise_std=0.2), 20, 1000)
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    assert abs(np.mean(noise[1:] * noise[:-1]) / np.mean(noise**2)) < 0.02
    assert (noise_of(made(noise="none"), 5, 10) == 0).all()


def test_noise_is_added_to_the_policy_and_the_sum_stays_in_bounds():
    algorithm = made(noise_std=0.5)
    state = algorithm.init(jax.random.key(0))._replace(env_steps=jnp.int64(20))
    actor, obs = algorithm.actor(state), jnp.ones(3)
    mean, _, _ = algorithm.act(actor, (), obs, jax.random.key(0), explore=False)
    np.testing.assert_allclose(mean, np.tanh(relu_network(state.policy, np.ones(3))), rtol=1e-5)
    keys = jax.random.split(jax.random.key(1), 20_000)
    actions = np.asarray(jax.vmap(lambda key: algorithm.act(actor, (), obs, key, explore=True)[0])(keys))
    assert actions.min() == -1 and actions.max() == 1
    np.testing.assert_allclose(np.median(actions, 0), mean, atol=0.03)


def test_actions_are_uniform_during_the_warm_up():
    algorithm = made(noise_std=0.01)
    state = silent(algorithm)._replace(env_steps=jnp.int64(19))
    keys = jax.random.split(jax.random.key(1), 5_000)
    actor = algorithm.actor(state)
    actions = np.asarray(jax.vmap(lambda key: algorithm.act(actor, (), jnp.ones(3), key, explore=True)[0])(keys))
    assert actions.std() == pytest.approx(1 / np.sqrt(3), rel=0.03) and abs(actions.mean()) < 0.03


class Clock:
    """Task of four steps that earns nothing."""

    spec = SPEC

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(3)

    def step(self, state, action, key):
        nothing = jnp.zeros((), bool)
        seen = jnp.zeros(3)
        return state + 1, Step(seen, jnp.zeros(()), nothing, state + 1 >= 4, seen, {"failed": nothing})


def test_noise_restarts_with_the_episode_and_goes_on_across_a_resume_to_the_bit():
    algorithm = made(noise="ou", noise_std=0.1, num_envs=3)
    actor = algorithm.actor(silent(algorithm))
    collector = make_collector(algorithm, Clock(), 7, 3, 3)
    before = collector.collect(actor, collector.start(actor), 0)
    np.testing.assert_allclose(before.slots.carry, before.rollout.action[-1], atol=1e-7)
    stored = pickle.dumps(jax.device_get(before.slots._replace(environment=np.asarray(before.slots.environment))))
    after = collector.collect(actor, before.slots, 1).rollout.action
    resumed = make_collector(algorithm, Clock(), 7, 3, 3).collect(actor, pickle.loads(stored), 1).rollout.action
    forgetful = collector.collect(actor, before.slots._replace(carry=jnp.zeros((3, 2), jnp.float32)), 1).rollout.action
    assert (np.asarray(after) == np.asarray(resumed)).all()
    # the episode ends after the first of these steps, and then nothing of what was before is left
    np.testing.assert_allclose(after[0] - forgetful[0], 0.85 * np.asarray(before.slots.carry), atol=1e-6)
    assert (np.asarray(after[1:]) == np.asarray(forgetful[1:])).all()
    whole = make_collector(algorithm, Clock(), 7, 3, 4)
    assert (np.asarray(whole.collect(actor, whole.start(actor), 0).slots.carry) == 0).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"noise_reversion": 0.3}, 'DDPG.noise_reversion has no effect with noise="gaussian"'),
        ({"noise": "none", "noise_std": 0.2}, 'DDPG.noise_std has no effect with noise="none"'),
        ({"noise": "ou", "noise_reversion": 0.0}, r"DDPG.noise_reversion must be in \(0, 1\]: got 0.0"),
        ({"noise_std": -0.1}, "DDPG.noise_std must be a finite number of at least 0: got -0.1"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        made(**settings)
