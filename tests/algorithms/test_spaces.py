"""Every algorithm on every kind of action, and on observations that are no vectors: it learns an obvious answer."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.addresses import host_keys
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Moments, Returns, Rollout
from workhorse.environments.gymnasium_adapter import GymnasiumAdapter

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments  # noqa: F401

GRADIENTS = {
    "num_envs": 16,
    "held_out_envs": 0,
    "rollout_steps": 8,
    "hidden": (8,),
    "learning_rate": 0.03,
    "anneal_learning_rate": False,
    "measure_gradients": False,
    "measure_health": False,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "openai-es": {"policy": "mlp", "hidden": (4,), "num_pairs": 20, "learning_rate": 0.1, "noise_std": 0.3},
    "ars": {"policy": "mlp", "hidden": (4,), "num_directions": 20, "num_top_directions": 20, "learning_rate": 0.3,
            "noise_std": 0.3},
    "hill-climb": {"policy": "mlp", "hidden": (4,), "num_candidates": 39, "noise_std": 0.3},
    "finite-differences": {"policy": "mlp", "hidden": (4,), "coordinates": 20, "difference": 0.5, "learning_rate": 0.3},
    "ppo": {**GRADIENTS, "measure_health": True, "minibatch_size": 64, "num_epochs": 4},
    "trpo": {key: value for key, value in GRADIENTS.items() if key != "learning_rate"},
    "a2c": {**GRADIENTS, "learning_rate": 0.1},
    "reinforce": {**GRADIENTS, "learning_rate": 0.1},
}  # fmt: skip
FIRST = {"choices": 0.5, "switches": 0.5, "discrete": 0.0, "matrix": 0.6875}
"""Reward of the first choice, all switches off and the action zero: a new policy starts so on observations of zeros."""
OBSERVED = {"choices": "image", "switches": "goals", "discrete": "frames", "matrix": "matrix"}
CASES = [
    pytest.param(name, acted, marks=[] if name in ("openai-es", "ppo") and FIRST[acted] == 0.5 else [pytest.mark.slow])
    for name in SETTINGS
    for acted in FIRST
]


def keys(iteration: int, slots: np.ndarray) -> np.ndarray:
    return host_keys(0, "reset", iteration, slots)


def gather(algorithm: Any, actor: Any, env: GymnasiumAdapter, slots: np.ndarray, iteration: int, act: Any) -> Rollout:
    """Play `rollout_steps` episodes of one step in every slot."""
    steps = []
    for time in range(getattr(algorithm, "rollout_steps", 1)):
        obs = env.reset(keys(1000 * iteration + time, slots))
        draws = jax.random.split(jax.random.fold_in(jax.random.key(iteration), time), len(slots))
        action, extras = act(actor, slots, jnp.asarray(obs, jnp.float32), draws)
        step = env.step(np.asarray(action))
        steps.append((obs, action, step.reward, step.terminated, step.truncated, step.next_obs, extras))
    return Rollout(*(jax.tree.map(lambda *leaves: np.stack(leaves), *column) for column in zip(*steps, strict=True)))


def experience_of(algorithm: Any, rollout: Rollout) -> Any:
    """Return the rollout as the algorithm consumes it."""
    if algorithm.consumes is Rollout:
        return rollout
    seen = np.asarray(rollout.obs, np.float64).reshape(len(rollout.reward[0]), -1)
    mean = seen.mean(0)
    moments = Moments(np.float64(len(seen)), mean, np.square(seen - mean).sum(0))
    return Returns(np.asarray(rollout.reward[0], np.float32), np.float64(1.0), moments)


def learn(algorithm: Any, env: GymnasiumAdapter, iterations: int) -> tuple[float, float]:
    """Train, and return what the noiseless policy earns before and after it."""
    slots = np.arange(env.num_slots)

    def act_for(explore: bool) -> Any:
        def act_one(actor: Any, slot: Any, obs: Any, key: Any) -> Any:
            action, _, extras = algorithm.act(actor, algorithm.begin(actor, slot), obs, key, explore=explore)
            return action, extras

        return jax.jit(jax.vmap(act_one, in_axes=(None, 0, 0, 0)))

    act, greedy, update = act_for(True), act_for(False), jax.jit(algorithm.update)

    def earned(state: Any) -> float:
        unperturbed = lambda actor, slots, obs, draws: greedy(actor, -1 - slots, obs, draws)  # noqa: E731
        return float(gather(algorithm, algorithm.actor(state), env, slots, 999, unperturbed).reward.mean())

    state = algorithm.init(jax.random.key(0))
    before = earned(state)
    for iteration in range(iterations):
        rollout = gather(algorithm, algorithm.actor(state), env, slots, iteration, act)
        state, metrics = update(state, experience_of(algorithm, rollout), jax.random.key(iteration))
        # nothing is said of the noise of a policy that has become certain
        assert all(np.isfinite(value) for name, value in metrics.items() if not name.startswith("noise_"))
    return before, earned(state)


@pytest.mark.parametrize(("name", "acted"), CASES)
def test_learns_the_answer(name: str, acted: str) -> None:
    is_population = "num_envs" not in SETTINGS[name]
    slots = 40 if is_population else GRADIENTS["num_envs"]
    env = GymnasiumAdapter("weird/Answer-v0", slots, 1, observed=OBSERVED[acted], acted=acted, dark=True)
    try:
        algorithm = registry.make(name, env.spec, SETTINGS[name])
        before, after = learn(algorithm, env, 50 if is_population else 20)
    finally:
        env.close()
    assert before == FIRST[acted]
    assert after > (0.85 if acted == "matrix" else 0.999)


@pytest.mark.parametrize("name", ["openai-es", "ppo"])
def test_a_matrix_is_a_vector_to_the_network(name: str) -> None:
    infinite, one = (np.inf,) * 6, (1.0,) * 4
    obs = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)

    def action_of(shape: tuple[int, ...], action_shape: tuple[int, ...]) -> np.ndarray:
        space = Box(tuple(-np.array(infinite)), infinite, shape)
        spec = EnvSpec("Any-v0", space, Box(tuple(-np.array(one)), one, action_shape), 9)
        algorithm = registry.make(name, spec, SETTINGS[name])
        actor = algorithm.actor(algorithm.init(jax.random.key(0)))
        carry = algorithm.begin(actor, jnp.int32(0))
        action, _, _ = algorithm.act(actor, carry, jnp.asarray(obs.reshape(shape)), jax.random.key(1), explore=True)
        assert action.shape == action_shape
        return np.asarray(action)

    np.testing.assert_array_equal(action_of((2, 3), (2, 2)), action_of((6,), (4,)).reshape(2, 2))
