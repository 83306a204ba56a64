"""BEAR: its discrepancy by double loops, its target and steps against NumPy, its multiplier, and a bandit's log."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.offline.plain import (
    CLOSE,
    KEY,
    A,
    assert_first_step_of_adam,
    batch_of,
    begin,
    gains,
    learn,
    made,
    run,
    value_of,
)
from workhorse.algorithms.offline.bear import discrepancy, unsquashed
from workhorse.core.errors import UsageError


def small(**settings):
    return made("bear", model_hidden=(8,), **{"cloning_updates": 0} | settings)


def state_of(algorithm, seed=0):
    """A state whose target networks are not those that learn."""
    state, other = begin(algorithm, seed), begin(algorithm, seed + 1)
    return state._replace(target_policy=other.policy, target_critics=other.critics)


def loops(x, y, kernel, width):
    """The discrepancy of two small sets, one pair after the other."""

    def mean(one, other):
        total = 0.0
        for a in one:
            for b in other:
                apart = sum(abs(p - q) if kernel == "laplacian" else (p - q) ** 2 for p, q in zip(a, b, strict=True))
                total += np.exp(-apart / (2 * width))
        return total / (len(one) * len(other))

    return np.sqrt(max(mean(x, x) + mean(y, y) - 2 * mean(x, y), 0) + 1e-6)


@pytest.mark.parametrize("kernel", ["laplacian", "gaussian"])
def test_the_discrepancy_is_that_of_a_double_loop(kernel):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4, 3)).astype(np.float32), 1.5 + rng.normal(size=(6, 5, 3)).astype(np.float32)
    for width in (0.3, 2.0):
        expected = [loops(*pair, kernel, width) for pair in zip(x.astype(float), y.astype(float), strict=True)]
        np.testing.assert_allclose(discrepancy(jnp.asarray(x), jnp.asarray(y), kernel, width), expected, rtol=1e-4)
        np.testing.assert_allclose(discrepancy(jnp.asarray(x), jnp.asarray(x), kernel, width), 1e-3, rtol=0.5)
        assert (discrepancy(jnp.asarray(x), jnp.asarray(x + 9), kernel, width) > np.array(expected)).all()


def test_it_is_small_within_the_support_whatever_the_weights_there():
    """A narrow policy at one of two modes is nearer than one between them: support, and not the distribution."""
    rng = np.random.default_rng(0)
    model = np.where(rng.random((1, 200, 1)) < 0.5, -1.0, 1.0)
    at_mode, between = (middle + 0.05 * rng.normal(size=(1, 200, 1)) for middle in (1.0, 0.0))
    mixed = np.concatenate([at_mode[:, :150], -at_mode[:, 150:]], axis=1)  # unlike weights of both modes
    found = [float(discrepancy(jnp.asarray(one), jnp.asarray(model), "laplacian", 0.2)[0]) for one in (mixed, between)]
    assert found[0] < 0.6 * found[1]


def drawn(policy, obs, key, count):
    """Actions before tanh in NumPy, from the noise of a key."""
    mean, spread = np.split(run(policy, obs), 2, axis=1)
    noise = np.asarray(jax.random.normal(key, (len(obs), count, A), jnp.float32), float)
    return mean[:, None] + np.exp(-5 + 3.5 * (1 + np.tanh(spread)))[:, None] * noise


def test_the_target_is_the_best_of_the_target_policys_actions_by_both_target_critics():
    algorithm, batch = small(num_candidates=6, reward_scale=0.5), batch_of()
    state = state_of(algorithm)
    found = np.asarray(algorithm.target(state, batch, jnp.asarray(batch.next_obs), KEY))
    actions = np.tanh(drawn(state.target_policy, batch.next_obs, KEY, 6))
    for number in range(12):
        values = []
        for action in actions[number]:
            pair = [value_of(critic, batch.next_obs[number], action) for critic in state.target_critics]
            values.append(0.75 * min(pair) + 0.25 * max(pair))
        expected = 0.5 * batch.reward[number] + batch.discount[number] * max(values)
        assert found[number] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert (found[batch.terminated] == 0.5 * batch.reward[batch.terminated]).all()
    assert (np.abs(found - 0.5 * batch.reward)[batch.truncated] > 1e-4).all()


@pytest.mark.parametrize(("behaviour", "cloning"), [("vae", 0), ("gaussian", 0), ("gaussian", 1)])
def test_policy_critics_and_model_go_down_their_own_losses(behaviour, cloning):
    algorithm = small(
        behaviour=behaviour, cloning_updates=cloning, learning_rate=0.01, policy_rate_share=1.0, kernel_width=0.5,
        num_matched=3,
    )  # fmt: skip
    batch = batch_of()
    state = state_of(algorithm)._replace(log_multiplier=jnp.float32(1.5))
    after, error, metrics = learn(algorithm, state, batch, KEY)
    _, target_key, policy_key = jax.random.split(KEY, 3)
    target = np.asarray(algorithm.target(state, batch, jnp.asarray(batch.next_obs), target_key), float)
    np.testing.assert_allclose(error, np.abs(value_of(state.critics[0], batch.obs, batch.action) - target), **CLOSE)

    def critic_loss(critic):
        return np.mean(batch.weight * (value_of(critic, batch.obs, batch.action) - target) ** 2)

    for before, now in zip(state.critics, after.critics, strict=True):
        assert_first_step_of_adam(before, now, critic_loss, 0.01)

    model_key, own_key = jax.random.split(policy_key)
    of_model = np.asarray(algorithm.modelled(after.model, jnp.asarray(batch.obs), model_key), float)

    def policy_loss(policy):
        u = drawn(policy, batch.obs, own_key, 3)
        apart = np.mean([loops(*pair, "laplacian", 0.5) for pair in zip(u, of_model, strict=True)])
        value = np.minimum(*(value_of(critic, batch.obs, np.tanh(u[:, 0])) for critic in after.critics)).mean()
        return np.exp(1.5) * apart - (0 if cloning else value)

    assert_first_step_of_adam(state.policy, after.policy, policy_loss, 0.01)
    if behaviour == "gaussian":

        def model_loss(model):
            mean, spread = np.split(run(model, batch.obs), 2, axis=1)
            log_std = -5 + 3.5 * (1 + np.tanh(spread))
            u = np.arctanh(np.clip(batch.action.astype(float), -0.999, 0.999))
            normal = -0.5 * ((u - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
            return -(normal - np.log(1 - np.tanh(u) ** 2)).sum(1).mean()

        assert float(metrics["model_error"]) == pytest.approx(model_loss(state.model), rel=1e-4)
        assert_first_step_of_adam(state.model, after.model, model_loss, 0.01)


def test_the_models_latents_are_clipped_and_its_actions_are_before_tanh():
    algorithm, batch = small(num_matched=4), batch_of()
    state = state_of(algorithm)
    found = algorithm.modelled(state.model, jnp.asarray(batch.obs), KEY)
    latent = np.asarray(jax.random.normal(KEY, (48, 2 * A), jnp.float32), float).clip(-0.5, 0.5)
    rows = np.concatenate([np.repeat(batch.obs, 4, axis=0), latent], axis=1)
    np.testing.assert_allclose(found.reshape(48, A), run(state.model.decoder, rows), **CLOSE)


@pytest.mark.parametrize(("allowed", "sign"), [(0.0, 1), (5.0, -1)])
def test_the_multiplier_rises_above_what_is_allowed_and_stays_in_its_range(allowed, sign):
    algorithm, batch = small(allowed_discrepancy=allowed, multiplier_rate=0.1), batch_of()
    state = state_of(algorithm)
    after, _, metrics = learn(algorithm, state, batch, KEY)
    assert float(after.log_multiplier) == pytest.approx(0.1 * sign, rel=1e-3) and metrics["constraint_weight"] == 1
    edge = state._replace(log_multiplier=jnp.float32(10.0 if sign > 0 else -5.0))
    assert learn(algorithm, edge, batch, KEY)[0].log_multiplier == edge.log_multiplier


def test_targets_follow_at_their_rate():
    algorithm, batch = small(target_rate=0.25, learning_rate=0.05), batch_of()
    state = state_of(algorithm)
    after, _, _ = learn(algorithm, state, batch, KEY)
    for name in ("policy", "critics"):
        leaves = (getattr(state, f"target_{name}"), getattr(after, f"target_{name}"), getattr(after, name))
        for old, new, goal in zip(*map(jax.tree.leaves, leaves), strict=True):
            np.testing.assert_allclose(new, 0.75 * np.asarray(old) + 0.25 * np.asarray(goal), atol=1e-6)


def test_exploring_takes_the_best_of_its_draws_by_the_first_critic_and_else_the_mean_acts():
    algorithm, obs = small(acting_candidates=7), jnp.asarray([0.3, -0.2, 1.0], jnp.float32)
    state = state_of(algorithm)._replace(env_steps=jnp.int64(1000))
    actor = algorithm.actor(state)
    for number in range(5):
        key = jax.random.key(number)
        done, _, _ = algorithm.act(actor, (), obs, key, explore=True)
        candidates = np.tanh(unsquashed(state.policy, obs[None], jax.random.split(key)[0], 7)[0])
        values = [value_of(state.critics[0], obs, action) for action in candidates]
        np.testing.assert_allclose(done, candidates[int(np.argmax(values))], atol=1e-6)
    calm, _, _ = algorithm.act(actor, (), obs, KEY, explore=False)
    np.testing.assert_allclose(calm, np.tanh(run(state.policy, np.asarray(obs))[:A]), atol=1e-6)


def test_values_are_told_in_raw_rewards_and_mixed():
    algorithm, batch = small(reward_scale=0.25), batch_of()
    state = state_of(algorithm)
    pair = [value_of(critic, batch.obs[0], batch.action[0]) for critic in state.critics]
    expected = (0.75 * min(pair) + 0.25 * max(pair)) / 0.25
    assert float(algorithm.action_value(state, batch.obs[0], batch.action[0])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_it_climbs_within_the_support_of_the_log():
    found = gains("bear", behaviour="gaussian", cloning_updates=300, policy_rate_share=1.0)
    assert (found > 0.05).all() and (found < 0.4).all(), found


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kernel_width": 0.0}, "BEAR.kernel_width must be a finite number above 0: got 0.0"),
        ({"pessimism": -0.5}, r"BEAR.pessimism must be in \[0, 1\]: got -0.5"),
        ({"allowed_discrepancy": -1.0}, "BEAR.allowed_discrepancy must be a finite number of at least 0: got -1.0"),
        ({"behaviour": "gaussian", "divergence_weight": 0.1}, "BEAR.divergence_weight has no effect with behaviour"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        small(**settings)
