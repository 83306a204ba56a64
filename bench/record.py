"""The head of every result: the command that made it, the day, the machine and the versions."""

import time
from typing import Any

from workhorse.core.machine import describe_hardware, installed_versions


def head(made_by: str) -> dict[str, Any]:
    """Fields that each file of `results/` begins with; `made_by` is the command without the folder of the runs."""
    hardware = describe_hardware()
    return {
        "made_by": made_by,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu": hardware.cpu, "cores": hardware.cores},
        "versions": installed_versions(),
    }
