"""`workhorse COMMAND ...`: find the command, run it, turn errors into sentences and exit codes.

Exit codes: 0 done; 2 the input cannot be used (one sentence on standard error); 130 stopped by Ctrl-C or SIGTERM;
141 stopped because nobody reads what it prints, as by `| head`; 1 an internal error, with its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import workhorse
from workhorse.core.errors import UsageError, unknown

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train a policy on a task, with the best recipe known or your own settings",
    "resume": "go on with a run that was stopped, killed or finished",
    "evaluate": "measure a run's policy on fresh noiseless episodes",
    "video": "render an episode of a run's policy to a file",
    "export": "write a run's policy as ONNX, for programs without Workhorse",
    "study": "train many seeds, and say how often it works, how good it is and what it costs",
    "compare": "compare two studies, and say whether one is better",
    "report": "write the page of a run or a study",
    "diagnose": "measure what a policy gradient assumes: its estimates, value function, trust region and surrogate",
    "warnings": "say what a run is warned of, explain a warning, or list those of a run",
    "replay": "run an iteration of a run again, and prove that it is the same",
    "bisect": "find where two runs part, and in what",
    "fork": "go on from an iteration of a run under a change, beside runs without it",
    "tasks": "list the tasks",
    "algorithms": "list the algorithms, or the options of one",
    "runs": "list the runs in a folder",
    "cost": "price a run's core-hours, or project it to another number of cores",
    "worker": "give this machine's cores to a cluster",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    is_program = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        print(f"workhorse {workhorse.__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    try:
        if command not in COMMANDS:
            raise unknown("command", command, list(COMMANDS), "workhorse --help")
        module = importlib.import_module(f"workhorse.cli.{command}")
        code = module.run(rest) or 0
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"workhorse {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if is_program and "ray" not in sys.modules:
            _end(130)  # compiled programs may still run in threads, and the interpreter's end would pull them down
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            _drop_output()
            print(f"workhorse {command}: standard output cannot be written: its disk is full.", file=sys.stderr)
            return 2
        traceback.print_exc()
        where = getattr(error, "run_folder", None)
        place = f" The run folder is {where}; its last checkpoint is whole." if where else ""
        print(f"workhorse {command}: internal error, not yours to mend.{place}", file=sys.stderr)
        return 1


def _end(code: int) -> NoReturn:
    """End the process at once."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _drop_output() -> None:
    """What is still to be printed goes nowhere, so that the interpreter does not stumble over it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "Workhorse: reinforcement learning that works where it can, and says so where it cannot.",
        "",
        "usage: workhorse COMMAND ...   (workhorse COMMAND --help for its options)",
        "",
        *(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()),
        "",
        "  workhorse train HalfCheetah-v5",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
