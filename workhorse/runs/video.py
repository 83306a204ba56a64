"""An episode of a run's policy as a video file, rendered by Gymnasium, which draws every task it ships."""

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workhorse.core.addresses import host_keys
from workhorse.core.errors import UsageError
from workhorse.core.files import check_writable, create_file, make_folder, temporary_name, writing
from workhorse.core.modules import import_module
from workhorse.environments.constructors import registered
from workhorse.environments.wrappers import make_environment
from workhorse.runs.folder import RunFolder
from workhorse.runs.policy import Policy
from workhorse.runs.quiet import quiet_libraries
from workhorse.runs.trust import require_trusted_run

__all__ = ["Drawn", "Video", "film_states", "record"]

_BACKENDS = ("egl", "osmesa")
_TRY_CONTEXT = "import mujoco; context = mujoco.GLContext(64, 64); context.make_current()"


class Video(NamedTuple):
    """The recording: the file, the episode's return and length."""

    path: Path
    episode_return: float
    length: int


def record(
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    max_steps: int = 1000,
    width: int = 480,
    height: int = 480,
    progress: Callable[[int], None] = lambda _: None,
) -> Video:
    """Record one noiseless episode of a run's newest policy as MP4, beside the films there are.

    The file is named after the policy's iteration and the seed; where that name is taken, a number follows it.

    Args:
        path: the run folder.
        seed: which initial state.
        max_steps: the longest that is recorded.
        width, height: pixels of a MuJoCo task's picture; other tasks have sizes of their own.
        progress: is told the number of frames so far.

    Raises:
        UsageError: the folder is no run or has no policy yet, the task cannot be drawn, or there is no OpenGL.
    """
    for name, value in (("max-steps", max_steps), ("width", width), ("height", height)):
        if value < 1:
            raise UsageError(f"--{name} must be positive: got {value}.")
    if seed < 0:
        raise UsageError(f"--seed must be at least 0: got {seed}.")
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    require_trusted_run(manifest)
    policy = Policy.load(folder.path)
    target = _free_name(Path(folder.videos), f"{policy.metadata.get('iteration', 0)}-seed{seed}")
    with writing("the video", target):
        make_folder(folder.videos)
    check_writable("the video", target, folder.path)
    with quiet_libraries():
        env = _environment(manifest.task, manifest.task_options, width, height)
        try:
            with writing("the video", target), create_file(target, folder.path):  # the writer opens it by its name
                return _film(env, policy, target, int(host_keys(seed, "evaluate", 0)[0] >> 33), max_steps, progress)
        finally:
            env.close()


class Drawn(NamedTuple):
    """A shipped task as it is drawn: its id, and the options that Gymnasium takes."""

    task: str
    options: dict[str, Any]


def film_states(drawn: Drawn, states: Sequence[np.ndarray], target: Path) -> None:
    """Write a film of a shipped task's states of motion, one a step, drawn by Gymnasium.

    Args:
        drawn: the task.
        states: positions and then velocities of each step, as `Simulator.physics` gives them.
        target: the file.

    Raises:
        UsageError: the task cannot be drawn, or there is no OpenGL.
    """
    import imageio.v2 as imageio

    with quiet_libraries():
        env = _environment(drawn.task, drawn.options, 480, 480)
        try:
            env.reset(seed=0)
            inner, rate = env.unwrapped, env.metadata.get("render_fps") or 30
            every = max(1, round(rate / 60))
            with writing("the film", target):
                target.parent.mkdir(parents=True, exist_ok=True)
                opened: Any = imageio.get_writer(target, format="FFMPEG", fps=min(rate, 60), macro_block_size=1)  # type: ignore[arg-type]
                with opened as writer:
                    for physics in states[::every]:
                        if hasattr(inner, "set_state"):  # MuJoCo's
                            inner.set_state(physics[: inner.model.nq], physics[inner.model.nq :])
                        else:
                            inner.state = np.array(physics)
                        writer.append_data(_even(_frame(env)))
        finally:
            env.close()


def _free_name(folder: Path, stem: str) -> Path:
    """Return the first of STEM.mp4, STEM-2.mp4, STEM-3.mp4 and so on that is not there."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(place for name in names if not os.path.lexists(place := folder / f"{name}.mp4"))


def _film(env: Any, policy: Policy, target: Path, seed: int, max_steps: int, progress: Callable[[int], None]) -> Video:
    import imageio.v2 as imageio

    from workhorse.environments.gymnasium_spaces import Observations, action_space

    observed = Observations(policy.task, env.observation_space)
    space, wanted = action_space(policy.task, env.action_space)
    rate = env.metadata.get("render_fps") or 30
    observation, _ = env.reset(seed=seed)
    total, length, over, state = 0.0, 0, False, None
    opened: Any = imageio.get_writer(temporary_name(target), format="FFMPEG", fps=min(rate, 60), macro_block_size=1)  # type: ignore[arg-type]
    with opened as writer:
        every = max(1, round(rate / 60))
        writer.append_data(_even(_frame(env)))
        while not over and length < max_steps:
            seen = observed.array(observation, f"at step {length}").reshape(policy.observation.shape)
            action, state = policy.choose(seen, state)
            observation, reward, terminated, truncated, _ = env.step(wanted.write(space, action))
            total, length, over = total + float(reward), length + 1, terminated or truncated
            if length % every == 0:
                writer.append_data(_even(_frame(env)))
                progress(length)
    return Video(target, total, length)


def _environment(task: str, options: dict[str, Any], width: int, height: int) -> Any:
    import gymnasium

    module, _, id = task.rpartition(":")
    known = gymnasium.registry.get(id)
    entry = "" if known is None else str(known.entry_point)
    if "mujoco" in entry:
        _choose_opengl()
    elif module or not entry.startswith("gymnasium."):  # it may be MuJoCo's, which is bound when it is imported
        with contextlib.suppress(UsageError):  # or it may not be, and needs no OpenGL
            _choose_opengl()
    if module:
        import_module(module)
    known = registered(task)
    size: dict[str, Any] = {}
    if known is not None and str(known.entry_point).startswith("gymnasium.envs.mujoco"):
        size = {"width": width, "height": height, "camera_name": "track"}  # a free camera where there is none
    try:
        return make_environment(task, known or task, options, render_mode="rgb_array", **size)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{task} cannot be drawn: gymnasium.make(..., render_mode='rgb_array') said: {error}. Its constructor must "
            "take render_mode, and its render() return an array of colours."
        ) from error


def _frame(env: Any) -> np.ndarray:
    try:
        frame = env.render()
    except Exception as error:
        raise UsageError(f"The task could not be drawn: {type(error).__name__}: {error}") from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise UsageError(f"The task could not be drawn: render() gave {type(frame).__name__}, expected an RGB array.")
    return frame


def _choose_opengl() -> None:
    """Pick a backend that can make a context here, tried in a process of its own: MuJoCo binds to one for good."""
    if os.environ.get("MUJOCO_GL"):
        backends: tuple[str, ...] = (os.environ["MUJOCO_GL"],)
    elif os.environ.get("DISPLAY") or sys.platform == "darwin":
        backends = ("glfw", *_BACKENDS)
    else:
        backends = _BACKENDS
    for backend in backends:
        surroundings = {**os.environ, "MUJOCO_GL": backend}
        if not subprocess.run([sys.executable, "-c", _TRY_CONTEXT], env=surroundings, capture_output=True).returncode:
            os.environ["MUJOCO_GL"] = backend
            return
    raise UsageError(
        f"A video needs OpenGL, and none of {', '.join(backends)} works here. On Debian or Ubuntu: "
        "apt-get install libegl1 libopengl0 (or libosmesa6, and MUJOCO_GL=osmesa)."
    )


def _even(frame: np.ndarray) -> np.ndarray:
    """Frames of even size: the codec takes no others."""
    return frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
