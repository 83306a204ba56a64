"""GAIL: the discriminator's loss and rewards against plain NumPy, and what the policy learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.imitation.discriminator import action_features, discriminator_loss, imitation_reward
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Demonstrations, Rollout
from workhorse.math import moments
from workhorse.networks.mlp import MLP

SPACE = Box((-1.0, -1.0), (1.0, 1.0))
SMALL = {
    "num_envs": 4, "held_out_envs": 2, "rollout_steps": 6, "hidden": (8,), "minibatch_size": 12, "num_epochs": 1,
    "discriminator_hidden": (8,), "discriminator_updates": 3, "discriminator_batch_size": 16, "memory_size": 50,
}  # fmt: skip


def made(space=SPACE, **settings):
    return registry.make("gail", EnvSpec("test", Box.unbounded(3), space, 100), SMALL | settings)


def shown(rng, count=20, centre=2.0):
    obs = rng.normal(centre, 2.0, size=(count, 3)).astype(np.float32)
    return Demonstrations(obs, rng.uniform(-1, 1, (count, 2)).astype(np.float32), np.ones(count, bool))


def rollout_of(algorithm, state, rng, steps=6):
    actor, size = algorithm.actor(state), (steps, 6)
    obs = rng.normal(size=(*size, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), size)
    act = jax.vmap(jax.vmap(lambda o, k: algorithm.act(actor, (), o, k, explore=True)))
    action, _, extras = act(jnp.asarray(obs), keys)
    ended = rng.random((2, *size)) < 0.1
    return Rollout(obs, action, rng.normal(size=size), ended[0], ended[1], obs + 1, extras)


def started(rng, **settings):
    algorithm = made(**settings)
    state = algorithm.shown(algorithm.init(jax.random.key(0)), shown(rng))
    return algorithm, state, rollout_of(algorithm, state, rng)


def forward(network, features):
    """The logits of a perceptron with tanh units, in NumPy."""
    hidden = features.astype(np.float64)
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        hidden = hidden @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
        if layer + 1 < len(network.weights):
            hidden = np.tanh(hidden)
    return hidden[:, 0]


@pytest.mark.parametrize("penalty", [None, 0.7])
def test_the_loss_is_that_of_a_plain_loop(penalty):
    rng = np.random.default_rng(0)
    network = MLP.create(jax.random.key(1), (4, 5, 1), True, 1.0)
    expert, policy = rng.normal(size=(2, 9, 4)).astype(np.float32)
    mixing = rng.random(9).astype(np.float32)
    found, told = discriminator_loss(network, expert, policy, mixing, None if penalty is None else jnp.float32(penalty))
    probability = lambda features: 1 / (1 + np.exp(-forward(network, features)))  # noqa: E731
    wanted = -np.mean(np.log(probability(expert))) - np.mean(np.log(1 - probability(policy)))
    np.testing.assert_allclose(told["discriminator_loss"], wanted, rtol=1e-5)
    right = np.concatenate([probability(expert) > 0.5, probability(policy) <= 0.5])
    np.testing.assert_allclose(told["discriminator_accuracy"], right.mean(), rtol=1e-6)
    if penalty is not None:
        total, step = 0.0, 1e-6
        for one, other, share in zip(expert, policy, mixing, strict=True):
            between = (other + share * (one - other)).astype(np.float64)
            ends = np.stack([between + sign * step * unit for unit in np.eye(4) for sign in (1, -1)])
            values = forward(network, ends).reshape(4, 2)
            total += (np.linalg.norm((values[:, 0] - values[:, 1]) / (2 * step)) - 1) ** 2
        wanted += penalty * total / 9
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_rewards_are_the_logarithms_of_the_definition_and_have_their_signs():
    logit = np.linspace(-6, 6, 25)
    d = 1 / (1 + np.exp(-logit))
    wanted = {"positive": -np.log(1 - d), "negative": np.log(d), "either": np.log(d) - np.log(1 - d)}
    for form, value in wanted.items():
        np.testing.assert_allclose(imitation_reward(jnp.asarray(logit, jnp.float32), form), value, rtol=1e-4)
    assert (wanted["positive"] > 0).all() and (wanted["negative"] < 0).all()
    extreme = imitation_reward(jnp.array([-1e4, 1e4], jnp.float32), "positive")
    assert np.isfinite(extreme).all(), "no logarithm of 0"


def test_choices_are_one_hot_and_switches_and_components_are_themselves():
    told = {
        Discrete(3): (jnp.int32(2), [0, 0, 1]),
        MultiDiscrete((2, 3)): (jnp.array([0, 2]), [1, 0, 0, 0, 1]),
        MultiBinary(2): (jnp.array([0, 1]), [0, 1]),
        SPACE: (jnp.array([0.5, -1.0]), [0.5, -1.0]),
    }
    for space, (action, wanted) in told.items():
        assert action_features(space, action).tolist() == wanted


def test_the_tasks_own_reward_is_never_read():
    algorithm, state, rollout = started(np.random.default_rng(0))
    update = jax.jit(algorithm.update)
    one, _ = update(state, rollout, jax.random.key(1))
    other, _ = update(state, rollout._replace(reward=1000 + 0 * rollout.reward), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(one), jax.tree.leaves(other))


def test_what_is_learnt_from_is_the_reward_of_the_trained_discriminator():
    algorithm, state, rollout = started(np.random.default_rng(0), scale_rewards=False, reward_clip=None)
    after, metrics = algorithm.update(state, rollout, jax.random.key(1))
    kept = after.extra
    scale = np.asarray(moments.inverse_scale(kept.observations))
    seen = np.clip((rollout.obs - np.asarray(kept.observations.mean)) * scale, -10, 10)
    features = np.concatenate([seen, np.asarray(rollout.action)], -1).reshape(-1, 5)
    wanted = np.log1p(np.exp(forward(kept.discriminator, features))).reshape(6, 6)
    np.testing.assert_allclose(metrics["imitation_reward"], wanted[:, :4].mean(), rtol=1e-4)
    batch = algorithm.batch(state._replace(extra=kept), rollout)[0]
    np.testing.assert_allclose(batch.transition.reward, wanted, rtol=1e-4)
    untrained = algorithm.rewards(state, rollout)
    assert np.abs(np.asarray(untrained) - wanted).max() > 1e-4


def test_the_discriminator_learns_to_tell_them_apart_and_held_out_slots_teach_it_nothing():
    rng = np.random.default_rng(0)
    algorithm, state, rollout = started(rng, discriminator_updates=300, discriminator_rate=1e-2, gradient_penalty=None)
    kept, told = algorithm.discriminated(state.extra, rollout, jax.random.key(0))
    assert told["discriminator_accuracy"] > 0.8
    expert = algorithm.rewards(state._replace(extra=kept), rollout._replace(obs=2 + 0 * rollout.obs)).mean()
    assert expert > algorithm.rewards(state._replace(extra=kept), rollout).mean(), "who looks like it is paid more"
    far = np.array(rollout.obs)
    far[:, 4:] = 50.0
    again, _ = algorithm.discriminated(state.extra, rollout._replace(obs=far), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, kept.discriminator.weights, again.discriminator.weights)


def test_inputs_are_scaled_by_the_demonstrations_only_where_asked_for():
    rng = np.random.default_rng(0)
    algorithm, state, _ = started(rng)
    obs, action = np.array([1.0, 2.0, 3.0], np.float32), jnp.zeros(2, jnp.float32)
    raw = made(normalise_inputs=False).features(state.extra.observations, jnp.asarray(obs), action)
    assert raw.tolist() == [1, 2, 3, 0, 0]
    demonstrated = shown(np.random.default_rng(0)).obs.astype(np.float64)
    wanted = (obs - demonstrated.mean(0)) / demonstrated.std(0)
    scaled = algorithm.features(state.extra.observations, jnp.asarray(obs), action)
    np.testing.assert_allclose(scaled[:3], wanted, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"discriminator_updates": 0}, "GAIL.discriminator_updates must be a finite number above 0: got 0"),
        ({"gradient_penalty": -1.0}, "GAIL.gradient_penalty must be a finite number of at least 0: got -1.0"),
        ({"discriminator_hidden": (0,)}, r"GAIL.discriminator_hidden\[0\] must be a finite number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        made(**settings)
