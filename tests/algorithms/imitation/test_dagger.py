"""DAgger's pure part: what is remembered, the losses of every kind of action, the expert's share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.algorithms import registry
from workhorse.algorithms.demonstration_learner import scaled
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Demonstrations
from workhorse.networks.heads import own_action, task_action

SPACES = {
    "box": Box((-1.0, -2.0), (1.0, 2.0)),
    "discrete": Discrete(3),
    "multi-discrete": MultiDiscrete((2, 3)),
    "multi-binary": MultiBinary(2),
}
SMALL = {"hidden": (8,), "copy_updates": 5, "copy_batch_size": 8, "memory_size": 60}


def made(space, **settings):
    spec = EnvSpec("test", Box.unbounded(3), space, 100)
    return registry.make("dagger", spec, SMALL | settings)


def actions_of(space, rng, count):
    if isinstance(space, Box):
        return rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    if isinstance(space, Discrete):
        return rng.integers(0, 3, count).astype(np.int32)
    high = (2, 3) if isinstance(space, MultiDiscrete) else (2, 2)
    return rng.integers(0, high, (count, 2)).astype(np.int32)


def shown(space, rng, count):
    there = rng.random(count) < 0.7
    return Demonstrations(rng.normal(size=(count, 3)).astype(np.float32), actions_of(space, rng, count), there)


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
def test_the_memory_is_the_union_of_all_answers_and_its_moments_are_theirs(space):
    algorithm, rng = made(space), np.random.default_rng(0)
    state, parts = algorithm.init(jax.random.key(0)), [shown(space, rng, 20) for _ in range(3)]
    for number, part in enumerate(parts):
        state, _ = jax.jit(algorithm.update)(state, part, jax.random.key(number))
    obs, action = (np.concatenate([getattr(part, name)[part.is_there] for part in parts]) for name in ("obs", "action"))
    count = len(obs)
    assert int(state.seen) == count == state.memory.is_there.sum() < 60
    np.testing.assert_array_equal(state.memory.obs[:count], obs)
    np.testing.assert_array_equal(state.memory.action[:count], action)
    np.testing.assert_allclose(state.observations.mean, obs.mean(0), rtol=1e-6)


def test_beyond_its_size_the_memory_forgets_the_oldest():
    algorithm, rng = made(SPACES["box"], memory_size=25), np.random.default_rng(0)
    state, parts = algorithm.init(jax.random.key(0)), [shown(SPACES["box"], rng, 20) for _ in range(3)]
    for part in parts:
        state = algorithm.remembered(state, part)
    newest = np.concatenate([part.obs[part.is_there] for part in parts])[-25:]
    rows = {tuple(row) for row in np.asarray(state.memory.obs)}
    assert rows == {tuple(row) for row in newest}


def plain_loss(space, outputs, action):
    """The mean loss by loops over rows and components."""
    found = []
    for row, done in zip(outputs.astype(np.float64), action, strict=True):
        if isinstance(space, Box):
            found += [(one - other) ** 2 for one, other in zip(row, done, strict=True)]
        elif isinstance(space, MultiBinary):
            for logit, on in zip(row, done, strict=True):
                p = 1 / (1 + np.exp(-logit))
                found.append(-np.log(p if on else 1 - p))
        else:
            counts = (3,) if isinstance(space, Discrete) else space.counts
            total, begin = 0.0, 0
            for count, choice in zip(counts, np.atleast_1d(done), strict=True):
                scores = row[begin : begin + count]
                total += -np.log(np.exp(scores[choice]) / np.exp(scores).sum())
                begin += count
            found.append(total)
    return np.mean(found)


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
def test_losses_are_those_of_plain_loops(space):
    algorithm, rng = made(space), np.random.default_rng(1)
    width = {"box": 2, "discrete": 3, "multi-discrete": 5, "multi-binary": 2}
    size = next(width[name] for name, one in SPACES.items() if one == space)
    outputs, action = rng.normal(size=(12, size)).astype(np.float32), actions_of(space, rng, 12)
    found = algorithm.losses(jnp.asarray(outputs), jnp.asarray(action)).mean()
    np.testing.assert_allclose(found, plain_loss(space, outputs, action), rtol=1e-5)


def test_the_visited_loss_is_of_the_copy_before_it_learns_on_the_new_states_alone():
    algorithm, rng = made(SPACES["box"]), np.random.default_rng(2)
    state = algorithm.init(jax.random.key(0))
    state, _ = algorithm.update(state, shown(SPACES["box"], rng, 20), jax.random.key(0))
    new, actor = shown(SPACES["box"], rng, 20), algorithm.actor(state)
    outputs = np.stack([actor.params(scaled(actor, jnp.asarray(obs))) for obs in new.obs])
    wanted = np.square(outputs - new.action)[new.is_there].mean()
    _, metrics = algorithm.update(state, new, jax.random.key(1))
    np.testing.assert_allclose(metrics["visited_loss"], wanted, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_the_expert_acts_in_the_share_of_steps_that_the_schedule_says(decay):
    algorithm = made(SPACES["box"], share_decay=decay)
    keys = jax.random.split(jax.random.key(0), 4000)
    for iteration in range(3):
        turns = jax.vmap(lambda key, i=iteration: algorithm.is_experts_turn(jnp.uint32(i), key))(keys)
        wanted = decay**iteration
        assert abs(turns.mean() - wanted) <= 4 * (wanted * (1 - wanted) / 4000) ** 0.5


def test_a_share_out_of_range_is_refused():
    with pytest.raises(UsageError, match=r"DAgger.share_decay must be in \[0, 1\]: got 1.5"):
        made(SPACES["box"], share_decay=1.5)


@settings(deadline=None, max_examples=40)
@given(st.floats(-50, 50), st.floats(0.1, 40), st.floats(-1, 1))
def test_an_action_of_the_task_and_the_algorithms_own_are_each_others_inverse(low, width, own):
    spec = EnvSpec("test", Box.unbounded(1), Box((low,), (low + width,)), 10).rescaled()
    there = task_action(spec, jnp.array([own], jnp.float32))
    back = own_action(spec, there)
    np.testing.assert_allclose(back, [own], atol=1e-4 * (1 + abs(low)) / width)
    assert abs(float(own_action(spec, jnp.array([low + 3 * width], jnp.float32))[0]) - 1) < 1e-6
