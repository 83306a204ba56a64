"""A batch that also computes contact forces (`cfrc_ext`), which `mujoco.batch.Batch` cannot be asked for.

Gymnasium calls `mj_rnePostConstraint` after the last `mj_step` of an environment step; that call alone fills
`cfrc_ext`, and the Python class offers no way to make it on the batch's threads. MuJoCo's documented C interface does
(`mujoco/mjbatch.h`): `mjb_apply` runs a C function on every simulation. So this class speaks to it through ctypes.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco's compiled names have no stubs)
import ctypes
import functools
import glob
import os
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_double, c_int, c_void_p
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import SimulationError
from numpy.typing import ArrayLike, NDArray

__all__ = ["ContactBatch"]

_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)
_FORWARD = int(mujoco.mjtStage.mjSTAGE_ACC)
_ERROR_BYTES = 1000
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "mjb_makeBatch": (c_void_p, [c_void_p, c_int, c_void_p, c_char_p, c_int]),
    "mjb_deleteBatch": (None, [c_void_p]),
    "mjb_nstate": (c_int, [c_void_p]),
    "mjb_state": (POINTER(c_double), [c_void_p]),
    "mjb_stateComponent": (POINTER(c_double), [c_void_p, c_int, POINTER(c_int)]),
    "mjb_warning": (POINTER(c_int), [c_void_p]),
    "mjb_step": (c_int, [c_void_p, c_void_p, c_int, c_int, c_int]),
    "mjb_forward": (c_int, [c_void_p, c_void_p, c_int, c_int]),
    "mjb_reset": (c_int, [c_void_p, c_void_p, c_int, c_void_p, c_int]),
    "mjb_status": (POINTER(c_int), [c_void_p]),
    "mjb_error": (c_char_p, [c_void_p, c_int]),
    "mjb_output": (c_void_p, [c_void_p, c_char_p, POINTER(c_int), POINTER(c_int)]),
    "mjb_apply": (c_int, [c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_int]),
    "mjb_expand": (c_void_p, [c_void_p, c_char_p, POINTER(c_int), POINTER(c_int)]),
    "mjb_setConst": (c_int, [c_void_p, c_void_p, c_int]),
}


class _Config(ctypes.Structure):
    """mjBatchConfig."""

    _fields_ = [("nthread", c_int), ("persistent", c_bool)]


class ContactBatch:
    """`num_sims` simulations on `num_threads` threads (0: one a core), `cfrc_ext` up to date after every step.

    The part of `mujoco.batch.Batch` that the tasks use, with the same meaning: `state` and `warning` are live arrays,
    `bind` gives live arrays of MjData's fields, and a call in which simulations fail raises
    `mujoco.batch.SimulationError` after the others ran. It keeps one MjData a simulation, so memory grows with
    `num_sims` (about 0.5 MB a Humanoid). Arrays it handed out must not be read after `close`.

    Args:
        model: copied.
        num_sims: at least 1.
        num_threads: threads, the caller's among them.

    Raises:
        RuntimeError: the installed MuJoCo lacks the interface, or cannot build the batch.
    """

    def __init__(self, model: mujoco.MjModel, num_sims: int, num_threads: int = 0) -> None:
        self._handle: int | None = None
        self._library = _library()
        message = ctypes.create_string_buffer(_ERROR_BYTES)
        config = _Config(num_threads, True)
        self._handle = self._library.mjb_makeBatch(
            model._address, num_sims, ctypes.addressof(config), message, _ERROR_BYTES
        )
        if not self._handle:
            raise RuntimeError(f"MuJoCo cannot make a batch of {num_sims} simulations: {message.value.decode()}")
        self._template = mujoco.MjData(model)
        self._model = model
        self._num_sims = num_sims
        self._errors: dict[int, str] = {}
        self._outputs: dict[str, np.ndarray] = {}
        self._expanded: dict[str, np.ndarray] = {}
        self._post_constraint = ctypes.cast(self._library.mj_rnePostConstraint, c_void_p)
        rows = self._library.mjb_nstate(self._handle)
        kinds = int(mujoco.mjtWarning.mjNWARNING)
        self.state = np.ctypeslib.as_array(self._library.mjb_state(self._handle), (num_sims, rows))
        self.warning = np.ctypeslib.as_array(self._library.mjb_warning(self._handle), (num_sims, kinds, 2))

    def bind(self, name: str) -> np.ndarray:
        """Return a live (num_sims, ...) array: `ctrl`, a view of the state rows, or a float64 field MuJoCo computes."""
        if name == "ctrl":
            size = c_int()
            kind = int(mujoco.mjtState.mjSTATE_CTRL)
            first = self._library.mjb_stateComponent(self._handle, kind, ctypes.byref(size))
            start = (ctypes.addressof(first.contents) - self.state.ctypes.data) // self.state.itemsize
            return self.state[:, start : start + size.value]
        if name not in self._outputs:
            array = self._live(
                self._library.mjb_output, name, getattr(self._template, name, ()), "MjData that a batch can bind"
            )
            array.flags.writeable = False
            self._outputs[name] = array
        return self._outputs[name]

    def expand(self, name: str) -> np.ndarray:
        """Give a float64 field of the model, "body_mass" or "opt.gravity", values of each simulation's own.

        Returns:
            The live (num_sims, ...) array of them, at first the model's. Call `set_const` after writing masses.
        """
        if not self._handle:
            raise RuntimeError("The batch is closed.")
        if name not in self._expanded:
            holder, _, attribute = name.rpartition(".")
            own = getattr(self._model.opt if holder else self._model, attribute, ())
            self._expanded[name] = self._live(self._library.mjb_expand, name, own, "MjModel that a batch can expand")
        return self._expanded[name]

    def _live(self, find: Callable[..., int | None], name: str, one: ArrayLike, words: str) -> np.ndarray:
        """Return the (num_sims, ...) array that MuJoCo keeps under a name, where it is float64 and fits one of them."""
        size, item_bytes = c_int(), c_int()
        address = find(self._handle, name.encode(), ctypes.byref(size), ctypes.byref(item_bytes))
        shape = (self._num_sims, *np.shape(one))
        if not address or item_bytes.value != 8 or size.value * self._num_sims != np.prod(shape):
            raise ValueError(f"{name} is not a float64 field of {words}.")
        return np.ctypeslib.as_array(ctypes.cast(address, POINTER(c_double)), shape)

    def set_const(self, ids: NDArray[np.integer] | None = None) -> None:
        """mj_setConst on the model of each of `ids` (sorted; all where None): what follows from the masses."""
        address, count, kept = self._ids(ids)
        if self._library.mjb_setConst(self._handle, address, count):
            self._raise(self._collect(kept))

    def step(self, ids: NDArray[np.integer] | None = None, nstep: int = 1, stage: int = _NO_STAGE) -> None:
        """`nstep` calls of mj_step, then one of mj_rnePostConstraint, in each of `ids` (sorted; all where None)."""
        address, count, kept = self._ids(ids)
        failed = self._library.mjb_step(self._handle, address, count, nstep, stage)
        errors = self._collect(kept) if failed else {}
        if errors:  # a simulation that raised is left as it is
            ran = [sim for sim in (range(self._num_sims) if kept is None else kept.tolist()) if sim not in errors]
            address, count, kept = self._ids(np.array(ran, np.int32))
        if count:
            if self._library.mjb_apply(self._handle, address, count, self._post_constraint, None, 0):
                errors |= self._collect(kept)
            # mjb_apply leaves the bound arrays alone; a forward that computes nothing copies them out
            self._library.mjb_forward(self._handle, address, count, _NO_STAGE)
        self._raise(errors)

    def forward(self, ids: NDArray[np.integer] | None = None, stage: int = _FORWARD) -> None:
        """Compute the forward stages up to `stage`, by default mj_forward."""
        address, count, kept = self._ids(ids)
        if self._library.mjb_forward(self._handle, address, count, stage):
            self._raise(self._collect(kept))

    def reset(self, ids: NDArray[np.integer] | None = None, *, stage: int = _FORWARD) -> None:
        """mj_resetData, then the forward stages up to `stage`."""
        address, count, kept = self._ids(ids)
        if self._library.mjb_reset(self._handle, address, count, None, stage):
            self._raise(self._collect(kept))

    def error(self, sim: int) -> str:
        """Return the message of simulation `sim` in the last call that failed, or ''."""
        return self._errors.get(sim, "")

    def close(self) -> None:
        """Free the simulations and their threads."""
        if self._handle:
            self._library.mjb_deleteBatch(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()

    def _ids(self, ids: NDArray[np.integer] | None) -> tuple[int | None, int, NDArray[np.int32] | None]:
        """Address and number of the ids, and the array that must outlive the call."""
        if not self._handle:
            raise RuntimeError("The batch is closed.")
        if ids is None:
            return None, self._num_sims, None
        kept = np.ascontiguousarray(ids, np.int32)
        return kept.ctypes.data, len(kept), kept

    def _collect(self, ids: NDArray[np.int32] | None) -> dict[int, str]:
        """Messages of the simulations of the last call that failed."""
        status = np.ctypeslib.as_array(self._library.mjb_status(self._handle), (self._num_sims,))
        sims = np.arange(self._num_sims) if ids is None else ids
        return {
            int(sim): self._library.mjb_error(self._handle, int(sim)).decode(errors="replace")
            for sim in sims[status[sims] != 0]
        }

    def _raise(self, errors: dict[int, str]) -> None:
        self._errors = errors
        if errors:
            ids = np.array(sorted(errors), np.int32)
            raise SimulationError(ids, errors[int(ids[0])])


@functools.cache
def _library() -> Any:
    """Return the shared library that the mujoco package has loaded, with its signatures declared."""
    folder = os.path.dirname(mujoco.__file__)
    found = [
        path
        for pattern in ("libmujoco.so*", "libmujoco*.dylib", "mujoco.dll")
        for path in glob.glob(os.path.join(folder, pattern))
    ]
    if not found:
        raise RuntimeError(f"Contact forces need MuJoCo's shared library, and {folder} has none; reinstall mujoco.")
    library = ctypes.CDLL(found[0])
    missing = [name for name in (*_SIGNATURES, "mj_rnePostConstraint") if not hasattr(library, name)]
    if missing:
        raise RuntimeError(
            f"Contact forces need MuJoCo 4's batch interface, and MuJoCo {mujoco.mj_versionString()} lacks "
            f"{', '.join(missing)}; install mujoco >= 4."
        )
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
