"""`workhorse diagnose LOG --only confusion`: demonstrations of an expert that is slow to react, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workhorse.api.confusion import diagnose_confusion
from workhorse.cli.main import main
from workhorse.core.errors import UsageError
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import write_log_folder
from workhorse.data.nuisance import with_previous_action
from workhorse.environments import registry
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.runs.policy import Policy

HOLD = 10
"""Steps between two looks of the expert, on average."""


def right(obs: np.ndarray) -> np.ndarray:
    """Push along the velocity, which swings the car out of the valley."""
    return np.where(obs[:, 1] >= 0, 2, 0)


@pytest.fixture(scope="module")
def demonstrations() -> Dataset:
    env, rng = as_batch(registry.make("MountainCar-v0"), 1), np.random.default_rng(0)
    columns: dict[str, list[Any]] = {name: [] for name in ("obs", "action", "reward", "terminated", "truncated")}
    final, begins = [], []
    for episode in range(12):
        obs, action, is_over = env.reset(episode_keys(env, 0, "reset", episode, np.arange(1))), None, False
        begins.append(len(columns["reward"]))
        while not is_over:
            action = right(obs) if action is None or rng.random() < 1 / HOLD else action
            step = env.step(action)
            row = (obs[0], action[0], step.reward[0], step.terminated[0], step.truncated[0])
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            obs, is_over = step.next_obs, bool(step.terminated[0] or step.truncated[0])
        final.append(obs[0])
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    return Dataset.of(
        "slow", env.spec.observation, env.spec.action, task="MountainCar-v0", max_episode_steps=200,
        final_obs=np.array(final), begins=np.array(begins), **arrays,
    )  # fmt: skip


@pytest.fixture(scope="module")
def examined(demonstrations: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("confusion") / "found"
    return diagnose_confusion(
        demonstrations, evaluate_on="MountainCar-v0", expert=right, interventions=12, episodes=12, updates=2500, out=out
    )


@pytest.mark.slow
def test_repeats_and_chance_are_those_of_a_plain_count(examined: Any, demonstrations: Dataset) -> None:
    same = total = 0
    for begin, end in zip(demonstrations.begins, demonstrations.ends, strict=True):
        for step in range(begin + 1, end):
            same, total = same + int(demonstrations.action[step] == demonstrations.action[step - 1]), total + 1
    found = examined.confusion
    assert found.repeats == pytest.approx(same / total)
    assert found.chance.explained == 0.0 and found.chance.agreement < 0.75
    assert found.previous.agreement == pytest.approx(found.repeats, abs=0.03)
    assert found.previous.agreement > max(found.state.agreement, 0.9)


@pytest.mark.slow
def test_what_helps_on_demonstrations_harms_in_the_task_and_is_left_out(examined: Any) -> None:
    found = examined.confusion
    last = found.factors[-1]
    assert [one.name for one in found.factors] == ["component 0", "component 1", "previous action"]
    assert last.gain > 0 and last.cost > 0
    assert found.drop > 15 and found.harm[1] > 0
    assert found.mask[1:] == (1, 0) and examined.policy.metadata["mask"] == list(found.mask)
    assert found.recovered > 0.8
    assert last.answered < 0.05 and last.chance < 0.5
    assert len(found.executed) == 12 and len(found.posterior) == 13
    assert len(found.masked) == 8 and len({one.mask for one in found.masked}) == 8
    assert found.sentences[0].startswith("These demonstrations are confusing: the previous action costs")
    assert "After 12 tries the expert's answers chose" in found.sentences[-1]


@pytest.mark.slow
def test_the_policy_that_is_kept_is_the_one_that_was_played(examined: Any) -> None:
    """Loaded from its folder and played by NumPy, from the same initial states."""
    policy = Policy.load(examined.folder / "policy")
    env = as_batch(registry.make("MountainCar-v0", previous_action=True), 12)
    obs = env.reset(episode_keys(env, 0, "evaluate", 0, np.arange(12)))
    returns, living = np.zeros(12), np.ones(12, bool)
    for _ in range(200):
        step = env.step(policy.choose(obs)[0])
        returns += np.where(living, step.reward, 0.0)
        living &= ~(step.terminated | step.truncated)
        obs = step.next_obs
    assert returns.mean() == pytest.approx(examined.confusion.final.mean, abs=1.0)


@pytest.mark.slow
def test_the_page_and_the_numbers_say_the_same(examined: Any) -> None:
    record = json.loads((examined.folder / "confusion.json").read_text())
    page = (examined.folder / "report.html").read_text()
    assert record["mask"] == list(examined.confusion.mask) and record["drop"] == examined.confusion.drop
    for words in (
        "What predicts the next action",
        "What each factor adds",
        "What it costs in the task",
        "previous action",
    ):
        assert words in page
    rows = (examined.folder / "report-data" / "returns.csv").read_text()
    assert f"{examined.confusion.shown.mean}" in rows
    assert (examined.folder / "report-data" / "predictions.csv").read_text().count("\n") == 5


def test_a_log_alone_says_what_predicts_and_no_more(demonstrations: Dataset, tmp_path: Path, capsys: Any) -> None:
    path = write_log_folder(demonstrations, tmp_path / "log")
    assert main(["diagnose", str(path), "--only", "confusion", "--updates", "300"]) == 0
    said = capsys.readouterr().out
    assert "The previous action alone predicts" in said and "name it with --evaluate-on" in said
    record = json.loads((tmp_path / "log-confusion" / "confusion.json").read_text())
    assert record["without"] is None and record["masked"] == [] and record["factors"][0]["cost"] is None
    assert "What it costs in the task" not in (tmp_path / "log-confusion" / "report.html").read_text()


def test_a_log_that_shows_it_already_is_taken_as_it_is(demonstrations: Dataset, tmp_path: Path) -> None:
    options = {"updates": 50, "out": tmp_path / "one"}
    one = diagnose_confusion(with_previous_action(demonstrations), **options)  # type: ignore[arg-type]
    other = diagnose_confusion(demonstrations, **{**options, "out": tmp_path / "other"})  # type: ignore[arg-type]
    assert replace(one.confusion, log="") == replace(other.confusion, log="")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expert": right}, "have no effect without the task: name it as evaluate_on"),
        ({"task_options": {"goal_velocity": 0.1}}, "have no effect without the task"),
        ({"interventions": -1}, "interventions must be at least 0: got -1"),
        ({"episodes": 1}, "episodes must be at least 2: got 1"),
        ({"updates": 0}, "updates must be at least 1: got 0"),
        ({"factors": (1, 1, 1)}, "factors must be sizes .* add up to the 5 components"),
        ({"evaluate_on": "CartPole-v1"}, r"observations of shape \(5,\), but those of CartPole-v1 have \(6,\)"),
    ],
)
def test_what_cannot_be_used_is_refused(demonstrations: Dataset, options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        diagnose_confusion(demonstrations, **{"out": tmp_path / "none", **options})
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_an_expert_of_another_task_is_refused(examined: Any, demonstrations: Dataset, tmp_path: Path) -> None:
    shown = with_previous_action(demonstrations)
    layers = [
        layer._replace(weight=layer.weight[:, :4]) if place == 1 else layer
        for place, layer in enumerate(examined.policy.layers)
    ]
    mean = layers[0]
    layers[0] = mean._replace(mean=mean.mean[:4], scale=mean.scale[:4])
    odd = Policy(
        layers, observation=registry.make("CartPole-v1").spec.observation, action=shown.action_space, task="odd"
    )
    odd.save(tmp_path / "odd")
    with pytest.raises(
        UsageError, match=r"Expected an expert that observes the 2 components of MountainCar-v0.* observes 4"
    ):
        diagnose_confusion(demonstrations, evaluate_on="MountainCar-v0", expert=tmp_path / "odd", out=tmp_path / "none")
