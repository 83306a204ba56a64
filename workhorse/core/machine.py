"""The machine a process is on, and the versions it computes with: what bits may depend on beside the code."""

import contextlib
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from workhorse.core.errors import UsageError

__all__ = ["Hardware", "available_cores", "describe_hardware", "installed_versions", "threads_or_cores"]

_PACKAGES = ("workhorse", "jax", "jaxlib", "mujoco", "gymnasium", "numpy", "optax", "equinox")
_INSTRUCTION_SETS = ("avx", "avx2", "fma", "avx512f", "amx_bf16", "asimd", "sve")


@dataclass(frozen=True)
class Hardware:
    """The machine a run is on. Instruction sets are listed because XLA and BLAS choose their sums by them.

    Attributes:
        cpu: the processor's name, "" where the system does not tell.
        cores: logical cores this process may use.
        memory_bytes: physical memory, 0 where the system does not tell.
        system: operating system and release.
        instruction_sets: those of avx, avx2, fma, avx512f, amx_bf16, asimd, sve that the processor has.
    """

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    instruction_sets: tuple[str, ...]


def available_cores() -> int:
    """Return the number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_or_cores(threads: int, what: str = "threads") -> int:
    """Return a number of threads or processes as it was given, or one for each core in place of 0.

    Args:
        threads: the number.
        what: threads, or cores, for the message.

    Raises:
        UsageError: it is below 0, or many times the cores: more than one a core makes nothing faster, and thousands
            take the memory of a machine.
    """
    cores = available_cores()
    most = max(64, 4 * cores)
    if not 0 <= threads <= most:
        there = "1 core" if cores == 1 else f"{cores:,} cores"
        raise UsageError(
            f"The number of {what} must be at least 1 and at most {most:,} on this machine of {there}, or 0 for one a "
            f"core: got {threads}. More than one a core makes nothing faster."
        )
    return threads or cores


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute, read from their metadata: nothing is imported."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    if "workhorse" not in versions:  # run from a checkout that was not installed
        versions["workhorse"] = sys.modules[__name__.partition(".")[0]].__version__
    return versions


def describe_hardware() -> Hardware:
    """The machine this process is on."""
    cpu, flags = platform.processor(), set[str]()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = (part.strip() for part in line.partition(":"))
            if name == "model name":
                cpu = value
            elif name in ("flags", "Features"):
                flags.update(value.split())
                break
    memory = 0
    with contextlib.suppress(OSError, ValueError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    present = tuple(name for name in _INSTRUCTION_SETS if name in flags)
    return Hardware(
        cpu, available_cores(), memory, f"{platform.system()} {platform.release()} {platform.machine()}", present
    )
