"""Planned episodes: what a plan promises is what comes, an independent loop agrees, and every step is counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.addresses import host_keys
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Tried
from workhorse.environments import registry as environments
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.protocol import HostEnv, Simulator
from workhorse.networks.heads import task_action
from workhorse.runs import train
from workhorse.runs.metric_words import known_metrics
from workhorse.runs.schedule import Schedule
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.plan_ahead import PlanAhead
from workhorse.training.planned_episodes import planning_player
from workhorse.training.rollouts import actor_of

COPY = {"copy_updates": 3, "copy_batch_size": 8, "memory_size": 60, "hidden": (8,)}
SMALL = COPY | {"horizon": 6, "num_plans": 8, "num_envs": 2}
ICEM = SMALL | {"num_elites": 4, "last_plans": 5, "num_kept": 2}
PENDULUM, HOPPER = ("Pendulum-v1", {"max_episode_steps": 9}), ("Hopper-v5", {"max_episode_steps": 9})
ACROBOT, CHEETAH = ("Acrobot-v1", {"max_episode_steps": 9}), ("HalfCheetah-v5", {"max_episode_steps": 9})
PLANS = {
    "a pure task": Plan(*PENDULUM, "icem", ICEM, 3),
    "a pure task, searched": Plan(*ACROBOT, "uct", SMALL, 3),
    "a pure task that is watched": Plan(*ACROBOT, "iw", SMALL, 3),
    "a host": Plan(*HOPPER, "mppi", SMALL, 3),
    "a host with elites": Plan(*CHEETAH, "icem", ICEM, 3),
}
every_plan = pytest.mark.parametrize("plan", list(PLANS.values()), ids=list(PLANS))


def opened(plan):
    return make_loop(plan, plan.spec(), 2)


@every_plan
def test_a_run_keeps_its_promises_and_counts_every_step(plan):
    loop = opened(plan)
    progress, metrics, failures = loop.iterate(loop.start())
    assert metrics["planning_error"] == 0.0 and failures == ()
    assert metrics["planning_steps_per_action"] == 6 * sum(loop.algorithm.round_sizes)
    executed = metrics["episode_length"] * 2
    assert metrics["steps"] == int(progress.env_steps) == executed * (1 + metrics["planning_steps_per_action"])
    assert metrics["planning_return"] == metrics["training_return"]
    assert metrics["training_return_min"] <= metrics["planning_return"] <= metrics["training_return_max"]
    assert metrics.keys() <= known_metrics().keys() and np.isfinite(metrics["copy_return"])
    assert int(progress.state.seen) == executed
    found = loop.evaluate(progress, 3)
    assert found.measures["planning_error"] == 0.0 and found.measures["real_time_factor"] > 0
    assert found.returns.shape == found.lengths.shape == (3,)
    assert found.steps == found.lengths.sum() * (1 + metrics["planning_steps_per_action"])
    loop.close()


def by_hand(plan, algorithm, actor, episode, stream="evaluate"):
    """An episode planned by one loop after the other, with an environment of one slot and one trial at a time."""
    env = as_batch(environments.make(plan.task, 1, 1, **plan.task_options), 1)
    assert isinstance(env, Simulator)
    obs = env.reset(episode_keys(env, plan.seed, stream, 0, np.array([episode])))
    plan_key = draw(root_key(plan.seed), "plan", 0, int(stream == "evaluate"))
    carry, rewards, ended, now = algorithm.begin(actor, jnp.asarray(0)), [], False, 0
    while not ended:
        key = jax.random.fold_in(jax.random.fold_in(plan_key, episode), now)
        for number, count in enumerate(algorithm.round_sizes):
            plans = algorithm.propose(
                actor, carry, jax.random.fold_in(key, number), round=jnp.int32(number), count=count
            )
            sent = np.asarray(jax.vmap(jax.vmap(lambda one: task_action(algorithm.spec, one)))(plans))
            trials = [env.rollout(env.states(), sent[row : row + 1], observed=True) for row in range(count)]
            tried = Tried(
                np.concatenate([one.reward for one in trials]),
                np.concatenate([one.terminated for one in trials]),
                None,
                np.concatenate([one.next_obs for one in trials]),
            )
            carry = algorithm.refine(actor, carry, plans, tried, round=jnp.int32(number))
        last = jax.random.fold_in(key, len(algorithm.round_sizes))
        action, carry, _ = algorithm.act(actor, carry, jnp.asarray(obs[0], jnp.float32), last, explore=True)
        step = env.step(np.asarray(task_action(algorithm.spec, action))[None])
        rewards.append(float(step.reward[0]))
        obs, now = step.next_obs, now + 1
        ended = bool(step.terminated[0] or step.truncated[0])
    env.close()
    return np.sum(rewards), now


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a pure task", "a host", "a pure task that is watched"])
def test_evaluations_are_those_of_a_plain_loop(name):
    plan = PLANS[name]
    loop = opened(plan)
    progress = loop.start()
    found = loop.evaluate(progress, 3)  # two chunks, of which the last has an idle slot
    actor = actor_of(loop.algorithm, progress.state)
    told = [by_hand(plan, loop.algorithm, actor, episode) for episode in range(3)]
    np.testing.assert_allclose(found.returns, [total for total, _ in told], rtol=1e-6)
    assert found.lengths.tolist() == [length for _, length in told]
    loop.close()


@pytest.mark.parametrize("task", ["Pendulum-v1", "HalfCheetah-v5", "Hopper-v5", "InvertedDoublePendulum-v5"])
def test_a_plan_carried_out_without_another_look_earns_what_it_promised_bit_for_bit(task):
    horizon, slots = 25, 2
    env = as_batch(environments.make(task, slots, 2), slots)
    assert isinstance(env, Simulator)
    env.reset(episode_keys(env, 0, "evaluate", 0, np.arange(slots)))
    algorithm = registry.make("icem", env.spec, ICEM | {"horizon": horizon, "num_envs": slots})
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    carry, states = algorithm.begin(actor, jnp.asarray(0)), env.states()[1:]
    for number, count in enumerate(algorithm.round_sizes):
        plans = algorithm.propose(actor, carry, jax.random.key(number), round=jnp.int32(number), count=count)
        sent = np.asarray(jax.vmap(jax.vmap(lambda one: task_action(algorithm.spec, one)))(plans))
        tried = env.rollout(np.repeat(states, count, axis=0), sent)
        carry = algorithm.refine(actor, carry, plans, tried._replace(states=None), round=jnp.int32(number))
    plan, promised = algorithm.plan(carry)
    sent = np.asarray(jax.vmap(lambda one: task_action(algorithm.spec, one))(plan))
    steps = [env.step(np.stack([np.zeros_like(action), action])) for action in sent]
    earned, ended = (np.array([getattr(step, name)[1] for step in steps]) for name in ("reward", "terminated"))
    earned[np.cumsum(ended) - ended > 0] = 0.0  # where the task ended the plan stops counting
    np.testing.assert_array_equal(np.asarray(promised), earned)
    assert np.asarray(promised).sum() == earned.sum() != 0
    env.close()


def test_both_kinds_of_environment_play_the_same_episodes():
    """A pure task in one program, and the same task behind the interface of a host environment."""
    plan = PLANS["a pure task"]
    env = environments.make(plan.task, 2, 1, **plan.task_options)
    algorithm = plan.make_algorithm(plan.spec())
    actor = algorithm.actor(algorithm.init(jax.random.key(1)))
    assert not isinstance(env, HostEnv)
    one = planning_player(algorithm, env, 5).play(actor, "reset", 4, np.array([3, -1], np.int32))
    other = planning_player(algorithm, as_batch(env, 2), 5).play(actor, "reset", 4, np.array([3, -1], np.int32))
    assert one.length.tolist() == other.length.tolist() == [9, 0]
    np.testing.assert_allclose(one.returns, other.returns, rtol=1e-6)
    np.testing.assert_array_equal(one.taken.is_there, other.taken.is_there)
    np.testing.assert_allclose(one.taken.action[::2], other.taken.action[::2], atol=1e-5)
    np.testing.assert_allclose(one.taken.obs[::2], other.taken.obs[::2], atol=1e-5)


@pytest.mark.parametrize("name", ["a pure task", "a host"])
def test_what_the_copy_is_shown_is_what_was_seen_and_done(name):
    plan = PLANS[name]
    loop = opened(plan)
    assert isinstance(loop, PlanAhead)
    actor = actor_of(loop.algorithm, loop.start().state)
    taken = loop.player.play(actor, "reset", 0, np.arange(2, dtype=np.int32)).taken
    env = as_batch(environments.make(plan.task, 2, 1, **plan.task_options), 2)
    obs = env.reset(episode_keys(env, plan.seed, "reset", 0, np.arange(2)))
    for time in range(9):
        rows = slice(2 * time, 2 * time + 2)
        assert taken.is_there[rows].all()
        np.testing.assert_allclose(taken.obs[rows], obs, rtol=1e-5, atol=1e-6)
        sent = jax.vmap(lambda one: task_action(loop.algorithm.spec, one))(jnp.asarray(taken.action[rows]))
        obs = env.step(np.asarray(sent)).next_obs
    loop.close()
    env.close()


def test_slots_play_their_own_episodes_and_equal_ones_equally():
    plan = PLANS["a host with elites"]
    algorithm = plan.make_algorithm(plan.spec())
    actor = algorithm.actor(algorithm.init(jax.random.key(1)))
    env = environments.make(plan.task, 2, 2, **plan.task_options)
    player = planning_player(algorithm, env, 0)
    both = player.play(actor, "evaluate", 0, np.array([1, 2], np.int32))
    turned = player.play(actor, "evaluate", 0, np.array([2, -1], np.int32))
    other = player.play(actor, "reset", 0, np.array([2, -1], np.int32))
    assert both.returns[1] == turned.returns[0] != both.returns[0]
    assert turned.returns[1] == turned.length[1] == 0 and other.returns[0] != turned.returns[0]
    env.close()


@pytest.mark.parametrize("name", ["a pure task", "a host"])
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(tmp_path, name):
    plan = PLANS[name]
    each = 2 * 9 * (1 + opened(plan).algorithm.steps_per_action)
    rest = {"schedule": Schedule(final_episodes=1, milestones=0), "root": tmp_path, "threads": 2}
    given = {
        "task": plan.task,
        "algorithm": plan.algorithm,
        "settings": plan.settings,
        "task_options": plan.task_options,
    }
    whole, _ = train.start(**given, env_steps=2 * each, id="whole", **rest)
    part, _ = train.start(**given, env_steps=each, id="part", **rest)
    part, summary = train.resume(part.path, env_steps=2 * each, threads=1)
    rows = [folder.path / "metrics.parquet" for folder in (whole, part)]
    import polars as pl

    one, other = (pl.read_parquet(file)["digest"].to_list() for file in rows)
    assert one == other and len(set(one)) == 2
    assert summary.env_steps == 2 * each and summary.evaluation_steps > 9


def test_an_iteration_is_a_function_of_the_progress():
    plan = PLANS["a host with elites"]
    one, other = opened(plan), opened(plan)
    first, _, _ = one.iterate(one.start())
    again = digest(one.iterate(first)[0].state)
    assert digest(other.iterate(first)[0].state) == again != digest(first.state)
    one.close()
    other.close()


def test_the_copy_plays_from_the_addresses_of_an_evaluation():
    plan = PLANS["a host"]
    loop = opened(plan)
    progress, metrics, _ = loop.iterate(loop.start())
    env = environments.make(plan.task, 1, 1, **plan.task_options)
    assert isinstance(env, HostEnv)
    actor, totals = actor_of(loop.algorithm, progress.state), []
    for episode in range(2):
        obs, ended, total = env.reset(host_keys(plan.seed, "evaluate", 0, np.array([episode]))), False, 0.0
        while not ended:
            seen = jnp.asarray(obs[0], jnp.float32)
            action, _, _ = loop.algorithm.act(actor, (), seen, jax.random.key(0), explore=False)
            step = env.step(np.asarray(task_action(loop.algorithm.spec, action))[None])
            obs, total = step.next_obs, total + step.reward[0]
            ended = step.terminated[0] or step.truncated[0]
        totals.append(total)
    np.testing.assert_allclose(metrics["copy_return"], np.mean(totals), rtol=1e-4)
    env.close()
    loop.close()


def test_a_task_that_cannot_be_copied_names_what_is_left():
    plan = Plan("FrozenLake-v1", {}, "uct", SMALL, 0)
    with pytest.raises(
        UsageError, match=r"uct tries plans in copies .* FrozenLake-v1 cannot be put into a state.*pid, ran"
    ):
        opened(plan)


def test_a_budget_too_small_for_one_plan_says_the_least(tmp_path):
    with pytest.raises(
        UsageError, match=r"icem tries 10 \+ 6 \+ 5 plans of 6 steps .* 126 steps, so that 125 .* at least 126"
    ):
        train.start(task="Pendulum-v1", algorithm="icem", settings=ICEM, env_steps=125, root=tmp_path)
    with pytest.raises(UsageError, match=r"uct tries 4 x 8 plans of 6 steps"):
        train.start(task="Acrobot-v1", algorithm="uct", settings=SMALL, env_steps=9, root=tmp_path)
    assert not list(tmp_path.iterdir())
