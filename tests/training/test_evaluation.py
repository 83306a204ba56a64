"""Evaluations of every kind of loop are those of a plain loop: no noise, the raw reward, addresses of "evaluate"."""

import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.distributed.in_process import InProcess
from workhorse.core.addresses import host_keys
from workhorse.core.randomness import draw, root_key
from workhorse.distributed.cluster import Cluster
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv
from workhorse.networks.heads import task_action
from workhorse.training.evolve import Evolve
from workhorse.training.groups import RunGroup, together
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms
from workhorse.training.rollouts import actor_of

# noise on every action and a reward that differs from the raw one: neither may be in an evaluation
SEARCH = {"num_pairs": 4, "noise_std": 0.3, "action_noise": 0.5, "alive_bonus": 1.0}
PPO = {"num_envs": 4, "rollout_steps": 16, "minibatch_size": 32, "num_epochs": 2, "hidden": (8,)}
HOPPER, PENDULUM = ("Hopper-v5", {"max_episode_steps": 30}), ("Pendulum-v1", {"max_episode_steps": 25})
PLANS = {
    "a population on a host": Plan(*HOPPER, "openai-es", SEARCH, 7),
    "a population on a pure task": Plan(*PENDULUM, "openai-es", SEARCH, 7),
    "rollouts on a host": Plan(*HOPPER, "ppo", PPO | {"anneal_env_steps": 128}, 7),
    "rollouts on a pure task": Plan(*PENDULUM, "ppo", PPO | {"anneal_env_steps": 128}, 7),
    "rollouts with a memory": Plan(*PENDULUM, "ppo", PPO | {"anneal_env_steps": 128, "policy": "gru"}, 7),
}


def by_hand(plan, algorithm, progress, num_episodes):
    """Returns and lengths of noiseless episodes: one environment, one episode after the other."""
    actor, iteration = actor_of(algorithm, progress.state), int(progress.iteration)
    env = environments.make(plan.task, 1, 1, **plan.task_options)
    act = jax.jit(lambda carry, obs: algorithm.act(actor, carry, obs, jax.random.key(0), explore=False)[:2])
    returns, lengths = [], []
    for episode in range(num_episodes):
        carry, total, length, ended = algorithm.begin(actor, jnp.int32(-1)), 0.0, 0, False
        if isinstance(env, HostEnv):
            obs = env.reset(host_keys(plan.seed, "evaluate", iteration, np.array([episode])))[0]
        else:
            key = jax.random.fold_in(draw(root_key(plan.seed), "evaluate", iteration), episode)
            state, obs = env.reset(key)
        while not ended:
            action, carry = act(carry, jnp.asarray(obs, jnp.float32))
            action = task_action(algorithm.spec, action)
            if isinstance(env, HostEnv):
                step = jax.tree.map(lambda leaf: leaf[0], env.step(np.asarray(action)[None]))
            else:
                state, step = env.step(state, action, key)  # these tasks draw nothing in a step
            obs, total, length = step.next_obs, total + float(step.reward), length + 1
            ended = bool(step.terminated or step.truncated)
        returns.append(total)
        lengths.append(length)
    if isinstance(env, HostEnv):
        env.close()
    return np.array(returns), np.array(lengths)


def check(plan, loop, num_episodes):
    """Compare an evaluation in the middle of a run with one by hand."""
    progress = loop.start()
    for _ in range(2):
        progress, _, _ = loop.iterate(progress)
    found = loop.evaluate(progress, num_episodes)
    returns, lengths = by_hand(plan, loop.algorithm, progress, num_episodes)
    np.testing.assert_array_equal(found.lengths, lengths)
    np.testing.assert_allclose(found.returns, returns, rtol=1e-3)
    assert len(set(returns)) == num_episodes and not found.failures


@pytest.mark.parametrize("name", list(PLANS))
def test_an_evaluation_is_that_of_a_plain_loop(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = PLANS[name]
    loop = make_loop(plan, plan.spec(), 2)
    try:
        check(plan, loop, 11)
    finally:
        loop.close()


@pytest.mark.parametrize("name", ["a population on a pure task", "rollouts on a pure task"])
def test_an_evaluation_of_a_run_in_a_group_is_that_of_a_plain_loop(name):
    plan, checked = PLANS[name], []

    def one(seed, make):
        own = replace(plan, seed=seed)
        loop = make(own, group.spec, 1)
        check(own, loop, 5)
        checked.append(seed)

    group = RunGroup({seed: replace(plan, seed=seed) for seed in (3, 5)}, threads=2)
    thread = threading.Thread(target=together, args=(group, one), daemon=True)
    thread.start()
    thread.join(120.0)
    assert sorted(checked) == [3, 5]


def test_an_evaluation_on_a_cluster_is_that_of_a_plain_loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = replace(PLANS["a population on a host"], slots=3)
    programs = PopulationPrograms(plan.make_algorithm(plan.spec()), plan.seed)
    cluster = Cluster(plan, programs, InProcess(2), "scalars", lambda note: None, patience_floor_s=0.2)
    try:
        check(plan, Evolve(programs, cluster), 7)
    finally:
        cluster.close()


@pytest.mark.parametrize("name", list(PLANS))
def test_noise_and_the_shaped_reward_would_be_seen(name, tmp_path, monkeypatch):
    """The comparison above would notice: with exploration, or with the bonus left out, the returns are others."""
    monkeypatch.chdir(tmp_path)
    plan = PLANS[name]
    loop = make_loop(plan, plan.spec(), 1)
    algorithm, actor = loop.algorithm, actor_of(loop.algorithm, loop.start().state)
    obs = jnp.zeros(algorithm.spec.observation.shape, jnp.float32)
    carry = algorithm.begin(actor, jnp.int32(-1))
    drawn, settled = (
        algorithm.act(actor, carry, obs, jax.random.key(1), explore=explore)[0] for explore in (True, False)
    )
    assert not np.allclose(drawn, settled, atol=1e-3)
    loop.close()
