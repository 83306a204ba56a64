"""Set JAX up; imported by every module of the project that imports JAX.

64-bit types are on: returns, moments and the classic-control physics are float64 (parity with Gymnasium to 1e-9, and
ranks that a reward's scale cannot change), while networks say float32 themselves. Dispatch is synchronous: acting is
one small program a simulation step, and handing each to another thread cost more than it hid (measured on a loaded
two-core machine; see docs/benchmarks.md).

*A compiled program runs on one thread.* How XLA splits a sum over threads depends on their number, and so would the
bits of a result. And it splits programs of small networks into parts too small to be worth it: one update of PPO took
57 ms of two cores, and 41 ms on the clock, where one core alone needs 34. Cores are given to whole programs and to the
physics instead. A number of threads that the user has set is left as it is.
"""

import os

_FLAG = "--xla_cpu_multi_thread_eigen=false"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
os.environ.setdefault("PJRT_NPROC", "1")

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_cpu_enable_async_dispatch", False)
