"""Answers to what users of other libraries type: their names of options, commands and tasks, in ours."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError, nearest, unknown
from workhorse.environments.registry import TASKS

__all__ = ["COMMAND_WORDS", "check_task", "flag_hint", "older_task", "word_hint"]

OTHER_NAMES: Mapping[str, Sequence[str]] = {
    "learning-rate": ("lr", "alpha", "step-size", "stepsize", "policy-lr", "pi-lr", "learning-rate-init"),
    "discount": ("gamma",),
    "trace": ("gae-lambda", "lambda", "lam", "gae-lam"),
    "rollout-steps": ("n-steps", "num-steps", "horizon", "steps-per-epoch", "rollout-length", "unroll-length"),
    "num-envs": ("n-envs", "num-environments", "n-env", "env-num"),
    "entropy-weight": ("ent-coef", "entropy-coef", "ent-weight", "entropy-cost"),
    "value-weight": ("vf-coef", "value-coef", "value-loss-coef", "vf-weight"),
    "gradient-clip": ("max-grad-norm", "grad-clip", "clip-grad", "max-gradient-norm"),
    "ratio-clip": ("clip-range", "clip-coef", "clip-ratio", "clip-epsilon", "eps-clip", "clip"),
    "value-clip": ("clip-range-vf", "clip-vloss", "clip-value"),
    "num-epochs": ("n-epochs", "update-epochs", "epochs", "k-epochs", "noptepochs"),
    "minibatch-size": ("batch-size", "mini-batch-size", "num-minibatches", "n-minibatches"),
    "max-kl": ("target-kl", "kl-target", "delta-kl"),
    "cg-iterations": ("cg-iters", "cg-max-steps"),
    "damping": ("cg-damping",),
    "value-epochs": ("n-critic-updates", "vf-iters"),
    "anneal-learning-rate": ("anneal-lr", "lr-schedule", "lr-decay"),
    "normalise-advantages": ("norm-adv", "normalize-advantage", "adv-norm"),
    "normalise-observations": ("normalize", "norm-obs", "normalize-obs", "obs-norm", "normalise"),
    "scale-rewards": ("norm-reward", "normalize-rewards", "reward-norm", "reward-scale"),
    "hidden": ("net-arch", "hidden-size", "hidden-sizes", "hidden-dim", "hid", "layers", "units"),
    "activation": ("activation-fn", "activation-function"),
    "noise-std": ("sigma", "delta-std", "noise", "noise-stdev", "nu"),
    "num-pairs": ("pop-size", "population-size", "population", "npop", "popsize"),
    "num-directions": ("n-delta", "n-directions", "num-deltas"),
    "num-top-directions": ("n-top", "top-directions", "deltas-used"),
    "env-steps": (
        *("total-timesteps", "timesteps", "n-timesteps", "num-timesteps", "total-steps", "max-steps", "steps"),
        *("num-env-steps", "frames", "num-frames"),
    ),
    "algorithm": ("algo", "alg", "agent", "method"),
    "seeds": ("num-seeds", "n-seeds", "n-runs", "num-runs"),
    "evaluate-every": ("eval-freq", "eval-every", "eval-interval", "evaluation-interval"),
    "evaluation-episodes": ("n-eval-episodes", "eval-episodes", "num-eval-episodes"),
    "threads": ("n-threads", "num-threads", "cpus", "num-cpus", "n-jobs", "jobs", "n-cpu"),
    "workers": ("num-workers", "n-workers"),
    "cluster": ("ray", "address"),
    "checkpoint-every-s": ("save-freq", "checkpoint-freq", "checkpoint-interval", "save-interval"),
    "runs": ("log-dir", "logdir", "log-folder", "save-path", "output-dir", "out-dir", "save-dir", "tensorboard-log"),
    "id": ("exp-name", "run-name", "run-id", "experiment", "experiment-name"),
    "task-option": ("env-kwargs", "env-args", "env-config", "task-options", "env-option"),
    "quiet": ("no-progress", "silent"),
    "episodes": ("n-episodes", "num-episodes"),
}
"""Our options, and the names under which Stable-Baselines3, CleanRL, Spinning Up and others know them."""

NOTES = {
    "num-minibatches": "counts steps: num_envs times rollout_steps over the number of minibatches",
    "n-minibatches": "counts steps: num_envs times rollout_steps over the number of minibatches",
    "eval-freq": "counts environment steps",
    "save-freq": "counts seconds",
    "checkpoint-freq": "counts seconds",
    "checkpoint-interval": "counts seconds",
    "save-interval": "counts seconds",
    "tensorboard-log": "is the folder of the runs, and each run writes for TensorBoard into its own",
    "env-kwargs": "takes one name=value and may be repeated",
    "net-arch": "takes the units of each layer, as in --hidden 64 64",
}
"""What is different about ours, where that is not only the name."""

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
    ("buffer-size", "learning-starts", "tau", "train-freq", "gradient-steps", "target-update-interval"): (
        "it belongs to off-policy algorithms, which Workhorse does not have; `workhorse algorithms` lists those it has."
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

PACKAGES = {
    "ALE": ("ale-py", "ale_py"),
    "MiniGrid": ("minigrid", "minigrid"),
    "BabyAI": ("minigrid", "minigrid"),
    "MinAtar": ("minatar", "minatar.gym"),
    "procgen": ("procgen", "procgen"),
    "highway": ("highway-env", "highway_env"),
    "FetchReach": ("gymnasium-robotics", "gymnasium_robotics"),
    "FetchPush": ("gymnasium-robotics", "gymnasium_robotics"),
    "AntMaze": ("gymnasium-robotics", "gymnasium_robotics"),
    "PointMaze": ("gymnasium-robotics", "gymnasium_robotics"),
    "AdroitHandDoor": ("gymnasium-robotics", "gymnasium_robotics"),
    "FlappyBird": ("flappy-bird-gymnasium", "flappy_bird_gymnasium"),
}
"""Beginnings of ids that other packages register: the package, and the module that registers them."""


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
    ours = next((ours for ours, others in OTHER_NAMES.items() if name in others), name)
    note = f", which {NOTES[name]}" if name in NOTES else ""
    if ours != name and f"--{ours}" in flags:
        return f"Unknown option {given}: here it is --{ours}{note}."
    having = [row for row in registry.entries() if ours.replace("-", "_") in registry.options(row)]
    if having and "--algorithm" in flags:
        here = f"here it is --{ours}, an option" if ours != name else "it is an option"
        first = having[0] if "ppo" not in having else "ppo"
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


def check_task(task: str) -> str | None:
    """Refuse what is no task, before JAX is imported; an id that resembles none is left to the Gymnasium adapter.

    Returns:
        What a user should know of the task, if anything: a newer version of it.

    Raises:
        UsageError: a run, a study file, an algorithm, or an id that is misspelt or whose package is not there.
    """
    if task in TASKS or ":" in task:
        return None
    if os.path.exists(os.path.join(task, "manifest.json")):
        raise UsageError(f"Expected a task, but {task} is a run: `workhorse resume {task}` continues it.")
    if os.path.exists(os.path.join(task, "study.json")) or task.endswith((".yaml", ".yml")):
        raise UsageError(f"Expected a task, but {task} is a study: `workhorse study {task}` conducts it.")
    if task in registry.entries():
        raise UsageError(
            f"Expected a task, but {task} is an algorithm: write `workhorse train TASK --algorithm {task}`; "
            "`workhorse tasks` lists the tasks."
        )
    package, module = PACKAGES.get(re.split(r"[/-]", task)[0], ("", ""))
    newer = older_task(task)
    if not (package or newer or nearest(task, TASKS)):
        return None
    if _is_registered(task):
        return newer and (
            f"{task} is an older version of {newer}: it goes through Gymnasium, step by step, where {newer} has a "
            "simulator of Workhorse's own, which is many times as fast."
        )
    if package:
        raise UsageError(_of_a_package(task, package, module))
    if newer:
        raise UsageError(f"Unknown task {task!r}: its newest version is {newer}. Train on that one.")
    raise unknown("task", task, list(TASKS), "workhorse tasks")


def _of_a_package(task: str, package: str, module: str) -> str:
    """Return how to train on a task that another package registers."""
    images = (
        " Its observations are images, which today's policies read as one long vector: expect little."
        if package in ("ale-py", "procgen")
        else ""
    )
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return (
            f"{task} comes with the package {package}, which is not installed: `pip install {package}`, then train on "
            f"{module}:{task}.{images}"
        )
    return f"{task} is registered by the module {module}: write it as {module}:{task}.{images}"


def older_task(task: str) -> str | None:
    """Return the task of the table of which this is another version.

    Example:
        >>> older_task("HalfCheetah-v4"), older_task("CartPole-v1"), older_task("Nothing-v0")
        ('HalfCheetah-v5', None, None)
    """
    name = task.rpartition("-v")[0]
    newest = next((known for known in TASKS if known.rpartition("-v")[0] == name), None)
    return newest if name and newest != task else None


def _is_registered(task: str) -> bool:
    import gymnasium

    return task in gymnasium.registry
