"""TD3: smoothed and pessimistic targets, delayed steps of the policy, against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Transitions
from workhorse.networks.mlp import MLP

SPEC = EnvSpec("test", Box.unbounded(3), Box((-1.0, -2.0), (1.0, 2.0)), 100)
SMALL = {"hidden": (8,), "batch_size": 12, "warmup_env_steps": 20, "discount": 0.9}


def made(**settings):
    return registry.make("td3", SPEC, SMALL | settings)


def batch_of(seed=0, count=12):
    """Transitions that are noise; every third terminates, and windows have one to three steps."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, count, 3)).astype(np.float32)
    terminated, steps = np.arange(count) % 3 == 0, 1 + np.arange(count) % 4 % 3
    return Transitions(
        obs, rng.uniform(-1, 1, (count, 2)).astype(np.float32), rng.normal(size=count).astype(np.float32),
        (0.9**steps * ~terminated).astype(np.float32), next_obs, terminated, ~terminated, steps.astype(np.int32),
        np.arange(count), rng.uniform(0.2, 1, count).astype(np.float32), np.arange(count),
    )  # fmt: skip


def with_other_targets(algorithm, seed=0):
    """A state whose target networks are not those that learn."""
    state, other = (algorithm.init(jax.random.key(number)) for number in (seed, seed + 1))
    return state._replace(target_policy=other.policy, target_critics=other.critics)


def relu_network(network, x):
    *hidden, last = list(zip(network.weights, network.biases, strict=True))
    for weight, bias in hidden:
        x = np.maximum(np.asarray(weight, float) @ x + np.asarray(bias, float), 0)
    return np.asarray(last[0], float) @ x + np.asarray(last[1], float)


def critic_value(critic, obs, action):
    return relu_network(critic, np.concatenate([obs, action]))[0]


def test_the_target_is_the_smaller_of_two_target_critics_in_a_loop_over_transitions():
    algorithm, batch, key = made(reward_scale=0.5), batch_of(), jax.random.key(3)
    state = with_other_targets(algorithm)
    smoothed = algorithm.smoothed(state, batch.next_obs, key)
    expected, smaller = [], []
    for number in range(12):
        pair = [critic_value(one, batch.next_obs[number], smoothed[number]) for one in state.target_critics]
        smaller.append(int(np.argmin(pair)))
        expected.append(0.5 * batch.reward[number] + batch.discount[number] * min(pair))
    assert set(smaller) == {0, 1}, "else one critic would do"
    np.testing.assert_allclose(algorithm.target(state, batch, batch.next_obs, key), expected, rtol=2e-5)
    _, priority, metrics = algorithm.learn(state, batch, key)
    value = [critic_value(state.critics[0], *pair) for pair in zip(batch.obs, batch.action, strict=True)]
    np.testing.assert_allclose(metrics["target"], np.mean(expected), rtol=2e-5)
    np.testing.assert_allclose(metrics["value"], np.mean(value), rtol=2e-5)
    np.testing.assert_allclose(metrics["value_max"], np.max(value), rtol=2e-5)
    np.testing.assert_allclose(priority, np.abs(value - np.array(expected)), rtol=1e-4, atol=1e-5)


def test_the_smoothing_noise_is_gaussian_clipped_twice_and_goes_around_the_target_policy():
    algorithm = made(target_noise_std=0.4)
    state = with_other_targets(algorithm)
    obs = jnp.asarray(np.tile([0.3, -0.2, 0.1], (40_000, 1)), jnp.float32)
    centre = np.tanh(relu_network(state.target_policy, np.array([0.3, -0.2, 0.1])))
    noise = np.asarray(algorithm.smoothed(state, obs, jax.random.key(0))) - centre
    assert np.abs(centre).max() < 0.5, "so that the bounds of the actions are not in the way"
    assert np.abs(noise).max() == pytest.approx(0.5, abs=1e-6)
    # of N(0, 0.4^2), 21.1 % lie beyond 0.5
    assert np.mean(np.abs(noise) > 0.4999) == pytest.approx(0.211, abs=0.01)
    inside = np.abs(noise) < 0.2  # 38.3 % of a Gaussian lie within half a deviation
    assert inside.mean() == pytest.approx(0.383, abs=0.01)
    far = jax.tree.map(lambda leaf: 50 * leaf, state.target_policy)
    actions = np.asarray(algorithm.smoothed(state._replace(target_policy=far), obs, jax.random.key(0)))
    assert np.abs(actions).max() == 1
    silent = made(target_noise_std=0.0)
    np.testing.assert_allclose(silent.smoothed(state, obs[:1], jax.random.key(0))[0], centre, rtol=1e-5)


@pytest.mark.parametrize("every", [1, 3])
def test_policy_and_targets_move_only_in_every_dth_update_and_else_keep_their_bits(every):
    algorithm, batch = made(policy_every=every, learning_rate=0.01), batch_of()
    learn, state = jax.jit(algorithm.learn), with_other_targets(algorithm)
    for number in range(1, 7):
        after, _, metrics = learn(state, batch, jax.random.key(number))
        for name in ("policy", "target_policy", "target_critics"):
            pairs = zip(*(jax.tree.leaves(getattr(one, name)) for one in (state, after)), strict=True)
            assert all((old != new).any() for old, new in pairs) == (number % every == 0), (number, name)
            same = zip(*(jax.tree.leaves(getattr(one, name)) for one in (state, after)), strict=True)
            assert all((old == new).all() for old, new in same) == (number % every != 0), (number, name)
        memory = zip(*(jax.tree.leaves(one.optimisers[0]) for one in (state, after)), strict=True)
        assert all((np.asarray(old) == np.asarray(new)).all() for old, new in memory) == (number % every != 0)
        critics = zip(*(jax.tree.leaves(one.critics) for one in (state, after)), strict=True)
        assert all((old != new).any() for old, new in critics)
        assert (metrics["policy_loss"] == 0) == (number % every != 0)
        state = after
    assert state.updates == 6


def test_the_mean_over_updates_of_the_policys_metrics_is_that_of_those_it_moved_in():
    algorithm, batch = made(policy_every=2), batch_of()
    state, _, _ = algorithm.learn(with_other_targets(algorithm), batch, jax.random.key(0))
    after, _, metrics = algorithm.learn(state, batch, jax.random.key(1))
    chosen = [np.tanh(relu_network(state.policy, obs)) for obs in batch.obs]
    values = [critic_value(after.critics[0], *pair) for pair in zip(batch.obs, chosen, strict=True)]
    np.testing.assert_allclose(metrics["policy_loss"] / 2, -np.mean(values), rtol=1e-4)


def test_the_targets_go_a_share_of_the_way_to_the_new_networks():
    algorithm = made(target_rate=0.25, learning_rate=0.05, policy_every=1)
    state = with_other_targets(algorithm)
    after, _, _ = algorithm.learn(state, batch_of(), jax.random.key(0))
    for old, new, learnt in (
        (state.target_policy, after.target_policy, after.policy),
        (state.target_critics, after.target_critics, after.critics),
    ):
        for leaf, moved, goal in zip(*map(jax.tree.leaves, (old, new, learnt)), strict=True):
            np.testing.assert_allclose(moved, 0.75 * np.asarray(leaf) + 0.25 * np.asarray(goal), atol=1e-6)


def test_both_critics_go_down_their_own_weighted_error():
    algorithm, batch, key = made(learning_rate=0.01), batch_of(), jax.random.key(0)
    state = with_other_targets(algorithm)
    target = np.asarray(algorithm.target(state, batch, batch.next_obs, key), float)
    after, _, _ = algorithm.learn(state, batch, key)
    for before, now in zip(state.critics, after.critics, strict=True):
        # of the last bias the slope is 2 mean weight * error, and Adam's first step is its sign
        values = np.array([critic_value(before, *pair) for pair in zip(batch.obs, batch.action, strict=True)])
        slope = 2 * np.mean(batch.weight * (values - target))
        np.testing.assert_allclose((before.biases[-1] - now.biases[-1]) / 0.01, np.sign(slope), atol=1e-2)
        # of the last weights it is that times the hidden units
        units = np.array([
            np.maximum(
                np.asarray(before.weights[0], float) @ np.concatenate(pair) + np.asarray(before.biases[0], float), 0
            )
            for pair in zip(batch.obs, batch.action, strict=True)
        ])  # fmt: skip
        slopes = 2 * np.mean((batch.weight * (values - target))[:, None] * units, 0)
        clear = np.abs(slopes) > 1e-3
        assert clear.sum() >= 3
        step = np.asarray(before.weights[-1] - now.weights[-1])[0] / 0.01
        np.testing.assert_allclose(step[clear], np.sign(slopes)[clear], atol=1e-2)


def tent(best):
    """A critic that is -sum |a - best|, whatever the observation, exactly."""
    count = len(best)
    first = np.zeros((2 * count, 3 + count), np.float32)
    first[:count, 3:], first[count:, 3:] = np.eye(count), -np.eye(count)
    offsets = np.concatenate([-np.asarray(best), best]).astype(np.float32)
    weights = (jnp.asarray(first), -jnp.ones((1, 2 * count), jnp.float32))
    return MLP(weights, (jnp.asarray(offsets), jnp.zeros(1, jnp.float32)), "relu")


def test_the_policy_climbs_to_the_top_of_the_first_critic():
    best, algorithm, batch = np.array([0.5, -0.7]), made(learning_rate=0.01, hidden=(4,)), batch_of()
    state = algorithm.init(jax.random.key(0))
    critics = (tent(best), tent(-best))
    state = state._replace(critics=critics, target_critics=critics)
    policy = jax.jit(lambda state: algorithm._policy(state, jnp.asarray(batch.obs), jnp.asarray(batch.action))[0])
    for _ in range(400):
        state = policy(state)
    np.testing.assert_allclose(jnp.tanh(jax.vmap(state.policy)(batch.obs)), np.tile(best, (12, 1)), atol=0.1)


def test_actions_have_the_noise_that_is_asked_for_and_are_uniform_during_the_warm_up():
    algorithm = made(noise_std=0.15)
    state = algorithm.init(jax.random.key(0))
    state = state._replace(policy=jax.tree.map(jnp.zeros_like, state.policy), env_steps=jnp.int64(20))
    keys = jax.random.split(jax.random.key(1), 20_000)

    def acted(state):
        actor = algorithm.actor(state)
        return np.asarray(jax.vmap(lambda key: algorithm.act(actor, (), jnp.ones(3), key, explore=True)[0])(keys))

    actions = acted(state)
    assert actions.std() == pytest.approx(0.15, rel=0.02) and abs(actions.mean()) < 0.005
    assert abs(np.mean(actions[:, 0] * actions[:, 1])) < 0.001
    actions = acted(state._replace(env_steps=jnp.int64(19)))
    assert actions.std() == pytest.approx(1 / np.sqrt(3), rel=0.02) and abs(actions.mean()) < 0.02
    quiet, _, _ = algorithm.act(algorithm.actor(state), (), jnp.ones(3), keys[0], explore=False)
    assert (quiet == 0).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"policy_every": 0}, "TD3.policy_every must be a finite number above 0: got 0"),
        ({"target_noise_std": -1.0}, "TD3.target_noise_std must be a finite number of at least 0: got -1.0"),
        ({"target_noise_std": 0.0, "target_noise_clip": 0.2}, "TD3.target_noise_clip has no effect"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        made(**settings)
