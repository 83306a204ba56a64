"""A small task without a simulator, and populations on it."""

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.algorithms import registry
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Returns
from workhorse.math import moments

SPEC = EnvSpec("test", Box.unbounded(3), Box((-9.0, -9.0), (9.0, 9.0)), 100)


def returns(fitness, mean_length=1.0):
    return Returns(jnp.asarray(fitness, jnp.float32), mean_length, moments.empty(3, jnp.float64))


def started(name="pgpe", spec=SPEC, **settings):
    algorithm = registry.make(name, spec, settings)
    return algorithm, algorithm.init(jax.random.key(1)), jax.jit(algorithm.update)


def members_of(algorithm, state, count=None):
    actor = algorithm.actor(state)
    return np.asarray(jax.vmap(lambda m: algorithm.displace(actor, m))(jnp.arange(count or algorithm.num_members)))


def ranks_of(fitness):
    found = np.empty(len(fitness))
    found[np.argsort(fitness)] = np.arange(len(fitness)) / (len(fitness) - 1) - 0.5
    return found
