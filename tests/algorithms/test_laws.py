"""Laws that every algorithm of the registry keeps."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.planning.lqr import num_components
from workhorse.algorithms.policy_gradient.trpo import TRPO
from workhorse.core.algorithm import Algorithm, OffPolicy
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Demonstrations, Linearisation, Returns, Rollout, Transitions
from workhorse.math import moments

SPACES = {
    "box": Box((-1.0, -2.0), (1.0, 2.0)),
    "discrete": Discrete(3),
    "multi-discrete": MultiDiscrete((2, 3)),
    "multi-binary": MultiBinary(2),
}
SPECS = {name: EnvSpec("test", Box.unbounded(5), space, 100) for name, space in SPACES.items()}
CONTINUOUS = SPECS["box"]
ROLLOUT = {"num_envs": 4, "held_out_envs": 2, "rollout_steps": 6}
REPLAY = {"num_envs": 4, "rollout_steps": 6, "learn_every": 3, "batch_size": 12, "warmup_env_steps": 12}
PLANNER = {"num_envs": 2, "horizon": 7, "copy_updates": 20, "copy_batch_size": 8, "memory_size": 50}
SMALL = {Returns: ROLLOUT, Rollout: ROLLOUT, Transitions: REPLAY, Demonstrations: PLANNER, Linearisation: {}}
NETWORKS = {
    Returns: ("linear", "mlp"),
    Rollout: ("linear", "mlp", "gru"),
    Transitions: ("mlp",),
    Demonstrations: ("mlp",),
    Linearisation: ("mlp",),
}


def taken(name, spaces):
    """Those of the spaces whose actions an algorithm takes."""
    wanted = getattr(registry.algorithm_class(name), "takes", None)
    known = {None: list(SPACES), "both": ["box", "discrete"]}.get(wanted, [wanted])
    return [space for space in spaces if space in known]


def spec_for(name):
    """A task of the first kind of actions that the algorithm takes."""
    return SPECS[taken(name, SPACES)[0]]


def cases(*spaces):
    """Every algorithm of the registry, with every network, on all spaces; presets share a class, and have one."""
    for name in registry.entries():
        cls = registry.algorithm_class(name)
        has_networks = "policy" in registry.options(name) and name == cls.name
        known = get_args(registry.options(name)["policy"].annotation) if has_networks else ()
        policies = [
            one for one in NETWORKS[cls.consumes] if one in known and not (one == "gru" and issubclass(cls, TRPO))
        ]
        for policy in policies if has_networks else ["mlp"]:
            for space in taken(name, spaces)[: None if name == cls.name else 1]:
                yield pytest.param(name, policy, SPECS[space], id=f"{name}-{policy}-{space}")


every_case = pytest.mark.parametrize(("name", "policy", "spec"), list(cases("box", "discrete")))
every_space = pytest.mark.parametrize(("name", "policy", "spec"), list(cases(*SPACES)))
REPLAYED = [name for name in registry.entries() if registry.algorithm_class(name).consumes is Transitions]
NEVER_EXPLORE = ("masked-bc",)
"""Those that are never trained in a task, so that they need no random actions."""
every_algorithm = pytest.mark.parametrize("name", list(registry.entries()))


def made(name, policy, spec, **settings):
    known = registry.options(name)
    small = {
        "policy": policy,
        "hidden": (8,),
        "model_hidden": (8,),
        "discriminator_hidden": (8,),
        "minibatch_size": 12,
        "num_epochs": 2,
        "value_epochs": 2,
    }
    small |= SMALL[registry.algorithm_class(name).consumes]
    return registry.make(name, spec, {key: value for key, value in small.items() if key in known} | settings)


@jax.jit
def observed(rows):
    unseen = moments.empty(5, jnp.float64)
    return moments.merge_all(jax.vmap(lambda row: moments.observe(unseen, row))(rows), unseen)


def returns_for(algorithm, seed=0):
    rng = np.random.default_rng(seed)
    seen = observed(rng.normal(size=(20, 5)))
    count = algorithm.num_members
    fitness, length = (rng.normal(size=count) * 100).astype(np.float32), rng.uniform(1, 100)
    size = getattr(algorithm, "behaviour_size", 0)
    return Returns(fitness, length, seen, rng.normal(size=(count, size)).astype(np.float16) if size else ())


def rollout_for(algorithm, state, seed=0):
    """A rollout of the state's own policy on observations and rewards that are noise."""
    rng = np.random.default_rng(seed)
    steps, slots = algorithm.rollout_steps, algorithm.num_slots
    obs = rng.normal(size=(steps + 1, slots, 5)).astype(np.float32)
    ended = rng.random((2, steps, slots)) < 0.2
    begun, action, extras = acted_on(algorithm, state, obs, ended, jax.random.split(jax.random.key(seed), steps))
    reward = rng.normal(size=(steps, slots))
    return Rollout(obs[:-1], action, reward, ended[0], ended[1], obs[1:], extras, begun)


@jax.jit
def acted_on(algorithm, state, obs, ended, keys):
    slots, actor = algorithm.num_slots, algorithm.actor(state)
    begun = jax.vmap(lambda slot: algorithm.begin(actor, slot))(jnp.arange(slots))

    def step(carry, given):
        obs, ended, key = given
        act = jax.vmap(lambda carry, obs, key: algorithm.act(actor, carry, obs, key, explore=True))
        action, after, extras = act(carry, obs, jax.random.split(key, slots))
        after = jax.tree.map(lambda new, old: jnp.where(ended[:, None], new, old), begun, after)
        return after, (action, extras)

    _, (action, extras) = jax.lax.scan(step, begun, (obs[:-1], ended.any(0), keys))
    return begun, action, extras


@jax.jit
def updated(algorithm, state, experience, key):
    TRACED.append(algorithm.name)
    return algorithm.update(state, experience, key)


@jax.jit
def learnt(algorithm, state, batch, key):
    return algorithm.learn(state, batch, key)


TRACED = []
"""The name of an algorithm for every time its update was compiled."""


def transitions_for(algorithm, seed=0):
    """Windows of 1 to 3 steps that are noise, some of which end in one way or the other."""
    rng, count = np.random.default_rng(seed), algorithm.batch_size
    steps, terminated = rng.integers(1, 4, count).astype(np.int32), rng.random(count) < 0.2
    space = algorithm.spec.action

    def actions():
        if isinstance(space, Discrete):
            return rng.integers(0, space.count, count).astype(np.int32)
        return rng.uniform(-1, 1, (count, *space.shape)).astype(np.float32)

    action, (obs, next_obs) = actions(), rng.normal(size=(2, count, 5)).astype(np.float32)
    return Transitions(
        obs=obs,
        action=action,
        reward=rng.normal(size=count).astype(np.float32),
        discount=(0.99**steps * ~terminated).astype(np.float32),
        next_obs=next_obs,
        terminated=terminated,
        truncated=~terminated & (rng.random(count) < 0.2),
        steps=steps,
        index=rng.permutation(1000)[:count],
        weight=rng.uniform(0.1, 1, count).astype(np.float32),
        age=rng.integers(1, 1000, count),
        next_action=actions(),
        return_to_go=np.where(rng.random(count) < 0.2, -np.inf, rng.normal(size=count)).astype(np.float32),
    )


def tells_values(algorithm):
    """Whether it learns values; what only imitates does not, and no end of an episode means anything to it."""
    return type(algorithm).action_value is not OffPolicy.action_value or not getattr(algorithm, "needs_log", False)


def demonstrations_for(algorithm, seed=0):
    """Observations and actions that are noise, some of them not there."""
    rng, space = np.random.default_rng(seed), algorithm.spec.action
    action = rng.integers(0, 3, 30) if isinstance(space, Discrete) else rng.uniform(-1, 1, (30, 2))
    return Demonstrations(rng.normal(size=(30, 5)).astype(np.float32), action, rng.random(30) < 0.8)


def linearisation_for(algorithm, seed=0):
    """A task of four coordinates near a state that pays the more, the greater the seed."""
    rng, size = np.random.default_rng(seed), num_components(algorithm.spec.action)
    a, b, c = 0.4 * rng.normal(size=(4, 4)), rng.normal(size=(4, size)), rng.normal(size=(5, 4))
    action = rng.uniform(-0.5, 0.5, size)
    return Linearisation(a, b, c, rng.normal(size=4), rng.normal(size=5), action, 0.0, float(seed), np.int64(100))


def experience_for(algorithm, state, seed=0):
    if algorithm.consumes is Linearisation:
        return linearisation_for(algorithm, seed)
    if algorithm.consumes is Demonstrations:
        return demonstrations_for(algorithm, seed)
    if algorithm.consumes is Returns:
        return returns_for(algorithm, seed)
    if algorithm.consumes is Transitions:
        return transitions_for(algorithm, seed)
    return rollout_for(algorithm, state, seed)


def leaves_of(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]


@every_case
def test_an_update_keeps_tree_shapes_and_dtypes_compiles_once_and_is_a_function(name, policy, spec):
    algorithm = made(name, policy, spec)
    state = algorithm.init(jax.random.key(0))
    experience = experience_for(algorithm, state)
    after, metrics = updated(algorithm, state, experience, jax.random.key(1))
    compiled = len(TRACED)
    same, _ = updated(algorithm, state, experience, jax.random.key(1))
    again, _ = updated(algorithm, after, experience_for(algorithm, after, 1), jax.random.key(2))
    assert len(TRACED) == compiled
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (state, after, again)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert jax.tree.structure(state) == jax.tree.structure(again)
    jax.tree.map(np.testing.assert_array_equal, leaves_of(after), leaves_of(same))
    assert all(value.shape == () and not np.isinf(value) for value in metrics.values())
    assert any((one != other).any() for one, other in zip(leaves_of(after), leaves_of(state), strict=True))
    params = [leaf for leaf in leaves_of(algorithm.actor(after)) if leaf.dtype == jnp.float64]
    assert not params, "what acts is single precision"


@pytest.mark.as_users_compile
@every_case
def test_slots_can_be_permuted_without_changing_a_bit(name, policy, spec):
    algorithm = made(name, policy, spec)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    slots = jnp.arange(min(getattr(algorithm, "num_members", 13), 13))
    obs = jax.random.normal(jax.random.key(2), (len(slots), 5))
    order = np.random.default_rng(0).permutation(len(slots))

    @jax.jit
    def act(slots, obs):
        carry = jax.vmap(lambda slot: algorithm.begin(actor, slot))(slots)
        return jax.vmap(lambda c, o: algorithm.act(actor, c, o, jax.random.key(0), explore=True)[0])(carry, obs)

    assert (np.asarray(act(slots, obs))[order] == np.asarray(act(slots[order], obs[order]))).all()


@every_space
def test_actions_fit_the_task_and_the_networks_are_float32(name, policy, spec):
    algorithm = made(name, policy, spec)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    carry = algorithm.begin(actor, jnp.asarray(-1))

    def act(carry, obs, key, explore):
        return algorithm.act(actor, carry, obs, key, explore=explore)[0]

    for explore in (False, True):
        keys = jax.random.split(jax.random.key(1), 50)
        drawn = np.asarray(jax.vmap(lambda key, e=explore: act(carry, 30 * jnp.ones(5), key, e))(keys))
        match spec.action:
            case Box(low, high):
                assert drawn.dtype == np.float32 and drawn.shape == (50, 2)
                assert (drawn >= low).all() and (drawn <= high).all()
            case Discrete(count):
                assert drawn.shape == (50,) and drawn.min() >= 0 and drawn.max() < count
            case MultiDiscrete(counts):
                assert drawn.shape == (50, 2) and drawn.min() >= 0 and (drawn < counts).all()
            case _:
                assert drawn.shape == (50, 2) and set(np.unique(drawn)) <= {0, 1}
    program = str(jax.make_jaxpr(lambda o: act(carry, o, jax.random.key(0), False))(jnp.ones(5, jnp.float32)))
    assert "f64" not in program


@every_algorithm
def test_an_algorithm_says_what_it_is_and_can_be_made_again_from_its_settings(name):
    algorithm = made(name, "mlp", spec_for(name))
    row = registry.entry(name)
    assert isinstance(algorithm, Algorithm) and row.summary and row.name == name
    assert type(algorithm).name in registry.entries() and algorithm.summary
    again = registry.make(name, spec_for(name), {key: _as_given(value) for key, value in algorithm.settings().items()})
    assert again == algorithm


@pytest.mark.parametrize("name", REPLAYED)
class TestOfAReplay:
    """Laws of the algorithms that learn from transitions."""

    def test_priorities_are_numbers_of_each_transition(self, name):
        algorithm = made(name, "mlp", spec_for(name))
        state = algorithm.init(jax.random.key(0))
        _, priority, _ = learnt(algorithm, state, transitions_for(algorithm), jax.random.key(1))
        assert priority.shape == (12,) and priority.dtype == jnp.float32
        assert (np.asarray(priority) >= 0).all() and len(np.unique(priority)) == 12

    def test_a_transitions_number_and_age_change_nothing_that_is_learnt(self, name):
        algorithm = made(name, "mlp", spec_for(name))
        state, batch = algorithm.init(jax.random.key(0)), transitions_for(algorithm)
        other = batch._replace(index=batch.index + 7, age=batch.age * 2)
        one, two = (learnt(algorithm, state, given, jax.random.key(1)) for given in (batch, other))
        jax.tree.map(np.testing.assert_array_equal, leaves_of(one), leaves_of(two))

    def test_truncation_is_no_end(self, name):
        """The discount tells what the successor is worth; a clock changes nothing."""
        algorithm = made(name, "mlp", spec_for(name))
        state, batch = algorithm.init(jax.random.key(0)), transitions_for(algorithm)
        one, two = (
            learnt(algorithm, state, batch._replace(truncated=flags), jax.random.key(1))[:2]
            for flags in (batch.truncated, np.zeros_like(batch.truncated))
        )
        jax.tree.map(np.testing.assert_array_equal, leaves_of(one), leaves_of(two))
        if not tells_values(algorithm):
            return
        ended = batch._replace(discount=np.zeros_like(batch.discount))
        three = learnt(algorithm, state, ended, jax.random.key(1))[1]
        assert (np.asarray(three) != np.asarray(one[1])).any()

    def test_observing_counts_steps_and_merges_moments(self, name):
        algorithm = made(name, "mlp", spec_for(name))
        state, rng, observe = algorithm.init(jax.random.key(0)), np.random.default_rng(0), jax.jit(algorithm.observe)
        seen = rng.normal(3.0, 2.0, size=(3, 6, 4, 5)).astype(np.float32)
        for obs in seen:
            no = np.zeros((6, 4), bool)
            action = np.zeros((6, 4, *getattr(algorithm.spec.action, "shape", ())), np.float32)
            rollout = Rollout(obs, action, np.ones((6, 4), np.float32), no, no, obs, ())
            state = observe(state, rollout)
        assert int(state.env_steps) == 72
        flat = seen.reshape(72, 5).astype(np.float64)
        assert float(state.observations.count) == 72
        np.testing.assert_allclose(state.observations.mean, flat.mean(0), rtol=1e-12)
        np.testing.assert_allclose(state.observations.deviation, np.square(flat - flat.mean(0)).sum(0), rtol=1e-12)

    def test_actions_are_random_until_the_warm_up_is_over(self, name):
        algorithm = made(name, "mlp", spec_for(name), warmup_env_steps=100)
        state, keys = algorithm.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 400)

        def acted(env_steps):
            actor = algorithm.actor(state._replace(env_steps=jnp.int64(env_steps)))
            carry, obs = algorithm.begin(actor, jnp.asarray(0)), jnp.ones(5, jnp.float32)
            return np.asarray(jax.vmap(lambda key: algorithm.act(actor, carry, obs, key, explore=True)[0])(keys))

        if name in NEVER_EXPLORE:
            assert len(np.unique(acted(99), axis=0)) == 1 and (acted(99) == acted(100)).all()
            return
        if isinstance(algorithm.spec.action, Discrete):
            often = np.bincount(acted(99), minlength=3)
            assert often.min() > 90, "each of three choices about 133 times"
        else:
            quarters = np.histogram(acted(99), np.linspace(-1, 1, 5))[0]
            assert quarters.min() > 140, "each quarter of two components about 200 times"
        assert (acted(99) == acted(0)).all()
        if not isinstance(algorithm.spec.action, Discrete):
            assert (acted(99) != acted(100)).any(), "not one step longer"


def _as_given(value):
    return tuple(value) if isinstance(value, list) else value


SEARCHES = [name for name in registry.entries() if registry.algorithm_class(name).consumes is Returns]


@pytest.mark.parametrize("name", [name for name in SEARCHES if registry.options(name).get("noise_std")])
@pytest.mark.parametrize("policy", ["linear", "mlp"])
def test_a_negative_member_is_the_policy_itself(name, policy):
    algorithm = made(name, policy, CONTINUOUS)
    actor = algorithm.actor(algorithm.init(jax.random.key(3)))
    network = algorithm.begin(actor, jnp.asarray(-1))
    jax.tree.map(np.testing.assert_array_equal, network, algorithm.to_network(actor.params))


@every_algorithm
def test_a_vanishing_learning_rate_changes_nothing(name):
    if "learning_rate" not in registry.options(name):
        pytest.skip("it has no learning rate")
    still = {"learning_rate": 1e-38} | ({"max_kl": 1e-30} if "max_kl" in registry.options(name) else {})
    algorithm = made(name, "mlp", spec_for(name), **still)
    state = algorithm.init(jax.random.key(0))
    after, _ = updated(algorithm, state, experience_for(algorithm, state), jax.random.key(0))
    if algorithm.consumes is Transitions:  # what is learnt has many names: the policy it makes
        obs = jax.random.normal(jax.random.key(1), (50, 5), jnp.float32)
        one, other = (policy_on(algorithm, now, obs) for now in (after, state))
        np.testing.assert_allclose(one, other, atol=1e-5)
        return
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), after.params, state.params)


def policy_on(algorithm, state, obs):
    """The noiseless policy's actions."""
    actor, key = algorithm.actor(state), jax.random.key(0)
    return jax.vmap(
        lambda one: algorithm.act(actor, algorithm.begin(actor, jnp.asarray(-1)), one, key, explore=False)[0]
    )(obs)


@pytest.mark.parametrize("name", list(registry.entries()))
def test_options_read_from_the_source_are_the_dataclass_itself(name):
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
        swept = dataclasses.replace(algorithm, learning_rate=learning_rate)
        return swept.update(state, returns, jax.random.key(0))[1]["step_norm"]

    norms = jax.jit(jax.vmap(norm))(jnp.array([0.01, 0.02]))
    np.testing.assert_allclose(norms[1], 2 * norms[0], rtol=1e-5)
