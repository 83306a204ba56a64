"""Policy gradients: laws, probes with known answers, switches that change what they say and nothing else."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.stats import norm

from workhorse.algorithms import registry
from workhorse.algorithms.policy_gradient import ppo
from workhorse.algorithms.policy_gradient.batch import flattened
from workhorse.algorithms.policy_gradient.measures import explained_variance, gradient_agreement, policy_change
from workhorse.algorithms.policy_gradient.ppo import clipped_surrogate, clipped_value_loss
from workhorse.algorithms.policy_gradient.trpo import TRPO
from workhorse.core.errors import UsageError
from workhorse.core.randomness import permutation
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Rollout
from workhorse.environments.probes import ResetLeakProbe, SlotIdentityProbe, TerminationProbe, TimeLimitProbe
from workhorse.math.distributions import DiagonalGaussian
from workhorse.training.episodes import make_player
from workhorse.training.lanes import Lanes
from workhorse.training.on_policy import OnPolicyLoop
from workhorse.training.rollouts import make_collector

CONTINUOUS = EnvSpec("test", Box.unbounded(5), Box((-1.0, -2.0), (1.0, 2.0)), 100)
DISCRETE = EnvSpec("test", Box.unbounded(5), Discrete(3), 100)
SMALL = {"num_envs": 3, "held_out_envs": 1, "rollout_steps": 8, "hidden": (8,)}
OWN = {
    "ppo": {"minibatch_size": 8, "num_epochs": 2},
    "ppo-m": {"minibatch_size": 8, "num_epochs": 2},
    "ppo-noclip": {"minibatch_size": 8, "num_epochs": 2},
    "trpo": {"minibatch_size": 8, "value_epochs": 2},
    "trpo+": {"minibatch_size": 8, "value_epochs": 2},
    "a2c": {},
    "reinforce": {},
}
PRESETS = ("ppo-m", "ppo-noclip", "trpo+")
every_algorithm = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in PRESETS else ()) for name in OWN]
)
"""A preset compiles a program of its own, which takes long and is seldom new."""
every_spec = pytest.mark.parametrize("spec", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])


def made(name, spec=CONTINUOUS, **settings):
    return registry.make(name, spec, {**SMALL, **OWN[name], **settings})


def rollout_for(algorithm, state, seed=0, reward_factor=1.0):
    """Steps that the algorithm's own policy took in a world of noise."""
    rng = np.random.default_rng(seed)
    steps, slots = algorithm.rollout_steps, algorithm.num_slots
    obs = rng.normal(size=(steps + 1, slots, 5)).astype(np.float32)
    actor = algorithm.actor(state)
    keys = jax.random.split(jax.random.key(seed), steps * slots).reshape(steps, slots)

    @jax.jit
    @jax.vmap
    @jax.vmap
    def act(obs, key):
        action, _, extras = algorithm.act(actor, (), obs, key, explore=True)
        return action, extras

    action, extras = act(obs[:-1], keys)
    ended = rng.random((2, steps, slots)) < 0.15
    reward = reward_factor * rng.normal(size=(steps, slots))
    return Rollout(obs[:-1], action, reward, ended[0], ended[1], obs[1:], extras)


COMPILED = {}


def updated(algorithm, rollout, state=None, seed=1):
    """One update, compiled once for equal algorithms."""
    state = algorithm.init(jax.random.key(0)) if state is None else state
    update = COMPILED.setdefault(repr(algorithm), jax.jit(algorithm.update))
    return update(state, rollout, jax.random.key(seed))


@every_algorithm
@every_spec
def test_an_update_keeps_tree_shapes_and_dtypes_and_compiles_once(name, spec):
    algorithm = made(name, spec, normalise_observations=True)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    traces = []

    def counted(state, rollout):
        traces.append(1)
        return algorithm.update(state, rollout, jax.random.key(1))

    update = jax.jit(counted)
    after, metrics = update(state, rollout_for(algorithm, state))
    again, _ = update(after, rollout_for(algorithm, after, 1))
    assert len(traces) == 1
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (state, after, again)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert jax.tree.structure(state) == jax.tree.structure(again)
    assert all(value.shape == () and np.isfinite(value) for value in metrics.values())
    assert {"mean_kl", "max_kl", "max_ratio", "entropy", "explained_variance_own", "held_out_max_ratio"} <= set(metrics)
    moved = [
        bool((one != other).any())
        for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(again.params), strict=True)
    ]
    assert any(moved)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after.params))


@every_algorithm
def test_held_out_slots_teach_nothing(name):
    algorithm = made(name)
    state = algorithm.init(jax.random.key(0))
    rollout = rollout_for(algorithm, state)
    spoilt = jax.tree.map(lambda leaf: np.array(leaf), rollout)
    spoilt.reward[:, -1] += 100.0
    spoilt.obs[:, -1] += 3.0
    one, other = updated(algorithm, rollout)[0], updated(algorithm, spoilt)[0]
    for part in ("params", "observations", "sums"):
        jax.tree.map(np.testing.assert_array_equal, getattr(one, part), getattr(other, part))


@every_algorithm
def test_slots_may_be_permuted(name):
    """Up to rounding, with one minibatch of all: which slot a step came from is no information."""
    algorithm = made(name, **({"minibatch_size": 24} if "minibatch_size" in OWN[name] else {}))
    state = algorithm.init(jax.random.key(0))
    rollout = rollout_for(algorithm, state)
    order = np.array([2, 0, 1, 3])
    permuted = jax.tree.map(lambda leaf: leaf[:, order], rollout)
    one, other = updated(algorithm, rollout)[0], updated(algorithm, permuted)[0]
    for left, right in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5)


@pytest.mark.parametrize("name", ["ppo", "a2c", "reinforce"])
def test_a_vanishing_learning_rate_changes_nothing(name):
    algorithm = made(name, learning_rate=1e-30)
    state = algorithm.init(jax.random.key(0))
    after, metrics = updated(algorithm, rollout_for(algorithm, state), state)
    for left, right in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-20)
    assert float(metrics["mean_kl"]) == pytest.approx(0.0, abs=1e-9)
    assert float(metrics["max_ratio"]) == pytest.approx(1.0, abs=1e-5)


# --- the value at the ends of episodes: probes with known answers ---


def fitted_value(name, env, discount, **settings):
    """The value function of an algorithm after many updates on an environment whose values are known."""
    settings = {"normalise_observations": False, "observation_clip": None, "scale_rewards": False, **settings}
    settings |= {"reward_clip": None, "anneal_learning_rate": False, "discount": discount, "gradient_clip": None}
    small = {"num_envs": 4, "held_out_envs": 0, "rollout_steps": 32, "hidden": (32,), "learning_rate": 3e-3}
    own = {"ppo": {"minibatch_size": 32}, "trpo": {"minibatch_size": 32}, "a2c": {}, "reinforce": {}}[name]
    algorithm = registry.make(name, env.spec, {**small, **own, **settings})
    loop = OnPolicyLoop(algorithm, 0, make_collector(algorithm, env, 0), Lanes([make_player(algorithm, env, 1, 0)]))
    progress = loop.start()
    for _ in range({"ppo": 60, "trpo": 60}.get(name, 1500)):
        progress, _, _ = loop.iterate(progress)
    state = progress.state
    return lambda obs: float(algorithm.values(state.params, jnp.asarray(obs, jnp.float32)[None])[0])


@pytest.mark.parametrize("name", ["ppo", "trpo", "a2c"])
def test_a_clock_is_not_the_end_of_the_task(name):
    env, discount = TimeLimitProbe(8), 0.8
    value = fitted_value(name, env, discount)
    wrong = (1 - discount**8) / (1 - discount)
    for time in range(8):
        assert value([time / 8]) == pytest.approx(env.value(discount), abs=0.25), f"step {time}"
    assert abs(wrong - env.value(discount)) > 0.8, "the two answers can be told apart"


@pytest.mark.parametrize("name", ["ppo", "trpo", "a2c"])
def test_the_end_of_the_task_is_no_clock(name):
    env, discount = TerminationProbe(8), 0.8
    value = fitted_value(name, env, discount)
    for time in range(8):
        assert value([time / 8]) == pytest.approx(env.value(discount, time), abs=0.5), f"step {time}"
    assert env.value(discount, 7) < TimeLimitProbe(8).value(discount) - 3, "the two answers can be told apart"


def test_reinforce_without_a_baseline_takes_the_clock_for_an_end_and_leaves_out_what_did_not_end():
    algorithm = made("reinforce", DISCRETE, learned_baseline=False, scale_rewards=False, reward_clip=None)
    state = algorithm.init(jax.random.key(0))
    rollout = rollout_for(algorithm, state)
    batch, _, _ = algorithm.batch(state, rollout)
    ended = np.asarray(rollout.terminated | rollout.truncated)
    for slot in range(algorithm.num_slots):
        for start in range(algorithm.rollout_steps):
            later = np.flatnonzero(ended[start:, slot])
            assert bool(batch.weight[start, slot]) == bool(len(later))
            if len(later):
                rewards = np.asarray(rollout.reward)[start : start + later[0] + 1, slot]
                expected = (rewards * 0.99 ** np.arange(len(rewards))).sum()
                assert float(batch.advantage[start, slot]) == pytest.approx(expected, abs=1e-5)


def test_reinforce_without_a_baseline_moves_nothing_where_no_episode_ended():
    algorithm = made("reinforce", learned_baseline=False)
    state = algorithm.init(jax.random.key(0))
    rollout = rollout_for(algorithm, state)
    state, metrics = updated(algorithm, rollout, state)
    assert metrics["learnt_share"] > 0 and not any(name.startswith("explained_variance") for name in metrics)
    never = np.zeros_like(rollout.terminated)
    after, metrics = updated(algorithm, rollout._replace(terminated=never, truncated=never), state)
    assert metrics["learnt_share"] == 0
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.optimiser), (state.params, state.optimiser))
    further, _ = updated(algorithm, rollout, after)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (after.params, further.params)), strict=True))


def test_the_batch_is_what_a_loop_over_steps_makes_of_a_rollout():
    """Advantages, targets and Monte-Carlo returns by plain sums, every seam between episodes looked at by itself."""
    algorithm = made("ppo", rollout_steps=16, scale_rewards=False, reward_clip=None, discount=0.9, trace=0.7)
    state = algorithm.init(jax.random.key(0))
    rollout = rollout_for(algorithm, state, seed=3)
    batch, _, _ = algorithm.batch(state, rollout)
    value = np.asarray(algorithm.values(state.params, jnp.asarray(rollout.obs)))
    next_value = np.asarray(algorithm.values(state.params, jnp.asarray(rollout.next_obs)))
    reward = np.asarray(rollout.reward)
    for slot in range(algorithm.num_slots):
        for start in range(16):
            advantage, returns, weight = 0.0, 0.0, 1.0
            for step in range(start, 16):
                after = 0.0 if rollout.terminated[step, slot] else next_value[step, slot]
                error = reward[step, slot] + 0.9 * after - value[step, slot]
                advantage += (0.9 * 0.7) ** (step - start) * error
                returns += weight * reward[step, slot]
                weight *= 0.9
                if rollout.terminated[step, slot] or rollout.truncated[step, slot] or step == 15:
                    returns += weight * after
                    break
            assert float(batch.advantage[start, slot]) == pytest.approx(advantage, abs=1e-4)
            assert float(batch.target[start, slot]) == pytest.approx(advantage + value[start, slot], abs=1e-4)
            assert float(batch.monte_carlo[start, slot]) == pytest.approx(returns, abs=1e-4)


def test_the_value_of_a_reset_does_not_leak_into_the_episode_before():
    env, discount = ResetLeakProbe(-100.0), 0.5
    value = fitted_value("ppo", env, discount, num_epochs=30)
    first, later = env.value(discount)
    assert value([0.0, 1.0]) == pytest.approx(later, abs=4.0)
    assert value([1.0, 0.0]) == pytest.approx(first, abs=8.0)
    assert abs(env.leaked_value(discount) - later) > 20


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_every_slot_of_a_batch_keeps_its_own_numbers(name):
    env = SlotIdentityProbe(5)
    plain = {"normalise_observations": False, "observation_clip": None, "scale_rewards": False, "reward_clip": None}
    algorithm = registry.make(name, env.spec, {**SMALL, **OWN[name], **plain})
    collector, state = make_collector(algorithm, env, 0), algorithm.init(jax.random.key(0))
    slots = collector.start(algorithm.actor(state))
    for iteration in range(2):
        rollout, slots, _, _ = collector.collect(algorithm.actor(state), slots, iteration)
        np.testing.assert_array_equal(rollout.reward, rollout.obs[..., 0])
        np.testing.assert_array_equal(rollout.next_obs, rollout.obs)
        assert len(np.unique(rollout.obs[0])) == algorithm.num_slots, "every slot has a number of its own"
        batch, _, _ = algorithm.batch(state, rollout)
        np.testing.assert_array_equal(batch.obs, rollout.obs)
        np.testing.assert_array_equal(batch.transition.reward, batch.obs[..., 0])
        np.testing.assert_allclose(batch.value, algorithm.values(state.params, batch.obs), rtol=1e-6)


# --- numbers ---


def test_the_gradient_is_never_longer_than_its_limit():
    algorithm = made("ppo", gradient_clip=0.5)
    parts = algorithm.optimiser()
    gradient = {"a": jnp.array([30.0, 40.0]), "b": jnp.array([1.0])}
    # Adam's step hides how long a gradient was, and its memory keeps it: (1 - 0.9) of the clipped one at first
    for factor, length in ((1.0, 0.5), (1e-3, 1e-3 * np.sqrt(30**2 + 40**2 + 1))):
        given = jax.tree.map(lambda leaf, factor=factor: factor * leaf, gradient)
        _, (_, remembered) = parts.update(given, parts.init(gradient))
        np.testing.assert_allclose(np.linalg.norm(np.concatenate([*remembered.mu.values()])), 0.1 * length, rtol=1e-5)
        np.testing.assert_allclose(remembered.mu["a"] / remembered.mu["b"], given["a"] / given["b"], rtol=1e-5)
    unclipped = made("ppo", gradient_clip=None).optimiser()
    _, found = unclipped.update(gradient, unclipped.init(gradient))
    (remembered,) = [
        part for part in jax.tree.leaves(found, is_leaf=lambda part: hasattr(part, "mu")) if hasattr(part, "mu")
    ]
    np.testing.assert_allclose(remembered.mu["a"], 0.1 * gradient["a"], rtol=1e-5)


def test_a_gradient_of_the_size_of_adams_epsilon_moves_half_as_far():
    """g / (|g| + eps) at the first step, eps 1e-5 as in the implementations that recipes are taken from."""
    parts = made("ppo", gradient_clip=None).optimiser()
    for gradient, moved in ((1e-5, 0.5), (1.0, 1.0), (-3e-5, -0.75)):
        given = {"a": jnp.array([gradient])}
        np.testing.assert_allclose(parts.update(given, parts.init(given))[0]["a"], moved, rtol=1e-3)


def test_ppos_losses_are_what_they_say():
    rng = np.random.default_rng(0)
    ratio, advantage = np.exp(rng.normal(size=50)), rng.normal(size=50)
    expected = [min(r * a, np.clip(r, 0.8, 1.2) * a) for r, a in zip(ratio, advantage, strict=True)]
    np.testing.assert_allclose(clipped_surrogate(jnp.asarray(ratio), jnp.asarray(advantage), 0.2), expected)
    np.testing.assert_allclose(clipped_surrogate(jnp.asarray(ratio), jnp.asarray(advantage), None), ratio * advantage)
    value, before, target = rng.normal(size=(3, 50))
    expected = [
        0.5 * max((v - t) ** 2, (b + np.clip(v - b, -0.3, 0.3) - t) ** 2)
        for v, b, t in zip(value, before, target, strict=True)
    ]
    arrays = [jnp.asarray(array) for array in (value, before, target)]
    np.testing.assert_allclose(clipped_value_loss(*arrays, 0.3), expected)
    np.testing.assert_allclose(clipped_value_loss(*arrays, None), 0.5 * (value - target) ** 2)


def linear_gaussian(policy, obs, drawn):
    """Log probabilities and entropies of a linear Gaussian policy, by NumPy."""
    (weights,), (bias,) = policy.network.weights, policy.network.biases
    mean, log_std = np.asarray(obs) @ np.asarray(weights).T + np.asarray(bias), np.asarray(policy.log_std)
    logs = norm.logpdf(np.asarray(drawn), mean, np.exp(log_std)).sum(-1)
    return logs, (log_std + 0.5 * np.log(2 * np.pi * np.e)).sum()


@pytest.mark.parametrize("name", ["ppo", "a2c", "reinforce"])
def test_losses_are_what_numpy_makes_of_a_batch_and_their_gradients_its_differences(name):
    weights = {"value_weight": 0.7, "entropy_weight": 0.3} if name != "reinforce" else {}
    algorithm = made(name, policy="linear", normalise_advantages="batch", **weights)
    params = algorithm.init(jax.random.key(3)).params
    rng = np.random.default_rng(4)
    obs, drawn = rng.normal(size=(30, 5)).astype(np.float32), rng.normal(size=(30, 2)).astype(np.float32)
    advantage, target, before = rng.normal(size=(3, 30)).astype(np.float32)
    weight = np.ones(30, np.float32) if name != "reinforce" else (rng.random(30) < 0.7).astype(np.float32)
    logs, entropy = linear_gaussian(params.policy, obs, drawn)
    old = (logs + 0.3 * rng.normal(size=30)).astype(np.float32)
    state = algorithm.init(jax.random.key(0))
    batch = algorithm.batch(state, rollout_for(algorithm, state))[0]._replace(
        obs=jnp.asarray(obs), drawn=jnp.asarray(drawn), log_prob=jnp.asarray(old), advantage=jnp.asarray(advantage),
        target=jnp.asarray(target), value=jnp.asarray(before), weight=jnp.asarray(weight),
    )  # fmt: skip

    def centred(values):
        mean = (weight * values).sum() / weight.sum()
        deviation = np.sqrt((weight * (values - mean) ** 2).sum() / weight.sum())
        return (values - mean) / (deviation + 1e-8)

    (layer,), (bias,) = params.value.weights, params.value.biases
    value = obs @ np.asarray(layer).T[:, 0] + float(bias[0])
    value_loss = 0.5 * (weight * (value - target) ** 2).sum() / weight.sum()
    if name == "ppo":  # normalised in the batch before, so as they are here
        ratio = np.exp(logs - old)
        surrogate = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean()
        expected = -surrogate + 0.7 * value_loss - 0.3 * entropy
    elif name == "a2c":
        expected = -(logs * centred(advantage)).mean() + 0.7 * value_loss - 0.3 * entropy
    else:
        expected = -(weight * logs * centred(advantage)).sum() / weight.sum() + value_loss
    found, parts = algorithm.batch_loss(params, batch)
    assert float(found) == pytest.approx(expected, rel=2e-5)
    assert float(parts["value_loss"]) == pytest.approx(value_loss, rel=1e-5)

    flat, back = ravel_pytree(params)
    gradient = np.asarray(jax.grad(lambda p: algorithm.batch_loss(back(p), batch)[0])(flat), np.float64)
    loss = jax.jit(lambda p: algorithm.batch_loss(back(p), batch)[0])
    direction = rng.normal(size=len(flat))
    there, here = (float(loss(flat + sign * 1e-3 * direction)) for sign in (1, -1))
    assert gradient @ direction == pytest.approx((there - here) / 2e-3, rel=0.02, abs=0.01)


@pytest.mark.parametrize("times", [1.0, 1e-6])
def test_trpos_step_is_the_natural_gradient_of_the_length_that_the_limit_allows(times):
    """For a linear Gaussian policy the Fisher matrix is known, and the step is solved for by NumPy."""
    algorithm = made("trpo", policy="linear", cg_iterations=60, damping=0.05, max_kl=1e-4, normalise_advantages="none")
    policy = algorithm.init(jax.random.key(1)).params.policy
    rng = np.random.default_rng(5)
    obs, drawn = rng.normal(size=(50, 5)).astype(np.float32), rng.normal(size=(50, 2)).astype(np.float32)
    logs, _ = linear_gaussian(policy, obs, drawn)
    advantage = (times * rng.normal(size=50)).astype(np.float32)
    state = algorithm.init(jax.random.key(0))
    batch = algorithm.batch(state, rollout_for(algorithm, state))[0]._replace(
        obs=jnp.asarray(obs), drawn=jnp.asarray(drawn), log_prob=jnp.asarray(logs, jnp.float32),
        advantage=jnp.asarray(advantage),
    )  # fmt: skip
    (weights,), (bias,) = policy.network.weights, policy.network.biases
    mean, deviation = obs @ np.asarray(weights).T + np.asarray(bias), np.exp(np.asarray(policy.log_std))
    inputs = np.concatenate([obs, np.ones((50, 1))], 1)
    gradient, steps = {}, {}
    for output in range(2):
        residual = (drawn[:, output] - mean[:, output]) / deviation[output]
        score = inputs * (residual / deviation[output])[:, None]
        fisher = inputs.T @ inputs / 50 / deviation[output] ** 2 + 0.05 * np.eye(6)
        gradient[output] = (advantage[:, None] * score).mean(0)
        steps[output] = np.linalg.solve(fisher, gradient[output])
    of_deviation = np.stack([((drawn[:, o] - mean[:, o]) / deviation[o]) ** 2 - 1 for o in range(2)], 1)
    gradient["log_std"] = (advantage[:, None] * of_deviation).mean(0)
    steps["log_std"] = gradient["log_std"] / (2 + 0.05)
    curvature = sum((gradient[name] * steps[name]).sum() for name in steps)
    moved, metrics = algorithm.policy_step(policy, batch, jax.random.key(0))
    assert metrics["accepted"]
    length = np.sqrt(2 * 1e-4 / curvature) * 0.5 ** float(metrics["halvings"])
    np.testing.assert_allclose(moved.log_std - policy.log_std, length * steps["log_std"], rtol=1e-2, atol=1e-6)
    for output in range(2):
        taken = np.append(
            (moved.network.weights[0] - weights)[output], (moved.network.biases[0] - bias)[output]
        )  # fmt: skip
        np.testing.assert_allclose(taken, length * steps[output], rtol=1e-2, atol=1e-5)


def test_what_is_said_of_a_changed_policy():
    before = DiagonalGaussian(jnp.zeros((3, 1)), jnp.zeros((3, 1)))
    after = DiagonalGaussian(jnp.array([[0.0], [1.0], [2.0]]), jnp.zeros((3, 1)))
    drawn = jnp.array([[0.0], [1.0], [-1.0]])
    log_prob = jax.vmap(lambda one, action: one.log_prob(action))(before, drawn)
    found = policy_change(before, after, drawn, log_prob)
    assert float(found["mean_kl"]) == pytest.approx((0 + 0.5 + 2) / 3)
    assert float(found["max_kl"]) == pytest.approx(2.0)
    assert float(found["max_ratio"]) == pytest.approx(np.exp(0.5))
    assert float(explained_variance(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 3.0]))) == 1.0
    assert float(explained_variance(jnp.zeros(3), jnp.array([1.0, 2.0, 3.0]))) == 0.0


def test_trpos_fisher_products_are_those_of_the_fisher_matrix():
    """For one Gaussian layer the Fisher information is known: E[z z^T] / s^2 for the weights of an output."""
    algorithm = registry.make("trpo", CONTINUOUS, {**SMALL, **OWN["trpo"], "policy": "linear", "damping": 1e-6})
    state = algorithm.init(jax.random.key(0))
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(40, 5)), jnp.float32)
    policy = state.params.policy
    from jax.flatten_util import ravel_pytree

    flat, back = ravel_pytree(policy)
    fisher = jax.hessian(lambda params: algorithm.mean_kl(policy, back(params), obs))(flat)
    place = ravel_pytree(jax.tree.map(lambda leaf: jnp.arange(leaf.size).reshape(leaf.shape), policy))[0]
    weights = np.arange(10)  # the first leaf: weights (2, 5), unit standard deviations
    assert place.shape == flat.shape
    block = np.asarray(fisher)[np.ix_(weights[:5], weights[:5])]
    np.testing.assert_allclose(block, np.asarray(obs).T @ np.asarray(obs) / len(obs), atol=1e-4)


@pytest.mark.parametrize("max_kl", [1e-4, 1e-2, 1.0])
@every_spec
def test_trpo_never_takes_a_step_above_the_limit(max_kl, spec):
    for seed in range(4):
        algorithm = made("trpo+", spec, max_kl=max_kl, held_out_envs=0)
        state = algorithm.init(jax.random.key(seed))
        rollout = rollout_for(algorithm, state, seed)
        _, metrics = updated(algorithm, rollout, state)
        assert float(metrics["mean_kl"]) <= max_kl * (1 + 1e-3)
        taken = float(metrics["step_norm"]) > 0
        assert taken == bool(metrics["accepted"])


@pytest.mark.parametrize("max_kl", [1e-4, 1e-2])
def test_trpo_halves_a_step_whose_curvature_was_seen_too_small(max_kl):
    """The Fisher products see every other observation, all of them short; the limit holds over all."""
    algorithm = made("trpo", policy="linear", fisher_stride=2, damping=1e-8, max_kl=max_kl)
    policy = algorithm.init(jax.random.key(1)).params.policy
    rng, key, count = np.random.default_rng(3), jax.random.key(4), 40
    obs = rng.normal(size=(count, 5)).astype(np.float32)
    seen = np.asarray(permutation(key, count))[::2]
    obs[seen] *= 0.1
    obs[np.setdiff1d(np.arange(count), seen)] *= 3.0
    drawn = rng.normal(size=(count, 2)).astype(np.float32)
    logs, _ = linear_gaussian(policy, obs, drawn)
    state = algorithm.init(jax.random.key(0))
    batch = flattened(algorithm.batch(state, rollout_for(algorithm, state))[0])
    batch = batch._replace(
        obs=jnp.asarray(obs), drawn=jnp.asarray(drawn), log_prob=jnp.asarray(logs, jnp.float32),
        advantage=jnp.asarray(obs[:, 0] * drawn[:, 0]),
    )  # fmt: skip
    moved, metrics = algorithm.policy_step(policy, batch, key)
    assert bool(metrics["accepted"]) and int(metrics["halvings"]) > 0
    assert 0 < float(algorithm.mean_kl(policy, moved, batch.obs)) <= max_kl


@pytest.mark.parametrize("name", ["ppo", "a2c", "trpo", "reinforce"])
@every_spec
def test_what_is_taken_off_a_return_does_not_depend_on_the_action(name, spec):
    """Otherwise the baseline would bias the gradient: E[grad log pi(a) b(a)] is zero for a constant alone."""
    algorithm = made(name, spec)
    state = algorithm.init(jax.random.key(0))
    rollout = rollout_for(algorithm, state)
    other = rollout._replace(
        action=jnp.flip(rollout.action, 0),
        extras=jax.tree.map(lambda leaf: jnp.flip(leaf, 0) - 0 * leaf, rollout.extras),
    )
    (one, *_), (another, *_) = (algorithm.batch(state, given) for given in (rollout, other))
    assert (one.drawn != another.drawn).any()
    for field in ("advantage", "value", "target", "monte_carlo"):
        np.testing.assert_array_equal(getattr(one, field), getattr(another, field))
    np.testing.assert_allclose(one.value, algorithm.values(state.params, one.obs), rtol=1e-6)
    if name == "reinforce":
        np.testing.assert_allclose(one.advantage, one.monte_carlo - one.value, rtol=1e-6, atol=1e-6)


def test_trpo_never_takes_a_step_that_lowers_the_surrogate(monkeypatch):
    """A surrogate that curves down: the full step is well within the limit and too long for it."""
    algorithm = made("trpo", policy="linear", max_kl=1.0)
    policy = algorithm.init(jax.random.key(1)).params.policy
    state = algorithm.init(jax.random.key(0))
    batch = flattened(algorithm.batch(state, rollout_for(algorithm, state))[0])
    start, plain = ravel_pytree(policy)[0], TRPO.surrogate
    monkeypatch.setattr(
        TRPO, "surrogate", lambda self, p, b: plain(self, p, b) - 10.0 * jnp.square(ravel_pytree(p)[0] - start).sum()
    )
    moved, metrics = algorithm.policy_step(policy, batch, jax.random.key(0))
    assert bool(metrics["accepted"]) and int(metrics["halvings"]) > 0
    assert algorithm.surrogate(moved, batch) > algorithm.surrogate(policy, batch)


def test_every_epoch_shuffles_anew(monkeypatch):
    algorithm = made("ppo", num_epochs=3)
    state = algorithm.init(jax.random.key(0))
    batch, _, _ = algorithm.batch(state, rollout_for(algorithm, state))
    orders = []
    monkeypatch.setattr(ppo, "permutation", lambda key, count: orders.append(permutation(key, count)) or orders[-1])
    with jax.disable_jit():  # so that each epoch is run as it stands there
        algorithm.improve(state, batch, jnp.float32(1e-3), jax.random.key(1))
    assert len({tuple(np.asarray(order).tolist()) for order in orders}) == 3


def test_the_log_probability_that_is_kept_is_that_of_the_draw_and_not_of_the_clipped_action():
    algorithm = made("ppo", log_std=1.5)
    actor, obs = algorithm.actor(algorithm.init(jax.random.key(0))), jnp.ones(5, jnp.float32)
    seen = 0
    for number in range(8):
        action, _, kept = algorithm.act(actor, (), obs, jax.random.key(number), explore=True)
        expected = actor.policy(algorithm.scaled(actor, obs)).log_prob(kept.drawn)
        np.testing.assert_allclose(kept.log_prob, expected, rtol=1e-6)
        seen += bool((action != kept.drawn).any())
    assert seen >= 4, "actions must be clipped for this to say anything"


# --- switches ---


def test_rewards_times_a_constant_change_nothing_with_scaling_and_something_without():
    for scaled, times in ((True, 1000), (True, 1e-12), (False, 1000)):
        algorithm = made("ppo", scale_rewards=scaled, reward_clip=10.0 if scaled else None)
        state = algorithm.init(jax.random.key(0))
        one, other = (
            updated(algorithm, rollout_for(algorithm, state, reward_factor=factor))[0] for factor in (1, times)
        )
        apart = max(
            float(jnp.abs(left - right).max())
            for left, right in zip(jax.tree.leaves(one.params.value), jax.tree.leaves(other.params.value), strict=True)
        )
        assert (apart < 1e-5) == scaled, apart


def test_the_share_outside_the_clip_is_that_of_ratios_beyond_it():
    algorithm = made("ppo", learning_rate=0.05)
    state = algorithm.init(jax.random.key(0))
    rollout = rollout_for(algorithm, state)
    after, metrics = updated(algorithm, rollout, state)
    actor = algorithm.actor(state)
    obs = (np.asarray(rollout.obs, np.float32) - actor.mean) * actor.inverse_scale
    logs = []
    for params in (state.params, after.params):
        gaussian = jax.vmap(jax.vmap(params.policy))(jnp.asarray(obs))
        drawn = np.asarray(rollout.extras.drawn)
        logs.append(norm.logpdf(drawn, gaussian.mean, np.exp(gaussian.log_std)).sum(-1))
    outside = np.abs(np.exp(logs[1] - logs[0]) - 1) > 0.2
    assert 0 < outside[:, :3].mean() < 1
    np.testing.assert_allclose(float(metrics["outside_clip"]), outside[:, :3].mean(), atol=1e-6)
    np.testing.assert_allclose(float(metrics["held_out_outside_clip"]), outside[:, 3:].mean(), atol=1e-6)


def test_annealing_ends_at_zero():
    algorithm = made("ppo", anneal_env_steps=240)
    state = algorithm.init(jax.random.key(0))
    rates = []
    for _ in range(11):
        state, metrics = updated(algorithm, rollout_for(algorithm, state), state)
        rates.append(float(metrics["learning_rate"]))
    np.testing.assert_allclose(rates[:10], [3e-4 * (1 - 24 * k / 240) for k in range(10)], rtol=1e-5)
    assert rates[10] == 0.0


@pytest.mark.parametrize(
    ("switch", "value"),
    [
        ("activation", "relu"),
        ("orthogonal_initialisation", False),
        ("scale_rewards", False),
        ("gradient_clip", None),
        ("normalise_advantages", "none"),
        ("value_clip", 0.1),
        ("recompute_advantages", True),
        ("ratio_clip", None),
        ("reward_clip", 0.1),
        ("observation_clip", 0.1),
        ("anneal_learning_rate", False),
    ],
)
def test_every_switch_does_something(switch, value):
    one, other = _learnt_with(), _learnt_with(**{switch: value})
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


ACTS_ON = {
    "activation": set(),
    "orthogonal_initialisation": {"init"},
    "scale_rewards": {"reward"},
    "reward_clip": {"reward"},
    "normalise_observations": {"obs"},
    "observation_clip": {"obs"},
    "gradient_clip": set(),
    "normalise_advantages": set(),
    "value_clip": set(),
    "anneal_learning_rate": set(),
}


@pytest.mark.parametrize("switch", ACTS_ON)
def test_a_switch_changes_that_and_nothing_else(switch):
    """First weights, observations as the networks see them, rewards as they are learnt from, and the step size."""
    off = {
        "activation": "relu", "value_clip": 0.1, "normalise_advantages": "none", "orthogonal_initialisation": False,
        "scale_rewards": False, "normalise_observations": False, "anneal_learning_rate": False,
        "reward_clip": 0.05, "observation_clip": 0.05, "gradient_clip": None,
    }  # fmt: skip
    plain = made("ppo", anneal_env_steps=96)
    switched = dataclasses.replace(plain, **{switch: off[switch]})
    start = plain.init(jax.random.key(0))
    rollout = rollout_for(plain, start)
    seen, _ = updated(plain, rollout, start)  # so that there are moments to scale by
    batches = [algorithm.batch(seen, rollout)[0] for algorithm in (plain, switched)]
    pairs = {
        "init": [algorithm.init(jax.random.key(0)).params for algorithm in (plain, switched)],
        "obs": [batch.obs for batch in batches],
        "reward": [batch.transition.reward for batch in batches],
    }
    changed = {
        name
        for name, (one, other) in pairs.items()
        if any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))
    }
    assert changed == ACTS_ON[switch]
    for field in ("drawn", "log_prob", "weight"):
        np.testing.assert_array_equal(*(getattr(batch, field) for batch in batches))
    rates = [float(algorithm.annealed(seen)) for algorithm in (plain, switched)]
    assert (rates[0] != rates[1]) == (switch == "anneal_learning_rate")
    gradient = jax.tree.map(lambda leaf: 100 * jnp.ones_like(leaf), seen.params)
    optimisers = [algorithm.optimiser() for algorithm in (plain, switched)]
    directions = [optimiser.update(gradient, optimiser.init(gradient))[1] for optimiser in optimisers]
    clipped_alike = all(
        (a == b).all() for a, b in zip(*map(jax.tree.leaves, directions), strict=True)
    )  # fmt: skip
    assert clipped_alike == (switch != "gradient_clip")


@functools.cache
def _learnt_with(**switches):
    """The networks after two updates; large steps, so that ratios and values are clipped, and nothing is measured."""
    quiet = {"held_out_envs": 0, "measure_health": False, "measure_gradients": False}
    algorithm = made("ppo", anneal_env_steps=96, learning_rate=0.03, **quiet, **switches)
    state = algorithm.init(jax.random.key(0))
    for seed in range(2):
        state, _ = updated(algorithm, rollout_for(algorithm, state, seed), state)
    return state.params


def test_recomputed_advantages_are_those_of_the_value_before_the_epoch():
    steps = made("ppo").num_envs * made("ppo").rollout_steps
    twice, once = (made("ppo", minibatch_size=steps, recompute_advantages=True, num_epochs=n) for n in (2, 1))
    state = twice.init(jax.random.key(0))
    batch, _, _ = twice.batch(state, rollout_for(twice, state))
    batch = jax.tree.map(lambda leaf: leaf[:, : twice.num_envs], batch)
    rate = jnp.float32(0.01)
    found, _, _ = twice.improve(state, batch, rate, jax.random.key(1))
    first, optimiser, _ = once.improve(state, batch, rate, jax.random.key(2))
    value, _, advantage = once.estimates(first, batch.obs, batch.transition)
    again = batch._replace(advantage=advantage, target=advantage + value)
    plain = made("ppo", minibatch_size=steps, num_epochs=1)
    expected, _, _ = plain.improve(state._replace(params=first, optimiser=optimiser), again, rate, jax.random.key(3))
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_parts_of_a_rollout_agree_as_much_as_their_gradients_do():
    algorithm = made("ppo", num_envs=6)
    state = algorithm.init(jax.random.key(0))
    batch, _, _ = algorithm.batch(state, rollout_for(algorithm, state))
    batch = jax.tree.map(lambda leaf: leaf[:, :6], batch)
    advantage = (batch.advantage - batch.advantage.mean()) / batch.advantage.std()

    def surrogate(policy, slot):
        log_prob = jax.vmap(lambda obs, drawn: policy(obs).log_prob(drawn))(batch.obs[:, slot], batch.drawn[:, slot])
        return (jnp.exp(log_prob - batch.log_prob[:, slot]) * advantage[:, slot]).mean()

    parts = np.stack([ravel_pytree(jax.grad(surrogate)(state.params.policy, slot))[0] for slot in range(6)])
    dots = parts @ parts.T
    signal = dots[np.triu_indices(6, 1)].mean()
    found = gradient_agreement(state.params.policy, batch)
    assert float(found["gradient_signal"]) == pytest.approx(signal, rel=1e-3, abs=1e-6)
    assert float(found["gradient_noise"]) == pytest.approx((np.diag(dots).mean() - signal) / 6, rel=1e-3)
    one_slot = jax.tree.map(lambda leaf: leaf[:, :1], batch)
    assert gradient_agreement(state.params.policy, one_slot) == {}


def test_the_meter_changes_nothing_that_is_learnt():
    with_it, without = made("ppo"), made("ppo", measure_gradients=False)
    found = []
    for algorithm in (with_it, without):
        state = algorithm.init(jax.random.key(0))
        state, metrics = updated(algorithm, rollout_for(algorithm, state), state)
        found.append(state.params)
        assert ("gradient_signal" in metrics) == algorithm.measure_gradients
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_presets_are_switches_and_nothing_else():
    full, plain = registry.make("ppo", CONTINUOUS, {}), registry.make("ppo-m", CONTINUOUS, {})
    changed = {
        field.name for field in dataclasses.fields(full) if getattr(full, field.name) != getattr(plain, field.name)
    }
    assert changed == {
        "activation",
        "orthogonal_initialisation",
        "scale_rewards",
        "reward_clip",
        "normalise_observations",
        "observation_clip",
        "gradient_clip",
        "anneal_learning_rate",
    }
    assert registry.make("ppo-noclip", CONTINUOUS, {}) == dataclasses.replace(full, ratio_clip=None)
    assert registry.make("ppo-m", CONTINUOUS, {"activation": "tanh"}).activation == "tanh", "a setting goes first"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ppo", {"minibatch_size": 7}, "must divide the 24 steps"),
        ("ppo", {"discount": 1.5}, r"discount must be in \[0, 1\]"),
        ("ppo", {"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
        ("ppo", {"activation": "gelu"}, "must be one of tanh, relu"),
        ("ppo", {"gradient_clip": -1.0}, "gradient_clip must be"),
        ("trpo", {"fisher_stride": 0}, r"fisher_stride must be in \[1, "),
        ("a2c", {"held_out_envs": -1}, "held_out_envs must be"),
        ("reinforce", {"learnt_baseline": False}, "Did you mean learned_baseline"),
        ("reinforce", {"trace": 0.5}, "Reinforce.trace must be 1, for its returns are whole: got 0.5"),
    ],
)
def test_settings_that_cannot_be(name, settings, message):
    with pytest.raises(UsageError, match=message):
        made(name, **settings)
