"""Gradient estimates of a frozen policy, against gradients known exactly: of a bandit, a table, a noisy linear plant.

With g = grad log pi, E[g | o] = 0. So of what an estimate is, (E[A g] - E[A] E[g]) / sd(A) over N steps, its mean is,
up to a share of 1 / N,

    mu = E[A g] / sd(A)

over the steps of slots that go on. Rewards are neither scaled nor clipped, observations are as they are and the value
function is frozen, so that mu is known where E[A | o, a], the visits and the spread of A are.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats
from scipy.special import softmax

from workhorse.algorithms import registry
from workhorse.diagnostics.experience import frozen_rollouts
from workhorse.diagnostics.gradients import independent_estimates
from workhorse.environments.probes import BanditProbe, LinearQuadraticGaussianProbe, TabularProbe
from workhorse.networks.mlp import MLP
from workhorse.statistics.gradient_quality import concentration, expected_cosine
from workhorse.training.rollouts import JaxCollector

PLAIN = {
    "policy": "linear",
    "held_out_envs": 0,
    "normalise_observations": False,
    "observation_clip": None,
    "scale_rewards": False,
    "reward_clip": None,
}
SLOTS, LENGTH = 128, 32
SIZES = (256, 1024, 4096, 8192)
"""Eight slots, 32, a rollout, two rollouts."""
COUNT = 256
ROOT = 5
"""Of all that is drawn. *Two standard errors are what one right estimator in twenty exceeds*: so do some roots."""
TWO_STANDARD_ERRORS = 0.0455
"""Probability that a normal number is further than that from its mean."""


def estimated(env: Any, name: str, policy: Any, value: Any, **settings: Any) -> tuple[Any, dict[int, np.ndarray]]:
    """The policy, and estimates of its gradient, with such weights, biases (and log_std) of both linear networks."""
    sizes = {"num_envs": SLOTS, "rollout_steps": LENGTH}
    algorithm = registry.make(name, env.spec, PLAIN | sizes | settings)
    state = algorithm.init(jax.random.key(0))
    weight, bias, *log_std = (jnp.asarray(part, jnp.float32) for part in policy)
    frozen = dataclasses.replace(
        state.params.policy, network=MLP((weight,), (bias,)), log_std=log_std[0] if log_std else None
    )
    values = MLP((jnp.asarray(value[0], jnp.float32),), (jnp.asarray(value[1], jnp.float32),))
    state = state._replace(params=state.params._replace(policy=frozen, value=values))
    collector, actor = JaxCollector(algorithm, env, ROOT), algorithm.actor(state)
    stream = frozen_rollouts(algorithm, state, collector, collector.start(actor))
    for _ in range(4):
        next(stream)  # until slots stand wherever slots that go on are found
    return frozen, dict(independent_estimates(algorithm, state, stream, COUNT, sizes=SIZES).gradients)


def pulled_back(policy: Any, obs: np.ndarray, by_scores: np.ndarray) -> np.ndarray:
    """A gradient with respect to the scores at some observations, (N, A), as one with respect to the policy, (d,)."""
    _, pull = jax.vjp(lambda one: jax.vmap(one)(jnp.asarray(obs, jnp.float32)).logits, policy)
    return np.asarray(ravel_pytree(pull(jnp.asarray(by_scores, jnp.float32))[0])[0], np.float64)


def check_mean(estimates: dict[int, np.ndarray], exact: np.ndarray, sharpness: float) -> None:
    """The mean of the largest estimates is within two standard errors of the exact gradient.

    Over all components together (Hotelling's T^2, in the directions in which estimates vary at all), and along the
    exact gradient, where the standard error is at most `sharpness` of its length: what bias could hide.
    """
    largest = estimates[SIZES[-1]]
    _, singular, axes = np.linalg.svd(largest - largest.mean(0), full_matrices=False)
    axes = axes[singular > 1e-4 * singular[0]]
    rank = len(axes)
    assert np.linalg.norm(exact - exact @ axes.T @ axes) < 1e-4 * np.linalg.norm(exact)
    away = (largest - exact) @ axes.T
    square = COUNT * away.mean(0) @ np.linalg.solve(np.cov(away.T), away.mean(0))
    share = stats.f.sf(square * (COUNT - rank) / rank / (COUNT - 1), rank, COUNT - rank)
    along = largest @ exact / (exact @ exact)
    error = along.std(ddof=1) / np.sqrt(COUNT)
    assert share > TWO_STANDARD_ERRORS
    assert abs(along.mean() - 1) < 2 * error
    assert error < sharpness


def check_curve(estimates: dict[int, np.ndarray], exact: np.ndarray, of_a_step: np.ndarray, is_exact: bool) -> None:
    """At every size estimates spread by the covariance `of_a_step` over N, and agree as normal numbers then do.

    In few dimensions the mean cosine of normal numbers is not 1 / (1 + B / N), so it is drawn. `is_exact` is false of a
    covariance that is as uncertain as that of the estimates themselves.
    """
    variances = np.linalg.eigvalsh(of_a_step)
    uncertain = np.sqrt(2 * np.square(variances).sum() / (COUNT - 1)) / variances.sum()  # a trace's, relative
    for size, found in estimates.items():
        agreement = concentration(found, size, resamples=300)
        error = (agreement.high - agreement.low) / 2 / 1.96
        assert abs(agreement.cosine - gaussian_cosine(exact, of_a_step / size)) < 3 * error
        trace = size * found.var(0, ddof=1).sum()
        assert trace == pytest.approx(variances.sum(), rel=3 * uncertain * (1 if is_exact else np.sqrt(2)))


def gaussian_cosine(mean: np.ndarray, covariance: np.ndarray) -> float:
    """Mean cosine of two normal vectors."""
    drawn = np.random.default_rng(0).multivariate_normal(mean, covariance, size=(2, 4000))
    drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
    return float((drawn[0] * drawn[1]).sum(-1).mean())


def test_a_bandits_gradient_and_the_covariance_of_a_step_are_the_closed_forms():
    """mu = p (m - J) / sd(R) with respect to the scores; the value of the only observation changes nothing.

    A step's covariance, to first order, is that of Z g - mu (Z^2 - 1) / 2 with Z = (A - E[A]) / sd(A): the second term
    because sd(A) is estimated from the same steps, and without it B would be too large. Z given the arm is normal, with
    mean `away` and standard deviation `noise`.
    """
    arms, scores = 32, 0.5 * np.random.default_rng(1).normal(size=32)
    env = BanditProbe(tuple(np.random.default_rng(0).normal(3.0, 0.5, arms).tolist()))
    value = [[1.0]], [0.5]
    policy, estimates = estimated(env, "ppo", (scores[:, None], np.zeros(arms)), value, minibatch_size=4096)
    deviation = np.sqrt(env.return_variance(scores))
    exact = pulled_back(policy, np.ones((1, 1)), env.gradient(scores)[None] / deviation)
    check_mean(estimates, exact, 0.01)

    chance = softmax(scores)
    away, noise = (np.array(env.means) - env.expected_return(scores)) / deviation, env.reward_std / deviation
    second, third = away**2 + noise**2, away**3 + 3 * away * noise**2
    fourth = away**4 + 6 * away**2 * noise**2 + 3 * noise**4
    score, mu = np.eye(arms) - chance, chance * away
    plain = np.einsum("a,ai,aj->ij", chance * second, score, score) - np.outer(mu, mu)
    cross = np.outer((chance * (third - away)) @ score, mu) / 2
    of_scores = plain - cross - cross.T + np.outer(mu, mu) * (chance @ fourth - 1) / 4
    check_curve(estimates, exact, np.tile(of_scores, (2, 2)), is_exact=True)  # scores are weights plus biases
    noise_scale = np.trace(of_scores) / (mu @ mu)
    for size, found in estimates.items():  # dimensions enough for the closed form
        assert concentration(found, size, resamples=1).cosine == pytest.approx(
            expected_cosine(noise_scale, size), abs=0.02
        )


@pytest.mark.parametrize(("discount", "trace"), [(0.9, 0.8), (1.0, 1.0)])
def test_a_tables_gradient_is_that_of_the_solved_equations(discount, trace):
    """mu = n(s) / |n| pi(a | s) A(s, a) / sd(A), with exact values, so that any trace leaves E[A | s, a] exact.

    The value of what is shown after the end is wrong, and must be masked; where only the clock or the rollout ended it
    is needed.
    """
    env, scores = TabularProbe(max_episode_steps=3), np.random.default_rng(0).normal(size=(3, 2))
    value, after_the_end = env.values(scores, discount), 2.0
    policy, estimates = estimated(
        env,
        "a2c",
        (scores.T, np.zeros(2)),
        ((value - after_the_end)[None], [after_the_end]),
        discount=discount,
        trace=trace,
    )
    deviation = deviation_in_table(env, scores, discount, trace)
    exact = pulled_back(policy, np.eye(3), env.gradient(scores, discount) / deviation)
    check_mean(estimates, exact, 0.005)
    check_curve(estimates, exact, SIZES[-1] * np.cov(estimates[SIZES[-1]].T), is_exact=False)


def deviation_in_table(env: TabularProbe, scores: np.ndarray, discount: float, trace: float) -> float:
    """sd(A) over the steps of a rollout.

    E[A] = 0, and errors of later steps have mean zero whatever came before, so E[A^2 | s, clock, steps left] is the
    mean square error at s plus (discount trace)^2 times that of the following step, unless an end lies between.
    """
    chance, transitions = softmax(scores, -1), np.array(env.transitions)
    value, clock = env.values(scores, discount), env.max_episode_steps or 0
    worth = discount * np.append(value, 0.0) + np.array(env.rewards)[..., None] - value[:, None, None]
    with_end = np.concatenate([transitions, 1 - transitions.sum(-1, keepdims=True)], -1)
    square_error = np.einsum("sa,san->s", chance, with_end * worth**2)
    followed = np.einsum("sa,san->sn", chance, transitions)
    visits = [np.array(env.start)]
    for _ in range(clock - 1):
        visits.append(followed.T @ visits[-1])
    share = np.stack(visits) / np.sum(visits)  # of (clock, s)
    squares, later = [], np.zeros((clock + 1, len(value)))
    for _ in range(LENGTH):
        later[:clock] = square_error + (discount * trace) ** 2 * later[1:] @ followed.T
        squares.append((share * later[:clock]).sum())
    return float(np.sqrt(np.mean(squares)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param("reinforce", {"learned_baseline": False}, marks=pytest.mark.slow), ("a2c", {"trace": 1.0})],
)
def test_a_plants_gradient_is_that_of_its_moments(name, settings):
    """mu = grad J / T / sd(A) with a discount of 1: every rollout holds whole episodes, A is what was still earned.

    Less a baseline in a2c: a wrong value changes nothing, unless it is looked at after the end.
    """
    env, rng = LinearQuadraticGaussianProbe(), np.random.default_rng(0)
    at = 0.3 * rng.normal(size=(2, 2)), 0.3 * rng.normal(size=2), np.array([-0.5, -1.0])
    value = np.array([[-1.0, 0.5]]), np.array([-2.0])
    _, estimates = estimated(env, name, at, value, discount=1.0, **settings)
    deviation = deviation_in_plant(env, at, value if name == "a2c" else (0 * value[0], 0 * value[1]))
    by_part = [part.ravel() for part in env.gradient(*at)]
    exact = np.concatenate(by_part) / env.max_episode_steps / deviation
    check_mean(estimates, exact, 0.015)
    check_curve(estimates, exact, SIZES[-1] * np.cov(estimates[SIZES[-1]].T), is_exact=False)


def deviation_in_plant(env: LinearQuadraticGaussianProbe, policy: Any, value: Any) -> float:
    """sd(A) over the steps of an episode.

    A is quadratic in the episode's standard normal numbers z, c + l . z + z . M z, so it is known from its values at
    zero and at one or two units of z, and E[A] = c + tr M, Var[A] = |l|^2 + 2 tr M^2.
    """
    (weight, bias, log_std), steps, n = policy, env.max_episode_steps, len(env.a)
    a, b, q, r = (np.array(matrix) for matrix in (env.a, env.b, env.q, env.r))
    size = steps * (2 * n + len(r))

    def advantages(numbers: np.ndarray) -> np.ndarray:  # (..., size) to (..., T)
        drawn = numbers.reshape(*numbers.shape[:-1], steps, -1)
        x, rewards, values = np.array(env.start) + env.start_std * drawn[..., 0, :n], [], []
        for time in range(steps):
            if time:
                x = x @ a.T + u @ b.T + env.noise_std * drawn[..., time, :n]
            obs = x + env.observation_std * drawn[..., time, n : 2 * n]
            u = obs @ weight.T + bias + np.exp(log_std) * drawn[..., time, 2 * n :]
            rewards.append(-np.einsum("...i,ij,...j", x, q, x) - np.einsum("...i,ij,...j", u, r, u))
            values.append(obs @ value[0][0] + value[1][0])
        return np.cumsum(np.stack(rewards, -1)[..., ::-1], -1)[..., ::-1] - np.stack(values, -1)

    unit = np.eye(size)
    zero, up, down = advantages(np.zeros(size)), advantages(unit), advantages(-unit)
    slope = (up - down) / 2
    bend = (advantages(unit[:, None] + unit) - up[:, None] - up + zero) / 2
    mean = zero + np.trace(bend)
    square = mean**2 + np.square(slope).sum(0) + 2 * np.square(bend).sum((0, 1))
    return float(np.sqrt(square.mean() - mean.mean() ** 2))
