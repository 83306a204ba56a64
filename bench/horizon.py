"""Cost of a longer horizon, for evolution strategies and for policy gradients: `python bench/horizon.py`.

Three measurements, the first two claims of Salimans et al. 2017 ("no backward pass, no activations stored"; "the
variance of the gradient estimate does not grow with the episode"):

- `cost`: peak memory and time per evaluated step of one iteration, openai-es against ppo with rollouts of the whole
  horizon, on Pendulum-v1 with episodes of T steps, each in a process of its own with one thread;
- `variance`: variance of one episode's gradient estimate (its trace, over the variance of returns) against T, for
  REINFORCE and for a parameter perturbation, on the score-noise probe and on Pendulum-v1, and its slope in logarithms.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from record import head

RESULTS = Path(__file__).parent / "results"
HORIZONS = (200, 632, 2000)
SLOTS = 64

CHILD = """
import json, resource, sys, time
import jax
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

name, horizon, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
own = {
    "openai-es": {"num_pairs": slots // 2, "policy": "mlp", "hidden": (64, 64)},
    "ppo": {"num_envs": slots, "held_out_envs": 0, "rollout_steps": horizon, "minibatch_size": slots},
}[name]
own["rescale_actions"] = False
plan = Plan("Pendulum-v1", {"max_episode_steps": horizon}, name, own, 0)
loop = make_loop(plan, plan.spec(), 1)
progress, _, _ = loop.iterate(loop.start())
jax.block_until_ready(progress)
compiled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
seconds = []
for _ in range(3):
    begun = time.perf_counter()
    progress, _, _ = loop.iterate(progress)
    jax.block_until_ready(progress)
    seconds.append(time.perf_counter() - begun)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak_bytes": peak, "seconds_per_step": [s / horizon / slots for s in seconds]}))
"""


def cost() -> list[dict[str, Any]]:
    """Peak memory and seconds per evaluated step of both methods at every horizon."""
    rows = []
    surroundings = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"}
    for name in ("openai-es", "ppo"):
        for horizon in HORIZONS:
            command = [sys.executable, "-c", CHILD, name, str(horizon), str(SLOTS)]
            done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.strip().splitlines()[-1])
            rows.append({"algorithm": name, "horizon": horizon, "steps": horizon * SLOTS, **found})
            micro = 1e6 * np.median(found["seconds_per_step"])
            print(f"{name:<10} T {horizon:>5}: peak {found['peak_bytes'] / 2**20:,.0f} MiB, {micro:.2f} us a step")
    return rows


def variance(episodes: int, bootstrap: int = 1000) -> list[dict[str, Any]]:
    """Slopes of log variance against log T, with bootstrap intervals over episodes."""
    from workhorse.environments.classic.pendulum import Pendulum
    from workhorse.environments.probes import ScoreNoiseProbe

    rows = []
    rng = np.random.default_rng(0)
    for task, make in (("score noise", ScoreNoiseProbe), ("Pendulum-v1", lambda T: Pendulum(max_episode_steps=T))):
        horizons = (5, 10, 20, 50, 100, 200)
        found: dict[str, list[np.ndarray]] = {"reinforce": [], "perturbation": []}
        for horizon in horizons:
            env = make(horizon)
            found["reinforce"].append(score_estimates(env, episodes))
            found["perturbation"].append(perturbation_estimates(env, episodes))
        for name, estimates in found.items():
            drawn = [
                [trace(part[rng.integers(len(part), size=len(part))]) for part in estimates] for _ in range(bootstrap)
            ]
            slopes = np.polyfit(np.log(horizons), np.log(np.array(drawn)).T, 1)[0]
            slope = float(np.polyfit(np.log(horizons), np.log([trace(part) for part in estimates]), 1)[0])
            interval = np.percentile(slopes, [2.5, 97.5]).tolist()
            rows.append(
                {
                    "task": task,
                    "estimator": name,
                    "episodes": episodes,
                    "horizons": list(horizons),
                    "variance": [trace(part) for part in estimates],
                    "slope": slope,
                    "interval": interval,
                }
            )
            print(f"{task:<12} {name:<13} slope {slope:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]", flush=True)
    return rows


def trace(estimates: np.ndarray) -> float:
    """Return the trace of the covariance of estimates (episodes, parameters)."""
    return float(estimates.var(0, ddof=1).sum())


def score_estimates(env: Any, episodes: int) -> np.ndarray:
    """Each episode's REINFORCE estimate, its return standardised over the episodes, (episodes, parameters)."""
    import jax
    import jax.numpy as jnp

    from workhorse.algorithms import registry
    from workhorse.algorithms.policy_gradient.reinforce import Reinforce
    from workhorse.core.randomness import root_key
    from workhorse.training.rollouts import JaxCollector, collect_program

    settings = {"num_envs": episodes, "held_out_envs": 0, "rollout_steps": env.spec.max_episode_steps}
    plain = {
        "rescale_actions": False,
        "normalise_observations": False,
        "observation_clip": None,
        "scale_rewards": False,
        "reward_clip": None,
    }
    algorithm = registry.make(
        "reinforce",
        env.spec,
        {**settings, **plain, "policy": "linear", "learned_baseline": False, "normalise_advantages": "none"},
    )
    assert isinstance(algorithm, Reinforce)
    state = algorithm.init(jax.random.key(0))
    slots = JaxCollector(algorithm, env, 0).start(algorithm.actor(state))

    @jax.jit
    def estimates(state: Any, slots: Any) -> Any:
        steps, actor = algorithm.rollout_steps, algorithm.actor(state)
        rollout, _, _ = collect_program(env, algorithm, steps, actor, slots, root_key(0), jnp.uint32(0))
        batch, _, _ = algorithm.batch(state, rollout)
        total = rollout.reward.sum(0)
        whole = ((total - total.mean()) / total.std()).astype(jnp.float32)  # (episodes,)

        def of_episode(part: Any, weight: Any) -> Any:
            steps = part.advantage.shape[0]
            part = part._replace(advantage=jnp.full(steps, weight))
            gradient = jax.grad(lambda params: -steps * algorithm.batch_loss(params, part)[1]["surrogate"])(
                state.params
            )
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient.policy)])

        return jax.lax.map(lambda row: of_episode(*row), (jax.tree.map(lambda x: x.swapaxes(0, 1), batch), whole))

    return np.asarray(estimates(state, slots), np.float64)


def perturbation_estimates(env: Any, episodes: int, sigma: float = 0.1) -> np.ndarray:
    """The same of each episode's estimate by one perturbation of all parameters, one-sided: R e / sigma."""
    import jax

    from workhorse.algorithms import registry
    from workhorse.algorithms.evolution.search import ParameterSearch
    from workhorse.training.episodes import make_player
    from workhorse.training.workforce import training_work

    settings = {"rescale_actions": False, "num_pairs": episodes, "noise_std": sigma, "policy": "linear"}
    algorithm = registry.make("openai-es", env.spec, settings)
    assert isinstance(algorithm, ParameterSearch)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    work = training_work(algorithm, 0, 2 * episodes, 0, None, range(2 * episodes))
    ((_, found),) = make_player(algorithm, env, 2 * episodes, 0).play(actor, [(0, work)])
    total = found.returns[::2]
    displaced = jax.jit(jax.vmap(lambda member: algorithm.displace(actor, member)))(2 * np.arange(episodes))
    noise = (np.asarray(displaced, np.float64) - np.asarray(actor.params, np.float64)) / sigma
    weight = (total - total.mean()) / total.std()
    return weight[:, None] * noise / sigma


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=4000)
    parser.add_argument("--only", choices=("cost", "variance"), help="measure this part and keep the other as it was")
    arguments = parser.parse_args()

    file = RESULTS / "horizon.json"
    before = json.loads(file.read_text()) if arguments.only else {}
    found = {
        **head(f"python bench/horizon.py --episodes {arguments.episodes}"),
        "cost": before["cost"] if arguments.only == "variance" else cost(),
        "variance": before["variance"] if arguments.only == "cost" else variance(arguments.episodes),
    }
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
