"""The policy artefact, which is what a run is for: a list of named layers that NumPy alone loads and runs."""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from workhorse.core.errors import UsageError
from workhorse.core.files import list_folder, remove_folder, replace_folder, writing
from workhorse.core.layers import Argmax, Bits, Layer, Mode, Normalise, Squash, Stretch, state_size
from workhorse.core.observations import ObservationFormat
from workhorse.core.records import PLAIN, is_plain
from workhorse.core.spec import ActionFormat, ActionSpace, Box, Discrete, EnvSpec, MultiDiscrete
from workhorse.runs.inference import run_head, run_hidden
from workhorse.runs.layer_checks import brief, check_formats, checked_layers
from workhorse.runs.policy_files import PolicyParts, policy_folder, read_policy, write_policy
from workhorse.runs.tensors import DamagedFile

__all__ = ["Policy"]


class Policy:
    """A trained policy: layers of `workhorse.core.layers` in NumPy and float32, the last one its head.

    One observation gives the bits that a batch of one gives; *a larger batch may differ in the last bit*, because
    matrix products sum in an order that depends on their size.

    Attributes:
        layers: as they run, with read-only float32 arrays.
        observation: space of the observations, which are not clipped to its bounds.
        action: space of the actions.
        task: the id of the task it was trained on.
        metadata: plain JSON: where it came from.
        observation_format: how its environment gives observations; None for arrays of the space's shape.
        action_format: how its environment takes actions; None for arrays of `action`.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        observation: Box,
        action: ActionSpace,
        task: str,
        metadata: Mapping[str, Any] | None = None,
        observation_format: ObservationFormat | None = None,
        action_format: ActionFormat | None = None,
    ) -> None:
        """Check and hold the parts.

        Args:
            layers: with arrays of NumPy or JAX, which are copied.
            observation: space of one observation.
            action: space of one action.
            task: the task's id.
            metadata: plain JSON.
            observation_format: of the environment, where it does not give arrays of the space's shape.
            action_format: of the environment, where it does not take actions as the space has them.

        Raises:
            UsageError: sizes do not fit each other, a number is not finite, or the metadata are no JSON.
        """
        self.layers = checked_layers(layers, observation, action, task)
        check_formats(observation, action, observation_format, action_format, task)
        self.observation, self.action, self.task = observation, action, task
        self.observation_format, self.action_format = observation_format, action_format
        if not is_plain(given := dict(metadata or {})):
            raise UsageError(f"Expected {PLAIN} as the metadata of the policy of {task}: leave other things out.")
        self.metadata: dict[str, Any] = json.loads(json.dumps(given))
        self._cells = [layer for layer in self.layers if state_size(layer)]
        self._rng: np.random.Generator | None = None

    @property
    def observation_size(self) -> int:
        """Number of components of an observation."""
        return self.observation.size

    @property
    def scale(self) -> np.ndarray | None:
        """Standard deviation that each component of an observation is divided by; None without a normaliser."""
        first = self.layers[0]
        return np.broadcast_to(first.scale, self.observation.shape) if isinstance(first, Normalise) else None

    @property
    def is_recurrent(self) -> bool:
        """True where the policy has a memory, which `predict` takes and returns."""
        return bool(self._cells)

    @property
    def is_stochastic(self) -> bool:
        """True where `predict(..., deterministic=False)` draws: the policy was trained as a distribution of actions.

        False for artefacts of format 1, which did not store the distribution.
        """
        head = self.layers[-1]
        if isinstance(head, Mode | Stretch | Squash):
            return head.log_std is not None
        return isinstance(head, Argmax | Bits) and head.draws

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = True,
        *,
        rng: np.random.Generator | None = None,
    ) -> tuple[Any, Any]:
        """Choose actions for one observation or a batch, called as in Stable-Baselines3.

        Args:
            observation: as the environment gives it: an array of any real dtype, finite; a whole number, a dict or a
                tuple where the space is of these; or what a vector of environments gives, (N, ...). The vector that
                Workhorse makes of it is taken too.
            state: memory of a recurrent policy, as the last call returned it; None at the start. Handed back as it
                came where the policy has no memory.
            episode_start: true, for all rows or one by one, where an episode starts and the memory is to be forgotten.
            deterministic: take the likeliest action; false draws one, where the policy `is_stochastic`.
            rng: generator of the draws; None for the policy's own, which `seed` sets.

        Returns:
            action: what the environment accepts: of its space's dtype and shape, or a batch of that; a whole number for
                one `Discrete` choice. *An artefact from before formats were stored counts choices from 0 and knows no
                dtype*: float32 for a `Box`, int64 for choices, int8 for `MultiBinary`.
            state: a tuple with an array for each recurrent layer, (H,), or (N, H) for a batch.

        Raises:
            UsageError: the observation has another shape, is not numbers, or is not finite; the state does not fit.

        Example:
            >>> from workhorse.core.layers import Dense, Mode
            >>> double = [Dense(np.array([[2.0, 0.0], [0.0, 1.0]])), Mode()]
            >>> policy = Policy(double, observation=Box.unbounded(2), action=Box.unbounded(2), task="probe")
            >>> policy.predict([3.0, 4.0])[0]
            array([6., 4.], dtype=float32)
            >>> policy.predict([[3.0, 4.0], [0.0, 1.0]])[0].shape
            (2, 2)
        """
        action, state, single = self._act(observation, state, episode_start, deterministic, rng)
        if self.action_format is not None:
            action = self.action_format.write(self.action, action)
        return (action[0] if single else action), state

    def choose(
        self,
        observation: Any,
        state: Any = None,
        deterministic: bool = True,
        *,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Choose as `predict` does, for Workhorse's own environments: choices are counted from 0, a `Box` is float32.

        Raises:
            UsageError: as from `predict`.
        """
        action, state, single = self._act(observation, state, None, deterministic, rng)
        return (action[0, ...] if single else action), state

    def seed(self, seed: int | None = None) -> None:
        """Begin the draws of `predict(..., deterministic=False)` anew: the same ones after each equal seed.

        Named as that of Gymnasium's spaces.

        Args:
            seed: a whole number of at least 0; None for fresh randomness.
        """
        self._rng = np.random.default_rng(seed)

    def _act(
        self,
        observation: Any,
        state: Any,
        episode_start: ArrayLike | None,
        deterministic: bool,
        rng: np.random.Generator | None,
    ) -> tuple[np.ndarray, Any, bool]:
        """Return the actions of a batch, the memory, and whether the observation was a single one."""
        batch, single = self._batch(observation)
        states = self._states(state, episode_start, len(batch)) if self._cells else []
        output, after = run_hidden(self.layers[:-1], batch, states)
        if not np.isfinite(output).all():
            row, place = np.argwhere(~np.isfinite(output))[0]
            raise UsageError(
                f"Expected finite outputs from the policy of {self.task}, got {output[row, place]} in output {place} "
                f"for row {row}: the observation is too large for float32. Check its units."
            )
        if not deterministic and rng is None:
            rng = self._rng = self._rng or np.random.default_rng()
        action = run_head(self.layers[-1], self.action, output, None if deterministic else rng)
        if self._cells:
            state = tuple(one[0] if single else one for one in after)
        return action, state, single

    def check_task(self, spec: EnvSpec) -> None:
        """Refuse a task with observations of another shape, or actions of another kind or size.

        Raises:
            UsageError: the task is not one the policy can act in.
        """
        if spec.observation.shape != self.observation.shape:
            raise UsageError(
                f"Expected observations of shape {self.observation.shape}, as in {self.task}, on which the policy was "
                f"trained, got {spec.observation.shape} in {spec.task}: use it on that task, made with the same "
                "options."
            )
        mine, its = self.action, spec.task_action
        if type(mine) is not type(its) or _choices(mine) != _choices(its):
            raise UsageError(
                f"Expected a task with the actions of {self.task}, {brief(mine)}, got {brief(its)} in {spec.task}: use "
                "the policy on the task it was trained on."
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the artefact, policy.safetensors and policy.json, into the folder `path`, replacing one that is there.

        A crash at any instant leaves the old artefact or the new one.

        Raises:
            UsageError: the disk is full, read-only or not there, or `path` is a folder that is no policy.
        """
        target = Path(path)
        if not target.is_symlink() and _holds_other_files(target):
            raise UsageError(
                f"Expected {target} to be a policy folder or not to exist, but it holds other files: saving would "
                f"delete them. Save to {target / 'policy'} instead."
            )
        temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
        with writing("the policy", target):
            if target.is_file() and not target.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                remove_folder(temporary)  # a killed process may have had this one's id
                temporary.mkdir()
                parts = [getattr(self, name) for name in PolicyParts._fields]
                write_policy(temporary, PolicyParts(*parts))
                replace_folder(temporary, target)
            except BaseException:
                remove_folder(temporary)
                raise
        return target

    @staticmethod
    def load(path: str | os.PathLike[str], task_spec: EnvSpec | None = None) -> "Policy":
        """Read an artefact. Nothing in it is executed.

        Args:
            path: the policy folder, or the run folder it is in.
            task_spec: the task it is to act in; its spaces must be the policy's.

        Raises:
            UsageError: nothing is there, it is damaged, of another format version, its sizes contradict each other, or
                the task has other spaces.
        """
        folder = policy_folder(Path(path))
        try:
            parts = read_policy(folder)
        except (DamagedFile, OSError) as error:
            raise UsageError(
                f"Expected a whole policy in {folder}, but it is damaged ({error}). "
                "Restore it from a copy, or export it again from a checkpoint."
            ) from error
        try:
            policy = Policy(**parts._asdict())
        except UsageError as error:
            raise UsageError(f"Expected a whole policy in {folder}, got parts that do not fit. {error}") from error
        if task_spec is not None:
            policy.check_task(task_spec)
        return policy

    def _batch(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Return the observation as a finite float32 batch (N, ...), and whether it was a single one."""
        if self.observation_format is not None and self.observation_format.fits(observation):
            vectors, single = self.observation_format.vectors(observation)
            return self._array(vectors)[0], single
        return self._array(observation)

    def _array(self, observation: Any) -> tuple[np.ndarray, bool]:
        shape = self.observation.shape
        wanted = f"{shape} or (N, {', '.join(map(str, shape))})"
        advice = f"Pass the observation of {self.task} as an array of numbers."
        try:
            given = np.asarray(observation)
        except ValueError as error:
            raise UsageError(
                f"Expected an observation of shape {wanted}, got rows of unlike length. {advice}"
            ) from error
        if given.dtype.kind not in "biuf":
            raise UsageError(
                f"Expected an observation of real numbers of shape {wanted}, got {type(observation).__name__} "
                f"of dtype {given.dtype}. {advice}"
            )
        if given.shape != shape and given.shape[1:] != shape:
            raise UsageError(f"Expected an observation of shape {wanted}, got {given.shape}. {advice}")
        with np.errstate(over="ignore"):
            batch = given.astype(np.float32).reshape(-1, *shape)
        finite = np.isfinite(batch)
        if not finite.all():
            row, *place = (int(index) for index in np.argwhere(~finite)[0])
            value, component = given.reshape(batch.shape)[(row, *place)], ", ".join(map(str, place))
            raise UsageError(
                f"Expected finite observations (in float32), got {value} in component {component} of row {row}: the "
                "simulation has diverged, or a sensor is missing. Reset the environment, or fill the gap."
            )
        return batch, given.shape == shape

    def _states(self, state: Any, episode_start: ArrayLike | None, rows: int) -> list[np.ndarray]:
        """Return the memory of each recurrent layer, (N, H), zero where an episode starts."""
        sizes = [state_size(cell) for cell in self._cells]
        shapes = [(rows, size) for size in sizes]
        try:
            given = [np.zeros(shape) for shape in shapes] if state is None else list(state)
            states = [np.array(one, np.float32).reshape(shape) for one, shape in zip(given, shapes, strict=True)]
            starts = np.broadcast_to(np.asarray(False if episode_start is None else episode_start, np.bool_), (rows,))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"Expected the state of the policy of {self.task} as predict returned it, arrays of shape {shapes}, "
                f"and episode_start as one truth or {rows}: {error}. Pass state=None where an episode starts."
            ) from error
        if not all(np.isfinite(one).all() for one in states):
            raise UsageError(
                f"Expected a finite state of the policy of {self.task}: pass on the one that predict returned, or None."
            )
        return [np.where(starts[:, None], np.float32(0), one) for one in states]


def _holds_other_files(target: Path) -> bool:
    """Tell whether a folder is none of a policy, nor what is left of one whose policy.json was lost."""
    names = {path.name for path in list_folder(target, hidden=True)} if target.is_dir() else set()
    return bool(names - {"policy.safetensors"}) and "policy.json" not in names


def _choices(action: ActionSpace) -> object:
    """Return what tells two spaces of one kind apart, as far as a network can see."""
    if isinstance(action, Discrete):
        return action.count
    return action.counts if isinstance(action, MultiDiscrete) else action.size
