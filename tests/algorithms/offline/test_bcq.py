"""BCQ: what it proposes, its target and steps against NumPy, its limits, the copy that acts, and a bandit's log."""

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
from workhorse.core.errors import UsageError
from workhorse.networks.mlp import MLP


def state_of(algorithm, seed=0):
    """A state whose target networks are not those that learn."""
    state, other = begin(algorithm, seed), begin(algorithm, seed + 1)
    return state._replace(target_mover=other.mover, target_critics=other.critics)


def small(**settings):
    return made("bcq", model_hidden=(8,), **settings)


def candidates_of(algorithm, state, obs, key, mover):
    """Candidates at each observation, (N, M, A), from the clipped latents of a key."""
    count = algorithm.num_candidates
    latent = np.asarray(jax.random.normal(key, (len(obs) * count, 2 * A), jnp.float32), float).clip(-0.5, 0.5)
    found = []
    for number, z in enumerate(latent):
        one = np.asarray(obs[number // count], float)
        proposed = np.tanh(run(state.model.decoder, np.concatenate([one, z])))
        step = np.tanh(run(mover, np.concatenate([one, proposed])))
        found.append(np.clip(proposed + float(algorithm.reach) * step, -1, 1))
    return np.array(found).reshape(len(obs), count, A)


def test_the_target_is_the_best_of_candidates_by_a_mixture_of_both_target_critics():
    algorithm, batch = small(num_candidates=6, reward_scale=0.5, reach=0.3), batch_of()
    state = state_of(algorithm)
    target, best = algorithm.target(state, batch, jnp.asarray(batch.next_obs), KEY)
    candidates, which = candidates_of(algorithm, state, batch.next_obs, KEY, state.target_mover), set()
    for number in range(12):
        values = []
        for action in candidates[number]:
            pair = [value_of(critic, batch.next_obs[number], action) for critic in state.target_critics]
            values.append(0.75 * min(pair) + 0.25 * max(pair))
        which.add(int(np.argmax(values)))
        expected = 0.5 * batch.reward[number] + batch.discount[number] * max(values)
        assert float(target[number]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        np.testing.assert_allclose(best[number], candidates[number][np.argmax(values)], **CLOSE)
    assert len(which) >= 3, "else one candidate would do"
    reward = 0.5 * batch.reward
    assert (np.asarray(target)[batch.terminated] == reward[batch.terminated]).all()
    assert (np.abs(np.asarray(target) - reward)[batch.truncated] > 1e-4).all()


def test_every_network_goes_down_its_own_loss():
    algorithm, batch = small(num_candidates=4, learning_rate=0.01, reach=0.3), batch_of()
    state = state_of(algorithm)
    after, error, metrics = learn(algorithm, state, batch, KEY)
    _, target_key, mover_key = jax.random.split(KEY, 3)
    target, best = algorithm.target(state._replace(model=after.model), batch, jnp.asarray(batch.next_obs), target_key)
    target, best = np.asarray(target, float), np.asarray(best, float)
    np.testing.assert_allclose(error, np.abs(value_of(state.critics[0], batch.obs, batch.action) - target), **CLOSE)
    assert float(metrics["target"]) == pytest.approx(target.mean(), rel=1e-4)

    def critic_loss(critic):
        return np.mean(batch.weight * (value_of(critic, batch.obs, batch.action) - target) ** 2)

    for before, now in zip(state.critics, after.critics, strict=True):
        assert_first_step_of_adam(before, now, critic_loss, 0.01)
    proposed = np.asarray(algorithm.proposed(after.model, jnp.asarray(batch.obs), mover_key), float)

    def mover_loss(mover):
        step = np.tanh(run(mover, np.concatenate([batch.obs, proposed], axis=1)))
        return -value_of(after.critics[0], batch.obs, np.clip(proposed + 0.3 * step, -1, 1)).mean()

    assert_first_step_of_adam(state.mover, after.mover, mover_loss, 0.01, least=1e-4)
    assert float(metrics["policy_loss"]) == pytest.approx(mover_loss(state.mover), rel=1e-4)

    def copy_loss(copy):
        return np.mean((np.tanh(run(copy, batch.next_obs)) - best) ** 2)

    assert_first_step_of_adam(state.copy, after.copy, copy_loss, 0.01)
    assert float(metrics["copy_error"]) == pytest.approx(copy_loss(state.copy), rel=1e-4)


def test_the_model_goes_down_error_and_weighted_divergence():
    batch, last = batch_of(), {}
    for weight in (0.0, 0.5):
        algorithm = small(divergence_weight=weight, learning_rate=1e-3)
        state, found = state_of(algorithm), []
        for number in range(150):
            state, _, metrics = learn(algorithm, state, batch, jax.random.key(number))
            found.append(metrics)
        assert found[-1]["model_error"] < 0.9 * found[0]["model_error"]
        last[weight] = found[-1]["latent_divergence"]
    assert last[0.5] < 0.3 * last[0.0]


def test_targets_follow_at_their_rate():
    algorithm, batch = small(target_rate=0.25, learning_rate=0.05), batch_of()
    state = state_of(algorithm)
    after, _, _ = learn(algorithm, state, batch, KEY)
    for name in ("mover", "critics"):
        leaves = (getattr(state, f"target_{name}"), getattr(after, f"target_{name}"), getattr(after, name))
        for old, new, goal in zip(*map(jax.tree.leaves, leaves), strict=True):
            np.testing.assert_allclose(new, 0.75 * np.asarray(old) + 0.25 * np.asarray(goal), atol=1e-6)
    assert after.updates == 1


def test_without_reach_it_only_proposes_what_the_model_does():
    """And of a model that always does the same, that is the log's action to the bit."""
    algorithm, batch = small(reach=0.0), batch_of()
    state = state_of(algorithm)
    bias = jnp.asarray([0.3, -1.2], jnp.float32)
    decoder = state.model.decoder
    weights = (*decoder.weights[:-1], jnp.zeros_like(decoder.weights[-1]))
    model = type(state.model)(state.model.encoder, MLP(weights, (*decoder.biases[:-1], bias), "relu"))
    state = state._replace(model=model, env_steps=jnp.int64(1000))
    _, best = algorithm.target(state, batch, jnp.asarray(batch.next_obs), KEY)
    assert (np.asarray(best) == np.asarray(jnp.tanh(bias))).all()
    actor = algorithm.actor(state)
    done, _, _ = algorithm.act(actor, (), jnp.asarray(batch.obs[0]), KEY, explore=True)
    assert (done == jnp.tanh(bias)).all()


def test_exploring_takes_the_best_of_its_candidates_by_the_first_critic():
    algorithm, obs = small(acting_candidates=7), jnp.asarray([0.3, -0.2, 1.0], jnp.float32)
    state = state_of(algorithm)._replace(env_steps=jnp.int64(1000))
    actor = algorithm.actor(state)
    for number in range(5):
        key = jax.random.key(number)
        done, _, _ = algorithm.act(actor, (), obs, key, explore=True)
        many = jnp.tile(obs, (7, 1))
        candidates = algorithm.moved(state.mover, many, algorithm.proposed(state.model, many, jax.random.split(key)[0]))
        values = [value_of(state.critics[0], obs, action) for action in np.asarray(candidates)]
        np.testing.assert_allclose(done, candidates[int(np.argmax(values))], atol=1e-6)


def test_values_are_told_in_raw_rewards_and_mixed():
    algorithm, batch = small(reward_scale=0.25), batch_of()
    state = state_of(algorithm)
    pair = [value_of(critic, batch.obs[0], batch.action[0]) for critic in state.critics]
    expected = (0.75 * min(pair) + 0.25 * max(pair)) / 0.25
    assert float(algorithm.action_value(state, batch.obs[0], batch.action[0])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_it_stays_within_reach_of_the_log_and_the_copy_does_the_same():
    chosen, copied = gains("bcq", explore=True), gains("bcq")
    assert (chosen > 0.02).all() and (chosen < 0.2).all(), chosen
    np.testing.assert_allclose(copied, chosen, atol=0.03)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"reach": 3.0}, r"BCQ.reach must be in \[0, 2\]: got 3.0"),
        ({"pessimism": 1.5}, r"BCQ.pessimism must be in \[0, 1\]: got 1.5"),
        ({"num_candidates": 0}, "BCQ.num_candidates must be a finite number above 0: got 0"),
        ({"divergence_weight": -1.0}, "BCQ.divergence_weight must be a finite number of at least 0: got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        small(**settings)
