"""Programs that are compiled for one small test."""

import functools

import jax

quickly_compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)
"""`jax.jit` that compiles in half the time to a slower program.

For tests that compute little. Not for those that ask for equal bits of two programs: these need what users run.
"""
