"""`evaluate --stochastic`: draws from the policy, the same ones again, and never mistaken for the other kind."""

import json
from typing import Any

import numpy as np
import pytest

from workhorse.cli.main import main
from workhorse.core.errors import UsageError
from workhorse.runs import train
from workhorse.runs.folder import RunFolder

PPO: dict[str, Any] = {"num_envs": 4, "held_out_envs": 0, "rollout_steps": 16, "minibatch_size": 16, "num_epochs": 1,
                       "hidden": (8,)}  # fmt: skip


def trained(root: Any, algorithm: str, settings: dict[str, Any], env_steps: int) -> RunFolder:
    folder, _ = train.start(
        task="CartPole-v1", algorithm=algorithm, settings=settings, env_steps=env_steps, root=root, id=algorithm,
        threads=1, schedule=train.Schedule(final_episodes=3),
    )  # fmt: skip
    return folder


def test_draws_repeat_and_are_recorded_under_a_name_of_their_own(tmp_path: Any, capsys: Any) -> None:
    from workhorse.reports.run_page import _last_evaluation

    folder = trained(tmp_path, "ppo", PPO, 128)
    _, likeliest, _ = train.evaluate_run(folder.path, episodes=30, seed=5, threads=1)
    _, drawn, _ = train.evaluate_run(folder.path, episodes=40, seed=5, threads=1, stochastic=True)
    _, again, _ = train.evaluate_run(folder.path, episodes=40, seed=5, threads=1, stochastic=True)
    np.testing.assert_array_equal(drawn.returns, again.returns)
    assert (drawn.returns[:30] != likeliest.returns).any()
    # two episodes with one initial state: draws have an address for each episode
    assert len(np.unique(drawn.returns)) > 5
    assert main(["evaluate", str(folder.path), "--episodes", "40", "--seed", "5", "--stochastic"]) == 0
    assert "over 40 episodes" in (said := capsys.readouterr().out) and "actions drawn" in said
    names = {place.name: json.loads(place.read_bytes()) for place in folder.evaluations.glob("*seed5*")}
    assert {name: record["stochastic"] for name, record in names.items()} == {
        "2-seed5-30.json": False, "2-seed5-40-stochastic.json": True,
    }  # fmt: skip
    assert names["2-seed5-40-stochastic.json"]["returns"] == drawn.returns.tolist()
    shown = _last_evaluation(folder, folder.manifest())
    assert shown is not None and len(shown.returns) == 30


def test_a_policy_without_randomness_of_its_own_says_so(tmp_path: Any, capsys: Any) -> None:
    folder = trained(tmp_path, "openai-es", {"num_pairs": 2, "action_noise": None}, 50)
    with pytest.raises(UsageError, match="openai-es learns a policy without randomness of its own"):
        train.evaluate_run(folder.path, episodes=3, threads=1, stochastic=True)
    assert main(["evaluate", str(folder.path), "--stochastic"]) == 2
    assert "leave --stochastic out" in capsys.readouterr().err
    assert not list(folder.evaluations.glob("*stochastic*"))


@pytest.mark.parametrize(
    ("algorithm", "settings", "words"),
    [
        ("ppo", {"minibatch_size": 1, "normalise_advantages": "minibatch"}, "minibatch_size must be at least 2"),
        ("ppo-noclip", {"minibatch_size": 1}, "minibatch_size must be at least 2"),
        ("a2c", {"num_envs": 1, "rollout_steps": 1, "normalise_advantages": "batch"}, "at least 2 steps"),
        ("trpo", {"num_envs": 1, "rollout_steps": 1, "minibatch_size": 1}, "at least 2 steps"),
    ],
)
def test_advantages_that_would_all_be_zero_are_refused(
    tmp_path: Any, algorithm: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        train.start(task="CartPole-v1", algorithm=algorithm, settings=settings, env_steps=10, root=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"minibatch_size": 2}, {"minibatch_size": 1, "normalise_advantages": "batch"}])
def test_the_smallest_minibatches_that_teach_something_are_taken(settings: dict[str, Any]) -> None:
    from workhorse.algorithms import registry
    from workhorse.core.spec import Box, Discrete, EnvSpec

    registry.make("ppo", EnvSpec("Any-v0", Box.unbounded(2), Discrete(2), 9), settings)
