"""Answers to what users of other libraries type: their options and commands, in ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from workhorse.algorithms import registry
from workhorse.algorithms.other_names import NOTES, our_name
from workhorse.environments.registry import TASKS

__all__ = ["COMMAND_WORDS", "OTHER_WAYS", "flag_hint", "word_hint"]

_PROCESSORS = (
    "simulation and learning run on this machine's processor, on every core; there is no other device to choose. "
    "Leave it out."
)
_AFTERWARDS = "it is a command of its own, after training: `workhorse"
OTHER_WAYS: Mapping[Sequence[str], str] = {
    ("device", "cuda", "gpu", "gpus", "use-gpu", "num-gpus", "cuda-deterministic", "torch-deterministic"): _PROCESSORS,
    ("env", "env-id", "env-name", "environment", "gym-id", "task"): (
        "the task stands alone, without an option: `workhorse train TASK`."
    ),
    ("capture-video", "save-video", "video", "record", "render", "render-mode"): f"{_AFTERWARDS} video RUN`.",
    ("resume", "checkpoint", "load", "load-path", "trained-agent", "restore"): (
        "a run is continued by `workhorse resume RUN`."
    ),
    ("verbose", "v", "progress", "progress-bar", "verbosity"): (
        "progress is shown anyway; --quiet leaves only the result. Leave it out."
    ),
    ("deterministic", "stochastic"): (
        "an evaluation is without noise, and equal seeds give identical runs anyway. Leave it out."
    ),
    ("optimize-memory-usage", "handle-timeout-termination"): (
        "the replay stores every observation once, and the true successor at a time limit. Leave it out."
    ),
    ("replay-buffer-class", "replay-buffer-kwargs"): (
        "the replay is sampled uniformly, or by priority with --prioritised of dqn. Leave it out."
    ),
    ("version",): "`workhorse --version` prints the version.",
}
"""What users ask for by an option elsewhere, and how it is done here."""

COMMAND_WORDS = {
    **dict.fromkeys(("eval", "test", "score"), "evaluate"),
    **dict.fromkeys(("enjoy", "play", "watch", "render", "record", "film"), "video"),
    **dict.fromkeys(("continue", "restart", "restore"), "resume"),
    **dict.fromkeys(("plot", "plots", "html", "dashboard", "page"), "report"),
    **dict.fromkeys(("sweep", "tune", "benchmark", "seeds", "experiment"), "study"),
    **dict.fromkeys(("list", "envs", "environments", "env", "task"), "tasks"),
    **dict.fromkeys(("ls", "ps", "status"), "runs"),
    **dict.fromkeys(("algos", "agents", "algorithm"), "algorithms"),
    **dict.fromkeys(("run", "learn", "fit", "start"), "train"),
    **dict.fromkeys(("price", "money", "hours"), "cost"),
}
"""Commands by the names they have elsewhere."""


def flag_hint(word: str, flags: Sequence[str]) -> str | None:
    """Return a sentence about an option that a command does not have: what it is called here, or how it is done.

    Example:
        >>> print(flag_hint("--lr", ["--learning-rate"]))
        Unknown option --lr: here it is --learning-rate.
        >>> print(flag_hint("--target_kl=.02", ["--algorithm", "--noise-std"]))
        Unknown option --target_kl: here it is --max-kl, an option of trpo and trpo+: add --algorithm trpo.
    """
    given = word.partition("=")[0]
    name = given.lstrip("-").replace("_", "-").lower()
    for names, way in OTHER_WAYS.items():
        if name in names:
            return f"Unknown option {given}: {way}"
    there = {flag.removeprefix("--").replace("-", "_") for flag in flags}
    ours = (our_name(name, there) or name).replace("_", "-")
    note = f", which {NOTES[name]}" if name in NOTES else ""
    if ours != name and f"--{ours}" in flags:
        return f"Unknown option {given}: here it is --{ours}{note}."
    having = [row for row in registry.entries() if ours.replace("-", "_") in registry.options(row)]
    if having and "--algorithm" in flags:
        here = f"here it is --{ours}, an option" if ours != name else "it is an option"
        first = next((row for row in ("ppo", "sac") if row in having), having[0])
        return f"Unknown option {given}: {here} of {_listed(having)}: add --algorithm {first}."
    return None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def word_hint(word: str) -> str:
    """Return a sentence about a word where an option was expected.

    Example:
        >>> print(word_hint("ppo"))
        Expected an option, got the word 'ppo': to choose that algorithm, write --algorithm ppo.
    """
    if word in registry.entries():
        return f"Expected an option, got the word {word!r}: to choose that algorithm, write --algorithm {word}."
    if word in TASKS:
        return (
            f"Expected an option, got the word {word!r}: a run has one task, which comes first, as in "
            f"`workhorse train {word} --algorithm NAME`."
        )
    if re.fullmatch(r"[a-z_]+=.*", word):
        name, _, value = word.partition("=")
        return (
            f"Expected an option, got the word {word!r}: write --{name.replace('_', '-')} {value}, or --task-option "
            f"{word} for an option of the task."
        )
    return f"Expected an option, got the word {word!r}."
