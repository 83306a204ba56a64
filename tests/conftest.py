"""What every test needs: a screenless OpenGL, one way to set JAX up, and checked shapes."""

import os
import sys

from jaxtyping import install_import_hook

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is first imported; says nothing where there is a screen

# Signatures' shapes and types are checked at every call while the tests run. The hook works on modules imported after
# it, so it comes before the first import of the package.
install_import_hook(["workhorse.core", "workhorse.math", "workhorse.networks"], "beartype.beartype")

from workhorse.core import numerics  # noqa: E402, F401
