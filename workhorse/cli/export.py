"""`workhorse export RUN | POLICY --to onnx`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from workhorse.cli.options import parse
from workhorse.cli.places import RunPath

__all__ = ["run"]


@dataclasses.dataclass
class ExportOptions:
    """Write a run's newest policy for other programs to run."""

    folder: tyro.conf.Positional[RunPath]
    """A run folder, as in runs/<id>, or a policy folder."""
    to: Literal["onnx"]
    """The format to write."""
    output: str | None = None
    """The file to write; by default policy.onnx, beside the policy folder."""


def run(arguments: Sequence[str]) -> int:
    """Write a policy in another format; returns the exit code."""
    options = parse(ExportOptions, arguments)
    from workhorse.core.errors import UsageError
    from workhorse.core.files import write_file, writing
    from workhorse.runs.onnx_model import onnx_bytes
    from workhorse.runs.policy import Policy
    from workhorse.runs.policy_files import policy_folder

    folder = policy_folder(Path(options.folder))
    policy = Policy.load(folder)
    target = Path(options.output) if options.output else folder.absolute().with_name(f"{folder.absolute().name}.onnx")
    if target.is_dir():
        raise UsageError(f"--output must be a file to write, got the folder {target}: name a file in it.")
    model = onnx_bytes(policy)
    with writing("the model", target):
        write_file(target, model)
    print(f"{target}  {len(model) / 1000:.1f} kB, the policy of {policy.task}")
    return 0
