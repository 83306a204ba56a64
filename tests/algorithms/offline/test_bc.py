"""Behaviour cloning against NumPy, and which episodes it learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.offline.setting import (
    BOX,
    CHOICES,
    CORNERS,
    acted,
    after_one,
    assert_slopes,
    batch_of,
    learnt_on,
    loop_on,
    made,
    perceptron,
    shaken,
)
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec, MultiDiscrete
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import write_log_folder


def plain_losses(policy, batch, spec):
    """The loss of each row, written out for one row at a time."""
    found = []
    for row, outputs in enumerate(perceptron(policy.network, batch.obs)):
        if spec is CHOICES:
            chances = np.exp(outputs) / np.exp(outputs).sum()
            found.append(-np.log(chances[batch.action[row]]))
            continue
        away = np.tanh(outputs) - np.asarray(batch.action[row], np.float64)
        if policy.log_std is None:
            found.append((away[0] ** 2 + away[1] ** 2) / 2)
            continue
        std = np.exp(np.clip(np.asarray(policy.log_std, np.float64), -5, 2))
        density = np.exp(-0.5 * (away / std) ** 2) / (std * np.sqrt(2 * np.pi))
        found.append(-np.log(density[0] * density[1]))
    return np.array(found)


KINDS = {"deterministic": (BOX, {}), "gaussian": (BOX, {"deterministic": False}), "choices": (CHOICES, {})}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_loss_and_its_slopes_are_those_of_a_loop_over_rows(kind):
    spec, settings = KINDS[kind]
    algorithm, batch = made("bc", spec, **settings), batch_of(spec)
    state = algorithm.init(jax.random.key(0))
    state = state._replace(policy=shaken(state.policy))
    after, priority, metrics = after_one(algorithm, state, batch, jax.random.key(1))
    weight = np.asarray(batch.weight, np.float64)
    expected = plain_losses(state.policy, batch, spec)
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(weight * expected), rtol=1e-5)
    np.testing.assert_allclose(priority, np.abs(expected), rtol=1e-4)
    assert_slopes(after.optimiser, state.policy, lambda policy: np.mean(weight * plain_losses(policy, batch, spec)))
    outputs = perceptron(state.policy.network, batch.obs)
    if spec is CHOICES:
        assert metrics["cloning_error"] == pytest.approx(np.mean(np.argmax(outputs, 1) != batch.action))
        assert 0 < metrics["cloning_error"] < 1
    else:
        np.testing.assert_allclose(metrics["cloning_error"], np.mean((np.tanh(outputs) - batch.action) ** 2), rtol=1e-5)


def test_no_reward_and_no_end_of_an_episode_is_read():
    algorithm, batch = made("bc"), batch_of()
    state = algorithm.init(jax.random.key(0))
    other = batch._replace(reward=batch.reward * 9 + 1, discount=batch.discount * 0, next_obs=batch.next_obs + 5)
    one, two = (after_one(algorithm, state, given, jax.random.key(1)) for given in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_actions_are_explored_around_as_they_were_taught():
    keys, rows = jax.random.split(jax.random.key(1), 20_000), jnp.zeros(3, jnp.float32)

    def drawn(algorithm, policy):
        state = algorithm.init(jax.random.key(0))._replace(policy=policy, env_steps=jnp.int64(20))
        actor = algorithm.actor(state)
        return np.asarray(jax.vmap(lambda key: algorithm.act(actor, (), rows, key, explore=True)[0])(keys))

    for settings, log_std, std in (({"noise_std": 0.2}, None, 0.2), ({"deterministic": False}, -2.0, np.exp(-2.0))):
        algorithm = made("bc", **settings)
        policy = jax.tree.map(jnp.zeros_like, algorithm.new_policy(jax.random.key(0)))
        if log_std is not None:
            policy = policy._replace(log_std=jnp.full(2, log_std, jnp.float32))
        actions = drawn(algorithm, policy)
        assert actions.std() == pytest.approx(std, rel=0.03) and abs(actions.mean()) < 0.005
    algorithm = made("bc", CHOICES)
    policy = algorithm.new_policy(jax.random.key(0))
    logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4], jnp.float32))
    network = jax.tree.map(jnp.zeros_like, policy.network)
    biases = (*network.biases[:-1], logits)
    policy = policy._replace(network=type(network)(network.weights, biases, "relu"))
    often = np.bincount(drawn(algorithm, policy), minlength=4) / 20_000
    np.testing.assert_allclose(often, [0.1, 0.2, 0.3, 0.4], atol=0.015)


def test_only_the_episodes_that_returned_most_are_learnt_from():
    algorithm = made("filtered-bc")
    returns = np.arange(30.0) % 10
    weights = algorithm.row_weights(returns, np.ones(30, int))
    assert np.flatnonzero(weights).tolist() == [9, 19, 29]
    assert np.flatnonzero(algorithm.row_weights(np.zeros(11), np.ones(11))).tolist() == [0, 1], "the earlier of equals"
    assert made("bc").row_weights(returns, np.ones(30)) is None
    assert np.sum(made("bc", top_share=1e-3).row_weights(returns, np.ones(30))) == 1


def two_kinds_log(path, count=40):
    """Episodes of 3 to 5 steps: those of even number earn 1 a step by the action 0.6, the others -1 by -0.6."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 6, count)
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    good = np.repeat(np.arange(count) % 2 == 0, lengths)
    total, ends = int(lengths.sum()), begins + lengths - 1
    truncated = np.zeros(total, bool)
    truncated[ends] = True
    log = Dataset.of(
        "two kinds", Box((-1.0,) * 2, (1.0,) * 2), Box((-1.0,), (1.0,)),
        obs=rng.uniform(-1, 1, (total, 2)).astype(np.float32),
        action=np.where(good, 0.6, -0.6)[:, None].astype(np.float32), reward=np.where(good, 1.0, -1.0),
        terminated=np.zeros(total, bool), truncated=truncated,
        final_obs=rng.uniform(-1, 1, (count, 2)).astype(np.float32), begins=begins,
    )  # fmt: skip
    return write_log_folder(log, path), np.flatnonzero(good)


def test_the_loop_learns_from_whole_good_episodes_that_are_not_held_out(tmp_path):
    path, good = two_kinds_log(tmp_path / "log")
    loop, everything = (loop_on(path, name, batch_size=8, held_out=0.2) for name in ("filtered-bc", "bc"))
    parts = loop._parts
    np.testing.assert_array_equal(parts.held_out, everything._parts.held_out)
    assert set(parts.train) <= set(good) - set(parts.held_out)
    assert sorted([*everything._parts.train, *parts.held_out]) == list(range(parts.log.num_steps))
    episodes = np.unique(parts.log.episode_of(parts.train))
    assert len(episodes) == 4 == np.ceil(0.1 * 32), "a tenth of those that are not held out"
    assert parts.log.lengths[episodes].sum() == len(parts.train)


def test_it_learns_what_the_log_did_and_the_filtered_one_what_the_best_did(tmp_path):
    path, _ = two_kinds_log(tmp_path / "log")
    filtered, state, metrics = learnt_on(path, "filtered-bc", updates=300, batch_size=8, learning_rate=3e-3)
    assert np.abs(acted(filtered, state, CORNERS) - 0.6).max() < 0.1 and metrics["log_rows"] < 25
    plain, state, _ = learnt_on(path, "bc", updates=300, batch_size=64, learning_rate=3e-3)
    assert np.abs(acted(plain, state, [[0.0, 0.0]])).max() < 0.35, "the mean of both kinds"


def test_a_rule_is_cloned_from_its_actions(tmp_path):
    rng = np.random.default_rng(1)
    obs = rng.uniform(-1, 1, (600, 2)).astype(np.float32)
    action = np.tanh(obs @ np.array([[1.0], [-0.5]], np.float32))
    log = Dataset.of(
        "rule", Box((-1.0,) * 2, (1.0,) * 2), Box((-1.0,), (1.0,)), obs=obs, action=action, reward=np.zeros(600),
        terminated=np.ones(600, bool), truncated=np.zeros(600, bool), final_obs=obs, begins=np.arange(600),
    )  # fmt: skip
    path = write_log_folder(log, tmp_path / "rule")
    algorithm, state, metrics = learnt_on(path, "bc", updates=400, learning_rate=3e-3)
    expected = np.tanh(np.array(CORNERS) @ [[1.0], [-0.5]])
    np.testing.assert_allclose(acted(algorithm, state, CORNERS), expected, atol=0.15)
    assert metrics["cloning_error"] < 0.1


@pytest.mark.parametrize(
    ("spec", "settings", "sentence"),
    [
        (BOX, {"top_share": 0.0}, r"BC.top_share must be in \(0, 1\]: got 0.0"),
        (BOX, {"noise_std": -1.0}, "BC.noise_std must be a finite number of at least 0: got -1.0"),
        (BOX, {"noise_std": 0.3, "deterministic": False}, "BC.noise_std has no effect on a policy that is drawn from"),
        (CHOICES, {"noise_std": 0.3}, "BC.noise_std has no effect on a policy that is drawn from"),
        (CHOICES, {"deterministic": False}, "BC.deterministic has no effect on choices, as test has"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(spec, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        made("bc", spec, **settings)


def test_several_choices_at_once_are_refused():
    with pytest.raises(UsageError, match="BC needs continuous actions or one of a number of choices, but those of m"):
        made("bc", EnvSpec("m", Box.unbounded(3), MultiDiscrete((2, 3)), 100))
