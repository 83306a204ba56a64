"""Names under which other libraries know our options, for the hint after an unknown name."""

__all__ = ["OTHER_NAMES"]

OTHER_NAMES = {
    # Stable-Baselines3
    "activation_fn": "activation",
    "batch_size": "minibatch_size",
    "clip_range": "ratio_clip",
    "clip_range_vf": "value_clip",
    "ent_coef": "entropy_weight",
    "eval_freq": "evaluate_every",
    "gae_lambda": "trace",
    "gamma": "discount",
    "log_std_init": "log_std",
    "max_grad_norm": "gradient_clip",
    "n_envs": "num_envs",
    "n_epochs": "num_epochs",
    "n_eval_episodes": "evaluation_episodes",
    "n_steps": "rollout_steps",
    "net_arch": "hidden",
    "normalize_advantage": "normalise_advantages",
    "ortho_init": "orthogonal_initialisation",
    "policy_kwargs": "hidden",
    "total_timesteps": "env_steps",
    "verbose": "progress",
    "vf_coef": "value_weight",
    # CleanRL
    "anneal_lr": "anneal_learning_rate",
    "clip_coef": "ratio_clip",
    "norm_adv": "normalise_advantages",
    "num_steps": "rollout_steps",
    "update_epochs": "num_epochs",
    # others
    "epochs": "num_epochs",
    "lam": "trace",
    "lr": "learning_rate",
    "num_workers": "threads",
    "sigma": "noise_std",
}
"""Name elsewhere to name here; what it measures may differ in detail, as a minibatch's size does from its number."""
