"""What every test needs: a screenless OpenGL, one way to set JAX up, and checked shapes."""

import os
import sys

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import install_import_hook

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is first imported; says nothing where there is a screen

# Signatures' shapes and types are checked at every call while the tests run. The hook works on modules imported after
# it, so it comes before the first import of the package.
install_import_hook(["workhorse.core", "workhorse.math", "workhorse.networks"], "beartype.beartype")

from workhorse.core import numerics  # noqa: E402, F401


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Programs are compiled once for all tests of a module. Those that start processes compile anew in each."""
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes")
    former = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    for name, value in zip(former, (str(tmp_path_factory.mktemp("compiled")), 0, -1), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in former.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
