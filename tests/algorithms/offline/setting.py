"""Noise batches, NumPy networks and slopes, and the log of a bandit, for tests of bc, iql, awac and their kin."""

import jax
import numpy as np

from workhorse.algorithms import registry
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Transitions
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import read_log_folder, write_log_folder
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.sources import Sources

COUNT = 12
BOX = EnvSpec("test", Box.unbounded(3), Box((-1.0, -2.0), (1.0, 2.0)), 100)
CHOICES = EnvSpec("test", Box.unbounded(3), Discrete(4), 100)
SMALL = {"hidden": (8,), "batch_size": COUNT, "warmup_env_steps": 20, "discount": 0.9, "normalise_observations": False}


def made(name, spec=BOX, **settings):
    return registry.make(name, spec, SMALL | settings)


def batch_of(spec=BOX, seed=0, count=COUNT):
    """Transitions that are noise; every third terminates, every third is cut, and windows have one to three steps."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, count, 3)).astype(np.float32)
    terminated, steps = np.arange(count) % 3 == 0, 1 + np.arange(count) % 4 % 3
    if isinstance(spec.action, Discrete):
        action, following = rng.integers(0, spec.action.count, (2, count)).astype(np.int32)
    else:
        action, following = rng.uniform(-1, 1, (2, count, 2)).astype(np.float32)
    return Transitions(
        obs, action, rng.normal(size=count).astype(np.float32), (0.9**steps * ~terminated).astype(np.float32), next_obs,
        terminated, np.arange(count) % 3 == 1, steps.astype(np.int32), np.arange(count),
        rng.uniform(0.2, 1, count).astype(np.float32), np.arange(count), following,
        rng.normal(size=count).astype(np.float32),
    )  # fmt: skip


@jax.jit
def after_one(algorithm, state, batch, key):
    """State, errors and metrics of one update."""
    return algorithm.learn(state, batch, key)


def doubled(tree):
    """The tree with every array in float64 and NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def perceptron(network, x):
    """Outputs (N, out) of a perceptron of rectified units for rows (N, in), in float64."""
    x, last = np.asarray(x, np.float64), len(network.weights) - 1
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        x = x @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
        x = np.maximum(x, 0) if layer < last else x
    return x


def values(critics, obs, action, network=perceptron):
    """Both critics' values, (2, N)."""
    rows = np.concatenate([np.asarray(obs, np.float64), np.asarray(action, np.float64)], axis=1)
    return np.stack([network(critic, rows)[:, 0] for critic in critics])


def first_gradient(memory):
    """The gradient that Adam saw in the only step of this memory: its mean of them is a tenth of it."""
    assert int(memory.count) == 1
    return jax.tree.map(lambda mean: np.asarray(mean, np.float64) / 0.1, memory.mu)


def assert_slopes(memory, params, loss, step=1e-5, picks=6, seed=0):
    """Compare the gradient of an optimiser's first step with finite differences of a loss in NumPy.

    Some coordinates of every array are moved. Not all of their slopes may be zero.
    """
    found, leaves = jax.tree.leaves(first_gradient(memory)), jax.tree.leaves(doubled(params))
    shape, rng, largest = jax.tree.structure(params), np.random.default_rng(seed), 0.0
    for number, leaf in enumerate(leaves):
        for place in rng.integers(0, leaf.size, picks):
            sides = []
            for sign in (1, -1):
                moved = leaf.copy()
                moved.reshape(-1)[place] += sign * step
                sides.append(loss(jax.tree.unflatten(shape, [*leaves[:number], moved, *leaves[number + 1 :]])))
            expected = (sides[0] - sides[1]) / (2 * step)
            largest = max(largest, abs(expected))
            np.testing.assert_allclose(found[number].reshape(-1)[place], expected, rtol=2e-3, atol=2e-5)
    assert largest > 1e-3, "slopes of nothing"


def shaken(tree, seed=7, size=0.3):
    """The tree with every float32 array moved, but for single numbers: the last bias of a critic decides too much."""
    rng = np.random.default_rng(seed)

    def moved(leaf):
        if leaf.dtype != np.float32 or leaf.size == 1:
            return leaf
        return leaf + size * rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.map(moved, tree)


def crossing(critics, obs, action, network=perceptron):
    """Both critics, of which the second has another last bias, so that each is the smaller one at some of the rows."""
    first, second = values(critics, obs, action, network)
    return critics[0], lifted(critics[1], np.median(first - second))


def lifted(network, shift):
    """A network of one output that is `shift` higher everywhere: its last bias is the only single number in it."""
    return jax.tree.map(lambda leaf: leaf + np.float32(shift) if leaf.size == 1 else leaf, network)


def bandit_log(path, best=0.5, episodes=600):
    """A log of one-step episodes: obs s, uniform actions a in [-1, 1], reward -(a - best sign(s_0))^2."""
    rng = np.random.default_rng(0)
    obs = rng.choice([-1.0, 1.0], (episodes, 2)).astype(np.float32)
    action = rng.uniform(-1, 1, (episodes, 1)).astype(np.float32)
    reward = -np.square(action[:, 0] - best * obs[:, 0]).astype(np.float64)
    log = Dataset.of(
        "bandit", Box((-1.0,) * 2, (1.0,) * 2), Box((-1.0,), (1.0,)), obs=obs, action=action, reward=reward,
        terminated=np.ones(episodes, bool), truncated=np.zeros(episodes, bool), final_obs=obs,
        begins=np.arange(episodes),
    )  # fmt: skip
    return write_log_folder(log, path)


def loop_on(path, name, updates=500, seed=0, held_out=0.05, **settings):
    """The loop of updates alone on a log, an iteration of which is `updates`."""
    log = read_log_folder(path)
    about = Sources(
        "offline", str(path), log.digest(), evaluate=False, held_out=held_out, updates_per_iteration=updates
    )
    plan = Plan(log.card.name, {}, name, {"hidden": (32,), "batch_size": 64} | settings, seed, sources=about)
    return make_loop(plan, plan.spec(), 1)


def learnt_on(path, name, **about):
    """The algorithm and its state after an iteration on a log, and the metrics."""
    loop = loop_on(path, name, **about)
    progress, metrics, failures = loop.iterate(loop.start())
    assert not failures
    return loop.algorithm, progress.state, metrics


@jax.jit
def _acting(algorithm, actor, observations):
    return jax.vmap(lambda obs: algorithm.act(actor, (), obs, jax.random.key(0), explore=False)[0])(observations)


def acted(algorithm, state, observations):
    """Noiseless actions at observations."""
    return np.asarray(_acting(algorithm, algorithm.actor(state), np.asarray(observations, np.float32)))


CORNERS = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]
"""The observations of the bandit; the best actions have the sign of the first number."""
