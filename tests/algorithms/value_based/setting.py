"""What the tests of the value-based family share: specs, batches, loops on probes, and networks in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.algorithms import registry
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Transitions
from workhorse.environments.probes import TabularProbe
from workhorse.training.episodes import make_player
from workhorse.training.lanes import Lanes
from workhorse.training.off_policy import OffPolicyLoop
from workhorse.training.rollouts import make_collector

D, A = 4, 3
SPEC = EnvSpec("probe", Box.unbounded(D), Discrete(A), 100)
SMALL = {"hidden": (6, 5), "batch_size": 16, "warmup_env_steps": 32, "rollout_steps": 32, "replay_capacity": 64}


def made(name="dqn", spec=SPEC, **settings):
    return registry.make(name, spec, {**SMALL, **settings})


def batch_of(count=16, seed=0, discount=0.99):
    """Transitions of noise, with windows of 1 to 3 steps of which some end in a termination."""
    rng = np.random.default_rng(seed)
    steps, terminated = rng.integers(1, 4, count), rng.random(count) < 0.3
    return Transitions(
        rng.normal(size=(count, D)).astype(np.float32),
        rng.integers(0, A, count),
        rng.normal(size=count).astype(np.float32),
        (discount**steps * (1 - terminated)).astype(np.float32),
        rng.normal(size=(count, D)).astype(np.float32),
        terminated,
        ~terminated & (rng.random(count) < 0.3),
        steps.astype(np.int32),
        np.arange(count),
        rng.uniform(0.2, 1, count).astype(np.float32),
        np.zeros(count, np.int64),
    )


def moved(state, seed=5):
    """The state with networks that were shaken, each in another way, and an optimiser that has seen nothing."""

    def shaken(tree, key):
        leaves, shape = jax.tree.flatten(tree)
        keys = jax.random.split(key, len(leaves))
        pairs = zip(leaves, keys, strict=True)
        return jax.tree.unflatten(
            shape, [leaf + 0.3 * jax.random.normal(one, leaf.shape, leaf.dtype) for leaf, one in pairs]
        )

    names = [name for name in ("network", "target", "policy", "critics", "targets") if name in state._fields]
    keys = jax.random.split(jax.random.key(seed), len(names))
    return state._replace(**{name: shaken(getattr(state, name), key) for name, key in zip(names, keys, strict=True)})


def plain_perceptron(network, x):
    """A perceptron, a unit at a time."""
    x = [float(one) for one in x]
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        weight, bias = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
        x = [sum(w * one for w, one in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        if layer < len(network.weights) - 1:
            x = [max(one, 0.0) for one in x]
    return np.array(x)


def plain_outputs(streams, x):
    """Outputs (A, n) of one observation, written out."""
    if streams.trunk is not None:
        x = np.maximum(plain_perceptron(streams.trunk, x), 0)
    advantage = plain_perceptron(streams.advantage, x).reshape(streams.choices, -1)
    if streams.value is None:
        return advantage
    value, found = plain_perceptron(streams.value, x), np.zeros_like(advantage)
    for choice in range(streams.choices):
        for atom in range(advantage.shape[1]):
            others = sum(advantage[other, atom] for other in range(streams.choices)) / streams.choices
            found[choice, atom] = value[atom] + advantage[choice, atom] - others
    return found


def plain_softmax(logits):
    share = np.exp(logits - logits.max())
    return share / share.sum()


def plain_projection(probability, support, shift, discount):
    """The projection onto the atoms by its triangular kernel: atom i takes mass by 1 - distance / width."""
    width = support[1] - support[0]
    found = np.zeros(len(support))
    for mass, atom in zip(probability, support, strict=True):
        place = min(max(shift + discount * atom, support[0]), support[-1])
        for i, other in enumerate(support):
            found[i] += mass * max(0.0, 1 - abs(place - other) / width)
    return found


CHAIN = TabularProbe(
    # to the left for .1 from the second place, or to the right until 1 is paid at the end; the third can be stayed at
    transitions=(
        ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
        ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
        ((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
    ),
    rewards=((0.0, 0.0), (0.1, 0.0), (-0.1, 1.0)),
    start=(0.4, 0.3, 0.3),
    max_episode_steps=7,
)
"""A chain of three places without chance: nothing but the start is drawn. Its clock cuts most episodes short."""


def chain_values(discount, temperature=0.0):
    """Q, (S, A), of the best policy, or of the best one with an entropy bonus, by iteration of the Bellman equation."""
    followed, paid = np.array(CHAIN.transitions), np.array(CHAIN.rewards)
    found = np.zeros_like(paid)
    for _ in range(2000):
        if temperature:
            top = found.max(1)
            ahead = top + temperature * np.log(np.exp((found - top[:, None]) / temperature).sum(1))
        else:
            ahead = found.max(1)
        found = paid + discount * followed @ ahead
    return found


def loop_on(env, name, seed=0, **settings):
    """The real loop of an algorithm on an environment, which need not be in the registry."""
    algorithm = registry.make(name, env.spec, settings)
    collector = make_collector(algorithm, env, seed, algorithm.num_envs, algorithm.learn_every)
    return OffPolicyLoop(algorithm, seed, collector, Lanes([make_player(algorithm, env, 2, seed)]))


def trained_on(env, name, iterations, seed=0, **settings):
    """The algorithm, its state after some iterations, and the metrics of the last one."""
    loop = loop_on(env, name, seed, **settings)
    progress, metrics = loop.start(), {}
    for _ in range(iterations):
        progress, metrics, _ = loop.iterate(progress)
    loop.close()
    return loop.algorithm, progress.state, metrics


def values_at(algorithm, state, observations):
    """Q, (N, A), of the network without noise."""
    outputs = jax.vmap(state.network.mean)(jnp.asarray(observations, jnp.float32))
    return np.asarray(algorithm.values(outputs))
