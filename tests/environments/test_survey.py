"""What `workhorse check` finds, on tasks of which it is known."""

import random
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from workhorse.core.addresses import host_keys
from workhorse.core.errors import TaskError
from workhorse.environments.gymnasium_worker import episode_seed
from workhorse.environments.survey import Finding, survey

sys.path.insert(0, str(Path(__file__).parent))
import weird_environments


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workhorse.environments.survey.MOST_STEPS", 60)


def found(task: str, **options: Any) -> dict[str, Finding]:
    return {finding.topic: finding for finding in survey(task, options)}


def test_nothing_is_noted_of_a_good_task() -> None:
    findings = found("weird/Walk-v0")
    assert [finding.verdict for finding in findings.values()] == ["ok"] * 9
    assert list(findings) == [
        *("spaces", "time limit", "episodes", "rewards", "observations", "determinism", "interface", "promises"),
        "speed",
    ]
    assert "observes 2 numbers, and gives 2 numbers from -1 to 1" in findings["spaces"].text
    assert findings["time limit"].text == "20 steps."


def test_a_task_without_a_clock_is_stopped_at() -> None:
    findings = found("weird/NoClock-v0")
    assert list(findings) == ["spaces", "time limit"]
    assert findings["time limit"].verdict == "stop"
    assert found("weird/NoClock-v0", max_episode_steps="own")["time limit"].verdict == "note"


def test_the_first_step_that_differs_is_named() -> None:
    findings = found("weird/LateMoody-v0")
    assert findings["determinism"].verdict == "note"
    assert "first in step 13 of an episode, in its observation" in findings["determinism"].text
    assert "promises" not in findings  # which rest on it


def test_an_array_that_is_written_again_and_again_is_noted() -> None:
    assert "one array object" in found("weird/Remembering-v0")["interface"].text


def test_what_an_environment_breaks_is_an_error_with_its_place() -> None:
    with pytest.raises(TaskError, match=r"returned the reward nan at step 3 .*seed=\d+.*action"):
        found("weird/Faulty-v0", fault="reward nan")


class Odd(weird_environments.Walk):
    """Observes a constant, a huge and an ordinary number; is paid little, and seldom."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)

    def reset(self, **given: Any) -> Any:
        _, info = super().reset(**given)
        return self.seen(), info

    def seen(self) -> np.ndarray:
        return np.array([0.5, 1e6 * self.x[0], np.clip(self.x[1], -1, 1)], np.float64)

    def step(self, action: Any) -> Any:
        super().step(0 * action)
        return self.seen(), 1e-5 * (self.count == 20), False, False, None


STEADY = {episode_seed(key) for key in (*host_keys(0, "reset", 0, np.arange(8)), np.array([0, 1], np.uint64))}
"""Seeds of the first episode of every slot, and of the adapter's own look at a task."""


class MoodyLater(weird_environments.Walk):
    """Draws from the process's own randomness from the fifth step of every episode but the first."""

    def reset(self, **given: Any) -> Any:
        self.is_steady = given["seed"] in STEADY
        return super().reset(**given)

    def step(self, action: Any) -> Any:
        _, reward, _, truncated, info = super().step(0 * action)
        if not self.is_steady and self.count >= 5:
            self.x = self.x + random.random()
        return self.x.copy(), reward, False, truncated, info


for name, cls, limit in (("Odd", Odd, 200), ("MoodyLater", MoodyLater, 20)):
    if f"odd/{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"odd/{name}-v0", entry_point=cls, max_episode_steps=limit)


def test_the_first_step_that_differs_is_counted_from_its_own_reset() -> None:
    assert "first in step 5 of an episode, in its observation" in found("odd/MoodyLater-v0")["determinism"].text


def test_scales_and_constants_are_noted() -> None:
    findings = found("odd/Odd-v0")
    observed = findings["observations"]
    assert observed.verdict == "note"
    assert "Component 0 of 3 hardly changed" in observed.text
    assert "Component 1 reached" in observed.text
    assert "lay outside the space's bounds" in observed.text
    assert findings["rewards"].verdict == "note"
    assert "far from 1" in findings["rewards"].text
    assert "float64 where their space says float32" in findings["interface"].text
    assert "`info` should be a dict" in findings["interface"].text
    assert findings["episodes"].text.startswith("None ended within 60")


def test_a_reward_that_never_changes_is_noted_where_episodes_are_of_one_length() -> None:
    fixed = found("CartPole-v1", max_episode_steps=5)["rewards"]
    assert fixed.verdict == "note" and "may be nothing to learn" in fixed.text
    assert found("CartPole-v1")["rewards"].verdict == "ok"


def test_a_single_start_is_noted() -> None:
    findings = found("CliffWalking-v1", max_episode_steps=20)
    assert findings["promises"].verdict == "note" and "Every episode begins alike" in findings["promises"].text
