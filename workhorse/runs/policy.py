"""The policy artefact: what a run is for, loadable with NumPy alone."""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from workhorse.core.errors import UsageError
from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec
from workhorse.runs.files import remove_folder, replace_folder, settled_folder, write_file, writing
from workhorse.runs.tensors import DamagedFile, read_tensors, write_tensors

__all__ = ["ACTIVATIONS", "FORMAT", "Policy"]

FORMAT = 1
"""Version of the artefact's layout."""

ACTIVATIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}
"""What a hidden layer may apply, by the name stored in policy.json."""

_INFINITIES = {"inf": float("inf"), "-inf": -float("inf")}


class Policy:
    """A trained policy: a normaliser and a small network, in NumPy and float32.

        z = clip((observation - mean) / scale, -observation_clip, observation_clip)     z = observation without a mean
        h = activation(W h + b)                                                          for every hidden layer
        y = W h + b                                                                      for the last layer

    A `Box` action is y clipped to the bounds; with `action_bins` = k, y holds k scores a component, component by
    component, and the action is the bin with the highest score among k values evenly spaced from low to high. A
    `Discrete` action is the number of the highest score. Ties go to the lower number.

    Acting is deterministic. One observation gives the bits that a batch of one gives; *a larger batch may differ in the
    last bit*, because matrix products sum in an order that depends on their size.

    Attributes:
        weights: one array a layer, (out, in), float32.
        biases: one array a layer, (out,), float32, or None.
        task: the id of the task it was trained on.
        metadata: plain JSON: where it came from.
    """

    def __init__(
        self,
        layers: Sequence[ArrayLike],
        biases: Sequence[ArrayLike | None],
        *,
        action: Box | Discrete,
        task: str,
        activation: str = "tanh",
        mean: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        observation_clip: float | None = None,
        action_bins: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Check and hold the parts.

        Args:
            layers: weights, (out, in) each, first layer first; JAX arrays will do.
            biases: as many biases, (out,) each, or None where a layer has none.
            action: what the actions must be.
            task: the task's id.
            activation: a name in `ACTIVATIONS`.
            mean: subtracted from the observation, (D,); None for no normaliser.
            scale: the standard deviation divided by, (D,), above zero.
            observation_clip: bound on the normalised observation, in standard deviations; None for no bound.
            action_bins: values a component may take; None for real actions.
            metadata: plain JSON.

        Raises:
            UsageError: sizes do not fit each other, a number is not finite, or an option contradicts another.
        """
        if not layers or len(layers) != len(biases):
            raise UsageError(
                f"Expected one bias (or None) for each of at least one layer, got {len(layers)} layers and "
                f"{len(biases)} biases in the policy of {task}: pass as many."
            )
        self.weights = tuple(_float32(weight, f"layer {i}", 2) for i, weight in enumerate(layers))
        self.biases = tuple(None if b is None else _float32(b, f"bias {i}", 1) for i, b in enumerate(biases))
        self.activation = activation
        self.mean = None if mean is None else _float32(mean, "mean", 1)
        self.scale = None if scale is None else _float32(scale, "scale", 1)
        self.observation_clip = None if observation_clip is None else float(observation_clip)
        self.action = action
        self.action_bins = None if action_bins is None else int(action_bins)
        self.task = task
        self.metadata = json.loads(json.dumps(dict(metadata or {}), allow_nan=False))
        self._check_network()
        self._check_normaliser()
        self._check_action()
        if isinstance(action, Box):
            self._low, self._high = np.asarray(action.low, np.float32), np.asarray(action.high, np.float32)
            if self.action_bins is not None:
                self._values = np.linspace(action.low, action.high, self.action_bins, axis=1).astype(np.float32)

    @property
    def observation_size(self) -> int:
        """Components of an observation."""
        return self.weights[0].shape[1]

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """The actions for one observation or a batch, called as in Stable-Baselines3.

        Args:
            observation: (D,) or (N, D), any real dtype; finite.
            state: handed back as it came: the policy has no memory.
            episode_start: accepted and ignored, for the same reason.
            deterministic: accepted; the policy is deterministic either way.

        Returns:
            action: `Box`: float32 of shape (A,) or (N, A). `Discrete`: int64 of shape () or (N,).
            state: as given.

        Raises:
            UsageError: the observation has another size, is not numbers, or is not finite.

        Example:
            >>> policy = Policy([np.array([[2.0, 0.0], [0.0, 1.0]])], [None], action=Box.unbounded(2), task="probe")
            >>> policy.predict([3.0, 4.0])[0]
            array([6., 4.], dtype=float32)
            >>> policy.predict([[3.0, 4.0], [0.0, 1.0]])[0].shape
            (2, 2)
        """
        batch, single = self._batch(observation)
        output = self._network(self._normalised(batch))
        if not np.isfinite(output).all():
            row = int(np.flatnonzero(~np.isfinite(output).all(axis=1))[0])
            raise UsageError(
                f"Expected finite outputs from the policy of {self.task}, got {output[row]} for row {row}: the "
                "observation is too large for float32. Check its units."
            )
        action = self._chosen(output)
        return (action[0, ...] if single else action), state

    def check_observation_size(self, size: int, where: str = "the task") -> None:
        """Refuse observations of another size before any is seen.

        Raises:
            UsageError: `size` is not the policy's.
        """
        if size != self.observation_size:
            raise UsageError(
                f"Expected observations of {self.observation_size} components, as in {self.task}, on which the policy "
                f"was trained, got {size} in {where}: use it on that task, made with the same options."
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the artefact, policy.safetensors and policy.json, into the folder `path`, replacing one that is there.

        A crash at any instant leaves the old artefact or the new one.

        Raises:
            UsageError: the disk is full, read-only or not there, or `path` is a folder that is no policy.
        """
        target = Path(path)
        if target.is_dir() and any(target.iterdir()) and not (target / "policy.json").exists():
            raise UsageError(
                f"Expected {target} to be a policy folder or not to exist, but it holds other files: saving would "
                f"delete them. Save to {target / 'policy'} instead."
            )
        temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
        with writing("the policy", target):
            if target.is_file():
                raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                remove_folder(temporary)  # a killed process may have had this one's id
                temporary.mkdir()
                sha256 = write_tensors(temporary / "policy.safetensors", self._arrays())
                record = {**self._description(), "sha256": sha256}
                write_file(temporary / "policy.json", json.dumps(record, indent=2, allow_nan=False).encode())
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
            task_spec: the task it is to act in; its observation and action sizes must be the policy's.

        Raises:
            UsageError: nothing is there, it is damaged, of another format version, its sizes contradict each other, or
                they are not the task's.
        """
        folder = _policy_folder(Path(path))
        record = _read_description(folder)
        try:
            policy = _from_parts(record, read_tensors(folder / "policy.safetensors", record["sha256"]))
        except UsageError as error:
            raise UsageError(f"Expected a whole policy in {folder}, got sizes that do not fit. {error}") from error
        except (DamagedFile, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"policy.json: {error!r}" if not isinstance(error, (DamagedFile, OSError)) else str(error)
            raise UsageError(
                f"Expected a whole policy in {folder}, but it is damaged ({reason}). "
                "Restore it from a copy, or export it again from a checkpoint."
            ) from error
        if task_spec is not None:
            policy.check_observation_size(task_spec.observation.size, task_spec.task)
            policy._check_same_action(task_spec)
        return policy

    def _network(self, hidden: np.ndarray) -> np.ndarray:
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the result
                hidden = hidden @ weight.T
                hidden = hidden if bias is None else hidden + bias
            hidden = hidden if layer == last else ACTIVATIONS[self.activation](hidden)
        return hidden

    def _normalised(self, batch: np.ndarray) -> np.ndarray:
        if self.mean is None:
            return batch
        with np.errstate(over="ignore"):
            z = (batch - self.mean) / self.scale
        if self.observation_clip is None:
            return z
        bound = np.float32(self.observation_clip)
        return np.clip(z, -bound, bound)

    def _chosen(self, output: np.ndarray) -> np.ndarray:
        if isinstance(self.action, Discrete):
            return output.argmax(axis=1).astype(np.int64)
        if self.action_bins is None:
            return np.clip(output, self._low, self._high)
        best = output.reshape(len(output), self.action.size, self.action_bins).argmax(axis=2)
        return self._values[np.arange(self.action.size), best]

    def _batch(self, observation: Any) -> tuple[np.ndarray, bool]:
        """The observation as a finite float32 batch (N, D), and whether it was a single one."""
        wanted = f"({self.observation_size},) or (N, {self.observation_size})"
        advice = f"Pass the flat observation of {self.task} as an array of numbers."
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
        if given.ndim not in (1, 2) or given.shape[-1] != self.observation_size:
            raise UsageError(f"Expected an observation of shape {wanted}, got {given.shape}. {advice}")
        with np.errstate(over="ignore"):
            batch = given.astype(np.float32).reshape(-1, self.observation_size)
        finite = np.isfinite(batch)
        if not finite.all():
            row, component = (int(index) for index in np.argwhere(~finite)[0])
            value = given.reshape(batch.shape)[row, component]
            raise UsageError(
                f"Expected finite observations (in float32), got {value} in component {component} of row {row}: the "
                "simulation has diverged, or a sensor is missing. Reset the environment, or fill the gap."
            )
        return batch, given.ndim == 1

    def _check_network(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(
                f"Expected an activation among {', '.join(ACTIVATIONS)}, got {self.activation!r} in the policy of "
                f"{self.task}: this version knows no other."
            )
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            before = self.weights[layer - 1].shape[0] if layer else weight.shape[1]
            if weight.shape[1] != before or 0 in weight.shape:
                raise UsageError(
                    f"Expected layer {layer} of the policy of {self.task} to read the {before} outputs of the layer "
                    f"before, got weights of shape {weight.shape}: weights are (out, in)."
                )
            if bias is not None and bias.shape != weight.shape[:1]:
                raise UsageError(
                    f"Expected bias {layer} of the policy of {self.task} to have shape {weight.shape[:1]}, got "
                    f"{bias.shape}: one number an output."
                )

    def _check_normaliser(self) -> None:
        if (self.mean is None) != (self.scale is None) or (self.mean is None and self.observation_clip is not None):
            raise UsageError(
                f"Expected mean and scale together, and observation_clip only with them, in the policy of {self.task}: "
                "pass all or none."
            )
        for name, part in (("mean", self.mean), ("scale", self.scale)):
            if part is not None and part.shape != (self.observation_size,):
                raise UsageError(
                    f"Expected {name} of shape ({self.observation_size},) in the policy of {self.task}, got "
                    f"{part.shape}: one number a component of the observation."
                )
        if self.scale is not None and not (self.scale > 0).all():
            raise UsageError(
                f"Expected scale above zero in the policy of {self.task}, got {self.scale.min()} in component "
                f"{self.scale.argmin()}: use 1 where an observation never varies."
            )
        if self.observation_clip is not None and not 0 < self.observation_clip < float("inf"):
            raise UsageError(
                f"Expected observation_clip above zero and finite in the policy of {self.task}, got "
                f"{self.observation_clip}: use None for no bound."
            )

    def _check_action(self) -> None:
        bins, outputs = self.action_bins, self.weights[-1].shape[0]
        if bins is not None and (isinstance(self.action, Discrete) or not _is_bounded(self.action) or bins < 2):
            raise UsageError(
                f"Expected action_bins of at least 2 with a bounded Box action in the policy of {self.task}, got "
                f"action_bins={bins} with {self.action}: use None."
            )
        if isinstance(self.action, Box) and len(self.action.low) != len(self.action.high):
            raise UsageError(
                f"Expected as many lower as upper bounds in the policy of {self.task}, got {len(self.action.low)} and "
                f"{len(self.action.high)}: one of each a component."
            )
        needed = self.action.count if isinstance(self.action, Discrete) else self.action.size * (bins or 1)
        if outputs != needed:
            raise UsageError(
                f"Expected the last layer of the policy of {self.task} to have {needed} outputs for {self.action}"
                f"{f' with {bins} bins a component' if bins else ''}, got {outputs}: the network is another task's."
            )

    def _check_same_action(self, spec: EnvSpec) -> None:
        mine, its = self.action, spec.action
        if type(mine) is not type(its) or _choices(mine) != _choices(its):
            raise UsageError(
                f"Expected a task with the actions of {self.task}, {mine}, got {its} in {spec.task}: use the policy on "
                "the task it was trained on."
            )

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"layers/{i}/weight": weight for i, weight in enumerate(self.weights)}
        arrays |= {f"layers/{i}/bias": bias for i, bias in enumerate(self.biases) if bias is not None}
        if self.mean is not None and self.scale is not None:
            arrays |= {"normaliser/mean": self.mean, "normaliser/scale": self.scale}
        return arrays

    def _description(self) -> dict[str, Any]:
        if isinstance(self.action, Discrete):
            action: dict[str, Any] = {"type": "discrete", "count": self.action.count}
        else:
            action = {"type": "box", "low": _bounds(self.action.low), "high": _bounds(self.action.high)}
        return {
            "format": FORMAT,
            "kind": "workhorse policy",
            "task": self.task,
            "observation_size": self.observation_size,
            "layers": [
                {"out": weight.shape[0], "in": weight.shape[1], "bias": bias is not None}
                for weight, bias in zip(self.weights, self.biases, strict=True)
            ],
            "activation": self.activation,
            "normaliser": self.mean is not None,
            "observation_clip": self.observation_clip,
            "action": action,
            "action_bins": self.action_bins,
            "metadata": self.metadata,
        }


def _policy_folder(path: Path) -> Path:
    for folder in (settled_folder(path), settled_folder(path / "policy")):
        if (folder / "policy.json").exists():
            return folder
    if not path.exists():
        raise UsageError(
            f"Expected a policy or a run in {path}, which does not exist. `workhorse runs` lists the runs."
        )
    if not path.is_dir():
        raise UsageError(f"Expected a policy folder, got the file {path}. Name the folder that holds policy.json.")
    if (path / "manifest.json").exists():
        raise UsageError(f"Expected a policy in the run {path}, which has not written one yet. Let it train longer.")
    raise UsageError(
        f"Expected policy.json in {path}, found none. Name a policy folder, or a run that `workhorse runs` lists."
    )


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / "policy.json"
    try:
        record = json.loads(file.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(
            f"Expected a whole policy in {folder}, but policy.json cannot be read ({error}). Restore it from a copy."
        ) from error
    if not isinstance(record, dict) or record.get("kind") != "workhorse policy":
        raise UsageError(
            f"Expected a Workhorse policy in {file}, got another program's JSON. "
            "Name a policy folder, or a run that `workhorse runs` lists."
        )
    if record.get("format") != FORMAT:
        raise UsageError(
            f"Expected policy format {FORMAT} in {file}, got {record.get('format')!r}: another version of Workhorse "
            "wrote it. Use that version."
        )
    return record


def _from_parts(record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Policy:
    """The policy that `_description` and `_arrays` describe; the description is checked against what is there."""
    action = record["action"]
    layers = range(len(record["layers"]))
    policy = Policy(
        [arrays[f"layers/{i}/weight"] for i in layers],
        [arrays[f"layers/{i}/bias"] if record["layers"][i]["bias"] else None for i in layers],
        activation=record["activation"],
        mean=arrays["normaliser/mean"] if record["normaliser"] else None,
        scale=arrays["normaliser/scale"] if record["normaliser"] else None,
        observation_clip=record["observation_clip"],
        action=Discrete(int(action["count"]))
        if action["type"] == "discrete"
        else Box(_numbers(action["low"]), _numbers(action["high"])),
        action_bins=record["action_bins"],
        task=record["task"],
        metadata=record["metadata"],
    )
    described = {name: value for name, value in record.items() if name != "sha256"}
    if policy._description() != described or policy._arrays().keys() != arrays.keys():
        raise DamagedFile("policy.json and policy.safetensors disagree")
    return policy


def _float32(array: Any, name: str, rank: int) -> np.ndarray:
    """A float32 copy that nobody else writes to."""
    copy = np.array(array)
    if copy.dtype.kind not in "biuf" or copy.ndim != rank:
        raise UsageError(
            f"Expected {name} of a policy to be a real array of rank {rank}, got {copy.dtype} of shape {copy.shape}: "
            "weights are (out, in), all else is flat."
        )
    with np.errstate(over="ignore"):
        copy = np.ascontiguousarray(copy, np.float32)
    if not np.isfinite(copy).all():
        raise UsageError(
            f"Expected finite numbers in {name} of a policy, got NaN or infinity: training has diverged. "
            "Export from an earlier checkpoint."
        )
    copy.flags.writeable = False
    return copy


def _is_bounded(action: Box) -> bool:
    return bool(np.isfinite(action.low).all() and np.isfinite(action.high).all())


def _choices(action: ActionSpace) -> int:
    return action.count if isinstance(action, Discrete) else action.size


def _bounds(bounds: tuple[float, ...]) -> list[float | str]:
    """Bounds as strict JSON, which has no infinities: they become "inf" and "-inf"."""
    return [bound if np.isfinite(bound) else str(bound) for bound in bounds]


def _numbers(bounds: list[float | str]) -> tuple[float, ...]:
    return tuple(_INFINITIES[bound] if isinstance(bound, str) else float(bound) for bound in bounds)
