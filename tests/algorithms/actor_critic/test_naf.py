"""NAF: Q is a parabola in the action whose top is the policy, and its target has the terminal mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.algorithms import registry
from workhorse.algorithms.actor_critic.naf import Parabola
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step, Transitions
from workhorse.training.rollouts import make_collector

SPEC = EnvSpec("test", Box.unbounded(3), Box((-1.0, -2.0, 0.0), (1.0, 2.0, 5.0)), 100)
SMALL = {"hidden": (8,), "batch_size": 12, "warmup_env_steps": 20, "discount": 0.9}


def made(**options):
    return registry.make("naf", SPEC, SMALL | options)


def batch_of(seed=0, count=12):
    """Transitions that are noise; every third terminates, and windows have one to three steps."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, count, 3)).astype(np.float32)
    terminated, steps = np.arange(count) % 3 == 0, 1 + np.arange(count) % 4 % 3
    return Transitions(
        obs, rng.uniform(-1, 1, (count, 3)).astype(np.float32), rng.normal(size=count).astype(np.float32),
        (0.9**steps * ~terminated).astype(np.float32), next_obs, terminated, ~terminated, steps.astype(np.int32),
        np.arange(count), rng.uniform(0.2, 1, count).astype(np.float32), np.arange(count),
    )  # fmt: skip


def wild(algorithm, seed=0, scale=30.0):
    """A state whose heads differ from state to state, as after learning, and whose target is another network."""
    state, other = (algorithm.init(jax.random.key(number)) for number in (seed, seed + 1))

    def scaled(network):
        *weights, heads = network.weights
        return type(network)((*weights, heads * scale), network.biases, network.activation)

    return state._replace(network=scaled(state.network), target=scaled(other.network), env_steps=jnp.int64(20))


def outputs_by_hand(network, obs):
    (first, heads), (offset, last) = network.weights, network.biases
    return np.asarray(heads, float) @ np.tanh(np.asarray(first, float) @ obs + np.asarray(offset, float)) + last


def heads_by_hand(network, obs):
    """V, mu and L of three action components from the network's ten outputs, entry by entry."""
    outputs = np.asarray(outputs_by_hand(network, obs), float)
    root, place = np.zeros((3, 3)), 4
    for row in range(3):
        for column in range(row + 1):
            root[row, column] = outputs[place]
            if row == column:
                root[row, column] = np.exp(min(max(outputs[place], -5.0), 5.0))
            place += 1
    return outputs[0], np.tanh(outputs[1:4]), root


def value_by_hand(heads, action):
    value, mean, root = heads
    away, precision = np.asarray(action, float) - mean, root @ root.T
    total = value
    for i in range(3):
        for j in range(3):
            total -= 0.5 * away[i] * precision[i, j] * away[j]
    return total


def test_heads_target_and_errors_are_those_of_a_loop_over_transitions():
    algorithm, batch = made(reward_scale=0.5), batch_of()
    state = wild(algorithm)
    found = jax.vmap(lambda obs: algorithm.parabola(state.network, obs))(batch.obs)
    by_hand = [heads_by_hand(state.network, obs) for obs in batch.obs]
    for ours, theirs in zip(found, zip(*by_hand, strict=True), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    values = np.array([value_by_hand(*pair) for pair in zip(by_hand, batch.action, strict=True)])
    target = [
        0.5 * batch.reward[n] + batch.discount[n] * outputs_by_hand(state.target, batch.next_obs[n])[0]
        for n in range(12)
    ]
    assert (np.asarray(target)[batch.terminated] == 0.5 * batch.reward[batch.terminated]).all(), "the terminal mask"
    np.testing.assert_allclose(algorithm.target(state, batch, batch.next_obs), target, rtol=2e-5)
    _, priority, metrics = algorithm.learn(state, batch, jax.random.key(0))
    errors = values - np.array(target)
    np.testing.assert_allclose(priority, np.abs(errors), rtol=1e-3, atol=1e-4)
    for name, expected in {
        "value": values.mean(), "value_max": values.max(), "target": np.mean(target),
        "critic_loss": np.mean(errors**2), "precision_max": max(np.diag(h[2] @ h[2].T).max() for h in by_hand),
    }.items():  # fmt: skip
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-3, err_msg=name)


def test_the_policy_is_the_best_action_in_every_state_and_its_value_is_v():
    algorithm = made()
    state, rng = wild(algorithm), np.random.default_rng(0)
    actor, grid = algorithm.actor(state), np.stack(np.meshgrid(*[np.linspace(-1, 1, 21)] * 3), -1).reshape(-1, 3)
    spread = []
    for obs in rng.normal(size=(20, 3)):
        found = algorithm.parabola(state.network, jnp.asarray(obs, jnp.float32))
        values = np.asarray(jax.vmap(found.at)(jnp.asarray(grid, jnp.float32)))
        mean, _, _ = algorithm.act(actor, algorithm.begin(actor, 0), jnp.asarray(obs), jax.random.key(0), explore=False)
        np.testing.assert_allclose(mean, found.mean, atol=1e-6)
        assert found.at(mean) == found.value
        assert (values <= found.value).all()
        spread.append(values.max() - values.min())
    assert np.min(spread) > 0.1, "else any action would be the best one"


def test_no_head_reads_the_action_so_that_q_has_the_same_curvature_everywhere():
    algorithm, batch = made(), batch_of()
    state = wild(algorithm)
    assert state.network.weights[0].shape == (8, 3)
    found = algorithm.parabola(state.network, jnp.asarray(batch.obs[0]))
    curvature = jax.vmap(jax.hessian(lambda action: found.at(action)))(jnp.asarray(batch.action))
    np.testing.assert_allclose(curvature, np.tile(-found.root @ found.root.T, (12, 1, 1)), rtol=1e-4, atol=1e-4)
    assert (np.linalg.eigvalsh(curvature) < 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-40, 40, width=32, allow_subnormal=False), min_size=6, max_size=6))
def test_l_is_lower_triangular_and_its_diagonal_is_clipped_before_it_is_exponentiated(entries):
    algorithm = made(hidden=(1,))
    network = jax.tree.map(jnp.zeros_like, algorithm.init(jax.random.key(0)).network)
    heads = jnp.concatenate([jnp.zeros(4), jnp.asarray(entries)]).astype(jnp.float32)
    network = type(network)(network.weights, (network.biases[0], heads), network.activation)
    root = np.asarray(algorithm.parabola(network, jnp.zeros(3, jnp.float32)).root)
    assert (np.triu(root, 1) == 0).all()
    np.testing.assert_allclose(np.diag(root), np.exp(np.clip(np.take(entries, [0, 2, 5]), -5, 5)), rtol=1e-5)
    np.testing.assert_allclose(root[np.tril_indices(3, -1)], np.take(entries, [1, 3, 4]), rtol=1e-6)


def test_the_gradient_of_the_parabola_is_that_of_finite_differences():
    rng = np.random.default_rng(1)
    value, mean, action = rng.normal(), rng.uniform(-1, 1, 3), rng.uniform(-1, 1, 3)
    root = np.tril(rng.normal(size=(3, 3)))
    exact = jax.grad(lambda one, a: one.at(a), (0, 1))(
        Parabola(*(jnp.asarray(part, jnp.float32) for part in (value, mean, root))), jnp.asarray(action, jnp.float32)
    )
    flat = np.concatenate([[value], mean, root.ravel(), action])

    def q(flat):
        return value_by_hand((flat[0], flat[1:4], flat[4:13].reshape(3, 3)), flat[13:])

    slopes = [(q(flat + 1e-6 * unit) - q(flat - 1e-6 * unit)) / 2e-6 for unit in np.eye(16)]
    found = np.concatenate([np.ravel(part) for part in (*exact[0], exact[1])])
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-5)


def test_an_update_goes_down_the_weighted_error_of_every_head():
    algorithm, batch = made(learning_rate=0.01), batch_of()
    state = wild(algorithm)
    after, _, _ = algorithm.learn(state, batch, jax.random.key(0))
    target = np.asarray(algorithm.target(state, batch, batch.next_obs), float)

    def loss(heads):
        network = type(state.network)(
            (state.network.weights[0], heads), state.network.biases, state.network.activation
        )  # fmt: skip
        values = [value_by_hand(heads_by_hand(network, o), a) for o, a in zip(batch.obs, batch.action, strict=True)]
        return np.mean(batch.weight * (np.array(values) - target) ** 2)

    heads, slopes = np.asarray(state.network.weights[1], float), np.zeros((10, 8))
    for entry in np.ndindex(10, 8):
        pair = []
        for sign in (1, -1):
            moved = heads.copy()
            moved[entry] += sign * 1e-3
            pair.append(loss(jnp.asarray(moved)))
        slopes[entry] = (pair[0] - pair[1]) / 2e-3
    largest = np.abs(slopes).max(1, keepdims=True)
    assert (largest > 1e-3).all(), "every head learns"
    clear = np.abs(slopes) > 0.05 * largest
    step = (heads - np.asarray(after.network.weights[1], float)) / 0.01
    np.testing.assert_allclose(step[clear], np.sign(slopes)[clear], atol=0.02)


def test_heads_are_small_at_the_start_and_the_target_is_the_network():
    state = made(hidden=(100, 100)).init(jax.random.key(0))
    bound = 0.1 / np.sqrt(100)
    for part in (state.network.weights[-1], state.network.biases[-1]):
        assert 0.8 * bound < np.abs(part).max() <= bound
    assert np.abs(state.network.weights[1]).max() > 0.9 / np.sqrt(100)
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (state.network, state.target)), strict=True))


def test_the_target_goes_a_share_of_the_way():
    algorithm = made(target_rate=0.25, learning_rate=0.05)
    state = wild(algorithm)
    after, _, _ = algorithm.learn(state, batch_of(), jax.random.key(0))
    for old, new, learnt in zip(*map(jax.tree.leaves, (state.target, after.target, after.network)), strict=True):
        np.testing.assert_allclose(new, 0.75 * np.asarray(old) + 0.25 * np.asarray(learnt), atol=1e-5)
    assert after.updates == 1


def test_unit_norm_keeps_every_units_weights_at_length_one():
    algorithm = made(unit_norm=True, learning_rate=0.1, hidden=(8, 8))
    state = algorithm.init(jax.random.key(0))
    after, _, _ = algorithm.learn(state, batch_of(), jax.random.key(0))
    for network in (state.network, after.network):
        for weight, bias in zip(network.weights, network.biases, strict=True):
            rows = np.concatenate([np.asarray(weight, float), np.asarray(bias, float)[:, None]], 1)
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    free = made(hidden=(8, 8)).init(jax.random.key(0)).network
    for weight, bias, one in zip(free.weights, free.biases, state.network.weights, strict=True):
        length = np.sqrt(np.square(weight).sum(1) + np.square(bias))  # only the length is another
        np.testing.assert_allclose(one, weight / length[:, None], rtol=1e-5)


def acted(algorithm, state, steps=1, slots=20_000, obs=(0.3, -0.2, 0.1)):
    """What slots do in an episode, (T, B, A)."""
    actor, obs = algorithm.actor(state), jnp.asarray(obs, jnp.float32)

    def step(carry, key):
        act = jax.vmap(lambda carry, key: algorithm.act(actor, carry, obs, key, explore=True))
        action, carry, _ = act(carry, jax.random.split(key, slots))
        return carry, action

    carry = jax.vmap(lambda slot: algorithm.begin(actor, slot))(jnp.arange(slots))
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, carry, jax.random.split(jax.random.key(0), steps))[1])())


def test_precision_noise_has_the_inverse_of_the_precision_as_its_covariance():
    algorithm = made(noise="precision")
    state = wild(algorithm, scale=5.0)
    # the diagonal of L is made large, so that the bounds of the actions are not in the way
    offsets = state.network.biases[-1].at[jnp.array([4, 6, 9])].add(2.5).at[jnp.array([5, 7, 8])].add(6.0)
    network = type(state.network)(state.network.weights, (state.network.biases[0], offsets), "tanh")
    state = state._replace(network=network)
    found = algorithm.parabola(network, jnp.asarray([0.3, -0.2, 0.1], jnp.float32))
    expected = np.linalg.inv(np.asarray(found.root @ found.root.T, float))
    actions = acted(algorithm, state)[0]
    assert np.abs(actions).max() < 1
    np.testing.assert_allclose(actions.mean(0), found.mean, atol=5 * np.sqrt(expected.max() / 20_000))
    assert np.abs(expected - np.diag(np.diag(expected))).max() > 0.2 * expected.max(), "else any order of L would do"
    np.testing.assert_allclose(np.cov(actions.T), expected, atol=0.04 * np.abs(expected).max())


def quiet(algorithm):
    """A state after the warm-up with mu = 0."""
    state = algorithm.init(jax.random.key(0))
    return state._replace(network=jax.tree.map(jnp.zeros_like, state.network), env_steps=jnp.int64(20))


def test_correlated_noise_grows_to_its_stationary_deviation_and_gaussian_noise_has_no_memory():
    algorithm = made(noise="ou", noise_std=0.1, noise_reversion=0.3)
    noise = acted(algorithm, quiet(algorithm), steps=25, slots=4000)
    expected = 0.1 * np.sqrt((1 - 0.7 ** (2 * np.arange(1, 26))) / (1 - 0.7**2))
    np.testing.assert_allclose(noise.std(axis=(1, 2)), expected, rtol=0.05)
    assert np.mean(noise[20:] * noise[18:-2]) / np.mean(noise[20:] ** 2) == pytest.approx(0.49, abs=0.02)
    algorithm = made(noise="gaussian", noise_std=0.1)
    noise = acted(algorithm, quiet(algorithm), steps=10, slots=2000)
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(np.mean(noise[1:] * noise[:-1]) / np.mean(noise**2)) < 0.02
    algorithm = made(noise="none")
    assert (acted(algorithm, quiet(algorithm), steps=2, slots=5) == 0).all()


def test_actions_are_uniform_during_the_warm_up():
    algorithm = made()
    actions = acted(algorithm, quiet(algorithm)._replace(env_steps=jnp.int64(19)))[0]
    assert actions.std() == pytest.approx(1 / np.sqrt(3), rel=0.02) and abs(actions.mean()) < 0.02


class Clock:
    """Task of four steps that earns nothing."""

    spec = SPEC

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(3)

    def step(self, state, action, key):
        nothing, seen = jnp.zeros((), bool), jnp.zeros(3)
        return state + 1, Step(seen, jnp.zeros(()), nothing, state + 1 >= 4, seen, {"failed": nothing})


def test_correlated_noise_restarts_with_the_episode():
    algorithm = made(noise_std=0.1, num_envs=3)
    actor = algorithm.actor(quiet(algorithm))
    part, whole = (make_collector(algorithm, Clock(), 7, 3, steps) for steps in (3, 4))
    before = part.collect(actor, part.start(actor), 0)
    np.testing.assert_allclose(before.slots.carry, before.rollout.action[-1], atol=1e-7)
    assert (np.asarray(before.slots.carry) != 0).all()
    assert (np.asarray(whole.collect(actor, whole.start(actor), 0).slots.carry) == 0).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"noise": "gaussian", "noise_reversion": 0.3}, 'NAF.noise_reversion has no effect with noise="gaussian"'),
        ({"noise": "precision", "noise_std": 0.2}, 'NAF.noise_std has no effect with noise="precision"'),
        ({"noise": "none", "noise_std": 0.2}, 'NAF.noise_std has no effect with noise="none"'),
        ({"noise_reversion": 1.5}, r"NAF.noise_reversion must be in \(0, 1\]: got 1.5"),
        ({"noise_std": -0.1}, "NAF.noise_std must be a finite number of at least 0: got -0.1"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        made(**options)
