"""Set JAX up; imported by every module of the project that imports JAX.

64-bit types are on: returns, moments and the classic-control physics are float64 (parity with Gymnasium to 1e-9, and
ranks that a reward's scale cannot change), while networks say float32 themselves. Dispatch is synchronous: acting is
one small program a simulation step, and handing each to another thread cost more than it hid (measured on a loaded
two-core machine; see docs/benchmarks.md).

*A compiled program runs on one thread.* How XLA splits a sum over threads depends on their number, and so would the
bits of a result. And it splits programs of small networks into parts too small to be worth it: one update of PPO took
57 ms of two cores, and 41 ms on the clock, where one core alone needs 34. Cores are given to whole programs and to the
physics instead. A number of threads that the user has set is left as it is.

*Compiled programs are kept* from one start to the next, in `compilation.compiled_folder()`. A folder that the user has
given to JAX is left as it is.
"""

import os
import sys
import warnings

_FLAG = "--xla_cpu_multi_thread_eigen=false"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
os.environ.setdefault("PJRT_NPROC", "1")
_jax_was_there = "jax" in sys.modules

import jax  # noqa: E402

from workhorse.core.compilation import compiled_folder, prune  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_cpu_enable_async_dispatch", False)


def _keep_programs() -> None:
    """Let JAX keep compiled programs on disk."""
    given = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if given is not None or (_jax_was_there and _has_begun()):
        return
    folder = compiled_folder()
    if folder is None:
        return
    prune(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs take time as well
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # else the folder's path is part of every key
    # A damaged entry is compiled anew, and a full disk keeps nothing: neither is worth a word.
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache entry")


def _has_begun() -> bool:
    """Tell whether JAX computes already, with a number of threads that is not known and decides the bits."""
    try:
        from jax._src.xla_bridge import backends_are_initialized
    except ImportError:
        return True
    return backends_are_initialized()


_keep_programs()
