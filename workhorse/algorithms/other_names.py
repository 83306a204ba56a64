"""Names under which other libraries know our options, for the hint after an unknown name."""

from collections.abc import Container, Mapping, Sequence

__all__ = ["NOTES", "OTHER_NAMES", "our_name"]

OTHER_NAMES: Mapping[str, Sequence[str]] = {
    "entropy-weight": ("ent-coef", "entropy-coef", "ent-weight", "entropy-cost"),
    "temperature": ("ent-coef", "alpha", "init-temperature", "initial-alpha", "entropy-coef"),
    "learning-rate": (
        "lr",
        "alpha",
        "step-size",
        "stepsize",
        "policy-lr",
        "pi-lr",
        "q-lr",
        "qf-lr",
        "actor-lr",
        "critic-lr",
    ),
    "discount": ("gamma",),
    "trace": ("gae-lambda", "lambda", "lam", "gae-lam"),
    "rollout-steps": ("n-steps", "num-steps", "horizon", "steps-per-epoch", "rollout-length", "unroll-length"),
    "num-envs": ("n-envs", "num-environments", "n-env", "env-num"),
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
    "noise-std": (
        *("sigma", "delta-std", "noise", "noise-stdev", "nu"),
        *("action-noise", "exploration-noise", "expl-noise", "act-noise"),
    ),
    "replay-capacity": ("buffer-size", "replay-size", "memory-size", "buffer-capacity", "replay-buffer-size"),
    "warmup-env-steps": ("learning-starts", "start-steps", "start-timesteps", "random-steps", "warmup-steps"),
    "replay-ratio": ("gradient-steps", "utd", "utd-ratio", "updates-per-step", "update-to-data-ratio"),
    "learn-every": ("train-freq", "train-frequency", "update-every", "update-freq"),
    "target-rate": ("tau", "polyak", "soft-tau", "target-update-rate"),
    "target-every": ("target-update-interval", "target-network-frequency", "target-update-freq"),
    "learn-temperature": ("autotune", "automatic-entropy-tuning", "auto-alpha"),
    "policy-every": ("policy-delay", "policy-frequency", "policy-freq", "actor-delay"),
    "target-noise-std": ("target-policy-noise", "policy-noise", "target-noise"),
    "target-noise-clip": ("noise-clip",),
    "epsilon": ("exploration-initial-eps", "start-e", "eps-start", "epsilon-start"),
    "final-epsilon": ("exploration-final-eps", "end-e", "eps-end", "epsilon-end"),
    "exploration-env-steps": ("exploration-fraction", "eps-decay", "epsilon-decay", "annealing-steps"),
    "prioritised": ("prioritized", "prioritized-replay", "per"),
    "priority-power": ("prioritized-replay-alpha", "per-alpha"),
    "importance-power": ("prioritized-replay-beta0", "per-beta"),
    "num-atoms": ("n-atoms", "atoms", "atom-size"),
    "value-low": ("v-min", "vmin"),
    "value-high": ("v-max", "vmax"),
    "double": ("double-q", "double-dqn"),
    "noisy": ("noisy-net", "noisy-nets"),
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
    "wrapper": ("env-wrapper", "wrappers", "wrap"),
    "frame-stack": ("n-stack", "framestack", "stack", "num-stack", "history-length"),
    "max-episode-steps": ("time-limit", "timeout", "max-ep-len", "episode-length", "max-episode-length"),
    "quiet": ("no-progress", "silent"),
    "episodes": ("n-episodes", "num-episodes"),
}
"""Our options, and the names under which Stable-Baselines3, CleanRL, Spinning Up and others know them."""

NOTES: Mapping[str, str] = {
    "num-minibatches": "counts steps: num_envs times rollout_steps over the number of minibatches",
    "n-minibatches": "counts steps: num_envs times rollout_steps over the number of minibatches",
    "eval-freq": "counts environment steps",
    "save-freq": "counts seconds",
    "checkpoint-freq": "counts seconds",
    "checkpoint-interval": "counts seconds",
    "save-interval": "counts seconds",
    "tensorboard-log": "is the folder of the runs, and each run writes for TensorBoard into its own",
    "env-kwargs": "takes one name=value and may be repeated",
    **dict.fromkeys(
        ("gradient-steps", "utd", "utd-ratio", "updates-per-step", "update-to-data-ratio"),
        "counts samples trained on for each environment step: updates for each step, times batch_size",
    ),
    "exploration-fraction": "counts environment steps: the fraction times the budget",
    "polyak": "is 1 - polyak, the share of the way to the learning network",
    "action-noise": "is a standard deviation, in units of half the range of an action",
    "net-arch": "takes the units of each layer, as in --hidden 64 64",
    **dict.fromkeys(("pop-size", "population-size", "population", "npop", "popsize"), "counts pairs, two members each"),
}
"""How our option differs by more than its name, as the end of a sentence."""


def our_name(name: str, among: Container[str] = ()) -> str | None:
    """Return our name of an option that is known by this one elsewhere; None for an unknown one.

    Args:
        name: what it is called elsewhere.
        among: options there are. Where the name means several of ours, as the weight of an entropy does, the one among
            these is meant, and without any the first.

    Example:
        >>> our_name("n_steps"), our_name("lr"), our_name("depth")
        ('rollout_steps', 'learning_rate', None)
        >>> our_name("ent_coef"), our_name("ent_coef", ["temperature"])
        ('entropy_weight', 'temperature')
    """
    name = name.replace("_", "-")
    found = [ours.replace("-", "_") for ours, others in OTHER_NAMES.items() if name in others]
    return next((ours for ours in found if ours in among), found[0] if found else None)
