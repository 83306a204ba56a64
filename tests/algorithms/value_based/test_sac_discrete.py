"""Soft actor-critic for choices against plain loops, and its reachable target of entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.value_based.setting import SPEC, A, D, batch_of, made, moved, plain_perceptron, plain_softmax
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec

STEPS = {"learning_rate": 0.01}


def start(**settings):
    algorithm = made("sac-discrete", **settings)
    return algorithm, moved(algorithm.init(jax.random.key(1)))


def test_targets_are_those_of_a_plain_loop():
    algorithm, state = start(reward_scale=0.5, temperature=0.3)
    batch = batch_of(20)
    found = algorithm.target(state, batch, batch.next_obs)
    for row in range(20):
        share = plain_softmax(plain_perceptron(state.policy, batch.next_obs[row]))
        first, second = (plain_perceptron(one, batch.next_obs[row]) for one in state.targets)
        ahead = sum(share[a] * (min(first[a], second[a]) - 0.3 * np.log(share[a])) for a in range(A))
        np.testing.assert_allclose(found[row], 0.5 * batch.reward[row] + batch.discount[row] * ahead, atol=1e-4)


def test_metrics_are_those_of_a_plain_loop():
    algorithm, state = start(temperature=0.3, learn_temperature=False)
    batch = batch_of(16)
    target = np.asarray(algorithm.target(state, batch, batch.next_obs))
    after, priority, metrics = algorithm.learn(state, batch, jax.random.key(0))
    value = np.array([plain_perceptron(state.critics[0], batch.obs[row])[batch.action[row]] for row in range(16)])
    np.testing.assert_allclose(priority, np.abs(value - target), atol=1e-4)
    expected = {"value": value.mean(), "value_max": value.max(), "target": target.mean()}
    expected |= {"critic_loss": ((value - target) ** 2).mean(), "temperature": 0.3}
    entropies, losses = [], []
    for row in range(16):
        share = plain_softmax(plain_perceptron(state.policy, batch.obs[row]))
        # the policy is judged by the critics after their step
        least = np.minimum(*(plain_perceptron(one, batch.obs[row]) for one in after.critics))
        entropies.append(-(share * np.log(share)).sum())
        losses.append((share * (0.3 * np.log(share) - least)).sum())
    expected |= {"entropy": np.mean(entropies), "policy_loss": np.mean(losses)}
    for name, number in expected.items():
        np.testing.assert_allclose(metrics[name], number, atol=1e-4, err_msg=name)


def test_each_part_takes_a_step_of_its_own_down_its_loss():
    """The first step of Adam is along the sign of the slope, so that slopes by differences say where each goes."""
    algorithm, state = start(temperature=0.3, learning_rate=0.01, target_rate=0.25)
    batch = batch_of(16)
    after, _, metrics = algorithm.learn(state, batch, jax.random.key(0))
    target = np.asarray(algorithm.target(state, batch, batch.next_obs))

    def critic_loss(bias, which):
        last = state.critics[which]
        hidden = type(last)(last.weights, (*last.biases[:-1], bias), last.activation)
        value = np.array([plain_perceptron(hidden, batch.obs[row])[batch.action[row]] for row in range(16)])
        return (batch.weight * (value - target) ** 2).mean()

    def policy_loss(bias):
        policy = type(state.policy)(state.policy.weights, (*state.policy.biases[:-1], bias), state.policy.activation)
        total = 0.0
        for row in range(16):
            share = plain_softmax(plain_perceptron(policy, batch.obs[row]))
            least = np.minimum(*(plain_perceptron(one, batch.obs[row]) for one in after.critics))
            total += (share * (0.3 * np.log(share) - least)).sum() / 16
        return total

    def slopes(loss, bias):
        bias = jnp.asarray(bias, jnp.float64)
        return [(loss(bias + 1e-4 * unit) - loss(bias - 1e-4 * unit)) / 2e-4 for unit in jnp.eye(A)]

    for which in (0, 1):
        before = state.critics[which].biases[-1]
        step = after.critics[which].biases[-1] - before
        slope = slopes(lambda bias, which=which: critic_loss(bias, which), before)
        np.testing.assert_allclose(step, -0.01 * np.sign(slope), atol=1e-4)
        expected = 0.75 * state.targets[which].biases[-1] + 0.25 * after.critics[which].biases[-1]
        np.testing.assert_allclose(after.targets[which].biases[-1], expected, atol=1e-6)
    step = after.policy.biases[-1] - state.policy.biases[-1]
    np.testing.assert_allclose(step, -0.01 * np.sign(slopes(policy_loss, state.policy.biases[-1])), atol=1e-4)
    falls = float(metrics["entropy"]) > 0.7 * np.log(A)
    np.testing.assert_allclose(after.log_temperature - state.log_temperature, -0.01 if falls else 0.01, atol=1e-5)


@pytest.mark.parametrize(("sharpness", "rises"), [(0.0, False), (30.0, True)])
def test_the_temperature_falls_above_the_wanted_entropy_and_rises_below_it(sharpness, rises):
    algorithm, state = start()
    policy = jax.tree.map(lambda leaf: sharpness * leaf, state.policy)
    state = state._replace(policy=policy)
    after, _, metrics = algorithm.learn(state, batch_of(16), jax.random.key(0))
    assert bool(metrics["entropy"] < 0.7 * np.log(A)) == rises
    assert bool(after.log_temperature > state.log_temperature) == rises


@pytest.mark.parametrize("count", [2, 3, 18])
def test_the_wanted_entropy_can_be_reached(count):
    spec = EnvSpec("probe", Box.unbounded(D), Discrete(count), 100)
    for share in (0.7, 0.98):
        wanted = float(made("sac-discrete", spec, target_entropy_share=share).wanted_entropy)
        np.testing.assert_allclose(wanted, share * np.log(count), rtol=1e-6)
        assert wanted < np.log(count)


def test_a_learnt_temperature_settles_where_the_entropy_is_the_wanted_one():
    """Choices are worth 0, 1 and 2 for good (discount 0): the temperature of softmax(Q / alpha) is known."""
    algorithm, state = start(discount=0.0, hidden=(), target_entropy_share=0.5, **STEPS)
    batch = batch_of(16, discount=0.0)
    batch = batch._replace(
        obs=np.zeros((16, D), np.float32), action=np.arange(16) % A, reward=(np.arange(16) % A).astype(np.float32)
    )

    @jax.jit
    def run(state):
        return jax.lax.fori_loop(0, 6000, lambda _, state: algorithm.learn(state, batch, jax.random.key(0))[0], state)

    after = run(state)
    share = np.asarray(jax.nn.softmax(after.policy.biases[0]))
    np.testing.assert_allclose(-(share * np.log(share)).sum(), 0.5 * np.log(A), atol=0.01)
    np.testing.assert_allclose(after.critics[0].biases[0], [0, 1, 2], atol=0.01)
    best = plain_softmax(np.arange(A) / float(jnp.exp(after.log_temperature)))
    np.testing.assert_allclose(share, best, atol=0.01)


def test_behaviour_is_uniform_in_the_warm_up_then_drawn_from_the_policy_and_its_likeliest_choice_without_noise():
    algorithm, state = start()
    obs, keys = jnp.ones(D, jnp.float32), jax.random.split(jax.random.key(8), 4000)

    def shares(state):
        actor = algorithm.actor(state)
        act = jax.jit(jax.vmap(lambda key: algorithm.act(actor, (), obs, key, explore=True)[0]))
        return np.bincount(np.asarray(act(keys)), minlength=A) / len(keys)

    expected = plain_softmax(plain_perceptron(state.policy, obs))
    assert expected.max() - expected.min() > 0.1
    np.testing.assert_allclose(shares(state), 1 / A, atol=0.03)
    later = state._replace(env_steps=jnp.asarray(32, jnp.int64))
    np.testing.assert_allclose(shares(later), expected, atol=0.03)
    assert int(algorithm.act(algorithm.actor(later), (), obs, keys[0], explore=False)[0]) == expected.argmax()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_entropy_share": 1.0}, "target_entropy_share must be between 0 and 1, .* got 1.0"),
        ({"target_entropy_share": 0.0}, "target_entropy_share must be between 0 and 1"),
        ({"temperature": 0.0}, "DiscreteSAC.temperature must be a finite number above 0"),
        (
            {"learn_temperature": False, "target_entropy_share": 0.5},
            "target_entropy_share has no effect without learn_temperature",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        made("sac-discrete", SPEC, **settings)
