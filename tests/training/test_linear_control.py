"""The loop of linear control: derivatives of the task's own step, states of rest, refusals, scores, resumes."""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Step
from workhorse.environments import registry as environments
from workhorse.environments.batch import JaxBatch, as_batch
from workhorse.training.linear_control import LinearControl
from workhorse.training.loop import make_loop
from workhorse.training.one_step import OneStep, find_rest, linearised
from workhorse.training.plan import Plan

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments  # noqa: F401


class Slides(NamedTuple):
    """Two blocks that slide with friction, each pushed by a part of the action; the observation has odd rows."""

    action: Any = Box((-2.0, -1.0), (2.0, 7.0))
    pull: float = 0.0
    ends: bool = False
    observed: str = "float64"

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("Slides-v0", Box.unbounded(7), self.action, 30)

    def reset(self, key: Any) -> tuple[Any, Any]:
        physics = jax.random.uniform(key, (4,), jnp.float64, -0.2, 0.2)
        return {"physics": physics, "clock": jnp.zeros((), jnp.int32)}, self.seen(physics, jnp.zeros(2))

    def seen(self, x: Any, force: Any) -> Any:
        rows = [jnp.sin(x[0]), jnp.cos(x[0]), 3 * x[1], x[2], x[3], force[0], 0.1 * jnp.sign(x[0] - 0.2999)]
        return jnp.stack(rows).astype(self.observed)

    def step(self, state: Any, action: Any, key: Any) -> tuple[Any, Step]:
        match self.action:
            case Box():
                force = action
            case Discrete():
                force = jnp.array([action - 1.0, 0.0])
            case MultiDiscrete():
                force = jnp.array([action[0] - 0.5, action[1] - 1.0])
            case _:
                force = action - 0.5
        x = state["physics"]
        velocity = 0.9 * x[2:] + 0.1 * jnp.asarray(force, jnp.float64) + 0.1 * self.pull * jnp.array([1.0, 0.0])
        x = jnp.concatenate([x[:2] + 0.1 * velocity, velocity])
        clock = state["clock"] + 1
        obs = self.seen(x, force)
        reward = -((x[0] - 1.0) ** 2)
        ended = jnp.asarray(self.ends) & (x[0] < 50)
        return {"physics": x, "clock": clock}, Step(obs, reward, ended, clock >= 30, obs, {})


A = np.array([[1, 0, 0.09, 0], [0, 1, 0, 0.09], [0, 0, 0.9, 0], [0, 0, 0, 0.9]])


def step_of(env: Any, **options: Any) -> OneStep:
    simulator: Any = as_batch(env, 2)
    simulator.reset(np.zeros((2, 2), np.uint64 if not isinstance(simulator, JaxBatch) else np.uint32))
    spec = env.spec.rescaled() if options.get("rescale_actions", True) else env.spec
    return OneStep(simulator, spec, simulator.states()[:1])


def test_a_linear_task_is_differenced_exactly_in_the_algorithms_own_numbers() -> None:
    """Bounds [-2, 2] and [-1, 7] make [-1, 1]: a unit of action is a force of 2 and of 4, and 0 of the second is 3."""
    step, x, u = step_of(Slides()), np.array([0.3, -0.1, 0.2, 0.0]), np.array([0.1, -0.5])
    near = linearised(step, x, u, 1e-5)
    b = np.array([[0.02, 0], [0, 0.04], [0.2, 0], [0, 0.4]])
    np.testing.assert_allclose(near.state_matrix, A, atol=1e-9)
    np.testing.assert_allclose(near.action_matrix, b, atol=1e-9)
    force = np.array([0.2, 1.0])
    velocity = 0.9 * x[2:] + 0.1 * force
    assert near.drift == pytest.approx(np.abs(np.r_[0.1 * velocity, velocity - x[2:]]).max(), rel=1e-9)
    assert near.env_steps == step.count == 1 + 4 * 6
    raw = linearised(step_of(Slides(), rescale_actions=False), x, np.array([0.2, 2.0]), 1e-5)
    np.testing.assert_allclose(raw.action_matrix, b / [2, 4], atol=1e-9)


@pytest.mark.parametrize("observed", ["float64", "float32"])
def test_the_derivative_of_observations_is_that_at_the_state_and_odd_rows_are_left_out(observed: str) -> None:
    """The force depends on the action, and the last row jumps beside the state: neither can be followed."""
    x = np.array([0.3, -0.1, 0.0, 0.0])
    near = linearised(step_of(Slides(observed=observed)), x, np.array([0.0, -0.75]), 1e-5)
    expected = np.zeros((7, 4))
    expected[0, 0], expected[1, 0], expected[2, 1], expected[3, 2], expected[4, 3] = (
        math.cos(0.3),
        -math.sin(0.3),
        3,
        1,
        1,
    )
    np.testing.assert_allclose(near.observation_matrix, expected, atol=2e-3)
    assert (near.observation_matrix[5:] == 0).all()
    np.testing.assert_allclose(near.obs[:5], [math.sin(0.3), math.cos(0.3), -0.3, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("space", "slopes", "at_zero"),
    [
        (Discrete(3), [[1.0], [0.0]], [0.0, 0.0]),
        (MultiDiscrete((2, 3)), [[0.5, 0.0], [0.0, 1.0]], [0.0, 0.0]),
        (MultiBinary(2), [[0.5, 0.0], [0.0, 0.5]], [0.0, 0.0]),
    ],
)
def test_choices_are_laid_on_minus_one_to_one(space: Any, slopes: list, at_zero: list) -> None:
    step, x = step_of(Slides(space)), np.array([[0.0, 0, 0.5, 0.5]])
    near = linearised(step, x[0], np.full(step.num_actions, 0.25), 1e-5)
    np.testing.assert_allclose(near.action_matrix[2:], 0.1 * np.array(slopes), atol=1e-9)
    for u in (np.zeros(step.num_actions), np.linspace(-0.3, 0.8, step.num_actions)):
        force = np.array(slopes) @ u + at_zero
        np.testing.assert_allclose(step(x, u[None]).physics[0, 2:], 0.45 + 0.1 * force, atol=1e-12)


def cart_pole(x: Any, force: Any) -> Any:
    """CartPole's equations in the order position, angle, velocity, angular velocity; after Florian 2007."""
    place, angle, speed, rate = x
    push = (force + 0.05 * rate**2 * jnp.sin(angle)) / 1.1
    turned = (9.8 * jnp.sin(angle) - jnp.cos(angle) * push) / (0.5 * (4 / 3 - 0.1 * jnp.cos(angle) ** 2 / 1.1))
    moved = push - 0.05 * turned * jnp.cos(angle) / 1.1
    return jnp.stack([place + 0.02 * speed, angle + 0.02 * rate, speed + 0.02 * moved, rate + 0.02 * turned])


def test_cart_pole_is_differenced_as_jax_differentiates_it() -> None:
    step = step_of(environments.make("CartPole-v1"))
    x = np.array([0.2, 0.03, -0.1, 0.2])
    near = linearised(step, x, np.array([0.3]), 1e-5)
    a, b = jax.jacfwd(cart_pole, (0, 1))(jnp.asarray(x), 3.0)
    np.testing.assert_allclose(near.state_matrix, a, atol=1e-4)  # interpolated between two pushes, not quite affine
    np.testing.assert_allclose(near.action_matrix[:, 0], 10 * b, atol=1e-6)
    swap = np.eye(4)[[0, 2, 1, 3]]
    np.testing.assert_allclose(near.observation_matrix, swap, atol=1e-3)


def test_states_of_rest_are_found_where_they_are() -> None:
    """A pendulum rests upright and hanging; near one of them it is moved there, and not held."""
    step = step_of(environments.make("Pendulum-v1"))
    starts = np.array([[0.3, 0.0], [-0.9, 0], [2.8, 0], [3.9, 0], [7.0, 0]])
    rest = find_rest(step, starts, 1e-5)
    np.testing.assert_allclose(rest.drift, 0, atol=1e-9)
    np.testing.assert_allclose(rest.physics[:, 0], [0, 0, np.pi, np.pi, 2 * np.pi], atol=0.01)
    # 15 sin a = 3 torque, torque = 2 u
    np.testing.assert_allclose(15 * np.sin(rest.physics[:, 0]), -6 * rest.actions[:, 0], atol=1e-7)
    held = find_rest(step, np.array([[0.2, 0.0], [1.0, 0.0]]), 1e-5, moves=False)
    np.testing.assert_array_equal(held.physics, [[0.2, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(held.actions[0], -15 * np.sin(0.2) / 6, atol=1e-6)
    assert held.drift[1] > 0.1, "no torque within the bounds holds it"


def test_an_angle_that_is_wrapped_has_not_moved_by_a_turn() -> None:
    """Acrobot stands upright at pi, where its angle jumps to -pi; upright it is unstable, and can be balanced."""
    near = loop_of(environments.make("Acrobot-v1"), target=(math.pi, 0.0, 0.0, 0.0)).linearisation(0)
    hanging = linearised(step_of(environments.make("Acrobot-v1")), np.zeros(4), np.zeros(1), 1e-5)
    assert near.drift < 1e-6
    assert np.abs(np.linalg.eigvals(near.state_matrix)).max() > 1.5
    assert np.abs(np.linalg.eigvals(hanging.state_matrix)).max() < 1.01
    assert np.abs(near.state_matrix).max() < 20, "a turn over the difference is 600,000"


def loop_of(env: Any, root: int = 0, **settings: Any) -> LinearControl:
    algorithm: Any = registry.make("lqr", env.spec, settings)
    return LinearControl(algorithm, root, env)


def test_an_unheld_force_is_held_by_the_action() -> None:
    near = loop_of(Slides(pull=0.5)).linearisation(0)
    np.testing.assert_allclose(near.action, [-0.25, -0.75], atol=1e-6)  # forces of -0.5 and 0
    assert near.drift < 1e-9


def test_the_state_of_rest_that_pays_most_is_taken_and_ties_go_to_the_nearest() -> None:
    loop = loop_of(Slides(), num_candidates=40)
    near = loop.linearisation(0)
    others = [loop_of(Slides(), num_candidates=40, root=root).linearisation(0) for root in (1, 2)]
    assert all(abs(one.physics[0] - 1) < 0.4 for one in (near, *others)), "the reward is -(x - 1)^2"
    poses = loop._drawn(0)[1]
    cart = loop_of(environments.make("CartPole-v1"))
    near, poses = cart.linearisation(0), cart._drawn(0)[1]
    assert abs(near.physics[0] - poses[:, 0].mean()) < 0.01, "every place on the rail pays the same"


def test_where_every_state_of_rest_ends_the_task_there_is_no_target() -> None:
    with pytest.raises(
        UsageError, match=r"no state in which Slides-v0 can rest.*every state of rest that was found ends"
    ):
        loop_of(Slides(ends=True)).linearisation(0)
    with pytest.raises(
        UsageError, match=r"from 16 candidates: the one that comes nearest to it moves by .* in coordinate 2"
    ):
        loop_of(Slides(pull=5.0)).linearisation(0)


def test_a_target_that_is_no_equilibrium_is_refused_before_any_work(tmp_path: Path) -> None:
    """It says how far off it is, and in which coordinate: 15 sin(1) * 0.05 - 2 * 3 * 0.05 = 0.331 rad/s in a step."""
    env = environments.make("Pendulum-v1")
    with pytest.raises(UsageError, match=r"\(1.0, 0.0\) it moves by 0.331 in coordinate 1 \(velocity 0\) in one step"):
        loop_of(env, target=(1.0, 0.0))
    with pytest.raises(
        UsageError, match=r"must have the 2 coordinates of Pendulum-v1, 1 positions and then 1 velo.*got 3"
    ):
        loop_of(env, target=(0.0, 0.0, 0.0))
    assert loop_of(env, target=(0.0, 0.0)).linearisation(0).env_steps < 30


def test_refusals_at_the_command_line_cost_nothing(tmp_path: Path, capsys: Any) -> None:
    from workhorse.cli.main import main

    words = ["--algorithm", "lqr", "--runs", str(tmp_path / "runs")]
    assert main(["train", "Pendulum-v1", *words, "--target", "1", "0"]) == 2
    assert "LQR.target must be an equilibrium of Pendulum-v1" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_is_evaluated_and_resumed_by_the_commands(tmp_path: Path, capsys: Any) -> None:
    from workhorse.cli.main import main
    from workhorse.runs.metrics import read_metrics

    words = ["train", "InvertedPendulum-v5", "--algorithm", "lqr", "--runs", str(tmp_path), "--final-episodes", "2"]
    assert main([*words, "--id", "two", "--env-steps", "1000"]) == 0
    assert main([*words, "--id", "one"]) == 0
    assert main(["evaluate", str(tmp_path / "one"), "--episodes", "3"]) == 0
    assert "1,000 [1,000, 1,000]" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "one"), "--env-steps", "1000"]) == 0
    one, two = (read_metrics(tmp_path / name)["digest"].to_list() for name in ("one", "two"))
    assert len(one) == 2 and one == two


def test_a_task_that_cannot_be_put_into_a_state_is_refused_with_the_rivals_that_remain() -> None:
    plan = Plan("weird/Walk-v0", {"max_episode_steps": 20}, "lqr", {}, 0)
    with pytest.raises(
        UsageError, match=r"lqr tries plans.*Gymnasium adapter: rivals that need no copies are left, as rules"
    ):
        make_loop(plan, plan.spec(), 1)
    plan = Plan("CartPole-v1", {}, "lqr", {}, 0, slots=4)
    with pytest.raises(UsageError, match="lqr chooses its slots itself: leave slots=4 out"):
        make_loop(plan, plan.spec(), 1)


def test_what_actions_cannot_reach_is_said_once() -> None:
    loop = loop_of(Slides(Discrete(3)))  # the second block is pushed by nothing
    progress, metrics, _ = loop.iterate(loop.start())
    assert metrics["controllability_rank"] == 2
    assert "Actions reach 2 of the 4 dimensions of Slides-v0" in loop.notes()[0]
    loop.iterate(progress)
    assert loop.notes() == []


def test_iterations_are_equal_bit_for_bit_after_a_resume_and_take_other_candidates() -> None:
    def run(count: int, progress: Any = None) -> Any:
        loop, rows = loop_of(Slides(), 3), []
        progress = progress or loop.start()
        for _ in range(count):
            progress, row, _ = loop.iterate(progress)
            rows.append(row)
        return progress, rows

    whole, rows = run(4)
    again, later = run(2, run(2)[0])
    assert digest(whole.state) == digest(again.state) and whole.env_steps == again.env_steps == sum(
        r["steps"] for r in rows
    )
    assert [row["target_reward"] for row in later] == [row["target_reward"] for row in rows[2:]]
    assert len({row["target_reward"] for row in rows}) == 4


@pytest.mark.parametrize(
    ("task", "least", "most_steps"),
    [("CartPole-v1", 500, 1000), ("InvertedPendulum-v5", 1000, 1000), ("InvertedDoublePendulum-v5", 9350, 2000)],
)
def test_it_balances_from_few_steps(task: str, least: float, most_steps: int) -> None:
    plan = Plan(task, {}, "lqr", {}, 0)
    loop = make_loop(plan, plan.spec(), 1)
    try:
        progress, _, _ = loop.iterate(loop.start())
        found = loop.evaluate(progress, 16)
    finally:
        loop.close()
    assert found.returns.min() >= least
    assert progress.env_steps < most_steps
