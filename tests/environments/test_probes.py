"""The probes' known answers, found again by other means: simulation, sums, and a Riccati iteration."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.core.errors import UsageError
from workhorse.core.types import Step
from workhorse.environments.probes import (
    BanditProbe,
    LinearQuadraticGaussianProbe,
    LinearQuadraticProbe,
    QuadraticProbe,
    ResetLeakProbe,
    ScoreNoiseProbe,
    SlotIdentityProbe,
    TabularProbe,
    TerminationProbe,
    TimeLimitProbe,
)

DISCOUNT = 0.9


def episodes(env: Any, steps: int, policy: Any = None) -> list[tuple[Any, Step]]:
    """(observation acted on, step) with resets where an episode ends."""
    rows, state_obs = [], env.reset(jax.random.key(0))
    for t in range(steps):
        state, obs = state_obs
        action = jnp.int32(t % 2) if policy is None else policy(obs)
        state, step = env.step(state, action, jax.random.key(t))
        rows.append((np.asarray(obs), jax.device_get(step)))
        ended = bool(step.terminated | step.truncated)
        state_obs = env.reset(jax.random.key(100 + t)) if ended else (state, step.obs)
    return rows


def evaluate(rows: list[tuple[Any, Step]], *, leak: bool = False, clock_ends: bool = False) -> dict[bytes, float]:
    """Values of the observations by sweeping the table of transitions until nothing moves, with the classic bugs."""
    value: dict[bytes, float] = {}
    for _ in range(2000):
        for row, (obs, step) in enumerate(rows[:-1]):
            successor = rows[row + 1][0] if leak else step.next_obs
            ends = step.terminated or (clock_ends and step.truncated)
            target = step.reward + (0.0 if ends else DISCOUNT * value.get(successor.tobytes(), 0.0))
            value[obs.tobytes()] = float(target)
    return value


def of(*obs: float) -> bytes:
    return np.array(obs, np.float32).tobytes()


def test_time_limit_has_one_value_everywhere() -> None:
    env = TimeLimitProbe(5)
    rows = episodes(env, 26)
    assert [bool(step.truncated) for _, step in rows] == [t % 5 == 4 for t in range(26)]
    assert not any(step.terminated for _, step in rows)
    # The last observation of an episode is only ever a successor: its value is the definition's, not a table's.
    value = {of(t / 5): env.value(DISCOUNT) for t in range(6)}
    for obs, step in rows:
        assert step.reward + DISCOUNT * value[step.next_obs.tobytes()] == pytest.approx(value[obs.tobytes()])
    wrong = evaluate(rows, clock_ends=True)
    assert wrong[of(0)] == pytest.approx(TerminationProbe(5).value(DISCOUNT))
    assert wrong[of(0)] < 0.5 * env.value(DISCOUNT)


def test_termination_is_worth_what_is_left() -> None:
    env = TerminationProbe(5)
    rows = episodes(env, 26)
    assert [bool(step.terminated) for _, step in rows] == [t % 5 == 4 for t in range(26)]
    assert not any(step.truncated for _, step in rows)
    value = evaluate(rows)
    for t in range(5):
        assert value[of(t / 5)] == pytest.approx(env.value(DISCOUNT, t))
        assert value[of(t / 5)] == pytest.approx(sum(DISCOUNT**k for k in range(5 - t)))


def test_the_twins_differ_only_in_how_they_end() -> None:
    clock, end = episodes(TimeLimitProbe(4), 12), episodes(TerminationProbe(4), 12)
    for (obs, step), (twin_obs, twin) in zip(clock, end, strict=True):
        np.testing.assert_array_equal(obs, twin_obs)
        np.testing.assert_array_equal(step.next_obs, twin.next_obs)
        assert step.reward == twin.reward
        assert bool(step.truncated) == bool(twin.terminated)


def test_a_leaked_reset_observation_gives_the_leaked_value() -> None:
    env = ResetLeakProbe()
    rows = episodes(env, 21)
    right, wrong = evaluate(rows), evaluate(rows, leak=True)
    reset, later = env.value(DISCOUNT)
    assert (right[of(1, 0)], right[of(0, 1)]) == (pytest.approx(reset), pytest.approx(later))
    assert wrong[of(0, 1)] == pytest.approx(env.leaked_value(DISCOUNT))
    assert abs(env.leaked_value(DISCOUNT) - later) > 100


def test_every_slot_pays_the_number_it_shows() -> None:
    env = SlotIdentityProbe(6)
    states, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(2), 32))
    assert len(np.unique(obs)) == 32
    for t in range(6):
        states, step = jax.vmap(env.step)(states, jnp.zeros(32, jnp.int32), jax.random.split(jax.random.key(t), 32))
        np.testing.assert_array_equal(step.reward, np.asarray(obs[:, 0], np.float64))
        np.testing.assert_array_equal(step.next_obs, obs)
        assert np.all(step.truncated == (t == 5))
    value = evaluate(episodes(env, 7))
    shown = np.asarray(env.reset(jax.random.key(0))[1])
    assert value[shown.tobytes()] == pytest.approx(env.value(float(shown[0]), DISCOUNT))


@pytest.mark.parametrize("discount", [0.5, 0.99, 1.0])
def test_linear_quadratic_gain_solves_the_riccati_equation(discount: float) -> None:
    env = LinearQuadraticProbe()
    a, b, q, r = (np.array(matrix) for matrix in (env.a, env.b, env.q, env.r))
    cost = np.zeros_like(q)
    for _ in range(5000):  # value iteration
        gain = discount * np.linalg.solve(r + discount * b.T @ cost @ b, b.T @ cost @ a)
        cost = q + gain.T @ r @ gain + discount * (a - b @ gain).T @ cost @ (a - b @ gain)
    np.testing.assert_allclose(env.optimal_cost(discount), cost, rtol=1e-8)
    np.testing.assert_allclose(env.optimal_gain(discount), gain, rtol=1e-8)


def test_linear_quadratic_value_is_what_the_policy_earns() -> None:
    env = LinearQuadraticProbe(max_episode_steps=None)
    gain, cost = jnp.array(env.optimal_gain(DISCOUNT)), env.optimal_cost(DISCOUNT)
    start = env.reset(jax.random.key(4))[0]

    def earned(gain: Any) -> float:
        def step(carry: Any, t: Any) -> Any:
            state, out = env.step(carry, -gain @ carry.x, jax.random.key(0))
            return state, DISCOUNT**t * out.reward

        return float(jnp.sum(jax.lax.scan(step, start, jnp.arange(400))[1]))

    x = np.asarray(start.x)
    assert earned(gain) == pytest.approx(-x @ cost @ x, rel=1e-9)
    for direction in ([[0.05, 0.0]], [[0.0, 0.05]], [[-0.05, 0.0]], [[0.0, -0.05]]):
        assert earned(gain + jnp.array(direction)) < earned(gain)


def test_linear_quadratic_shapes_must_fit() -> None:
    with pytest.raises(UsageError, match=r"shapes \(n, n\), \(n, m\)"):
        LinearQuadraticProbe(q=((1.0,),))


vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(np.array)


@given(vectors, vectors, st.floats(0.01, 2.0))
@settings(max_examples=25, deadline=None)
def test_quadratic_mirrored_pair_is_exact(w: np.ndarray, noise: np.ndarray, sigma: float) -> None:
    env = QuadraticProbe()

    def fitness(parameters: np.ndarray) -> float:
        state, obs = env.reset(jax.random.key(0))
        step = env.step(state, jnp.array(np.outer(parameters, obs)[:, 0]), jax.random.key(0))[1]
        assert bool(step.terminated)
        assert bool(step.truncated)
        return float(step.reward)

    estimate = noise * (fitness(w + sigma * noise) - fitness(w - sigma * noise)) / (2 * sigma)
    np.testing.assert_allclose(estimate, env.mirrored_gradient(w, noise), rtol=1e-7, atol=1e-6)


def test_quadratic_gradient_and_smoothed_return_are_the_means() -> None:
    env, w, sigma = QuadraticProbe(), np.array([0.3, 0.1, -1.0]), 0.7
    noise = np.random.default_rng(0).normal(size=(100_000, 3))
    returns = -np.sum((w + sigma * noise - np.array(env.target)) ** 2, axis=1)
    assert returns.mean() == pytest.approx(env.smoothed_return(w, sigma), abs=5 * returns.std() / np.sqrt(1e5))
    mirrored = np.stack([env.mirrored_gradient(w, e) for e in noise[:20_000]])
    np.testing.assert_allclose(mirrored.mean(0), env.gradient(w), atol=5 * mirrored.std(0).max() / np.sqrt(2e4))
    assert np.all(env.gradient(np.array(env.target)) == 0)


def test_noise_scored_by_actions_grows_with_the_episode_and_by_parameters_does_not() -> None:
    episodes, sigma = 20_000, 0.5
    for steps in (2, 8):
        env = ScoreNoiseProbe(steps)

        def episode(key: Any, env: ScoreNoiseProbe = env) -> tuple[Any, Any, Any]:
            state, _ = env.reset(key)

            def advance(state: Any, time: Any) -> tuple[Any, tuple[Any, Any]]:
                action_key, step_key = jax.random.split(jax.random.fold_in(key, time))
                action = jax.random.normal(action_key, (1,))  # drawn from N(0, 1): the score at w = 0 is the action
                state, step = env.step(state, action, step_key)
                return state, (step.reward, action[0])

            _, (reward, score) = jax.lax.scan(advance, state, jnp.arange(env.max_episode_steps))
            return reward.sum(), score.sum(), jax.random.normal(jax.random.fold_in(key, 10_000))

        found = jax.vmap(episode)(jax.random.split(jax.random.key(steps), episodes))
        total, score, noise = map(np.asarray, found)
        assert total.var() == pytest.approx(1.0, rel=0.05)
        assert (total * score).var() == pytest.approx(env.score_variance(), rel=0.08)
        assert (total * noise / sigma).var() == pytest.approx(env.perturbation_variance(sigma), rel=0.08)


def simulated(env: Any, policy: Any, episodes: int) -> tuple[Any, Any, Any]:
    """(observation acted on, reward, whether the step is one of the episode) of many episodes to the clock, (E, T)."""

    def episode(key: Any) -> Any:
        def advance(carry: Any, time: Any) -> Any:
            state, obs, running = carry
            act_key, step_key = jax.random.split(jax.random.fold_in(key, time))
            state, step = env.step(state, policy(obs, act_key), step_key)
            return (state, step.obs, running & ~step.terminated), (obs, step.reward, running)

        start = *env.reset(jax.random.fold_in(key, 10_000)), jnp.ones((), bool)
        return jax.lax.scan(advance, start, jnp.arange(env.spec.max_episode_steps))[1]

    found = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes))
    obs, reward, running = map(np.asarray, found)
    return obs, reward, running


def slopes(function: Any, at: np.ndarray) -> np.ndarray:
    """The gradient by central differences."""
    found = np.zeros(at.size)
    for number in range(at.size):
        nudge = 1e-5 * np.eye(at.size)[number].reshape(at.shape)
        found[number] = (function(at + nudge) - function(at - nudge)) / 2e-5
    return found.reshape(at.shape)


def test_bandit_pays_its_means_and_has_the_gradient_of_their_mean() -> None:
    env, scores = BanditProbe(reward_std=0.5), np.array([0.3, -0.2, 0.7])
    _, reward, _ = simulated(env, lambda obs, key: jax.random.categorical(key, jnp.array(scores)), 40_000)
    assert reward.mean() == pytest.approx(env.expected_return(scores), abs=4 * reward.std() / 200)
    assert reward.var() == pytest.approx(env.return_variance(scores), rel=0.03)
    np.testing.assert_allclose(env.gradient(scores), slopes(env.expected_return, scores), rtol=1e-7)


def test_tabular_answers_are_those_of_simulation_and_of_differences() -> None:
    env, scores = TabularProbe(max_episode_steps=5), np.random.default_rng(0).normal(size=(3, 2))
    obs, reward, running = simulated(env, lambda obs, key: jax.random.categorical(key, obs @ jnp.array(scores)), 40_000)
    visits = (obs * running[..., None]).sum(1)
    np.testing.assert_allclose(env.visits(scores), visits.mean(0), atol=4 * visits.std(0).max() / 200)
    earned = (reward * running).sum(1)
    assert earned.mean() == pytest.approx(env.expected_return(scores), abs=4 * earned.std() / 200)

    endless = TabularProbe(max_episode_steps=None)
    patient = TabularProbe(max_episode_steps=400)  # long enough to be without a clock
    np.testing.assert_allclose(patient.visits(scores), endless.visits(scores), rtol=1e-9)
    assert endless.values(scores, 1.0) @ np.array(env.start) == pytest.approx(endless.expected_return(scores))
    length = endless.visits(scores).sum()
    expected = slopes(endless.expected_return, scores) / length
    np.testing.assert_allclose(endless.gradient(scores, 1.0), expected, rtol=1e-6, atol=1e-9)
    policy = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose((policy * env.advantages(scores, DISCOUNT)).sum(1), 0, atol=1e-12)


def test_linear_quadratic_gaussian_return_is_that_of_simulation() -> None:
    env, rng = LinearQuadraticGaussianProbe(), np.random.default_rng(1)
    weight, bias, log_std = rng.normal(size=(2, 2)), rng.normal(size=2), np.array([-0.5, -1.0])

    def policy(obs: Any, key: Any) -> Any:
        noise = jnp.exp(log_std) * jax.random.normal(key, (2,), jnp.float64)
        return jnp.array(weight) @ obs + jnp.array(bias) + noise

    _, reward, _ = simulated(env, policy, 100_000)
    earned = reward.sum(1)
    mean_return = jax.jit(env.expected_return)
    expected = float(mean_return(weight, bias, log_std))
    assert earned.mean() == pytest.approx(expected, abs=3 * earned.std() / np.sqrt(1e5))
    assert 3 * earned.std() / np.sqrt(1e5) < 0.02 * abs(expected), "the comparison is sharp"
    at = (weight, bias, log_std)
    for number, found in enumerate(env.gradient(*at)):
        by_differences = slopes(lambda part, n=number: mean_return(*at[:n], part, *at[n + 1 :]), at[number])
        np.testing.assert_allclose(found, by_differences, rtol=1e-5, atol=1e-6)


def test_probes_of_gradients_refuse_tables_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"at least two arms, not 1"):
        BanditProbe(means=(1.0,))
    with pytest.raises(UsageError, match=r"\(S, A\) = \(1, 2\), not \(3, 2, 3\) and \(3,\)"):
        TabularProbe(rewards=((1.0, 2.0),))
    with pytest.raises(UsageError, match=r"start to exactly 1: got 0 as the lowest entry, 0.9 and 0.5 as the sums"):
        TabularProbe(start=(0.5, 0.0, 0.0))
    with pytest.raises(UsageError, match=r"must have the shapes \(n, n\), \(n, m\), .* \(n,\), not"):
        LinearQuadraticGaussianProbe(start=(1.0,))
