"""Iterative linear-quadratic regulator: its step, its derivatives, its trials with feedback, and what they cost."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from workhorse.algorithms import registry
from workhorse.algorithms.planning.ilqr import OptimisedPlan, _bounded_step, _positive
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Derivatives, Step, Tried
from workhorse.environments import registry as environments
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.training.optimised_episodes import derivatives_along
from workhorse.training.plan_ahead import PlanAhead


def made(action=None, **options):
    spec = EnvSpec("test", Box.unbounded(3), action or Box((-9.0, -9.0), (9.0, 9.0)), 100)
    return registry.make("ilqr", spec, {"rescale_actions": False, **options})


def plan_of(actions, regularisation=1e-9):
    return OptimisedPlan(jnp.asarray(actions, jnp.float32), jnp.zeros(len(actions)), jnp.float64(regularisation))


def test_one_step_is_the_optimum_of_a_linear_task_with_quadratic_rewards():
    """Compared with one system of equations for all actions at once."""
    rng, horizon, size = np.random.default_rng(0), 6, 3
    a, b = 0.7 * rng.normal(size=(horizon, size, size)), rng.normal(size=(horizon, size, 2))
    half = rng.normal(size=(horizon, 5, 5))
    curvature, slope = half @ half.swapaxes(1, 2) + 0.1 * np.eye(5), rng.normal(size=(horizon, 5))
    feedback = made(horizon=horizon).feedback(
        plan_of(np.zeros((horizon, 2))), Derivatives(a, b, -slope, -curvature), np.ones(horizon, bool)
    )
    # z_t = M_t u for all actions u laid side by side, from x_0 = 0
    rows, state = [], np.zeros((size, 2 * horizon))
    for time in range(horizon):
        own = np.zeros((2, 2 * horizon))
        own[:, 2 * time : 2 * time + 2] = np.eye(2)
        rows.append(np.vstack([state, own]))
        state = a[time] @ state + b[time] @ own
    hessian = sum(m.T @ c @ m for m, c in zip(rows, curvature, strict=True))
    best = -np.linalg.solve(hessian, sum(m.T @ s for m, s in zip(rows, slope, strict=True)))
    x, found = np.zeros(size), []
    for time in range(horizon):
        u = feedback.change[time] + feedback.gain[time] @ x
        found.append(u)
        x = a[time] @ x + b[time] @ u
    np.testing.assert_allclose(np.concatenate(found), best, rtol=1e-5, atol=1e-7)


def test_steps_after_an_end_count_for_nothing():
    algorithm, rng = made(horizon=4), np.random.default_rng(1)
    near = Derivatives(
        rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 5)), -np.tile(np.eye(5), (4, 1, 1))
    )
    counts = np.array([True, True, False, False])
    found = algorithm.feedback(plan_of(np.zeros((4, 2))), near, counts)
    short = made(horizon=2).feedback(plan_of(np.zeros((2, 2))), Derivatives(*(leaf[:2] for leaf in near)), counts[:2])
    np.testing.assert_allclose(found.change[:2], short.change, rtol=1e-9)
    np.testing.assert_array_equal(found.change[2:], 0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_bounded_step_is_that_of_a_quadratic_programme(size):
    rng, step = np.random.default_rng(size), jax.jit(_bounded_step)
    worse, bound = 0, 0
    for _ in range(60):
        half = rng.normal(size=(size, size))
        curvature, slope = half @ half.T + 0.2 * np.eye(size), 2 * rng.normal(size=size)
        low, high, mixed = -rng.uniform(0.1, 1, size), rng.uniform(0.1, 1, size), rng.normal(size=(size, 3))
        k, gain = (np.asarray(part) for part in step(curvature, slope, mixed, low, high))

        def cost(u, c=curvature, s=slope):
            return u @ c @ u / 2 + s @ u

        best = scipy.optimize.minimize(cost, np.zeros(size), bounds=list(zip(low, high, strict=True)), tol=1e-12)
        assert (k >= low).all() and (k <= high).all() and cost(k) <= 0
        worse += cost(k) > best.fun + 1e-5
        at_bound = (k == low) | (k == high)
        bound += at_bound.sum()
        np.testing.assert_array_equal(gain[at_bound], 0)
        if not at_bound.any():
            np.testing.assert_allclose(gain, -np.linalg.solve(curvature, mixed), rtol=1e-8)
    assert bound > 20
    assert worse == 0 if size < 3 else worse <= 6, "the sets are guessed a fixed number of times"


def test_negative_curvature_of_the_cost_is_left_out():
    given = np.array([[[2.0, 0.0], [0.0, -3.0]], [[0.0, 1.0], [1.0, 0.0]]])
    expected = [[[2, 0], [0, 0]], [[0.5, 0.5], [0.5, 0.5]]]
    np.testing.assert_allclose(_positive(jnp.asarray(given)), expected, atol=1e-12)


def test_the_best_trial_is_kept_and_the_regularisation_follows():
    algorithm = made(horizon=2, num_factors=2)
    plans = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    start = plan_of(plans[0], regularisation=1.0)
    never = np.zeros((3, 2), bool)
    better = algorithm.refine(None, start, plans, Tried(np.array([[0, 1], [0, 3], [2, 0.5]]), never, None), round=0)
    np.testing.assert_array_equal(better.plan, plans[1])
    np.testing.assert_array_equal(better.reward, [0, 3])
    assert float(better.regularisation) == 0.25
    same = algorithm.refine(None, start, plans, Tried(np.array([[0, 1], [0, 1.0], [0, 0]]), never, None), round=0)
    np.testing.assert_array_equal(same.plan, plans[0])
    assert float(same.regularisation) == 4.0
    ended = np.array([[False, False], [True, False], [False, False]])
    minded = algorithm.refine(None, start, plans, Tried(np.array([[0, 1], [0, 3], [2, 0.5]]), ended, None), round=0)
    np.testing.assert_array_equal(minded.plan, plans[2])
    assert algorithm.factors.tolist() == pytest.approx([0.0, 1.0, 0.001])


def pendulum(z: Any) -> Any:
    """One step of Pendulum-v1 from (angle, speed, torque): the next two, and the reward."""
    angle, speed, torque = z
    wrapped = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    after = speed + (15 * jnp.sin(angle) + 3 * torque) * 0.05
    return jnp.stack([angle + 0.05 * after, after]), -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)


@pytest.mark.parametrize("rescaled", [False, True])
def test_derivatives_are_those_of_jax(rescaled):
    env = environments.make("Pendulum-v1")
    algorithm: Any = registry.make("ilqr", env.spec, {"rescale_actions": rescaled, "num_envs": 2, "horizon": 3})
    batch: Any = as_batch(env, 2)
    batch.reset(episode_keys(batch, 0, "reset", 0, np.arange(2)))
    rng = np.random.default_rng(0)
    physics, plans = rng.uniform(-2, 2, (6, 2)), rng.uniform(-0.9, 0.9, (2, 3, 1)).astype(np.float32)
    rows = batch.with_physics(np.tile(batch.states()[:1], (6, 1)), physics).reshape(2, 3, -1)
    near = derivatives_along(batch, algorithm, rows, plans)
    unit = np.array([1, 1, 2.0 if rescaled else 1.0])
    for place, x in enumerate(physics):
        z = jnp.asarray([*x, unit[2] * plans.reshape(6)[place]])
        (a, slope), curvature = jax.jacfwd(pendulum)(z), jax.hessian(lambda z: pendulum(z)[1])(z)
        both = np.concatenate([near.state_matrix, near.action_matrix], axis=-1).reshape(6, 2, 3)[place]
        np.testing.assert_allclose(both, a * unit, atol=1e-6)
        np.testing.assert_allclose(near.reward_slope.reshape(6, 3)[place], slope * unit, atol=1e-6)
        np.testing.assert_allclose(
            near.reward_curvature.reshape(6, 3, 3)[place], curvature * np.outer(unit, unit), atol=1e-5
        )


class Crossed(NamedTuple):
    """A point that stays where it is, with rewards in which every two of its coordinates and actions meet."""

    mixed: Any = ((1.0, 0.3, -2.0), (0.3, 0.5, 0.7), (-2.0, 0.7, -1.0))

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("Crossed-v0", Box.unbounded(2), Box((-2.0,), (2.0,)), 9)

    def reset(self, key: Any) -> tuple[Any, Any]:
        return jnp.zeros(2, jnp.float64), jnp.zeros(2, jnp.float32)

    def step(self, state: Any, action: Any, key: Any) -> tuple[Any, Step]:
        z = jnp.concatenate([state, action])
        no = jnp.zeros((), bool)
        return state, Step(state.astype(jnp.float32), z @ jnp.array(self.mixed) @ z / 2, no, no, state, {})


def test_second_derivatives_of_two_things_at_once_are_found():
    env = Crossed()
    algorithm: Any = registry.make("ilqr", env.spec, {"rescale_actions": False, "horizon": 2})
    batch: Any = as_batch(env, 1)
    batch.reset(np.zeros((1, 2), np.uint32))
    rows, plans = np.array([[[0.5, -1.0], [0.1, 0.2]]]), np.array([[[0.25], [-1.0]]], np.float32)
    near = derivatives_along(batch, algorithm, rows, plans)
    z = np.concatenate([rows, plans], axis=-1)
    np.testing.assert_allclose(near.reward_curvature[0], np.tile(env.mixed, (2, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(near.reward_slope[0], z[0] @ np.array(env.mixed), atol=1e-8)


def loop_of(task, clock, **settings):
    slots = 2
    env = environments.make(task, slots, 1, max_episode_steps=clock)
    algorithm: Any = registry.make("ilqr", env.spec, {"num_envs": slots, "horizon": 5, "num_rounds": 2, **settings})
    return PlanAhead(algorithm, 0, env)


@pytest.mark.parametrize("task", ["Pendulum-v1", "InvertedDoublePendulum-v5"])
def test_what_a_plan_promises_is_what_comes_and_every_step_is_counted(task, monkeypatch):
    loop, tried = loop_of(task, 12, num_factors=3), []
    simulator = loop.player._env  # type: ignore[attr-defined]
    rollout = simulator.rollout

    def counted(states, plans, *rest, **more):
        tried.append(len(states) * plans.shape[1])
        return rollout(states, plans, *rest, **more)

    monkeypatch.setattr(simulator, "rollout", counted)
    found = loop.evaluate(loop.start(), 2)
    assert found.measures["planning_error"] == 0.0
    assert sum(tried) == int(found.lengths.sum()) * loop.algorithm.steps_per_action  # type: ignore[attr-defined]
    size = {"Pendulum-v1": 3, "InvertedDoublePendulum-v5": 7}[task]
    trials = 1 + 2 * size + size * (size - 1) // 2
    assert loop.algorithm.steps_per_action == 5 + 2 * 5 * (trials + 4)  # type: ignore[attr-defined]
    loop.close()


def test_an_iteration_goes_on_bit_for_bit_after_a_resume():
    from workhorse.core.digest import digest

    whole, again = loop_of("Pendulum-v1", 6), loop_of("Pendulum-v1", 6)
    progress, _, _ = whole.iterate(whole.start())
    one, row, _ = whole.iterate(progress)
    two, same, _ = again.iterate(progress)
    assert digest(one.state) == digest(two.state) and row["training_return"] == same["training_return"]
    assert int(progress.env_steps) == 2 * 6 * (1 + whole.algorithm.steps_per_action)  # type: ignore[attr-defined]


def test_it_holds_a_pole_better_than_doing_nothing():
    loop = loop_of("InvertedDoublePendulum-v5", 20, horizon=10)
    found = loop.evaluate(loop.start(), 2)
    assert found.lengths.tolist() == [20, 20] and found.returns.min() > 180
    loop.close()


@pytest.mark.slow
def test_it_swings_a_pendulum_up():
    """-138 [-175, -101] over these episodes."""
    env = environments.make("Pendulum-v1")
    loop = PlanAhead(registry.make("ilqr", env.spec, {"num_envs": 20}), 0, env)  # type: ignore[arg-type]
    assert loop.evaluate(loop.start(), 20).returns.mean() >= -160


@pytest.mark.parametrize(
    ("action", "options", "message"),
    [
        (Discrete(3), {}, "ILQR plans continuous actions, but those of test are choices"),
        (None, {"num_rounds": 0}, "ILQR.num_rounds must be a finite number above 0: got 0"),
        (None, {"num_factors": 0}, "ILQR.num_factors must be a finite number above 0: got 0"),
        (None, {"difference": -1.0}, "ILQR.difference must be a finite number above 0: got -1.0"),
    ],
)
def test_what_it_cannot_take_is_refused(action, options, message):
    with pytest.raises(UsageError, match=message):
        made(action, **options)
