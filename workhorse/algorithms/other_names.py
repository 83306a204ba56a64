"""Names under which other libraries know our options, for the hint after an unknown name."""

from collections.abc import Mapping, Sequence

__all__ = ["OTHER_NAMES", "our_name"]

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
    "wrapper": ("env-wrapper", "wrappers", "wrap"),
    "frame-stack": ("n-stack", "framestack", "stack", "num-stack", "history-length"),
    "max-episode-steps": ("time-limit", "timeout", "max-ep-len", "episode-length", "max-episode-length"),
    "quiet": ("no-progress", "silent"),
    "episodes": ("n-episodes", "num-episodes"),
}
"""Our options, and the names under which Stable-Baselines3, CleanRL, Spinning Up and others know them."""


def our_name(name: str) -> str | None:
    """Return our name of an option that is known by this one elsewhere; None for an unknown one.

    Example:
        >>> our_name("n_steps"), our_name("lr"), our_name("depth")
        ('rollout_steps', 'learning_rate', None)
    """
    name = name.replace("_", "-")
    return next((ours.replace("-", "_") for ours, others in OTHER_NAMES.items() if name in others), None)
