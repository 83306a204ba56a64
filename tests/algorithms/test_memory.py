"""Policies with memory: they remember what was shown once, in every loop, and are saved with what they remember."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse import Policy
from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.environments import registry as environments
from workhorse.environments.batch import JaxBatch
from workhorse.environments.probes import MemoryProbe
from workhorse.runs import train
from workhorse.runs.metrics import read_metrics
from workhorse.training.episodes import make_player
from workhorse.training.lanes import Lanes
from workhorse.training.on_policy import OnPolicyLoop
from workhorse.training.rollouts import make_collector

PROBE = MemoryProbe(5)
SMALL = {"num_envs": 16, "held_out_envs": 1, "rollout_steps": 20, "hidden": (16,), "anneal_env_steps": 80 * 320}
OWN = {"ppo": {"minibatch_size": 40, "num_epochs": 4}, "a2c": {}, "reinforce": {"learned_baseline": True}}


def made(name, policy, env=PROBE, **settings):
    return registry.make(name, env.spec, {**SMALL, **OWN[name], "policy": policy, "learning_rate": 5e-3, **settings})


def trained(algorithm, env, iterations, seed=0):
    """The loop and its progress after training; a `HostEnv` has as many slots as the algorithm."""
    lanes = Lanes([make_player(algorithm, PROBE, 25, seed)])
    loop = OnPolicyLoop(algorithm, seed, make_collector(algorithm, env, seed), lanes)
    progress = loop.start()
    for _ in range(iterations):
        progress, _, _ = loop.iterate(progress)
    return loop, progress


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_ppo_remembers_the_cue_with_memory_and_cannot_without(seed):
    loop, progress = trained(made("ppo", "gru"), PROBE, 80, seed)
    assert loop.evaluate(progress, 100).returns.mean() == 1.0
    loop, progress = trained(made("ppo", "mlp"), PROBE, 80, seed)
    assert loop.evaluate(progress, 100).returns.mean() < 0.65, "nobody can know the cue without memory"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a2c", "reinforce"])
def test_the_others_that_learn_from_whole_rollouts_do_too(name):
    loop, progress = trained(made(name, "gru", anneal_learning_rate=False), PROBE, 400)
    assert loop.evaluate(progress, 100).returns.mean() > 0.95


@pytest.mark.parametrize("kind", ["pure", "host"])
def test_what_is_learnt_from_is_what_was_remembered_while_acting(kind):
    """Across the ends of episodes and of rollouts: 7 steps of episodes of 5, so that seams lie anywhere."""
    algorithm = made("ppo", "gru", rollout_steps=7, minibatch_size=7 * 16)
    env = PROBE if kind == "pure" else JaxBatch(PROBE, algorithm.num_slots)
    collector = make_collector(algorithm, env, 0)
    state = algorithm.init(jax.random.key(0))
    slots = collector.start(algorithm.actor(state))
    batch_of, read, estimates, update = map(
        jax.jit, (algorithm.batch, algorithm.read, algorithm.estimates, algorithm.update)
    )
    for iteration in range(3):
        rollout, slots, _, _ = collector.collect(algorithm.actor(state), slots, iteration)
        batch, _, _ = batch_of(state, rollout)
        distributions, values, flat = read(state.params, batch)
        log_prob = jax.vmap(lambda one, drawn: one.log_prob(drawn))(distributions, flat.drawn)
        np.testing.assert_allclose(log_prob, flat.log_prob, atol=1e-5)
        np.testing.assert_allclose(values, flat.value, atol=1e-5)
        going_on = np.asarray(batch.transition.going_on)[:-1] == 1
        _, next_value, _ = estimates(state.params, batch.obs, batch.transition, batch.memory)
        np.testing.assert_allclose(next_value[:-1][going_on], batch.value[1:][going_on], atol=1e-5)
        state, _ = update(state, rollout, jax.random.key(iteration))
        ended = np.asarray(rollout.terminated[-1])
        assert (np.asarray(slots.carry)[ended] == 0).all() and (np.asarray(slots.carry)[~ended] != 0).any()
        assert (np.asarray(state.value_memory)[ended] == 0).all()


def test_minibatches_are_sequences_of_single_slots():
    algorithm = made("ppo", "gru", rollout_steps=20, minibatch_size=10)
    steps = jnp.arange(20 * 16).reshape(20, 16)
    from workhorse.algorithms.policy_gradient.batch import sequences

    cut = np.asarray(sequences(steps, 10))
    assert cut.shape == (10, 32)
    np.testing.assert_array_equal(np.diff(cut, axis=0), 16)
    assert len(np.unique(cut)) == 320 and algorithm.is_recurrent


def test_a_recurrent_run_in_two_sittings_has_the_bits_of_one_and_its_artefact_remembers(tmp_path):
    settings = {"num_envs": 3, "rollout_steps": 20, "minibatch_size": 20, "num_epochs": 2, "hidden": (8, 4)}
    settings |= {"policy": "gru", "anneal_env_steps": 600}
    common = {
        "task": "Hopper-v5",
        "task_options": {"max_episode_steps": 27},
        "algorithm": "ppo",
        "settings": settings,
        "seed": 3,
        "threads": 1,
        "schedule": train.Schedule(evaluate_every=100, evaluation_episodes=3, final_episodes=4, checkpoint_every_s=0),
        "root": tmp_path,
    }
    straight, summary = train.start(env_steps=600, id="straight", **common)
    train.start(env_steps=240, id="halves", **common)
    command = [sys.executable, "-m", "workhorse", "resume", str(tmp_path / "halves"), "--env-steps", "600", "--quiet"]
    subprocess.run(command, check=True)  # in a process of its own
    digests = [read_metrics(tmp_path / name)["digest"].to_list() for name in ("straight", "halves")]
    assert digests[0] == digests[1] and len(set(digests[0])) == 10
    assert len(summary.episode_returns) == 4
    policy, plan = Policy.load(straight.path), train.plan_of(straight.manifest())
    env = environments.make("Hopper-v5", 1, 1, max_episode_steps=27)
    algorithm = plan.make_algorithm(env.spec)
    from workhorse.runs import checkpoint
    from workhorse.training.loop import make_loop

    loop = make_loop(plan, env.spec, 1)
    _, progress, _, _ = checkpoint.load_newest(straight, loop.start())
    actor = algorithm.actor(progress.state)
    carry, state, obs = algorithm.begin(actor, 0), None, np.random.default_rng(0).normal(size=(8, 11))
    for row in obs:
        expected, carry, _ = algorithm.act(actor, carry, jnp.asarray(row), jax.random.key(0), explore=False)
        found, state = policy.predict(row, state)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    env.close()
    loop.close()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("trpo", {}, "TRPO.policy must be 'linear' or 'mlp': got 'gru'"),
        ("ppo", {"minibatch_size": 16}, "minibatch_size must divide rollout_steps .*: got 16 and 20"),
        ("ppo", {"hidden": ()}, "hidden must name the units of the memory"),
    ],
)
def test_what_memory_cannot_do_is_said_in_a_sentence(name, settings, words):
    known = registry.options(name)
    given = {key: value for key, value in {**SMALL, **OWN["ppo"], "policy": "gru"}.items() if key in known}
    with pytest.raises(UsageError, match=words):
        registry.make(name, PROBE.spec, {**given, **settings})


def test_the_probes_answers_are_what_its_docstring_says():
    """By playing both kinds of policies exactly: one that repeats the cue, and the best that cannot see it."""
    for knows in (True, False):
        earned = []
        for seed in range(200):
            state, obs = PROBE.reset(jax.random.key(seed))
            cue, total = int(obs[0] > 0), 0.0
            for _ in range(5):
                state, step = PROBE.step(state, jnp.asarray(cue if knows else 1), jax.random.key(0))
                total += float(step.reward)
            assert bool(step.terminated) and float(step.obs[0]) == 0.0
            earned.append(total)
        assert np.mean(earned) == 1.0 if knows else 0.35 < np.mean(earned) < 0.65
