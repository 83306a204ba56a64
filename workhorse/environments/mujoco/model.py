"""Loading of a task's model, and the fields of MjData that a task's equations read."""

# pyright: reportAttributeAccessIssue=false
# (mujoco's compiled names have no stubs)
from __future__ import annotations

import threading
import warnings
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from workhorse.core.errors import UsageError
from workhorse.environments.mujoco.task_options import model_path

__all__ = ["SIDE_BY_SIDE", "Flags", "Floats", "Frame", "Judged", "Terms", "load_model"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Terms = dict[str, Any]
Judged = tuple[Floats, Flags]
"""Reward (n,) of a step, and where it ended the task, (n,)."""

SIDE_BY_SIDE = ("cinert", "cvel", "cfrc_ext")
"""Fields whose bodies a `Frame` has side by side."""

_LOADING = threading.Lock()
"""MuJoCo has one warning handler for the process, so threads that load models take turns."""


def load_model(task: str, xml_file: str) -> mujoco.MjModel:
    """Compile a task's model, without MuJoCo's note that Gymnasium's files use the deprecated `settotalmass`.

    Raises:
        UsageError: the file is not a model MuJoCo can compile.
    """
    heard: list[str] = []
    with _LOADING:
        former = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(heard.append)
        try:
            model = mujoco.MjModel.from_xml_path(model_path(xml_file))
        except ValueError as error:
            first, *_ = str(error).splitlines()
            raise UsageError(f"{task}.xml_file {xml_file!r} is not a model that MuJoCo compiles: {first}") from None
        finally:
            mujoco.set_mju_user_warning(former)
    for message in heard:
        if "settotalmass" in message:
            continue
        if former is not None:
            former(message)
        else:
            warnings.warn(f"{task}.xml_file {xml_file!r}: {message.strip()}", RuntimeWarning, stacklevel=2)
    return model


class Frame:
    """MjData's fields for n slots, leading axis n, by MuJoCo's names. A task's `fields` says which are there.

    `phase`, always there, is qpos and qvel side by side, (n, nq + nv): neighbours in a state row, so one view.
    `cinert`, `cvel` and `cfrc_ext` have their bodies side by side, (n, nbody * 10) and (n, nbody * 6).
    Where all slots step the arrays are live views that the next call overwrites: copy what is kept.
    """

    phase: Floats
    xpos: Floats
    xipos: Floats
    site_xpos: Floats
    cinert: Floats
    cvel: Floats
    qfrc_actuator: Floats
    qfrc_constraint: Floats
    cfrc_ext: Floats
    ten_length: Floats
    ten_velocity: Floats

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.__dict__.update(arrays)

    def rows(self, slots: NDArray[np.intp]) -> Frame:
        """Return the same fields for some of the slots, copied."""
        return Frame({name: array[slots] for name, array in self.__dict__.items()})
