"""What every test needs: a screenless OpenGL, one way to set JAX up, compiled programs, and checked shapes."""

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is first imported; says nothing where there is a screen

# All processes of the tests share the programs that they compile, and never those of the user: whatever was compiled
# before must not decide what a test finds. pytest-xdist's workers inherit the variable.
_compiled = None
if "WORKHORSE_COMPILE_CACHE" not in os.environ:
    _compiled = os.environ["WORKHORSE_COMPILE_CACHE"] = tempfile.mkdtemp(prefix="workhorse-tests-compiled-")

# Runs of the tests are not remembered among the user's own.
_state = None
if "WORKHORSE_TESTS_STATE" not in os.environ:
    _state = os.environ["WORKHORSE_TESTS_STATE"] = tempfile.mkdtemp(prefix="workhorse-tests-state-")
os.environ["XDG_STATE_HOME"] = os.environ["WORKHORSE_TESTS_STATE"]

# Signatures' shapes and types are checked at every call while the tests run. The hook works on modules imported after
# it, so it comes before the first import of the package.
install_import_hook(["workhorse.core", "workhorse.math", "workhorse.networks"], "beartype.beartype")

from workhorse.core import numerics  # noqa: E402, F401

MOST_MAPPINGS = 12_000
"""Linux gives a process 65,530; a compiled program takes about six, and beyond the limit XLA ends the process."""


COMPILED_QUICKLY = (
    *(f"tests/{name}/" for name in ("algorithms", "data", "diagnostics", "imitation", "math", "networks")),
    "tests/runs/test_policy_layers.py",
)
"""Tests whose programs are compiled with few optimisations: compiling takes most of their time."""


@pytest.fixture(autouse=True)
def compiled_quickly(request):
    """Compile in half the time to slower programs, where tests compute little.

    A test that asks for equal bits of what is compiled in two ways is marked `as_users_compile`: it needs the programs
    that users run.
    """
    import jax

    place = request.node.path.relative_to(request.config.rootpath).as_posix()
    quick = place.startswith(COMPILED_QUICKLY) and request.node.get_closest_marker("as_users_compile") is None
    if jax.config.read("jax_disable_most_optimizations") != quick:
        jax.config.update("jax_disable_most_optimizations", quick)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quick))  # and so do processes that a test starts
        jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """After a module, forget the compiled programs of this process where there are many."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        import jax

        jax.clear_caches()
        gc.collect()


def pytest_unconfigure():
    for made in (_compiled, _state):
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
