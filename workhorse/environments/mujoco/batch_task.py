"""Base of the MuJoCo tasks: B slots of one model, stepped together on `mujoco.batch`'s thread pool.

A task's own file holds its equations and nothing else: observation, reward, end and beginning of an episode. This file
has the rest, once for all of them: options, slots, clocks, resets, failures, snapshots.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco's compiled names have no stubs)
import dataclasses
import json
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NoReturn

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import ArrayLike, NDArray

from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec, changed_options
from workhorse.core.types import Step, Tried
from workhorse.environments.mujoco.contact_batch import ContactBatch
from workhorse.environments.mujoco.model import SIDE_BY_SIDE, Flags, Floats, Frame, Judged, Terms, load_model
from workhorse.environments.mujoco.task_options import read_options
from workhorse.environments.mujoco.trials import Trials

__all__ = ["BatchTask"]

_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)
_BROKEN = {
    int(mujoco.mjtWarning.mjWARN_BADQPOS): "a position was NaN, infinite or beyond 1e10",
    int(mujoco.mjtWarning.mjWARN_BADQVEL): "a velocity was NaN, infinite or beyond 1e10",
    int(mujoco.mjtWarning.mjWARN_BADQACC): "an acceleration was NaN, infinite or beyond 1e10",
    int(mujoco.mjtWarning.mjWARN_BADCTRL): "an action was NaN",
}
"""The warnings after which MuJoCo goes on with something else than it was told: the reset state, or no control."""


class BatchTask(ABC):
    """A Gymnasium v5 task as `num_slots` independent slots: a `workhorse.environments.protocol.HostEnv`.

    Observations and rewards are float64 and equal Gymnasium's, up to three differences, all deliberate:

    * Actions are taken as float64. Gymnasium squares them in the dtype given, so that float32 actions lose eight
      digits of the control cost there.
    * A slot whose simulation breaks (an error or a NaN; MuJoCo by itself would silently go on from the default state)
      ends its episode as truncated with reward 0, its last finite observation as `next_obs`, and `failed` set.
    * Noise comes from the slot's key, so it has Gymnasium's distribution and other numbers.

    `obs` and `next_obs` of a `Step` are one array where no episode ended.

    Attributes:
        with_measures: whether a step's `measures` carry the reward terms that Gymnasium puts into `info`, by its names;
            `failed` is always there. Off by default, since they cost time.
    """

    task: ClassVar[str]
    options_type: ClassVar[type]
    fields: tuple[str, ...] = ()
    """MjData fields the equations read beside qpos and qvel; `prepare` may add to them."""
    least_sizes: ClassVar[tuple[int, int]] = (1, 1)
    """nq and nv that the equations index: a model of the user's must have as many."""
    bodies: ClassVar[tuple[str, ...]] = ()
    """Bodies the equations name."""
    normal_velocities: ClassVar[bool] = False
    """The noise of initial velocities is normal and not uniform."""

    options: Any
    """An `options_type`, which extends `TaskOptions`."""

    def __init__(self, num_slots: int = 1, num_threads: int = 0, **options: Any) -> None:
        self.options = read_options(self.options_type, self.task, options)
        self.given_options = options
        _check_counts(self.task, num_slots, num_threads)
        self.with_measures = False
        self.model = load_model(self.task, self.options.xml_file)
        self._check_model()
        self.prepare()
        self.step_seconds = float(self.model.opt.timestep * self.options.frame_skip)
        self._num_slots = num_slots
        self._every_slot = np.arange(num_slots)
        kind = ContactBatch if "cfrc_ext" in self.fields else Batch
        self._simulations: Any = kind(self.model, num_slots, num_threads)
        self._ctrl: Any = self._simulations.bind("ctrl")
        self._broken: Any = self._simulations.warning[:, min(_BROKEN) : max(_BROKEN) + 1, 1]
        self._whole: Any = self._bind_frame()
        self._default_row: Floats = self._simulations.state[0].copy()
        self._elapsed = np.zeros(num_slots, np.int64)
        self._reasons = [""] * num_slots
        self._bits = np.random.Philox(0)
        self._generator = np.random.Generator(self._bits)
        self._fresh_bits: Any = self._bits.state
        self._derive(self._every_slot)
        self._last_obs = self.observe(self._whole)
        self._position = self.position(self._whole)
        self._spec = self._describe()
        self._trials = Trials(self, num_threads)

    # Equations of a task

    @abstractmethod
    def observe(self, frame: Frame) -> Floats:
        """Return the observations (n, D) in a new array."""

    @abstractmethod
    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        """Return the reward (n,) of a step, and whether it ended the task: terminated (n,).

        Args:
            frame: the slots after the step.
            actions: (n, A).
            before: `position` as it was at the end of the step before, or after the reset.
            after: `position` now.
            terms: where not None, the reward terms are put into it by the names of Gymnasium's `info`.
        """

    def begin(self, generator: np.random.Generator, qpos: Floats, qvel: Floats) -> None:
        """Write one slot's initial positions (nq,) and velocities (nv,), which hold the model's defaults.

        By default both get noise of scale `reset_noise_scale`, uniform but for `normal_velocities`.
        """
        noise = self.options.reset_noise_scale
        qpos += generator.uniform(-noise, noise, qpos.size)
        qvel += (
            noise * generator.standard_normal(qvel.size)
            if self.normal_velocities
            else generator.uniform(-noise, noise, qvel.size)
        )

    def position(self, frame: Frame) -> Floats:
        """Return the position that a step's progress is measured by, in a new array (n, k); k = 0 where none is."""
        return np.empty((len(frame.phase), 0))

    @property
    def alive_bonus(self) -> float:
        """Reward a step paid for not having failed alone."""
        return 0.0

    def prepare(self) -> None:  # noqa: B027 - most tasks have nothing to derive
        """Derive constants from options and model; called before the simulations are built."""

    # HostEnv

    @property
    def spec(self) -> EnvSpec:
        return self._spec

    @property
    def num_slots(self) -> int:
        return self._num_slots

    def reset(self, keys: np.ndarray, slots: np.ndarray | None = None) -> Floats:
        chosen = self._every_slot if slots is None else self._subset(slots)
        return self._start(self._every_slot if chosen is None else chosen, keys)

    def step(self, actions: np.ndarray, slots: np.ndarray | None = None, reset_keys: np.ndarray | None = None) -> Step:
        chosen = None if slots is None else self._subset(slots)
        actions = np.asarray(actions, np.float64)
        count = self._num_slots if chosen is None else len(chosen)
        if actions.shape != (count, self.model.nu):
            raise ValueError(
                f"{self.task}.step expects actions of shape {(count, self.model.nu)}, got {actions.shape}."
            )
        rows = slice(None) if chosen is None else chosen

        self._ctrl[rows] = actions
        errors = self._advance(chosen)
        frame = self._whole if chosen is None else self._whole.rows(chosen)
        terms: Terms | None = {} if self.with_measures else None
        with np.errstate(invalid="ignore", over="ignore"):
            next_obs = self.observe(frame)
            after = self.position(frame)
            reward, terminated = self.judge(frame, actions, self._position[rows], after, terms)
            total = actions.sum() + next_obs.sum() + reward.sum()
        self._position[rows] = after
        self._elapsed[rows] += 1
        truncated = self._out_of_time(rows, count)

        failed = np.zeros(count, np.bool_)
        if errors or not math.isfinite(total) or self._broken.any():
            slot_of_row = self._every_slot if chosen is None else chosen
            for row, reason in self._failures(slot_of_row, actions, next_obs, reward, errors).items():
                slot = slot_of_row[row]
                self._reasons[slot] = reason
                failed[row], truncated[row], terminated[row], reward[row] = True, True, False, 0.0
                next_obs[row] = self._last_obs[slot]
                for term in (terms or {}).values():
                    term[row] = 0.0
        self._last_obs[rows] = next_obs

        obs = next_obs
        if reset_keys is not None:
            ended = np.flatnonzero(terminated | truncated)
            if len(ended):
                obs = next_obs.copy()
                obs[ended] = self._start(ended if chosen is None else chosen[ended], reset_keys[ended])
        return Step(obs, reward, terminated, truncated, next_obs, {"failed": failed, **(terms or {})})

    def snapshot(self) -> dict[str, np.ndarray]:
        """Copy all that the next steps depend on, by name; `identity` tells which task it is of."""
        return {
            "identity": np.frombuffer(self._identity().encode(), np.uint8).copy(),
            "state": self._simulations.state.copy(),
            "elapsed": self._elapsed.copy(),
            "position": self._position.copy(),
            "last_obs": self._last_obs.copy(),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Restore a snapshot; the steps that follow have the same bits as those that followed it.

        Raises:
            UsageError: the arrays are not a snapshot of this task with these options and as many slots.
        """
        identity = bytes(np.asarray(arrays.get("identity", ()), np.uint8)).decode(errors="replace")
        if identity != self._identity():
            raise UsageError(f"{self.task}.restore expects a snapshot of {self._identity()}, got one of {identity!r}.")
        own = {
            "state": self._simulations.state,
            "elapsed": self._elapsed,
            "position": self._position,
            "last_obs": self._last_obs,
        }
        for name, array in own.items():
            given = arrays.get(name)
            if given is None or given.shape != array.shape or given.dtype != array.dtype:
                got = "nothing" if given is None else f"{given.dtype} {given.shape}"
                raise UsageError(f"{self.task}.restore expects {name} as {array.dtype} {array.shape}, got {got}.")
        self._simulations.reset(stage=_NO_STAGE)  # clears the warning counters of the slots' former lives
        for name, array in own.items():
            array[...] = arrays[name]

    # Simulator

    def states(self, slots: np.ndarray | None = None) -> Floats:
        """Copy the slots' integration states and positions, side by side."""
        rows = self._every_slot if slots is None else slots
        return np.hstack([self._simulations.state[rows], self._position[rows].reshape(len(rows), -1)])

    def put_states(self, states: Floats, slots: NDArray[np.intp]) -> None:
        """Put slots into states that `states` gave, their clocks at zero."""
        size = self._simulations.state.shape[1]
        if self._simulations.warning[slots].any():  # of the slots' former lives
            self._simulations.reset(np.sort(slots), stage=_NO_STAGE)
        self._simulations.state[slots] = states[:, :size]
        self._position[slots] = states[:, size:].reshape(len(slots), *self._position.shape[1:])
        self._elapsed[slots] = 0

    def positions_at(self, slots: NDArray[np.intp]) -> Floats:
        """Return what `position` is at the start of an episode in the slots' states, a row each."""
        self._derive(slots)
        return self.position(self._whole.rows(slots)).reshape(len(slots), -1)

    def rollout(
        self, states: Floats, plans: Floats, keys: np.ndarray | None = None, *, observed: bool = False
    ) -> Tried:
        """Try plans in copies of the task; see `workhorse.environments.protocol.Simulator`. No step draws noise."""
        return self._trials.run(states, np.asarray(plans, np.float64), observed)

    def physics(self, states: Floats) -> Floats:
        """Return qpos and qvel of each row, (n, nq + nv)."""
        return states[:, 1 : 1 + self.model.nq + self.model.nv].copy()

    def with_physics(self, states: Floats, physics: Floats) -> Floats:
        """Return rows with other qpos and qvel, and the position that progress is measured by moved along."""
        changed = np.array(np.broadcast_to(states, (len(physics), states.shape[1])))
        changed[:, 1 : 1 + self.model.nq + self.model.nv] = physics
        if self._position.size:
            changed[:, self._simulations.state.shape[1] :] = self._trials.positions(changed)
        return changed

    def close(self) -> None:
        """Free the simulations; every later call but `spec` raises RuntimeError."""
        self._trials.close()
        if isinstance(self._simulations, ContactBatch):
            self._simulations.close()
        # the arrays may now lie in freed memory, so none is kept
        self._simulations = self._ctrl = self._whole = self._broken = _Closed(self.task)

    # Beyond HostEnv

    def failure_reason(self, slot: int) -> str:
        """Return why `slot` last failed, in a few words; empty where it never did."""
        return self._reasons[slot]

    def mujoco_state(self, slot: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Return one slot as MuJoCo's own objects, all derived quantities computed, ready for a renderer."""
        data = mujoco.MjData(self.model)
        mujoco.mj_setState(self.model, data, self._simulations.state[slot], mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, data)
        return self.model, data

    # Inside

    def _subset(self, slots: ArrayLike) -> NDArray[np.intp] | None:
        """Return `slots` as checked numbers; None where they are all slots in their order."""
        chosen = np.asarray(slots)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise ValueError(f"{self.task}: slots must be a vector of integers, got {chosen.dtype} {chosen.shape}.")
        chosen = chosen.astype(np.intp, copy=False)
        if len(chosen) == self._num_slots and (chosen == self._every_slot).all():
            return None
        ordered = np.sort(chosen)
        if len(chosen) and (ordered[0] < 0 or ordered[-1] >= self._num_slots or (ordered[1:] == ordered[:-1]).any()):
            raise ValueError(f"{self.task}: slots must be distinct and below {self._num_slots}, got {chosen.tolist()}.")
        return chosen

    def _advance(self, chosen: NDArray[np.intp] | None) -> dict[int, str]:
        """Step the simulations; return the message of each slot whose simulator raised."""
        try:
            self._simulations.step(None if chosen is None else np.sort(chosen), self.options.frame_skip)
        except SimulationError as raised:
            return {int(slot): self._simulations.error(int(slot)) for slot in raised.ids}
        return {}

    def _out_of_time(self, rows: slice | NDArray[np.intp], count: int) -> Flags:
        if self.options.max_episode_steps is None:
            return np.zeros(count, np.bool_)
        return self._elapsed[rows] >= self.options.max_episode_steps

    def _failures(
        self, slots: NDArray[np.intp], actions: Floats, next_obs: Floats, reward: Floats, errors: dict[int, str]
    ) -> dict[int, str]:
        """Return the rows that failed, each with the reason that is nearest to the cause."""
        reasons: dict[int, str] = {}
        for reason, flags in (
            ("an action was NaN or infinite", ~np.isfinite(actions).all(axis=1)),
            *zip(_BROKEN.values(), (self._broken[slots] > 0).T, strict=True),
            ("an observation was NaN or infinite", ~np.isfinite(next_obs).all(axis=1)),
            ("the reward was NaN or infinite", ~np.isfinite(reward)),
        ):
            for row in np.flatnonzero(flags):
                reasons.setdefault(int(row), reason)
        for row, slot in enumerate(slots):
            if int(slot) in errors:
                reasons[row] = f"MuJoCo raised: {errors[int(slot)]}"
        return reasons

    def _start(self, slots: NDArray[np.intp], keys: np.ndarray) -> Floats:
        """Begin an episode in each of `slots`; return their observations."""
        keys = np.asarray(keys, np.uint64)
        if keys.shape != (len(slots), 2):
            raise ValueError(f"{self.task}: reset expects keys of shape {(len(slots), 2)}, got {keys.shape}.")
        ids = np.sort(slots)
        if isinstance(self._simulations, ContactBatch) or self._simulations.warning[slots].any():
            self._simulations.reset(ids, stage=_NO_STAGE)
        else:  # a plain batch's simulation is its row, so writing it spares a round of the threads, 0.1 ms
            self._simulations.state[slots] = self._default_row
        nq = self.model.nq
        phase = self._whole.phase[slots]
        for row, key in enumerate(keys):
            self.begin(self._generator_of(key), phase[row, :nq], phase[row, nq:])
        self._whole.phase[slots] = phase
        self._derive(ids)
        frame = self._whole.rows(slots)
        obs = self.observe(frame)
        self._position[slots] = self.position(frame)
        self._last_obs[slots] = obs
        self._elapsed[slots] = 0
        return obs

    def _derive(self, ids: NDArray[np.intp]) -> None:
        """Run mj_forward where an episode begins. Its errors are the model's: another episode would have them too."""
        try:
            self._simulations.forward(ids)
        except SimulationError as raised:
            slot = int(raised.ids[0])
            message = " ".join(self._simulations.error(slot).split())  # it comes in several lines
            raise UsageError(
                f"{self.task}: MuJoCo raised where slot {slot} began an episode: {message}; "
                f"mend the model {self.options.xml_file!r} or the options of its reset."
            ) from raised

    def _generator_of(self, key: np.ndarray) -> np.random.Generator:
        """Return `core.addresses.host_generator(key)`, by re-keying one generator: 3 us instead of 13 us a reset."""
        self._fresh_bits["state"]["key"] = key
        self._bits.state = self._fresh_bits
        return self._generator

    def _bind_frame(self) -> Frame:
        nq, nv = self.model.nq, self.model.nv
        phase = self._simulations.state[:, 1 : 1 + nq + nv]  # a row is time, qpos, qvel, ...
        arrays = {"phase": phase}
        for name in self.fields:
            array = self._simulations.bind(name)
            arrays[name] = array.reshape(self._num_slots, -1) if name in SIDE_BY_SIDE else array
        return Frame(arrays)

    def _describe(self) -> EnvSpec:
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        return EnvSpec(
            task=self.task,
            observation=Box.unbounded(self._last_obs.shape[1]),
            action=Box.of(low, high),
            max_episode_steps=self.options.max_episode_steps,
            step_seconds=self.step_seconds,
            alive_bonus=self.alive_bonus,
            resume="exact",
            options=changed_options(self.options),
        )

    def _identity(self) -> str:
        return f"{self.task} {json.dumps(dataclasses.asdict(self.options), sort_keys=True)}"

    def _check_model(self) -> None:
        nq, nv = self.least_sizes
        names = {self.model.body(index).name for index in range(self.model.nbody)}
        missing = [name for name in self.bodies if name not in names]
        if self.model.nq < nq or self.model.nv < nv or missing:
            raise UsageError(
                f"{self.task}.xml_file must have nq >= {nq}, nv >= {nv} and the bodies {list(self.bodies)}, got nq = "
                f"{self.model.nq}, nv = {self.model.nv} and no body {missing} in {self.options.xml_file!r}."
            )


class _Closed:
    """Placeholder of the simulations and their arrays after `close`."""

    def __init__(self, task: str) -> None:
        self._task = task

    def _refuse(self, *_: Any) -> NoReturn:
        raise RuntimeError(f"This {self._task} is closed; make another.")

    __getattr__ = __getitem__ = __setitem__ = _refuse


def _check_counts(task: str, num_slots: int, num_threads: int) -> None:
    for name, value, least in (("num_slots", num_slots, 1), ("num_threads", num_threads, 0)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise UsageError(f"{task}.{name} must be an integer of at least {least}, got {value!r}.")
