"""Linear-quadratic regulator: the Riccati equation, the gain on observations, choices, and which target is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.algorithms import registry
from workhorse.algorithms.planning.lqr import riccati, scores_of_levels
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Linearisation

KEY = jax.random.key(0)


def made(action=None, observations=4, **options):
    spec = EnvSpec("test", Box.unbounded(observations), action or Box.unbounded(2), 100)
    return registry.make("lqr", spec, options)


def near(a, b, c=None, *, reward=0.0, physics=None, obs=None, action=None):
    """The task x' = a x + b u, observed as c x, at rest in 0 unless said otherwise."""
    size, c = len(a), np.eye(len(a)) if c is None else c
    physics = np.zeros(size) if physics is None else np.asarray(physics)
    action = np.zeros(b.shape[1]) if action is None else np.asarray(action)
    obs = c @ physics if obs is None else obs
    return Linearisation(a, b, c, physics, obs, action, 0.0, reward, np.int64(10))


def updated(algorithm, *linearisations):
    state, metrics = algorithm.init(KEY), {}
    for one in linearisations:
        state, metrics = jax.jit(algorithm.update)(state, one, KEY)
    return state, {name: float(value) for name, value in metrics.items()}


def acted(algorithm, state, obs):
    return np.asarray(algorithm.act(state.policy, (), jnp.asarray(obs), KEY, explore=False)[0])


def gain(a, b, q, r):
    p = scipy.linalg.solve_discrete_are(a, b, q, r)
    return np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 3))
def test_the_riccati_equation_is_solved_as_by_scipy(seed, size, actions):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(size, size)) * rng.uniform(0.2, 1.2)  # stable or not
    b = rng.normal(size=(size, actions))
    half = rng.normal(size=(size, size))
    q, r = half @ half.T + 0.1 * np.eye(size), np.diag(rng.uniform(0.1, 3, actions))
    expected = scipy.linalg.solve_discrete_are(a, b, q, r)
    np.testing.assert_allclose(riccati(a, b, q, r), expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def test_the_cost_of_one_coordinate_has_a_closed_form():
    """p = q + a^2 p r / (r + b^2 p), a quadratic equation."""
    a, b, q, r = 1.3, 0.5, 2.0, 0.7
    p = np.roots([b**2, r - a**2 * r - q * b**2, -q * r]).max()
    found = riccati(*(np.array([[value]]) for value in (a, b, q, r)))
    assert float(found[0, 0]) == pytest.approx(p, rel=1e-12)


def test_a_direction_that_no_action_reaches_leaves_the_others_as_they_are():
    """A mark that stands where it stands, as the goal of Reacher does, costs for ever and changes no gain."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 3)), rng.normal(size=(3, 1))
    whole, reached = np.eye(4), np.vstack([b, np.zeros((1, 1))])
    whole[:3, :3] = a
    p = np.asarray(riccati(whole, reached, np.eye(4), np.eye(1)))
    found = np.linalg.solve(np.eye(1) + reached.T @ p @ reached, reached.T @ p @ whole)
    np.testing.assert_allclose(found[:, :3], gain(a, b, np.eye(3), np.eye(1)), rtol=1e-8)
    np.testing.assert_allclose(found[:, 3], 0, atol=1e-8)


def double_integrator(dt=0.1):
    return np.array([[1, dt], [0, 1.0]]), np.array([[dt**2 / 2], [dt]])


def test_the_policy_is_the_gain_of_scipy_around_the_target():
    a, b = double_integrator()
    algorithm = made(Box.unbounded(1), 2, position_cost=3.0, velocity_cost=0.5, action_cost=0.2)
    state, metrics = updated(algorithm, near(a, b, physics=[2.0, 0.0], action=[0.25]))
    k = gain(a, b, np.diag([3.0, 0.5]), np.array([[0.2]]))
    for x in ([2.0, 0.0], [2.3, -1.0], [-1.0, 0.4]):
        np.testing.assert_allclose(acted(algorithm, state, x), 0.25 - k @ (x - np.array([2.0, 0.0])), rtol=1e-5)
    assert metrics["controllability_rank"] == 2
    assert metrics["spectral_radius"] == pytest.approx(np.abs(np.linalg.eigvals(a - b @ k)).max(), rel=1e-9)


def test_of_an_odd_number_of_coordinates_the_one_more_is_a_position():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, 3)), rng.normal(size=(3, 1))
    algorithm = made(Box.unbounded(1), 3, position_cost=2.0, velocity_cost=0.01)
    state, _ = updated(algorithm, near(a, b))
    expected = gain(a, b, np.diag([2.0, 2.0, 0.01]), np.array([[0.1]]))
    np.testing.assert_allclose(state.policy.weight, -expected, rtol=1e-5)


def test_observations_that_tell_the_state_twice_or_not_at_all_give_the_same_action():
    """Rows as of sines and cosines: five numbers, of which two repeat others and one says nothing."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(4, 4)), rng.normal(size=(4, 2))
    c = np.vstack([rng.normal(size=(6, 4)), np.zeros((1, 4))])
    told, plain = made(observations=7), made(observations=4)
    one, metrics = updated(told, near(a, b, c))
    other, as_plain = updated(plain, near(a, b))
    x = rng.normal(size=4)
    np.testing.assert_allclose(acted(told, one, c @ x), acted(plain, other, x), rtol=1e-4)
    noise = np.eye(7)[6] * 1e6
    np.testing.assert_array_equal(acted(told, one, c @ x + noise), acted(told, one, c @ x))
    assert metrics["spectral_radius"] == pytest.approx(as_plain["spectral_radius"], rel=1e-6)


def test_a_place_that_is_not_observed_costs_nothing():
    """The place of a body on its rail (coordinate 0) is integrated from its speed and told by no observation."""
    a, b = np.eye(4), np.array([[0.0], [0.005], [0.1], [0.1]])
    a[0, 2] = a[1, 3] = 0.1
    a[3, 1] = 0.5
    state, _ = updated(made(Box.unbounded(1), 3), near(a, b, np.eye(4)[1:]))
    blind = gain(a[1:, 1:], b[1:], np.diag([1.0, 0.1, 0.1]), np.array([[0.1]]))
    np.testing.assert_allclose(state.policy.weight, -blind, rtol=1e-4)


@pytest.mark.parametrize(
    ("space", "u", "action"),
    [
        (Discrete(2), [-0.01], 0),
        (Discrete(2), [0.01], 1),
        (Discrete(3), [-0.51], 0),
        (Discrete(3), [-0.49], 1),
        (Discrete(3), [0.51], 2),
        (Discrete(5), [9.0], 4),
        (Discrete(1), [9.0], 0),
        (MultiDiscrete((2, 3)), [0.4, 0.4], [1, 1]),
        (MultiDiscrete((2, 3)), [-0.4, 0.6], [0, 2]),
        (MultiBinary(2), [-0.1, 0.1], [0, 1]),
    ],
)
def test_the_choice_nearest_to_the_action_is_taken(space, u, action):
    weight, bias = scores_of_levels(space)
    algorithm = made(space, 2)
    state = algorithm.init(KEY)
    policy = state.policy._replace(bias=jnp.asarray(weight @ np.array(u) + bias, jnp.float32))
    assert acted(algorithm, state._replace(policy=policy), np.zeros(2)).tolist() == action


def test_a_choice_follows_the_gain():
    """Two pushes: the sign of the feedback, with the middle of both as zero."""
    a, b = double_integrator()
    algorithm, smooth = made(Discrete(2), 2), made(Box.unbounded(1), 2)
    state, _ = updated(algorithm, near(a, b, physics=[0.5, 0.0], action=[0.1]))
    other, _ = updated(smooth, near(a, b, physics=[0.5, 0.0], action=[0.1]))
    for obs in np.random.default_rng(0).normal(size=(20, 2)):
        assert acted(algorithm, state, obs) == (acted(smooth, other, obs)[0] > 0)


def test_a_target_is_kept_until_one_pays_more():
    (a, b), algorithm = double_integrator(), made(Box.unbounded(1), 2)
    first, second, third = (near(a, b, reward=pay, physics=[place, 0.0]) for pay, place in ((1, 1), (0.5, 2), (1.5, 3)))
    state, metrics = updated(algorithm, first, second)
    assert metrics["improved"] == 0 and metrics["target_reward"] == 0.5
    np.testing.assert_allclose(acted(algorithm, state, [1.0, 0.0]), [0.0], atol=1e-6)
    state, metrics = updated(algorithm, first, second, third)
    assert metrics["improved"] == 1
    np.testing.assert_allclose(acted(algorithm, state, [3.0, 0.0]), [0.0], atol=1e-6)


def test_a_gain_that_is_no_number_is_not_taken():
    a = np.diag([4.0, 0.5])  # it grows beyond all numbers, and no action reaches it
    state, metrics = updated(made(Box.unbounded(1), 2), near(a, np.array([[0.0], [1.0]])))
    assert metrics["improved"] == 0 and metrics["controllability_rank"] == 1
    np.testing.assert_array_equal(state.policy.weight, 0)


def test_costs_can_be_swept():
    (a, b), algorithm = double_integrator(), made(Box.unbounded(1), 2)

    def weight(cost):
        import dataclasses

        changed = dataclasses.replace(algorithm, action_cost=cost)
        return changed.update(changed.init(KEY), near(a, b), KEY)[0].policy.weight

    found = jax.vmap(weight)(jnp.array([0.1, 10.0]))
    for row, cost in zip(found, (0.1, 10.0), strict=True):
        np.testing.assert_allclose(row, -gain(a, b, np.diag([1, 0.1]), np.array([[cost]])), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action_cost": 0.0}, r"LQR.action_cost must be a finite number above 0: got 0.0"),
        ({"position_cost": -1.0}, r"LQR.position_cost must be a finite number of at least 0: got -1.0"),
        ({"num_candidates": 0}, r"LQR.num_candidates must be a finite number above 0: got 0"),
        ({"difference": 0.0}, r"LQR.difference must be a finite number above 0"),
        (
            {"target": (0.0, float("nan"))},
            r"LQR.target must be finite numbers, the task's coordinates: got \(0.0, nan\)",
        ),
        ({"target": ()}, r"LQR.target must be finite numbers"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        made(**options)
