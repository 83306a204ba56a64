"""Batches, the log of a bandit and NumPy networks, for tests of bcq, bear, cql and their kin."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.algorithms import registry
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Transitions

D, A = 3, 2
SPEC = EnvSpec("test", Box.unbounded(D), Box((-1.0, -2.0), (1.0, 2.0)), 100)
SMALL = {
    "hidden": (8,), "batch_size": 12, "warmup_env_steps": 20, "discount": 0.9, "normalise_observations": False,
}  # fmt: skip
KEY = jax.random.key(5)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

# The algorithm is an argument of the programs, so that settings which differ in numbers alone share one.
begin = jax.jit(lambda algorithm, seed: algorithm.init(jax.random.key(seed)))
learn = jax.jit(lambda algorithm, state, batch, key: algorithm.learn(state, batch, key))


def made(name, **settings):
    return registry.make(name, SPEC, SMALL | settings)


def batch_of(seed=0, count=12):
    """Transitions that are noise; every third terminates, every fourth is cut, windows have one to three steps."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, count, D)).astype(np.float32)
    action, next_action = rng.uniform(-1, 1, (2, count, A)).astype(np.float32)
    terminated, steps = np.arange(count) % 3 == 0, 1 + np.arange(count) % 4 % 3
    return Transitions(
        obs, action, rng.normal(size=count).astype(np.float32), (0.9**steps * ~terminated).astype(np.float32), next_obs,
        terminated, ~terminated & (np.arange(count) % 4 == 1), steps.astype(np.int32), np.arange(count),
        rng.uniform(0.2, 1, count).astype(np.float32), np.arange(count), next_action,
        rng.normal(size=count).astype(np.float32),
    )  # fmt: skip


def run(network, x):
    """A perceptron in double precision, on rows."""
    *hidden, last = [(np.asarray(w, float), np.asarray(b, float)) for w, b in zip(network.weights, network.biases)]  # noqa: B905
    x = np.asarray(x, float)
    for weight, bias in hidden:
        x = np.maximum(x @ weight.T + bias, 0)
    return x @ last[0].T + last[1]


def value_of(critic, obs, action):
    return run(critic, np.concatenate([obs, action], axis=-1))[..., 0]


def slopes(loss, network, layer, entries, step=1e-5):
    """Central differences of a loss along entries of a layer's weights."""
    found = []
    for entry in entries:
        losses = []
        for sign in (1, -1):
            weights = [np.array(weight, float) for weight in network.weights]
            weights[layer][entry] += sign * step
            losses.append(loss(SimpleNamespace(weights=weights, biases=network.biases)))
        found.append((losses[0] - losses[1]) / (2 * step))
    return np.array(found)


def assert_first_step_of_adam(before, after, loss, rate, layer=-1, least=1e-3):
    """Adam's first step is the sign of the slope times the rate: check every entry of a layer whose slope is clear."""
    layer %= len(before.weights)
    entries = list(np.ndindex(before.weights[layer].shape))
    slope = slopes(loss, before, layer, entries)
    step = (np.asarray(before.weights[layer], float) - np.asarray(after.weights[layer], float)) / rate
    clear = np.abs(slope) > least
    assert clear.sum() >= 4
    np.testing.assert_allclose(step[tuple(np.array(entries).T)][clear], np.sign(slope)[clear], atol=2e-2)


# --- a bandit, whose log says nothing of most actions ---

BANDIT = EnvSpec("bandit", Box((-1.0,), (1.0,)), Box((-1.0,), (1.0,)), 1)
LEARNING = {"hidden": (32, 32), "batch_size": 64, "warmup_env_steps": 64, "learning_rate": 1e-3, "discount": 0.9}


def middle(obs):
    """Of the log's actions at an observation; the actions lie within 0.25 of it."""
    return 0.4 * obs - 0.3


def bandit_log(count=2000, seed=0, peak=None):
    """One-step episodes that pay more the further the action is above the middle of the log's, or the nearer a peak."""
    rng, one = np.random.default_rng(seed), np.ones(count, np.float32)
    obs = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    action = (middle(obs) + rng.uniform(-0.25, 0.25, (count, 1))).astype(np.float32)
    above = (action - middle(obs))[:, 0]
    reward = above if peak is None else -4 * np.square(above - np.float32(peak))
    number = np.arange(count)
    return Transitions(
        obs, action, reward, 0 * one, obs, one > 0, one < 0, one.astype(np.int32), number, one, number, action, reward
    )


@partial(jax.jit, static_argnums=2)
def trained(algorithm, rows, updates, seed=0):
    """The state after updates on batches of a log, and the metrics of the last one."""

    def one(state, key):
        chosen = jax.random.randint(key, (algorithm.batch_size,), 0, len(rows.reward))
        batch = jax.tree.map(lambda column: jnp.asarray(column)[chosen], rows)
        state, _, metrics = algorithm.learn(state, batch, jax.random.fold_in(key, 1))
        return state, metrics

    keys = jax.random.split(jax.random.key(seed + 1), updates)
    state, metrics = jax.lax.scan(one, algorithm.init(jax.random.key(seed)), keys)
    return state, jax.tree.map(lambda leaf: leaf[-1], metrics)


def gains(name, updates=1500, explore=False, peak=None, **settings):
    """How far the policy's actions lie above the middle of the log at nine observations; its edge is at 0.25."""
    algorithm = registry.make(name, BANDIT, LEARNING | {"normalise_observations": False} | settings)
    state, _ = trained(algorithm, jax.tree.map(jnp.asarray, bandit_log(peak=peak)), updates)
    actor, obs = algorithm.actor(state._replace(env_steps=jnp.int64(10**6))), np.linspace(-0.8, 0.8, 9)[:, None]
    act = jax.vmap(lambda obs, key: algorithm.act(actor, (), obs, key, explore=explore)[0])
    return np.asarray(act(jnp.asarray(obs, jnp.float32), jax.random.split(KEY, 9)) - middle(obs))[:, 0]
