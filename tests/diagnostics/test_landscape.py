"""The plane of reward and surrogate, against closed forms; its episodes, which must not be chosen by what they gave."""

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from workhorse.algorithms import registry
from workhorse.algorithms.policy_gradient.a2c import A2C
from workhorse.core.addresses import host_generator
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.diagnostics import points
from workhorse.diagnostics.experience import fresh_experience
from workhorse.diagnostics.landscape import _line, _plane, env_steps_needed, study_landscape
from workhorse.diagnostics.landscape_study import LINE, summary_of, verdicts
from workhorse.diagnostics.plane import Frozen, NoStep, Pairs, surrogates
from workhorse.diagnostics.points import Player, Point, PointEpisodes, episodes_of_halves, play
from workhorse.diagnostics.store import Results, plain_json
from workhorse.environments import registry as environments
from workhorse.environments.batch import as_batch
from workhorse.environments.probes import QuadraticProbe
from workhorse.runs import train
from workhorse.runs.history import opened

PLAIN = {"normalise_observations": False, "observation_clip": None, "scale_rewards": False, "reward_clip": None}
SMALL = {"policy": "linear", "num_envs": 4, "held_out_envs": 0}
LONG = 16


class _Left(NamedTuple):
    """Steps taken, and steps that the episode lasts."""

    clock: jax.Array
    lasts: jax.Array


@dataclass(frozen=True)
class LotProbe:
    """An episode lasts 1 step or 16, by lot, and pays 1 a step: the mean return is 8.5, whatever is done."""

    @cached_property
    def spec(self):
        return EnvSpec("LotProbe", Box((0.0,), (1.0,)), Discrete(2), LONG)

    def reset(self, key):
        lasts = jnp.where(jax.random.bernoulli(key), LONG, 1)
        return _Left(jnp.zeros((), jnp.int32), lasts.astype(jnp.int32)), jnp.zeros(1, jnp.float32)

    def step(self, state, action, key):
        clock, obs = state.clock + 1, jnp.zeros(1, jnp.float32)
        over = clock >= state.lasts
        return _Left(clock, state.lasts), Step(obs, jnp.ones(()), over, over & (clock >= LONG), obs, {})


class HostLotProbe:
    """The same in the host's memory."""

    spec = LotProbe().spec

    def __init__(self, num_slots):
        self.num_slots = num_slots
        self.clock, self.lasts = np.zeros(num_slots, int), np.zeros(num_slots, int)

    def reset(self, keys, slots=None):
        self.clock[slots] = 0
        self.lasts[slots] = [LONG if host_generator(key).random() < 0.5 else 1 for key in keys]
        return np.zeros((len(keys), 1))

    def step(self, actions, slots=None, reset_keys=None):
        self.clock[slots] += 1
        over, none = self.clock[slots] >= self.lasts[slots], np.zeros(len(slots), bool)
        obs = np.zeros((len(slots), 1))
        return Step(obs, np.ones(len(slots)), over, none, obs, {"failed": none})

    def close(self):
        pass


def _learner(name, env_spec, **settings):
    algorithm = registry.make(
        name, env_spec, {**PLAIN, "policy": "linear", "num_envs": 4, "held_out_envs": 0, **settings}
    )
    learner = algorithm.init(jax.random.key(0))
    actor = algorithm.actor(learner)
    return algorithm, actor, np.asarray(ravel_pytree(actor.policy)[0], np.float64)


def _played(players, wanted):
    found, taken = {}, []
    play(players, wanted, lambda point, one: found.__setitem__(point.number, one), taken.append)
    assert sum(taken) == sum(one.steps for one in found.values())
    return [found[point.number] for point in wanted]


@pytest.mark.parametrize("kind", ["jax", "host"])
def test_means_are_unbiased_where_short_episodes_are_the_bad_ones(kind):
    env, count, pairs = LotProbe() if kind == "jax" else HostLotProbe(64), 600, 80
    algorithm, actor, params = _learner("a2c", env.spec)
    player = Player(algorithm, actor, as_batch(env, 64) if kind == "jax" else env, 8, 3)
    found = _played([player], [Point(number, number, params.astype(np.float32), pairs) for number in range(count)])
    means, errors = (np.array([summary_of(one, [pairs])[name][0] for one in found]) for name in ("mean", "error"))
    error = means.std(ddof=1) / np.sqrt(count)
    assert abs(means.mean() - 8.5) < 3.5 * error
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(means.std(ddof=1), rel=0.15)
    # what it would be if the first episodes of a half said how many that half itself plays
    lots = np.random.default_rng(0).choice([1.0, LONG], (count, 2, 200))
    own = np.maximum(np.rint(pairs / 2 / lots[:, :, :4].mean(-1)), 4).astype(int)
    rows = zip(lots.reshape(-1, 200), own.ravel(), strict=True)
    chosen = [row[:number].mean() for row, number in rows]
    assert abs(np.mean(chosen) - 8.5) > 5 * error, "this test would not see a bias"


@dataclass(frozen=True)
class ParityProbe(LotProbe):
    """The same lot, but a step pays only where the action is the parity of the steps taken, which nothing shows."""

    def step(self, state, action, key):
        after, step = super().step(state, action, key)
        return after, step._replace(reward=(action == state.clock % 2).astype(jnp.float32))


@configuration
class Counting(A2C):
    """Acts by the parity of its own count of steps."""

    def begin(self, actor, slot):
        return jnp.zeros((), jnp.int32)

    def act(self, actor, carry, obs, key, *, explore):
        _, _, extras = super().act(actor, (), obs, key, explore=explore)
        return carry % 2, carry + 1, extras


def test_what_a_policy_remembers_is_passed_on_and_begun_anew_with_every_episode():
    env = ParityProbe()
    algorithm = Counting(spec=env.spec, **PLAIN, **SMALL)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    params = np.asarray(ravel_pytree(actor.policy)[0], np.float32)
    player = Player(algorithm, actor, as_batch(env, 64), 8, 3)
    found = _played([player], [Point(number, number, params, 80) for number in range(20)])
    assert all(set(np.concatenate(one.returns)) <= {1.0, LONG} for one in found), "every step of every episode pays"
    assert {len(one.returns[0]) for one in found} != {4}, "slots played more than one episode"


def test_the_landscape_of_a_quadratic_is_the_quadratic():
    env = QuadraticProbe()
    algorithm, actor, params = _learner("a2c", env.spec, log_std=-0.5)
    rng = np.random.default_rng(0)
    step, random = rng.normal(size=(2, len(params))) * [[0.3], [0.4]]
    frozen = Frozen(algorithm, actor, params, step, random, Pairs(None, None, None, None), 0)
    axis, pairs = np.linspace(0.0, 3.0, 5), 400
    found = _played([Player(algorithm, actor, as_batch(env, 512), 8, 5)], _plane(frozen, axis, pairs))
    assert all(one.steps == pairs for one in found)
    rows = [summary_of(one, [pairs]) for one in found]
    expected = []
    for y in axis:
        for x in axis:
            there = ravel_pytree(actor.policy)[1](jnp.asarray(params + x * step + y * random, jnp.float32))
            scale = np.exp(np.asarray(there.log_std, np.float64))
            mean = np.asarray(there(jnp.ones(1)).mode(), np.float64)
            expected.append(env.smoothed_return(mean, 0.0) - (scale**2).sum())
    z = (np.array([row["mean"][0] for row in rows]) - expected) / np.array([row["error"][0] for row in rows])
    assert np.abs(z).max() < 4.0 and 0.5 < np.square(z).mean() < 1.7
    assert np.ptp(expected) > 20 * np.mean([row["error"][0] for row in rows])


def test_how_many_episodes_is_decided_by_the_other_half():
    lengths = np.array([[10, 30], [100, 100]])
    assert episodes_of_halves(lengths, 2000, 2).tolist() == [10, 50]
    assert episodes_of_halves(lengths, 0, 2).tolist() == [2, 2]
    returns = (np.arange(10.0), 100 + np.arange(50.0))
    row = summary_of(PointEpisodes(returns, lengths, 1, 0), [400, 2000])
    assert row["mean"] == [(0.5 + 104.5) / 2, (4.5 + 124.5) / 2], "2 and 10 episodes, then all"
    variance = (np.square(returns[0] - 4.5).sum() + np.square(returns[1] - 124.5).sum()) / 58
    assert row["error"] == pytest.approx([np.sqrt(variance * (1 / 2 + 1 / 10)) / 2, np.sqrt(variance * 0.12) / 2])


@pytest.fixture(scope="module")
def hopper():
    env = environments.make("Hopper-v5", 32, 1, max_episode_steps=40)
    algorithm, actor, params = _learner("ppo", env.spec, hidden=(8,), policy="mlp", minibatch_size=64)
    yield algorithm, actor, params, env
    env.close()


def test_common_random_numbers_are_common_and_neighbours_change_nothing(hopper):
    algorithm, actor, params, env = hopper
    step = np.random.default_rng(0).normal(size=len(params)) * 0.1
    frozen = Frozen(algorithm, actor, params, step, step, Pairs(None, None, None, None), 0)
    line = _line(frozen, 9, 2)
    assert [(point.number, point.address) for point in line] == [(9 + n, 9 + n // len(LINE)) for n in range(8)]
    same = [Point(number, 7, line[0].params, 0) for number in range(3)]
    other = Point(3, 8, line[0].params, 300)
    player = Player(algorithm, actor, env, 4, 5)
    one, two, three, apart = _played([player], [*same, other])
    for half in (0, 1):
        assert (one.returns[half] == two.returns[half]).all() and (one.returns[half] == three.returns[half]).all()
        assert (one.returns[half] != apart.returns[half][:2]).all()
    (alone,) = _played([player], [other._replace(number=0)])
    assert alone.steps == apart.steps and len(alone.returns[0]) > 2
    narrow = environments.make("Hopper-v5", 8, 1, max_episode_steps=40)
    (beside,) = _played([Player(algorithm, actor, narrow, 4, 5)], [other._replace(number=0)])
    narrow.close()
    for found in (alone, beside):
        assert all((found.returns[half] == apart.returns[half]).all() for half in (0, 1))


def test_a_failure_stops_all_players(hopper):
    algorithm, actor, params, env = hopper
    other = environments.make("Hopper-v5", 32, 1, max_episode_steps=40)
    players = [Player(algorithm, actor, one, 4, 5) for one in (env, other)]

    def refuse(point, one):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        play(players, [Point(n, n, params.astype(np.float32), 10**7 if n else 0) for n in range(16)], refuse)
    other.close()


SETTINGS = {"num_envs": 8, "rollout_steps": 32, "minibatch_size": 64, "num_epochs": 1, "hidden": (8,)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, _ = train.start(
        task="Hopper-v5",
        task_options={"max_episode_steps": 50},
        algorithm="ppo",
        settings=SETTINGS,
        env_steps=4 * 256,
        seed=3,
        threads=1,
        schedule=train.Schedule(final_episodes=2, checkpoint_every_s=1000, milestones=2),
        root=tmp_path_factory.mktemp("runs"),
        id="original",
    )
    return folder


class _Stopping(Results):
    """Keeps results as JSON, and stops after a number of them."""

    def __init__(self, stop_after):
        super().__init__()
        self.left = stop_after

    def add(self, name, record):
        self.found[name] = json.loads(json.dumps(record))
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_plane_that_was_stopped_goes_on_to_the_same_bits(run):
    sizes = {"grid": 3, "pairs": 300, "threads": 1}
    with opened(run.path, 1) as history:
        taken = []
        whole = study_landscape(history, 2, progress=taken.append, **sizes)
        kept = _Stopping(7)
        with pytest.raises(KeyboardInterrupt):
            study_landscape(history, 2, unfinished=kept, **sizes)
        assert len(kept.found) == 7
        again = []
        assert study_landscape(history, 2, unfinished=kept, progress=again.append, **{**sizes, "threads": 2}) == whole
    assert sum(taken) == sum(again) == whole.env_steps
    assert whole.step_length > 0 and whole.random_length == pytest.approx(2.0)
    assert [len(row) for row in whole.surfaces[-1].reward] == [3, 3, 3]
    assert abs(whole.surrogates[-1].plain[0][0]) < 1e-4, "normalised advantages, where the ratio is 1"
    first = whole.line[0]
    assert (first.change, first.low, first.high, first.verdict) == (0.0, 0.0, 0.0, "-")
    assert all(one.verdict in ("raises", "lowers", "cannot be told") for one in whole.line[1:])
    assert json.loads(json.dumps(plain_json(whole), allow_nan=False))["grid"] == 3


def test_the_surrogate_is_that_of_its_pairs(run):
    with opened(run.path, 1) as history, fresh_experience(history, 2, 9, 1) as experience:
        frozen = Frozen.of(history.loop.algorithm, experience, 2, points.WIDTH, 2.0)
    assert len(frozen.steps.advantage) == points.WIDTH
    where = np.stack([frozen.at(0.0, 0.0), frozen.at(2.0, 0.3)])
    plain, clipped = surrogates(frozen, where, [100, points.WIDTH])
    moved = ravel_pytree(frozen.actor.policy)[1](jnp.asarray(where[1]))
    for place, size in enumerate((100, points.WIDTH)):
        obs, drawn, log_prob, advantage = (np.asarray(leaf)[:size] for leaf in frozen.steps)
        new = jax.vmap(lambda one, action: moved(one).log_prob(action))(obs, drawn)
        ratio, weight = np.exp(np.asarray(new - log_prob)), (advantage - advantage.mean()) / advantage.std()
        assert plain[1, place] == pytest.approx((ratio * weight).mean(), rel=1e-3, abs=1e-5)
        low = np.minimum(ratio * weight, np.clip(ratio, 0.8, 1.2) * weight).mean()
        assert clipped[place][1] == pytest.approx(low, rel=1e-3, abs=1e-5)
        assert plain[0, place] == pytest.approx(0.0, abs=1e-4)


def test_verdicts_are_of_differences_in_pairs():
    rng = np.random.default_rng(0)
    common, pieces = 100 * rng.normal(size=20), 20
    shifts = (0.0, 1.0, -1.0, 0.0)

    def rows(shift):
        noise = 0.1 * rng.normal(size=pieces) if shift else rng.choice([-5.0, 5.0], pieces)
        return [{"mean": [value]} for value in common + shift + noise * (shift != 0 or 1)]

    line = [[{"mean": [value]} for value in common], *(rows(shift) for shift in shifts[1:])]
    found = verdicts(line, np.array([0.0, 0.1, 0.2, 0.3]))
    assert [one.verdict for one in found] == ["-", "raises", "lowers", "cannot be told"]
    assert found[1].change == pytest.approx(1.0, abs=0.1) and [one.surrogate for one in found][-1] == 0.3


def test_what_cannot_be_looked_at(run):
    with opened(run.path, 1) as history:
        needed = env_steps_needed(5, 100, 50, 9 * 32)
        with pytest.raises(UsageError, match=rf"--budget must be at least {needed:,} steps, what 5 x 5 points of 100"):
            study_landscape(history, 2, grid=5, pairs=100, env_steps=needed - 1)
        for name, sizes in (("grid", {"grid": 2}), ("pairs", {"pairs": 0}), ("random_length", {"random_length": 0.0})):
            with pytest.raises(UsageError, match=rf"{name} must be"):
                study_landscape(history, 2, **sizes)
        with pytest.raises(UsageError, match=r"keeps no state of iteration 3: the nearest are 2 and 4"):
            study_landscape(history, 3)
        with pytest.raises(NoStep, match="PPO takes no step at iteration 4"):
            study_landscape(history, 4, grid=3, pairs=100, threads=1)
        recurrent = Counting(spec=history.spec, **PLAIN, **SMALL)
        learner, history.loop.algorithm = history.loop.algorithm, recurrent
        with pytest.raises(UsageError, match="remembers earlier steps, and `diagnose --only landscape` reads every"):
            study_landscape(history, 2)
        history.loop.algorithm = learner
        history.spec = dataclasses.replace(history.spec, max_episode_steps=None)
        with pytest.raises(UsageError, match="Hopper-v5 has no clock here"):
            study_landscape(history, 2)
