"""`Policy.predict` takes what any environment gives and returns what it accepts, as training and evaluation do."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from workhorse.core.addresses import host_keys
from workhorse.core.observations import ObservationFormat
from workhorse.core.spec import ActionFormat, Box, Discrete
from workhorse.environments.gymnasium_worker import episode_seed
from workhorse.runs.export import policy_of
from workhorse.runs.policy import Policy
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments

SETTINGS: dict[str, dict[str, Any]] = {
    "openai-es": {"policy": "mlp", "hidden": (4,), "num_pairs": 2, "noise_std": 0.5, "learning_rate": 0.5},
    "ppo": {"num_envs": 2, "held_out_envs": 0, "rollout_steps": 4, "minibatch_size": 4, "num_epochs": 2,
            "hidden": (4,), "learning_rate": 0.3, "measure_gradients": False, "measure_health": False},
}  # fmt: skip
OBSERVED = list(weird_environments.Answer.OBSERVATIONS)
ANSWERS = [
    ("weird/Answer-v0", {"acted": acted, "observed": OBSERVED[number % len(OBSERVED)]})
    for number, acted in enumerate(weird_environments.Answer.ACTIONS)
]
TASKS = [
    *ANSWERS,
    ("weird/Structured-v0", {}),
    ("weird/IntegerBox-v0", {}),
    ("FrozenLake-v1", {"is_slippery": False}),
    ("Pendulum-v1", {"max_episode_steps": 20}),
]
QUICK = ("discrete", "bytes")
"""Kinds of actions that are tried every time; each task takes seconds, because processes are started for it."""
CASES = [
    pytest.param(
        *task, name, id=f"{task[0]}-{'-'.join(map(str, task[1].values()))}-{name}",
        marks=[] if task[1].get("acted") in QUICK or task[0] == "FrozenLake-v1" else [pytest.mark.slow],
    )
    for number, task in enumerate(TASKS)
    for name in [list(SETTINGS)[number % 2]]
]  # fmt: skip


def trained(task: str, options: dict[str, Any], name: str, tmp_path: Path) -> tuple[Policy, Any]:
    """Return the artefact of a policy after an iteration, from its files, and four noiseless episodes in training."""
    plan = Plan(task, options, name, SETTINGS[name], 0)
    loop = make_loop(plan, plan.spec(), 1)
    try:
        progress, _, _ = loop.iterate(loop.start())
        judged = loop.evaluate(progress, 4)
        algorithm: Any = loop.algorithm
        about: Any = SimpleNamespace(id="r", algorithm=name, seed=0, versions={})
        policy = policy_of(algorithm, algorithm.actor(progress.state), about, 1, 8)
    finally:
        loop.close()
    assert policy is not None
    return Policy.load(policy.save(tmp_path / "policy")), judged


@pytest.mark.parametrize(("task", "options", "name"), CASES)
def test_a_loop_by_hand_earns_what_the_evaluation_says(
    task: str, options: dict[str, Any], name: str, tmp_path: Path
) -> None:
    policy, judged = trained(task, options, name, tmp_path)
    env = gymnasium.make(task, disable_env_checker=True, **options)
    if task == "Pendulum-v1":  # a task of our own, whose seeds are JAX's
        action, _ = policy.predict(env.reset(seed=0)[0])
        assert env.action_space.contains(action)
        return
    for episode, expected in enumerate(judged.returns):
        obs, _ = env.reset(seed=episode_seed(host_keys(0, "evaluate", 1, episode)))
        total, over = 0.0, False
        while not over:
            for deterministic in (False, True):
                action, _ = policy.predict(obs, deterministic=deterministic)
                assert env.action_space.contains(action), action
            if isinstance(env.action_space, gymnasium.spaces.Discrete):
                assert {int(action): "found"}[action] == "found" and not isinstance(action, np.ndarray)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        assert total == pytest.approx(expected, abs=1e-5)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "options"), [*ANSWERS[:7], ("weird/Structured-v0", {}), ("FrozenLake-v1", {})])
def test_a_batch_is_what_a_vector_of_environments_gives(task: str, options: dict[str, Any], tmp_path: Path) -> None:
    if options.get("observed") == "frames":
        pytest.skip("frames that are stacked lazily have no batch of their own")
    policy, _ = trained(task, options, "openai-es", tmp_path)
    make = lambda: gymnasium.make(task, disable_env_checker=True, **options)  # noqa: E731
    vector = gymnasium.vector.SyncVectorEnv([make] * 3)
    single = [make() for _ in range(3)]
    batch, _ = vector.reset(seed=[0, 1, 2])
    actions, _ = policy.predict(batch)
    assert vector.action_space.contains(actions)
    for row, env in enumerate(single):
        alone, _ = policy.predict(env.reset(seed=row)[0])
        np.testing.assert_allclose(actions[row], alone, atol=1e-5)
    for env in (vector, *single):
        env.close()


def test_numbers_for_a_box_of_integers_are_rounded_not_cut_off() -> None:
    box, written = Box((-3.0, -3.0), (3.0, 3.0)), ActionFormat("int16", (2,))
    assert written.write(box, np.array([[1.6, -0.6], [9.0, -9.0]])).tolist() == [[2, -1], [3, -3]]


def of_numbers(count: int, **formats: Any) -> Policy:
    from workhorse.core.layers import Argmax, Dense

    weight = np.eye(count)[:, ::-1]
    return Policy(
        [Dense(weight), Argmax()], observation=Box((0.0,) * count, (1.0,) * count), action=Discrete(count),
        task="Numbers-v0", **formats,
    )  # fmt: skip


def test_a_number_observed_and_the_vector_made_of_it_are_the_same() -> None:
    seen = ObservationFormat("choices", (), (4,), (7,))
    policy = of_numbers(4, observation_format=seen, action_format=ActionFormat("int64", (), (10,)))
    assert policy.predict(7) == (13, None) and policy.predict(np.int64(9))[0] == 11
    assert policy.predict(np.array([7, 10, 8]))[0].tolist() == [13, 10, 12]
    assert policy.predict([1.0, 0.0, 0.0, 0.0])[0] == 13
    assert policy.choose(7)[0] == 3
    assert type(policy.predict(7)[0]) is np.int64


@pytest.mark.parametrize("given", [3, 11, -1, "go", None, [7, 99], {"place": 7}, 7.5])
def test_an_observation_that_is_no_choice_is_refused_in_a_sentence(given: Any) -> None:
    from workhorse.core.errors import UsageError

    policy = of_numbers(4, observation_format=ObservationFormat("choices", (), (4,), (7,)))
    with pytest.raises(UsageError, match="Expected"):
        policy.predict(given)


@pytest.mark.parametrize(
    "given",
    [{"place": 1}, {"place": 1, "other": 2}, {"place": [1, 2], "speed": 0.5}, {"place": 1, "speed": "fast"}, (1, 0.5)],
)
def test_a_dict_with_other_parts_is_refused_in_a_sentence(given: Any) -> None:
    from workhorse.core.errors import UsageError

    parts = (ObservationFormat("choices", (), (3,), (0,)), ObservationFormat("numbers"))
    policy = of_numbers(4, observation_format=ObservationFormat("dict", names=("place", "speed"), parts=parts))
    with pytest.raises(UsageError, match="Expected"):
        policy.predict(given)


@pytest.mark.parametrize(
    "formats",
    [
        {"observation_format": ObservationFormat("choices", (), (3,), (0,))},
        {"observation_format": ObservationFormat("choices", (2,), (4,), (0,))},
        {"observation_format": ObservationFormat("dict", names=("a", "a"), parts=(ObservationFormat("numbers"),) * 2)},
        {"observation_format": ObservationFormat("numbers", (-4,))},
        {"action_format": ActionFormat("float64", ())},
        {"action_format": ActionFormat("O", ())},
        {"action_format": ActionFormat("int64", (2,))},
        {"action_format": ActionFormat("int64", (), (1, 2))},
    ],
)
def test_formats_that_do_not_fit_are_refused(formats: dict[str, Any]) -> None:
    from workhorse.core.errors import UsageError

    with pytest.raises(UsageError, match=r"format|start"):
        of_numbers(4, **formats)
