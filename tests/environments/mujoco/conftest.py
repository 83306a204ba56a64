"""A Gymnasium environment put into the state of one of our slots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from workhorse.core.addresses import host_keys
from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.task_options import model_path
from workhorse.environments.registry import make


class Twin:
    """Gymnasium's own environment of the same task and options."""

    def __init__(self, task: str, options: dict[str, Any]) -> None:
        self.env = gymnasium.make(task, disable_env_checker=True, **options)
        self.inner: Any = self.env.unwrapped

    def begin(self, phase: np.ndarray) -> np.ndarray:
        """Reset, then take over positions and velocities as Gymnasium's own reset_model sets them; the observation."""
        self.env.reset(seed=0)
        mujoco.mj_resetData(self.inner.model, self.inner.data)
        nq = self.inner.model.nq
        self.inner.set_state(phase[:nq], phase[nq:])
        return self.inner._get_obs()


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings into MUJOCO_LOG.TXT in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def twin_of() -> Callable[[str, dict[str, Any]], Twin]:
    return Twin


@pytest.fixture
def build() -> Any:
    """`make` for tasks of this folder; closes what it made."""
    made: list[BatchTask] = []

    def build(task: str, num_slots: int = 3, num_threads: int = 1, **options: Any) -> BatchTask:
        env = make(task, num_slots, num_threads, **options)
        assert isinstance(env, BatchTask)
        made.append(env)
        return env

    yield build
    for env in made:
        env.close()


@pytest.fixture
def keys() -> Callable[..., np.ndarray]:
    """Keys of as many slots, by root and time."""
    return lambda count, root=0, time=0: host_keys(root, "reset", np.arange(count), time)


@pytest.fixture
def random_actions() -> Callable[..., np.ndarray]:
    """Actions (steps, B, A), float64 with float32's values, inside the bounds."""

    def draw(env: BatchTask, steps: int, seed: int = 0) -> np.ndarray:
        action: Any = env.spec.action
        shape = (steps, env.num_slots, action.size)
        drawn = np.random.default_rng(seed).uniform(action.low, action.high, shape)
        return drawn.astype(np.float32).astype(np.float64)

    return draw


@pytest.fixture
def weak_gravity(tmp_path: Path) -> Callable[[str], str]:
    """A copy of one of Gymnasium's models that differs from it in its dynamics."""

    def write(xml_file: str) -> str:
        text = Path(model_path(xml_file)).read_text()
        path = tmp_path / xml_file
        path.write_text(text.replace("</mujoco>", '<option gravity="0 0 -7"/></mujoco>'))
        return str(path)

    return write
