"""Laws that every algorithm of the registry keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Returns
from workhorse.math import moments

CONTINUOUS = EnvSpec("test", Box.unbounded(5), Box((-1.0, -2.0), (1.0, 2.0)), 100)
DISCRETE = EnvSpec("test", Box.unbounded(5), Discrete(3), 100)
SEARCHES = [name for name, row in registry.entries().items() if ".evolution." in row.module]
CASES = [(name, policy, spec) for name in SEARCHES for policy in ("linear", "mlp") for spec in (CONTINUOUS, DISCRETE)]
every_case = pytest.mark.parametrize(
    ("name", "policy", "spec"), CASES, ids=[f"{n}-{p}-{type(s.action).__name__}" for n, p, s in CASES]
)


def made(name, policy, spec, **settings):
    return registry.make(name, spec, {"policy": policy, "hidden": (8,)} | settings)


@jax.jit
def observed(rows):
    unseen = moments.empty(5, jnp.float64)
    return moments.merge_all(jax.vmap(lambda row: moments.observe(unseen, row))(rows), unseen)


def returns_for(algorithm, seed=0):
    rng = np.random.default_rng(seed)
    seen = observed(rng.normal(size=(20, 5)))
    count = algorithm.num_members
    return Returns((rng.normal(size=count) * 100).astype(np.float32), rng.uniform(1, 100), seen)


@every_case
def test_an_update_keeps_tree_shapes_and_dtypes_and_compiles_once(name, policy, spec):
    algorithm = made(name, policy, spec)
    state = algorithm.init(jax.random.key(0))
    traces = []

    def counted(state, returns):
        traces.append(1)
        return algorithm.update(state, returns, jax.random.key(1))

    update = jax.jit(counted)
    after, metrics = update(state, returns_for(algorithm))
    again, _ = update(after, returns_for(algorithm, 1))
    assert len(traces) == 1
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (state, after, again)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert jax.tree.structure(state) == jax.tree.structure(again)
    assert all(value.shape == () and np.isfinite(value) for value in metrics.values())
    assert after.params.dtype == jnp.float32 and (after.params != state.params).any()


@every_case
def test_slots_can_be_permuted_without_changing_a_bit(name, policy, spec):
    algorithm = made(name, policy, spec)
    params = jax.random.normal(jax.random.key(1), (algorithm.num_params,), jnp.float32)
    seen = returns_for(algorithm).observations
    actor = algorithm.actor(algorithm.init(jax.random.key(0))._replace(params=params, observations=seen))
    members = jnp.arange(min(algorithm.num_members, 13))
    obs = jax.random.normal(jax.random.key(2), (len(members), 5))
    order = np.random.default_rng(0).permutation(len(members))

    @jax.jit
    def act(members, obs):
        carry = jax.vmap(lambda member: algorithm.begin(actor, member))(members)
        return jax.vmap(lambda c, o: algorithm.act(actor, c, o, jax.random.key(0), explore=True)[0])(carry, obs)

    assert (np.asarray(act(members, obs))[order] == np.asarray(act(members[order], obs[order]))).all()


@every_case
def test_a_negative_member_is_the_policy_itself(name, policy, spec):
    algorithm = made(name, policy, spec)
    actor = algorithm.actor(algorithm.init(jax.random.key(3)))
    network = algorithm.begin(actor, jnp.asarray(-1))
    jax.tree.map(np.testing.assert_array_equal, network, algorithm.to_network(actor.params))


@every_case
def test_actions_fit_the_task_and_the_networks_are_float32(name, policy, spec):
    algorithm = made(name, policy, spec)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    carry = algorithm.begin(actor, jnp.asarray(-1))
    big = jax.tree.map(lambda leaf: 1e3 * jnp.ones_like(leaf), carry)

    def act(c, o):
        return algorithm.act(actor, c, o, jax.random.key(0), explore=True)[0]

    action = act(big, jnp.ones(5))
    if isinstance(spec.action, Box):
        assert action.dtype == jnp.float32 and action.tolist() == [1.0, 2.0]
    else:
        assert action.shape == () and 0 <= int(action) < 3
    program = str(jax.make_jaxpr(act)(big, jnp.ones(5, jnp.float32)))
    assert "f64" not in program


@pytest.mark.parametrize("name", ["openai-es", "ars", "finite-differences"])
def test_a_vanishing_learning_rate_changes_nothing(name):
    algorithm = made(name, "mlp", CONTINUOUS, learning_rate=1e-38)
    state = algorithm.init(jax.random.key(0))
    after, _ = jax.jit(algorithm.update)(state, returns_for(algorithm), jax.random.key(0))
    np.testing.assert_allclose(after.params, state.params, atol=1e-30)


@pytest.mark.parametrize("name", list(registry.entries()))
def test_options_read_from_the_source_are_the_dataclass_itself(name):
    import dataclasses
    import importlib
    import typing

    row = registry.entry(name)
    cls = getattr(importlib.import_module(row.module), row.cls)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name != "spec"}
    assert list(registry.options(name)) == list(fields)
    for option in registry.options(name).values():
        assert option.default == row.preset.get(option.name, fields[option.name].default)
        assert option.annotation == hints[option.name]
        assert option.help.endswith("."), f"{name}.{option.name} has no sentence under it"


def test_float_fields_are_leaves_and_can_be_swept():
    algorithm = made("openai-es", "linear", CONTINUOUS)
    state, returns = algorithm.init(jax.random.key(0)), returns_for(made("openai-es", "linear", CONTINUOUS))

    def norm(learning_rate):
        import dataclasses

        swept = dataclasses.replace(algorithm, learning_rate=learning_rate)
        return swept.update(state, returns, jax.random.key(0))[1]["step_norm"]

    norms = jax.jit(jax.vmap(norm))(jnp.array([0.01, 0.02]))
    np.testing.assert_allclose(norms[1], 2 * norms[0], rtol=1e-5)
