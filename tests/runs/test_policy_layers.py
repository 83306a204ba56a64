"""The layers of an artefact compute what JAX and Equinox do, and every algorithm's artefact acts as the algorithm."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runs.policies import D
from workhorse.algorithms import registry
from workhorse.core.layers import ACTIVATIONS, Activation, BatchNorm, Convolution, Expectation, LayerNorm, Mode
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Linearisation, Transitions
from workhorse.math import moments
from workhorse.networks.layers import scaled_layers
from workhorse.networks.recurrent import gru_layer
from workhorse.runs.export import is_finite
from workhorse.runs.inference import run_hidden
from workhorse.runs.policy import Policy


def output(layer, batch, states=()):
    return run_hidden([layer], np.asarray(batch, np.float32), states)[0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_jax(name):
    x = np.concatenate([np.linspace(-20, 20, 401), [0.0, -0.0, 1e-6, 100, -100]]).astype(np.float32)
    function = jnp.tanh if name == "tanh" else getattr(jax.nn, name)
    np.testing.assert_allclose(output(Activation(name), x[None])[0], function(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_recurrent_cell_is_that_of_equinox(use_bias):
    cell = eqx.nn.GRUCell(D, 6, use_bias=use_bias, dtype=jnp.float32, key=jax.random.key(0))
    layer = gru_layer(jax.tree.map(lambda leaf: 2 * leaf, cell))  # gates away from their linear middle
    twice = jax.tree.map(lambda leaf: 2 * leaf, cell)
    state, mine = jnp.zeros((4, 6), jnp.float32), np.zeros((4, 6), np.float32)
    for step in np.random.default_rng(0).normal(size=(7, 4, D)).astype(np.float32):
        state = jax.vmap(twice)(step, state)
        policy = Policy([layer, Mode()], observation=Box.unbounded(D), action=Box.unbounded(6), task="t")
        action, (mine,) = policy.predict(step, (mine,))
        np.testing.assert_allclose(mine, state, atol=1e-6)
        np.testing.assert_array_equal(action, mine)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 2), (1, 1), (0, 0, 0, 0)), ((3, 3), (2, 3), (1, 0, 2, 1)), ((1, 1), (2, 2), (0, 0, 0, 0))],
)
def test_a_convolution_is_that_of_equinox(kernel, stride, padding):
    top, bottom, left, right = padding
    theirs = eqx.nn.Conv2d(
        3, 5, kernel, stride, ((top, bottom), (left, right)), dtype=jnp.float32, key=jax.random.key(1)
    )
    images = np.random.default_rng(0).normal(size=(4, 9, 7, 3)).astype(np.float32)
    expected = jax.vmap(theirs)(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    found = output(Convolution(np.asarray(theirs.weight), np.asarray(theirs.bias).ravel(), stride, padding), images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_normalisations_are_those_of_equinox():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3, 5)).astype(np.float32) * 3 + 1
    weight, bias = rng.normal(size=(2, 3, 5)).astype(np.float32)
    layer = eqx.nn.LayerNorm((3, 5), dtype=jnp.float32)
    layer = eqx.tree_at(lambda one: (one.weight, one.bias), layer, (jnp.asarray(weight), jnp.asarray(bias)))
    np.testing.assert_allclose(output(LayerNorm(weight, bias), x), jax.vmap(layer)(x), atol=1e-5)
    mean, variance = rng.normal(size=5), rng.uniform(0.1, 2, 5)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * weight[0] + bias[0]
    stored = (one.astype(np.float32) for one in (mean, variance, weight[0], bias[0]))
    np.testing.assert_allclose(output(BatchNorm(*stored, 1e-3), x), expected, atol=1e-5)


def test_an_expectation_is_the_mean_of_each_choices_distribution():
    support = np.array([-1.0, 0.5, 4.0], np.float32)
    logits = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32) * 50  # no sum of exponentials overflows
    expected = [[jax.nn.softmax(row[a : a + 3]) @ support for a in (0, 3)] for row in logits]
    np.testing.assert_allclose(output(Expectation(support), logits), expected, atol=1e-5)


# --- parity with the algorithms ---

ACTIONS = {"box": Box((-1.0, -0.2), (1.0, 2.0)), "discrete": Discrete(3)}
"""Spaces, of which every algorithm takes both, or one where it learns from a replay."""


def trained(name, action, **settings):
    """An algorithm and an actor with parameters and moments as if it had learnt; one component never varied."""
    known = registry.options(name)
    settings = {
        option: value for option, value in settings.items() if option in known or option not in ("policy", "hidden")
    }
    algorithm = registry.make(name, EnvSpec("test", Box.unbounded(D), action, 100), settings)
    state = algorithm.init(jax.random.key(0))
    rows = np.random.default_rng(1).normal(size=(20, D)) * [1, 3, 0.1, 0, 2] + [0, 1, 5, 2, 0]
    unseen = moments.empty(D, jnp.float64)
    seen = moments.merge_all(jax.vmap(lambda row: moments.observe(unseen, row))(jnp.asarray(rows)), unseen)
    if algorithm.consumes is Transitions:
        return algorithm, algorithm.actor(shaken(state)._replace(observations=seen))
    if algorithm.consumes is Linearisation:
        return algorithm, jax.tree.map(lambda leaf: leaf + shaken(jnp.ones_like(leaf)), algorithm.actor(state))
    leaves, tree = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [
        leaf + 0.4 * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys, strict=True)
    ]
    return algorithm, algorithm.actor(state._replace(params=jax.tree.unflatten(tree, noisy), observations=seen))


def shaken(state):
    """The state with every array of networks and statistics changed; what is positive stays so."""
    rng = np.random.default_rng(2)

    def changed(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype != jnp.float32 or not leaf.ndim:
            return leaf
        return leaf * np.exp(0.4 * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree.map(changed, state)


def artefact(algorithm, actor):
    spec = algorithm.spec
    layers = algorithm.policy_layers(actor)
    return Policy(layers, observation=spec.observation, action=spec.action, task=spec.task)


def differing(algorithm, actor, policy, count=64):
    """Rows on which the algorithm and its artefact act differently, and the algorithm's actions."""
    far = 1 if getattr(algorithm, "observation_clip", None) is None else 20  # enough to be clipped
    if hasattr(algorithm, "takes") and isinstance(algorithm.spec.action, Discrete):
        far = 20  # enough that the biases of small networks do not choose alone
    obs = (np.random.default_rng(3).normal(size=(count, D)) * far).astype(np.float32)

    @jax.jit
    def act(obs):
        carry = algorithm.begin(actor, jnp.asarray(-1))
        return jax.vmap(lambda o: algorithm.act(actor, carry, o, jax.random.key(0), explore=False)[0])(obs)

    expected = np.asarray(act(obs))
    found = policy.predict(obs)[0]
    assert found.shape == expected.shape
    return ~np.isclose(found, expected, atol=1e-5).reshape(count, -1).all(axis=1), expected


TAKEN = {"box": ("box",), "discrete": ("discrete",), "both": ("box", "discrete")}
KINDS = [("box", "linear"), *((action, "mlp") for action in ACTIONS)]
CASES = [
    (name, action, policy)
    for name in registry.entries()
    for action, policy in KINDS
    if "policy" in registry.options(name)
    or (policy == "mlp" and action in TAKEN.get(getattr(registry.algorithm_class(name), "takes", None), ()))
]


@pytest.mark.parametrize(("name", "action", "policy"), CASES, ids=["-".join(case) for case in CASES])
def test_every_algorithms_artefact_acts_as_the_algorithm(name, action, policy):
    algorithm, actor = trained(name, ACTIONS[action], policy=policy, hidden=(8, 6))
    wrong, expected = differing(algorithm, actor, artefact(algorithm, actor))
    assert not wrong.any()
    assert len(np.unique(expected, axis=0)) > 1


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("openai-es", {"action_bins": 5}),
        ("openai-es", {"normalise_observations": False}),
        ("ars", {"observation_clip": 0.5}),
        ("ppo", {"observation_clip": None, "activation": "relu"}),
        ("ppo", {"normalise_observations": False, "observation_clip": None}),
    ],
)
def test_options_of_the_policy_are_in_the_artefact(name, settings):
    algorithm, actor = trained(name, ACTIONS["box"], **settings)
    assert not differing(algorithm, actor, artefact(algorithm, actor))[0].any()


def test_a_component_that_never_varied_is_not_seen_and_its_scale_is_one():
    policy = artefact(*trained("ppo", ACTIONS["box"]))
    assert policy.scale is not None and policy.scale[3] == 1
    assert (policy.predict([0, 0, 0, -70, 0])[0] == policy.predict([0, 0, 0, 70, 0])[0]).all()
    inverse = np.ones(27, np.float32)
    inverse[4] = 0
    layers = scaled_layers(Box.unbounded(27), np.zeros(27), inverse, None, (LayerNorm(), Mode()))
    blind = Policy(layers, observation=Box.unbounded(27), action=Box.unbounded(27), task="t")
    eye = np.eye(27)[4]
    np.testing.assert_allclose(blind.predict(1e3 * eye)[0], blind.predict(0 * eye)[0], atol=1e-6)


def test_image_observations_are_laid_flat():
    space = Box.of(np.zeros((2, 2, 1)), np.ones((2, 2, 1)))
    layers = scaled_layers(space, np.zeros(4), np.ones(4, np.float32), None, (Mode(),))
    policy = Policy(layers, observation=space, action=Box.unbounded(4), task="t")
    assert policy.predict(np.arange(4).reshape(2, 2, 1))[0].tolist() == [0, 1, 2, 3]


def test_stochastic_policies_are_stored_as_such():
    ppo, actor = trained("ppo", ACTIONS["box"])
    policy = artefact(ppo, actor)
    draws = policy.predict(np.zeros((4000, D)), deterministic=False, rng=np.random.default_rng(0))[0]
    keys = jax.random.split(jax.random.key(5), 4000)
    theirs = jax.vmap(lambda key: ppo.act(actor, (), jnp.zeros(D), key, explore=True)[0])(keys)
    np.testing.assert_allclose(draws.mean(axis=0), theirs.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), theirs.std(axis=0), rtol=0.05)
    assert artefact(*trained("ppo", ACTIONS["discrete"])).is_stochastic
    assert not artefact(*trained("openai-es", ACTIONS["discrete"])).is_stochastic


def test_a_diverged_policy_is_seen():
    algorithm, actor = trained("ppo", ACTIONS["box"])
    assert is_finite(algorithm.policy_layers(actor))
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, actor.policy.network)
    diverged = actor._replace(policy=dataclasses.replace(actor.policy, network=broken))
    assert not is_finite(algorithm.policy_layers(diverged))
