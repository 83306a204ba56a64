"""`workhorse COMMAND ...`: find the command, run it, and turn errors into sentences and exit codes.

Exit codes: 0 done; 2 invalid input (one sentence on standard error); 130 stopped by Ctrl-C or SIGTERM; 141 stopped
because its output was closed, as by `| head`; 1 an internal error, with its traceback.
"""

import contextlib
import errno
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import NoReturn

import workhorse
from workhorse.cli.hints import COMMAND_WORDS
from workhorse.core.errors import TaskError, UsageError, last_frames, unknown

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train a policy on a task, with the best known recipe or your own settings",
    "dataset": "make logs of episodes, check them, show them, convert them",
    "offline": "train a policy from a log of episodes alone, without an environment",
    "imitate": "train a policy from an expert: its answers, or demonstrations of it",
    "select": "choose among the policies of some runs by a log alone",
    "resume": "continue a run that was stopped, killed or finished",
    "evaluate": "evaluate a run's policy on new episodes, without noise",
    "video": "record an episode of a run's policy as a video",
    "export": "write a run's policy as ONNX, for programs without Workhorse",
    "study": "train many seeds and report success rate, return and cost",
    "compare": "compare two studies and test whether one is better",
    "report": "write the HTML report of a run or a study",
    "diagnose": "check the assumptions of a policy gradient: estimates, value function, trust region, surrogate",
    "warnings": "list and explain warnings, or show those of a run",
    "check": "check a task: what training on it would stumble over",
    "advise": "measure a task for a minute and forecast what will work on it, and at what price",
    "rivals": "run what is simpler than learning on a task, each with its whole price",
    "replay": "repeat an iteration of a run and check that it is identical",
    "bisect": "find the first difference between two runs",
    "fork": "continue a run from an iteration with a changed option, and compare",
    "tasks": "list the tasks",
    "algorithms": "list the algorithms, or the options of one",
    "runs": "list the runs in a folder",
    "cost": "compute the cost of a run, or estimate it for another number of cores",
    "seal": "renew the checksums of a folder whose files you have edited",
    "worker": "add this machine's cores to a cluster",
    "completion": "print a script that completes commands and options in bash, zsh or fish",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    is_program = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] in (["help"], ["-h"], ["--help"]):
        arguments = [*arguments[1:2], "--help"] if arguments[1:] else []
    if not arguments:
        print(_usage())
        return 0
    if arguments[0] in ("--version", "-V", "-v", "version"):
        print(f"workhorse {workhorse.__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    try:
        if command in COMMAND_WORDS:
            meant = COMMAND_WORDS[command]
            raise UsageError(f"Unknown command {command!r}: here it is `workhorse {meant}`, to {COMMANDS[meant]}.")
        if command not in COMMANDS:
            raise unknown("command", command, list(COMMANDS), "workhorse --help")
        module = importlib.import_module(f"workhorse.cli.{command}")
        code = module.run(rest) or 0
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"workhorse {command}: {_explained(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if is_program and "ray" not in sys.modules:
            _end(130)  # compiled programs may still run in threads, and crash if the interpreter shuts down
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
        place = f" The run folder is {where}; its last checkpoint is complete." if where else ""
        print(f"workhorse {command}: internal error; this is a bug in Workhorse.{place}", file=sys.stderr)
        return 1


def _explained(error: UsageError) -> str:
    """Return an error's sentence and its notes; what a task left behind without a run folder is kept in files."""
    if isinstance(error, TaskError) and not error.is_kept:
        if error.traceback:
            place = _kept("workhorse-traceback-", ".txt", f"{error.message}\n\n{error.traceback}")
            error.add_note(f"{last_frames(error.traceback)}\nThe whole traceback is in {place}.")
        if error.program:
            place = _kept("workhorse-episode-", ".py", error.program)
            error.add_note(f"`python {place}` plays this episode again, with Gymnasium alone.")
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def _kept(prefix: str, suffix: str, text: str) -> str:
    """Write a text into a new temporary file and return its name."""
    descriptor, name = tempfile.mkstemp(suffix, prefix)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return name


def _end(code: int) -> NoReturn:
    """End the process at once."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _drop_output() -> None:
    """Discard what is still to be printed, so that the interpreter does not fail on it when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "Workhorse: reliable RL training that reports how often it fails.",
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
