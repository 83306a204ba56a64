"""Defaults of every algorithm, written down: recipes and old commands name only what differs from them.

A change here changes the numbers of every published recipe that leaves the option out.
"""

import pytest

from workhorse.algorithms import registry

SEARCH = {
    "rescale_actions": True,
    "policy": "linear",
    "linear_bias": False,
    "hidden": (64, 64),
    "action_bins": None,
    "action_noise": None,
    "normalise_observations": True,
    "observation_clip": 5.0,
    "observation_floor": 0.0,
    "alive_bonus": 0.0,
    "episodes_per_member": 1,
    "shared_starts": False,
    "episode_cap": None,
    "episode_growth": 0,
}
NOVELTY = {
    "lag": 0,
    "behaviour": (0, 1),
    "num_pairs": 16,
    "noise_std": 0.05,
    "learning_rate": 0.02,
    "novelty_weight": 1.0,
    "num_centres": 3,
    "centre_episodes": 2,
    "num_neighbours": 10,
    "archive_size": 1_000,
}
CONTEST = {
    "rescale_actions": True,
    "num_candidates": 48,
    "num_finalists": 16,
    "trials": 4,
    "episodes_per_member": 1,
}
RAW = {"normalise_observations": False, "observation_clip": 1e6}
GRADIENT = {
    "rescale_actions": True,
    "num_envs": 8,
    "held_out_envs": 1,
    "rollout_steps": 256,
    "policy": "mlp",
    "hidden": (64, 64),
    "learning_rate": 3e-4,
    "discount": 0.99,
    "trace": 0.95,
    "log_std": 0.0,
    "activation": "tanh",
    "orthogonal_initialisation": True,
    "normalise_observations": True,
    "observation_clip": 10.0,
    "scale_rewards": True,
    "reward_clip": 10.0,
    "normalise_advantages": "minibatch",
    "gradient_clip": 0.5,
    "anneal_learning_rate": True,
    "anneal_env_steps": 0,
    "measure_gradients": True,
    "measure_health": True,
}
PLAIN = {
    "activation": "relu",
    "orthogonal_initialisation": False,
    "normalise_observations": False,
    "observation_clip": None,
    "scale_rewards": False,
    "reward_clip": None,
    "gradient_clip": None,
    "anneal_learning_rate": False,
}
PPO = {
    "ratio_clip": 0.2,
    "num_epochs": 10,
    "minibatch_size": 64,
    "value_weight": 0.5,
    "entropy_weight": 0.0,
    "recompute_advantages": False,
    "value_clip": None,
}
TRPO = {
    "normalise_advantages": "batch",
    "max_kl": 0.01,
    "cg_iterations": 10,
    "damping": 0.1,
    "fisher_stride": 1,
    "backtracks": 10,
    "value_epochs": 10,
    "minibatch_size": 64,
}
ARS = {
    "lag": 0,
    "noise_std": 0.03,
    "perturbation_rank": None,
    "variant": "v2-t",
    "num_directions": 32,
    "num_top_directions": 32,
    "learning_rate": 0.02,
}
OPENAI_ES = {
    "lag": 0,
    "noise_std": 0.03,
    "perturbation_rank": None,
    "num_pairs": 32,
    "learning_rate": 0.02,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "weight_decay": 0.0,
    "fitness_shaping": "centred-ranks",
    "adaptive_episode_cap": None,
}
RANKED = {"lag": 0, "population_size": 48, "noise_std": 0.3}
A2C = {
    "rollout_steps": 16,
    "learning_rate": 7e-4,
    "normalise_advantages": "none",
    "measure_gradients": False,
    "value_weight": 0.5,
    "entropy_weight": 0.0,
}
REINFORCE = {
    "rollout_steps": 512,
    "learning_rate": 1e-3,
    "trace": 1.0,
    "normalise_advantages": "batch",
    "measure_gradients": False,
    "learned_baseline": True,
}
REPLAY = {
    "rescale_actions": True,
    "num_envs": 1,
    "rollout_steps": 256,
    "learn_every": 16,
    "replay_ratio": 256.0,
    "batch_size": 256,
    "warmup_env_steps": 5000,
    "replay_capacity": 1000000,
    "n_steps": 1,
    "hidden": (256, 256),
    "learning_rate": 0.0003,
    "discount": 0.99,
    "target_rate": 0.005,
    "reward_scale": 1.0,
    "normalise_observations": False,
}
DDPG = {
    "noise": "gaussian",
    "noise_std": 0.1,
    "noise_reversion": 0.15,
}
NAF = {
    "replay_ratio": 500.0,
    "batch_size": 100,
    "warmup_env_steps": 1000,
    "hidden": (200, 200),
    "learning_rate": 0.001,
    "target_rate": 0.001,
    "activation": "tanh",
    "noise": "ou",
    "noise_std": 0.3,
    "noise_reversion": 0.15,
    "unit_norm": False,
}
TD3 = {
    "noise_std": 0.1,
    "target_noise_std": 0.2,
    "target_noise_clip": 0.5,
    "policy_every": 2,
}
SAC = {
    "target_entropy": None,
    "temperature": 1.0,
    "learn_temperature": True,
    "policy_every": 1,
}
SAC_N = {
    "batch_norm": True,
    "norm_momentum": 0.99,
    "joint_pass": True,
    "stop_successor_gradient": False,
    "unit_norm": True,
    "target_network": True,
    "categorical": True,
    "num_atoms": 101,
    "value_limit": 5.0,
    "scale_rewards": True,
    "policy_every": 3,
    "temperature": 0.01,
    "learn_temperature": True,
    "target_entropy": None,
    "hold_noise": 16,
    "anneal_learning_rate": True,
    "anneal_env_steps": 0,
    "final_learning_rate_share": 0.5,
}
DQN = {
    "learn_every": 32,
    "replay_ratio": 64.0,
    "batch_size": 128,
    "warmup_env_steps": 1000,
    "replay_capacity": 100000,
    "hidden": (128, 128),
    "learning_rate": 0.001,
    "target_rate": 0.01,
    "anneal_learning_rate": True,
    "target_every": 1,
    "double": False,
    "dueling": False,
    "noisy": False,
    "noise_std": 0.5,
    "categorical": False,
    "num_atoms": 51,
    "value_low": -10.0,
    "value_high": 10.0,
    "prioritised": False,
    "priority_power": 0.5,
    "importance_power": 0.4,
    "final_importance_power": 1.0,
    "anneal_env_steps": 0,
    "epsilon": 1.0,
    "final_epsilon": 0.05,
    "exploration_env_steps": 10000,
    "loss": "mse",
    "gradient_clip": 10.0,
}
SAC_DISCRETE = {
    "learn_every": 32,
    "replay_ratio": 64.0,
    "batch_size": 128,
    "warmup_env_steps": 1000,
    "replay_capacity": 100000,
    "hidden": (128, 128),
    "learning_rate": 0.001,
    "target_rate": 0.01,
    "target_entropy_share": 0.7,
    "temperature": 0.2,
    "learn_temperature": True,
}
COPIED = {
    "rescale_actions": True,
    "num_envs": 1,
    "minds_ends": True,
    "hidden": (64, 64),
    "learning_rate": 0.001,
    "copy_updates": 500,
    "copy_batch_size": 256,
    "memory_size": 20000,
}
SPLINES = COPIED | {
    "horizon": 30,
    "num_plans": 32,
    "num_rounds": 1,
    "noise_std": 0.5,
    "num_knots": 6,
    "interpolation": "cubic",
}
CHOICES = COPIED | {"horizon": 50, "num_plans": 32, "num_rounds": 4, "stickiness": 0.8}
ILQR = {
    "rescale_actions": True,
    "num_envs": 1,
    "horizon": 20,
    "minds_ends": True,
    "hidden": (64, 64),
    "learning_rate": 1e-3,
    "copy_updates": 500,
    "copy_batch_size": 256,
    "memory_size": 20_000,
    "num_rounds": 3,
    "num_factors": 10,
    "difference": 1e-4,
}
LQR = {
    "rescale_actions": True,
    "position_cost": 1.0,
    "velocity_cost": 0.1,
    "action_cost": 0.1,
    "target": None,
    "num_candidates": 16,
    "difference": 1e-5,
}
LOG = REPLAY | {"normalise_observations": True, "log_share": 0.5}
CLONER = LOG | {"deterministic": True, "noise_std": 0.1}
ADVANTAGE = CLONER | {
    "deterministic": False,
    "inverse_temperature": 3.0,
    "weight_clip": 100.0,
    "scale_rewards": True,
}
CQL = {
    "conservative_weight": 10.0,
    "num_actions": 10,
    "penalty_rows": 64,
    "target_gap": None,
    "entropy_backup": False,
    "policy_rate_share": 0.3,
}
ENSEMBLE = {"num_critics": 10, "layer_norm": False}
DEFAULTS = {
    "ilqr": ILQR,
    "predictive-sampling": SPLINES,
    "mppi": SPLINES | {"temperature": 0.1},
    "icem": COPIED
    | {
        "horizon": 30,
        "num_plans": 40,
        "num_rounds": 3,
        "num_elites": 10,
        "last_plans": 25,
        "num_kept": 3,
        "momentum": 0.1,
        "init_std": 0.5,
        "noise_exponent": 2.0,
    },
    "categorical-cem": CHOICES | {"num_elites": 8, "smoothing": 0.1, "forgetting": 0.3},
    "uct": CHOICES | {"exploration": 0.5},
    "iw": CHOICES | {"num_bins": 16},
    "lqr": LQR,
    "ars": SEARCH | ARS,
    "pgpe": SEARCH
    | {
        "lag": 0,
        "num_pairs": 16,
        "max_speed": 0.15,
        "learning_rate": 0.075,
        "momentum": 0.9,
        "radius": 2.25,
        "deviation_learning_rate": 0.1,
        "max_change": 0.2,
        "steps_per_iteration": None,
        "max_pairs": None,
    },
    "guided-es": SEARCH
    | {
        "lag": 0,
        "num_pairs": 16,
        "noise_std": 0.03,
        "learning_rate": 0.02,
        "num_guides": 4,
        "full_share": 0.5,
    },
    "ga": SEARCH
    | {"num_children": 20, "num_parents": 6, "num_candidates": 3, "candidate_episodes": 5, "noise_std": 0.1},
    "ns-es": SEARCH | NOVELTY,
    "nsr-es": SEARCH | NOVELTY | {"novelty_weight": 0.5},
    "nres": {
        name: value
        for name, value in SEARCH.items()
        if name not in ("alive_bonus", "episodes_per_member", "shared_starts", "episode_cap", "episode_growth")
    }
    | {"num_envs": 32, "held_out_envs": 0, "rollout_steps": 100, "noise_std": 0.1, "learning_rate": 0.01},
    "finite-differences": SEARCH | {"difference": 0.05, "learning_rate": 0.1, "coordinates": None},
    "hill-climb": SEARCH | {"num_candidates": 7, "noise_std": 0.1},
    "openai-es": SEARCH | OPENAI_ES,
    "snes": SEARCH | RANKED | {"learning_rate": 1.0, "deviation_learning_rate": None},
    "sep-cma-es": SEARCH | RANKED,
    "ma-es": SEARCH | RANKED,
    "lm-ma-es": SEARCH | RANKED | {"num_vectors": None},
    "canonical-es": SEARCH | RANKED | {"parents": None, "path_factor": 0.5},
    "dagger": {
        "rescale_actions": True,
        "num_envs": 4,
        "hidden": (256, 256),
        "learning_rate": 1e-3,
        "copy_updates": 1000,
        "copy_batch_size": 256,
        "memory_size": 100_000,
        "share_decay": 0.0,
    },
    "gail": GRADIENT
    | PPO
    | {
        "reward_form": "positive",
        "discriminator_hidden": (64, 64),
        "discriminator_rate": 3e-4,
        "discriminator_updates": 32,
        "discriminator_batch_size": 128,
        "gradient_penalty": 1.0,
        "normalise_inputs": True,
        "memory_size": 100_000,
    },
    "a2c": GRADIENT | A2C,
    "ppo": GRADIENT | PPO,
    "ppo-m": GRADIENT | PPO | PLAIN,
    "ppo-noclip": GRADIENT | PPO | {"ratio_clip": None},
    "reinforce": GRADIENT | REINFORCE,
    "trpo": GRADIENT | TRPO | PLAIN,
    "trpo+": GRADIENT | TRPO,
    "ddpg": REPLAY | DDPG,
    "naf": REPLAY | NAF,
    "zero": {"rescale_actions": True, "episodes_per_member": 16},
    "random": {"rescale_actions": True, "episodes_per_member": 16},
    "constant": CONTEST,
    "signed-rules": CONTEST | {"most_paired": 12},
    "pid": CONTEST | {"num_candidates": 40, "num_finalists": 10, "set_point": 0.0},
    "random-search": SEARCH | RAW | {"num_candidates": 16, "num_finalists": 4, "trials": 5, "weight_std": 1.0},
    "cem": SEARCH
    | RAW
    | {
        "num_candidates": 20,
        "num_elites": 4,
        "initial_std": 1.0,
        "extra_std": 0.5,
        "extra_iterations": 10,
        "episodes_per_member": 3,
    },
    "td3": REPLAY | TD3,
    "cql": LOG | SAC | CQL,
    "cal-ql": LOG | SAC | CQL,
    "edac": LOG | SAC | ENSEMBLE | {"hidden": (256, 256, 256), "diversity_weight": 1.0},
    "rlpd": LOG
    | SAC
    | ENSEMBLE
    | {
        "layer_norm": True,
        "num_smallest": 2,
        "entropy_backup": True,
        "replay_ratio": 5120.0,
        "policy_every": 20,
        "normalise_observations": False,
    },
    "bcq": LOG
    | {
        "learning_rate": 0.001,
        "batch_size": 100,
        "model_hidden": (256, 256),
        "num_candidates": 10,
        "acting_candidates": 100,
        "reach": 0.05,
        "pessimism": 0.75,
        "divergence_weight": 0.5,
    },
    "bear": LOG
    | {
        "behaviour": "vae",
        "model_hidden": (256, 256),
        "kernel": "laplacian",
        "kernel_width": 20.0,
        "num_matched": 5,
        "allowed_discrepancy": 0.05,
        "num_candidates": 10,
        "acting_candidates": 10,
        "pessimism": 0.75,
        "cloning_updates": 10_000,
        "divergence_weight": 0.5,
        "policy_rate_share": 0.3,
        "multiplier_rate": 0.001,
    },
    "td3+bc": LOG | TD3 | {"value_weight": 2.5},
    "masked-bc": LOG | {"learning_rate": 1e-3, "factors": (), "mask": (), "seen_share": 0.5},
    "bc": CLONER | {"top_share": 1.0},
    "filtered-bc": CLONER | {"top_share": 0.1},
    "iql": ADVANTAGE | {"expectile": 0.7, "anneal_learning_rate": True, "anneal_env_steps": 0},
    "awac": ADVANTAGE | {"inverse_temperature": 1.0},
    "rebrac": LOG
    | TD3
    | {
        "hidden": (256, 256, 256),
        "batch_size": 1024,
        "learning_rate": 1e-3,
        "policy_penalty": 0.01,
        "critic_penalty": 0.01,
    },
    "sac": REPLAY | SAC,
    "sac-n": REPLAY | SAC_N,
    "dqn": REPLAY | DQN,
    "sac-discrete": REPLAY | SAC_DISCRETE,
    "ddqn": REPLAY | DQN | {"double": True},
    "c51": REPLAY | DQN | {"categorical": True},
    "rainbow": REPLAY
    | DQN
    | {"n_steps": 3, "double": True, "dueling": True, "noisy": True, "categorical": True, "prioritised": True},
}


@pytest.mark.parametrize("name", list(DEFAULTS))
def test_defaults_are_those_that_recipes_were_measured_with(name):
    assert {option: found.default for option, found in registry.options(name).items()} == DEFAULTS[name]


def test_every_algorithm_of_ours_is_written_down():
    assert set(DEFAULTS) == set(registry.entries())
