"""The loop of imitation with an expert that answers: episodes of a mixture, then an update on all answers so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from workhorse.algorithms.imitation.dagger import DAgger
from workhorse.core.algorithm import Actor, Algorithm, Key
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Demonstrations
from workhorse.environments import registry as environments
from workhorse.environments.batch import as_batch
from workhorse.environments.protocol import HostEnv
from workhorse.networks.heads import own_action, task_action
from workhorse.training.episodes import evaluation_of, make_player
from workhorse.training.expert_episodes import Answered, ExpertEpisodes
from workhorse.training.experts import Expert, OpenExpert
from workhorse.training.lanes import Lanes
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Progress
from workhorse.training.on_policy import EVALUATION_SLOTS
from workhorse.training.rollouts import actor_of
from workhorse.training.step_length import with_step_norm

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["ImitationLoop"]


class ImitationLoop(Loop):
    """Iterations of DAgger: an episode of each slot with an expert that answers in every state, then an update.

    Nothing is kept between iterations but the state of the algorithm, in which the answers are. Environment steps are
    those of the episodes, and those of the simulator that the expert's answers take, where it plans. `expert_queries`
    counts answers, `demonstrations` episodes with them, both of the whole run.

    Attributes:
        root: the run's seed.
    """

    def __init__(
        self, algorithm: DAgger, root: int, env: HostEnv, lanes: Lanes, open_expert: OpenExpert | None
    ) -> None:
        self.algorithm: DAgger = algorithm
        self.root, self.num_slots = root, algorithm.num_envs
        self._env, self._lanes, self._open = env, lanes, open_expert
        self._expert: Expert | None = None

    @staticmethod
    def on_this_machine(
        plan: Plan, algorithm: Algorithm, threads: int, open_expert: OpenExpert | None
    ) -> ImitationLoop:
        """Return the loop with this many simulation threads, for the episodes and then for evaluations."""
        assert isinstance(algorithm, DAgger)
        if plan.slots not in (None, algorithm.num_envs):
            raise UsageError(f"{plan.algorithm} acts in num_envs slots: set that, and leave slots={plan.slots} out.")
        shares = [threads // 2, threads - threads // 2] if threads > 1 else [1]
        judges = [environments.make(plan.task, EVALUATION_SLOTS, share, **plan.task_options) for share in shares]
        lanes = Lanes([make_player(algorithm, judge, EVALUATION_SLOTS, plan.seed) for judge in judges])
        env = as_batch(
            environments.make(plan.task, algorithm.num_envs, threads, **plan.task_options), algorithm.num_envs
        )
        return ImitationLoop(algorithm, plan.seed, env, lanes, open_expert)

    def prepare(self) -> None:
        self.expert  # noqa: B018  opened and checked

    @property
    def expert(self) -> Expert:
        """The expert, opened when it is first asked for."""
        if self._expert is None:
            if self._open is None:
                raise UsageError(
                    f"{self.algorithm.name} asks an expert, and none can be opened here: begin or go on with the run "
                    "by `workhorse imitate` or `workhorse resume`."
                )
            self._expert = self._open(self.algorithm.spec)(self._env, self.root)
        return self._expert

    def start(self) -> Progress:
        zero = np.zeros((), np.int64)
        return Progress(_init(self.algorithm, draw(root_key(self.root), "init")), zero, zero)

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        algorithm, iteration = self.algorithm, int(progress.iteration)
        played = self.play(actor_of(algorithm, progress.state), iteration)
        key = draw(root_key(self.root), "update", iteration)
        flat = (part.reshape(-1, *part.shape[2:]) for part in (played.obs, played.answer, played.is_there))
        state, measured = _update(algorithm, progress.state, Demonstrations(*flat), key)
        answers, there = int(played.length.sum()), played.is_there
        steps = answers * (1 + self.expert.steps_per_answer)
        metrics: dict[str, float] = {
            "steps": steps,
            "failed_episodes": len(played.failures),
            "expert_queries": int(state.seen),
            "demonstrations": (iteration + 1) * self.num_slots,
            "expert_share": float(played.by_expert[there].mean()),
        } | _episode_metrics(played)  # fmt: skip
        if self.expert.steps_per_answer:
            metrics["planning_steps_per_action"] = self.expert.steps_per_answer
        metrics |= {name: value.item() for name, value in jax.device_get(dict(measured)).items()}
        return Progress(state, progress.iteration + 1, progress.env_steps + steps), metrics, played.failures

    def play(self, actor: Actor, iteration: int) -> Answered:
        """Play the episodes of an iteration with the mixture."""
        algorithm, number = self.algorithm, np.uint32(iteration)
        key = draw(root_key(self.root), "act", iteration)

        def choose(
            obs: np.ndarray, answer: np.ndarray, episodes: np.ndarray, now: int
        ) -> tuple[np.ndarray, np.ndarray]:
            copied, turn = _chosen(algorithm, actor, obs, episodes, key, number, np.int32(now))
            by_expert = np.asarray(turn)
            told = by_expert.reshape(-1, *[1] * (answer.ndim - 1))
            return np.where(told, answer, np.asarray(copied)), by_expert

        player = ExpertEpisodes(self._env, self.expert, self.root)
        return player.play("reset", iteration, np.arange(self.num_slots, dtype=np.int32), choose)

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        actor = actor_of(self.algorithm, progress.state)
        return evaluation_of(self._lanes.evaluate(actor, int(progress.iteration), num_episodes), num_episodes)

    def close(self) -> None:
        self._env.close()
        self._lanes.close()


def _episode_metrics(played: Answered) -> dict[str, float]:
    returns = played.returns
    return {
        "training_return": float(returns.mean()),
        "training_return_std": float(returns.std()),
        "training_return_max": float(returns.max()),
        "training_return_min": float(returns.min()),
        "episode_length": float(played.length.mean()),
    }


# The compiled programs, of which the algorithm is an argument: see `workhorse.training.rollouts`.


@jax.jit
def _init(algorithm: Algorithm, key: Key) -> PyTree:
    return algorithm.init(key)


@jax.jit
def _update(algorithm: DAgger, state: PyTree, shown: Demonstrations, key: Key) -> tuple[PyTree, dict[str, Any]]:
    """Learn from pairs whose actions are in the task's own numbers."""
    own = jax.vmap(lambda action: own_action(algorithm.spec, action))(shown.action)
    after, metrics = algorithm.update(state, shown._replace(action=own), key)
    return after, with_step_norm(algorithm, state, after, metrics)


@jax.jit
def _chosen(
    algorithm: DAgger, actor: Actor, obs: jax.Array, episodes: jax.Array, key: Key, iteration: jax.Array, now: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return what the copy does in each slot, as an action of the task, and whether it is the expert's turn."""

    def one(obs: jax.Array, episode: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = jax.random.fold_in(jax.random.fold_in(key, episode), now)
        action = algorithm.act(actor, (), obs.astype(jnp.float32), drawn, explore=True)[0]
        return task_action(algorithm.spec, action), algorithm.is_experts_turn(iteration, drawn)

    return jax.vmap(one)(obs, episodes)
